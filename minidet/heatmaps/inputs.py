"""Maps of the image's own size: how much the score changes with each pixel."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import nn
from ..autograd import Function, Tensor, enable_grad, grad
from ..device import on_device_of, to_numpy
from ..functional.activations import ReLU
from .scores import as_classes, as_images, at_rest, check_finite, finite_scores, logits_of, picked


class Gradient:
    """|d y / d image|, the largest over the colours: `Gradient(model)(images, class_index)` -> float32 (N, H, W).

    Simonyan et al. 2014, "Deep Inside Convolutional Networks", section 3.1: M_ij = max_c |w_cij|, w the derivative of
    the score before the softmax. model, images, class_index, errors: as `LayerMap`; there is no layer to choose.
    Cost: one forward and one backward pass.
    """

    layer_name = "image"

    def __init__(self, model: nn.Module, layer: None = None) -> None:
        if layer is not None:
            raise ValueError(f"{type(self).__name__}: its map is of the image itself, expected no layer, got {layer!r}")
        self.model = model

    def __call__(self, images: Any, class_index: Any = None) -> np.ndarray:
        images = as_images(self.model, images)
        with at_rest(self.model), enable_grad():
            gradients = check_finite("gradients", self.gradients(images, class_index))
        return np.abs(gradients).max(axis=1).astype(np.float32)

    def gradients(self, images: Tensor, class_index: Any) -> np.ndarray:
        """(N, 3, H, W) on the CPU."""
        leaf = Tensor(images.data, requires_grad=True)
        logits = logits_of(self.model, leaf)
        classes = as_classes(class_index, logits)
        finite_scores(logits, classes)
        return self.backward(leaf, picked(logits, classes))

    def backward(self, leaf: Tensor, score: Tensor) -> np.ndarray:
        """d score / d leaf (N, 3, H, W) on the CPU, score (N,)."""
        if not score.requires_grad:
            raise ValueError(f"{self.title}: the scores of {type(self.model).__name__} do not depend on the image")
        self.prepare(score)
        return to_numpy(grad(score.sum(), leaf)[0].data)

    def prepare(self, score: Tensor) -> None:
        """What a method does to the graph of this one pass before it is walked backwards."""

    @property
    def title(self) -> str:
        return type(self).__name__


class GuidedBackpropagation(Gradient):
    """As Gradient, but a ReLU lets only positive gradients back: what excites the class, through what excites that.

    Springenberg et al. 2015, "Striving for Simplicity", section 3.4 and figure 1: at each ReLU with input x,

        gradient below = gradient above * (x > 0) * (gradient above > 0)

    Hooks in the graph of this pass do it, for nn.ReLU and functional.relu alike; the model has none. Raises ValueError
    for a network without a ReLU.
    """

    def prepare(self, score: Tensor) -> None:
        rectified = [node for node in nodes_behind(score) if isinstance(node, ReLU)]
        if not rectified:
            raise ValueError(
                f"{self.title}: expected a network with ReLUs, found none between image and scores; use Gradient"
            )
        for node in rectified:
            node.hooks = [*(node.hooks or ()), only_positive]


def only_positive(gradient: Tensor) -> Tensor:
    return Tensor(np.maximum(gradient.data, 0))


def nodes_behind(result: Tensor) -> Iterator[Function]:
    """Every operation that the result was computed by, once."""
    seen, stack = set(), [result.node]
    while stack:
        node = stack.pop()
        if isinstance(node, Function) and node not in seen:
            seen.add(node)
            stack.extend(node.parents)
            yield node


class SmoothGrad(Gradient):
    """As Gradient, of the mean gradient of noisy copies of the image: what flickers in a single one is averaged out.

        mean over samples of d y / d image at (image + N(0, sigma^2)),   sigma = noise * (largest - least of the image)

    Smilkov et al. 2017, "SmoothGrad"; in their experiments (section 3) noise is 0.1 to 0.2 and samples 50. The copies
    are drawn from `seed`, anew for each image, so that an image has the same map alone and in any batch, and go through
    the network in batches of at most batch_size. The class predicted is that of the image without noise. Cost:
    `samples` forward and backward passes an image.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: None = None,
        samples: int = 50,
        noise: float = 0.15,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        super().__init__(model, layer)
        if samples < 1 or batch_size < 1 or not 0 <= noise < np.inf:
            raise ValueError(
                "SmoothGrad: expected samples and batch_size of 1 or more and noise of 0 or more, got "
                f"{samples}, {batch_size} and {noise}"
            )
        self.samples, self.noise, self.seed, self.batch_size = samples, noise, seed, batch_size

    def gradients(self, images: Tensor, class_index: Any) -> np.ndarray:
        logits = logits_of(self.model, images)
        classes = as_classes(class_index, logits)
        finite_scores(logits, classes)
        result = np.zeros(images.shape)
        for n, image in enumerate(to_numpy(images.data)):
            rng = np.random.default_rng(self.seed)
            sigma = self.noise * float(image.max() - image.min())
            for start in range(0, self.samples, self.batch_size):
                count = min(self.batch_size, self.samples - start)
                noisy = image + sigma * rng.standard_normal((count, *image.shape)).astype(image.dtype)
                leaf = Tensor(on_device_of(noisy, images.data), requires_grad=True)
                score = picked(logits_of(self.model, leaf), np.full(count, classes[n]))
                result[n] += self.backward(leaf, score).sum(axis=0, dtype=np.float64)
        return result / self.samples
