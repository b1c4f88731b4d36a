"""CAM, the first of the family: it needs no gradient, but a network that was built for it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..autograd import Tensor
from ..device import to_numpy
from . import formulas
from .base import LayerMap, Look

SAME = 1e-4  # of the largest: how far two means of the same map, summed in another order in float32, may differ


@dataclass
class LookAtHead(Look):
    """calls: of all Linears in this pass, each the layer, its input and its output."""

    calls: list[tuple[nn.Linear, Tensor, Tensor]]


class CAM(LayerMap):
    """sum_k w_k^c A_k, without a ReLU: see `formulas.cam`, and `LayerMap` for how it is called.

    The network must end in this layer -> global average or maximum pooling -> one fully connected layer. It is known by
    its numbers, whatever its modules are called: the weights are those of the Linear that gives the scores, and its
    input must be the layer's means or maxima. Raises ValueError, saying what was found, where it is not.
    """

    def look(self, images: Tensor, class_index: Any) -> LookAtHead:
        calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

        def keep(module: nn.Linear, inputs: Any, output: Tensor) -> None:
            calls.append((module, inputs[0], output))

        linears = [module for module in self.model.modules() if isinstance(module, nn.Linear)]
        with nn.forward_hooks((linear, keep) for linear in linears):
            look = super().look(images, class_index)
        return LookAtHead(**vars(look), calls=calls)

    def maps(self, look: LookAtHead) -> np.ndarray:
        A = look.activations()
        return formulas.cam(A, self.weight_after_pooling(look, A)[look.classes])

    def weight_after_pooling(self, look: LookAtHead, A: np.ndarray) -> np.ndarray:
        """(K, C): the weights of the Linear between the pooled activations and the logits."""
        last = next((call for call in reversed(look.calls) if call[2] is look.logits), None)
        if last is None:
            raise ValueError(f"{self.needs} found no Linear that gives the scores")
        linear, pooled = last[0], to_numpy(last[1].data)
        means_or_maxima = A.mean(axis=(2, 3)), A.max(axis=(2, 3))
        if not any(is_same(pooled, expected) for expected in means_or_maxima):
            raise ValueError(
                f"{self.needs} found that {linear.title} reads {tuple(pooled.shape)}, which are not the means or "
                f"maxima of the layer's maps {A.shape}"
            )
        return to_numpy(linear.weight.data).astype(np.float64)

    @property
    def needs(self) -> str:
        return (
            f"{self.title}: expected a network that ends in this layer -> global pooling -> one Linear "
            "(GradCAM explains any other, or rebuild its head);"
        )

    def finish(self, maps: np.ndarray) -> np.ndarray:
        return maps  # CAM has no ReLU


def is_same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether both are alike, to the rounding of float32."""
    largest = np.abs(expected).max(initial=0)
    return found.shape == expected.shape and bool(np.abs(found - expected).max(initial=0) <= SAME * largest)
