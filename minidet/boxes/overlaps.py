"""Overlaps of all pairs of boxes, and suppression: `minidet_kernels` on arrays or Tensors.

Tensors in, a Tensor out, that no gradient flows into: matching and suppression only choose. A loss takes the overlaps
of pairs, which are differentiable: `paired_iou` and `paired_giou`.
"""

from typing import Any

import minidet_kernels as kernels

from ..autograd import Tensor, is_grad_enabled
from ..autograd.tensor import array_of


def box_iou(boxes1: Any, boxes2: Any) -> Any:
    """Intersection over union of all pairs: boxes1 (A, 4), boxes2 (B, 4) -> (A, B), as torchvision's; 0, and not NaN,
    for degenerate boxes. Errors: `minidet_kernels.box_iou`; TypeError where a gradient would be lost."""
    _no_gradient("box_iou", boxes1=boxes1, boxes2=boxes2)
    return _as_given(kernels.box_iou(array_of(boxes1), array_of(boxes2)), boxes1)


def generalized_box_iou(boxes1: Any, boxes2: Any) -> Any:
    """Generalized IoU of all pairs, in [-1, 1]: boxes1 (A, 4), boxes2 (B, 4) -> (A, B), as torchvision's. Errors as
    `box_iou`."""
    _no_gradient("generalized_box_iou", boxes1=boxes1, boxes2=boxes2)
    return _as_given(kernels.generalized_box_iou(array_of(boxes1), array_of(boxes2)), boxes1)


def nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """Of boxes (R, 4) that overlap by more than iou_threshold only the one with the best score (R,) stays -> indices of
    the kept boxes (K,), int64, by score descending, then index ascending. Rules and errors: `minidet_kernels.nms`."""
    return _as_given(kernels.nms(array_of(boxes), array_of(scores), iou_threshold), boxes)


def batched_nms(boxes: Any, scores: Any, idxs: Any, iou_threshold: float) -> Any:
    """`nms` within each class of idxs (R,), integers; negative coordinates are as good as any (see the kernel)."""
    return _as_given(kernels.batched_nms(array_of(boxes), array_of(scores), array_of(idxs), iou_threshold), boxes)


def _as_given(result: Any, given: Any) -> Any:
    return Tensor(result) if isinstance(given, Tensor) else result


def _no_gradient(function: str, **boxes: Any) -> None:
    for name, x in boxes.items():
        if is_grad_enabled() and isinstance(x, Tensor) and x.requires_grad:
            raise TypeError(
                f"{function}: expected {name} without a gradient, got {x.shape} that requires one; use {name}.detach() "
                "or no_grad() to choose boxes, minidet.boxes.paired_iou or paired_giou for a loss"
            )
