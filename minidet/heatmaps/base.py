"""What the methods share: one look through the network at a layer, from a hook that is removed again."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..autograd import Tensor, enable_grad, grad
from ..device import to_numpy
from .formulas import relu
from .layers import find_layer, last_map
from .scores import as_classes, as_images, at_rest, check_finite, finite_scores, logits_of, picked


@dataclass
class Look:
    """One forward pass. images (N, 3, H, W) and logits (N, K), Tensors; classes (N,), whose scores are explained;
    leaf (N, C, h, w): the layer's output, where the graph of the logits begins; runs: how often the layer ran, the last
    time to give the leaf."""

    images: Tensor
    leaf: Tensor
    logits: Tensor
    classes: np.ndarray
    runs: int

    def activations(self) -> np.ndarray:
        """A (N, C, h, w), float64 on the CPU: in sums over channels of both signs float32 would lose digits."""
        return check_finite("activations", to_numpy(self.leaf.data).astype(np.float64))

    def gradients(self) -> np.ndarray:
        """G = d y / d A (N, C, h, w), float64 on the CPU. Costs a backward pass through what lies above the layer."""
        score = picked(self.logits, self.classes).sum()
        (gradient,) = grad(score, self.leaf)  # of an image's own score: nothing joins the images of a batch
        return check_finite("gradients", to_numpy(gradient.data).astype(np.float64))

    def scores(self) -> np.ndarray:
        """y (N,), float64 on the CPU."""
        return finite_scores(self.logits, self.classes)


class LayerMap:
    """A heat map of a layer's size: `GradCAM(model, layer)(images, class_index)`.

    model   any Module that gives scores (N, K), by a method `logits` or by itself. Nothing is put on it or changed: it
            looks in evaluation mode, and is afterwards in the mode it was in
    layer   a Module of the model or its path ("backbone.stages.2"). None: found in the first call (`layers.last_map`),
            from then on `layer_name` says which. Of a layer that runs several times in one pass, the last run counts

    Calling: images (N, 3, H, W), floats, an array or a Tensor; class_index, a position in the scores or (N,) of them,
    None for the class that the network predicts. Gives float32 (N, h, w) on the CPU, the map after the method's ReLU;
    where nothing speaks for the class it is all zero.

    Cost: one forward pass, and for methods of gradients a backward pass through the layers above this one only; in
    memory, beside what the forward pass takes, the activations and gradients of this layer in float64.
    Raises ValueError for a layer that is not in the model, does not run, has no map larger than 1 x 1 or does not
    influence the scores; for a class that does not exist; for activations, gradients or scores that are not finite.
    """

    def __init__(self, model: nn.Module, layer: nn.Module | str | None = None) -> None:
        self.model = model
        self.layer_name: str | None = None
        if layer is not None:
            self.layer_name, self.layer = find_layer(model, layer)

    def __call__(self, images: Any, class_index: Any = None) -> np.ndarray:
        images = as_images(self.model, images)
        with at_rest(self.model), enable_grad():
            if self.layer_name is None:
                self.layer_name, self.layer = last_map(self.model, self.score, images[:1])
            maps = self.maps(self.look(images, class_index))
        return self.finish(maps).astype(np.float32)

    def maps(self, look: Look) -> np.ndarray:
        """(N, h, w) before the last ReLU: what each method computes in its own way."""
        raise NotImplementedError

    def finish(self, maps: np.ndarray) -> np.ndarray:
        """The last ReLU: what speaks against the class is no part of the map."""
        return relu(maps)

    def score(self, images: Tensor) -> Tensor:
        return logits_of(self.model, images)

    def look(self, images: Tensor, class_index: Any) -> Look:
        """One forward pass, with the graph from the layer on."""
        leaves: list[Tensor] = []

        def take(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            self.check_map(output)
            leaves.append(Tensor(output.data, requires_grad=True))
            return leaves[-1]

        with nn.forward_hooks([(self.layer, take)]):
            logits = self.score(images)
        if not leaves:
            raise ValueError(
                f"{self.title}: the layer did not run when the scores were computed; name one that does, or leave the "
                "layer out to have it found"
            )
        if not logits.requires_grad:
            raise ValueError(
                f"{self.title}: the scores do not depend on the layer; name one between the images and the scores"
            )
        classes = as_classes(class_index, logits)
        finite_scores(logits, classes)
        return Look(images, leaves[-1], logits, classes, len(leaves))

    def check_map(self, output: Any) -> None:
        """Raises ValueError unless the output is a map of more than one place."""
        if not isinstance(output, Tensor) or output.ndim != 4 or max(output.shape[2:]) <= 1:
            got = output.shape if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"{self.title}: expected a layer with a map (N, C, h, w) larger than 1 x 1, got {got}; name one before "
                "the pooling or flattening, or leave the layer out to have it found"
            )

    @property
    def title(self) -> str:
        """`GradCAM of layer 'backbone'`, for messages and pictures."""
        return f"{type(self).__name__} of layer {self.layer_name!r}"
