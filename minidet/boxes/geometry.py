"""The geometry of boxes. Every function takes arrays or Tensors, and is differentiable on Tensors.

A box is x1 y1 x2 y2 in pixels, in continuous coordinates: its width is x2 - x1, without the papers' +1.
"""

from numbers import Real
from typing import Any

import numpy as np

import minidet.functional as F

from ..autograd import Tensor
from ..autograd.tensor import array_of

LEAST_SIDE = 1e-2  # pixels; a box that the image's border has cut to less is none (torchvision)
LEAST_AREA = 1e-9  # square pixels, in place of 0 as a divisor: 0/0 becomes 0
_FORMATS = ("xyxy", "xywh", "cxcywh")


def box_convert(boxes: Any, in_fmt: str, out_fmt: str) -> Any:
    """Boxes (..., 4) from one format to another, as torchvision.ops.box_convert.

    "xyxy": two corners; "xywh": the first corner, width and height; "cxcywh": the centre, width and height.
    """
    if in_fmt not in _FORMATS or out_fmt not in _FORMATS:
        raise ValueError(f"box_convert: expected formats among {', '.join(_FORMATS)}, got {in_fmt!r} and {out_fmt!r}")
    _check(boxes, "box_convert")
    if in_fmt == out_fmt:
        return boxes
    a, b, c, d = (boxes[..., i] for i in range(4))
    if in_fmt == "cxcywh":
        a, b, c, d = a - c * 0.5, b - d * 0.5, a + c * 0.5, b + d * 0.5
    elif in_fmt == "xywh":
        c, d = a + c, b + d
    # Now a b c d are the corners.
    if out_fmt == "xywh":
        c, d = c - a, d - b
    elif out_fmt == "cxcywh":
        a, b, c, d = (a + c) * 0.5, (b + d) * 0.5, c - a, d - b
    return F.stack([a, b, c, d], axis=-1)


def box_area(boxes: Any) -> Any:
    """The area of each box (..., 4): width times height, 0 where a box is turned inside out."""
    _check(boxes, "box_area")
    width = F.clip(boxes[..., 2] - boxes[..., 0], 0.0)
    height = F.clip(boxes[..., 3] - boxes[..., 1], 0.0)
    return width * height


def clip_boxes_to_image(boxes: Any, size: tuple[int, int]) -> Any:
    """Boxes (..., 4) cut off at the borders of an image of size = (height, width), as torchvision's. A box outside
    becomes a line or a point on the border. No gradient where a coordinate was cut."""
    _check(boxes, "clip_boxes_to_image")
    if len(size) != 2 or not all(isinstance(side, Real) and side >= 0 for side in size):
        raise ValueError(f"clip_boxes_to_image: expected size (height, width), not negative, got {size!r}")
    height, width = size
    limits = (width, height, width, height)
    if isinstance(boxes, np.ndarray):  # at once, because detectors do this for each image of each step
        return boxes.clip(0, np.array(limits, boxes.dtype))
    return F.stack([F.clip(boxes[..., i], 0.0, float(limit)) for i, limit in enumerate(limits)], axis=-1)


def remove_small_boxes(boxes: Any, min_size: float) -> Any:
    """The indices (K,), int64, ascending, of the boxes (R, 4) with both sides at least min_size, as torchvision's."""
    _check(boxes, "remove_small_boxes")
    if boxes.ndim != 2:
        raise ValueError(f"remove_small_boxes: expected boxes (R, 4), got {boxes.shape}")
    if not isinstance(min_size, Real) or not min_size >= 0:
        raise ValueError(f"remove_small_boxes: expected min_size >= 0, got {min_size!r}")
    corners = array_of(boxes)
    sides = corners[:, 2:] - corners[:, :2]
    (kept,) = np.nonzero((sides[:, 0] >= min_size) & (sides[:, 1] >= min_size))
    return Tensor(kept) if isinstance(boxes, Tensor) else kept


def paired_iou(boxes: Any, others: Any) -> Any:
    """Intersection over union of box i with other box i: two (..., 4) of one shape give (...).

    0 where the boxes do not touch, and where both are empty. There its gradient is 0 too: as a loss, 1 - IoU tells a
    prediction that misses its target nothing.
    """
    return _overlap(boxes, others, "paired_iou")[0]


def paired_giou(boxes: Any, others: Any) -> Any:
    """Generalized IoU of box i with other box i, in (-1, 1]: IoU - (hull - union) / hull, where the hull is the
    smallest box around both (Rezatofighi et al. 2019, algorithm 1).

    Equal to IoU when the hull is filled; below 0 for boxes apart, and falling with their distance: as a loss,
    1 - GIoU pulls a prediction that misses its target towards it.
    """
    iou, union = _overlap(boxes, others, "paired_giou")
    hull = F.concatenate([F.minimum(boxes[..., :2], others[..., :2]), F.maximum(boxes[..., 2:], others[..., 2:])], -1)
    hull_area = F.maximum(box_area(hull), LEAST_AREA)
    return iou - (hull_area - union) / hull_area


def _overlap(boxes: Any, others: Any, function: str) -> tuple[Any, Any]:
    """IoU and union of each pair."""
    _check(boxes, function)
    if boxes.shape != others.shape:
        raise ValueError(f"{function}: expected boxes of one shape, got {boxes.shape} and {others.shape}")
    top_left = F.maximum(boxes[..., :2], others[..., :2])
    bottom_right = F.minimum(boxes[..., 2:], others[..., 2:])
    sides = F.clip(bottom_right - top_left, 0.0)
    intersection = sides[..., 0] * sides[..., 1]
    union = F.maximum(box_area(boxes) + box_area(others) - intersection, LEAST_AREA)
    return intersection / union, union


def _check(boxes: Any, function: str) -> None:
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"{function}: expected boxes (..., 4), got {boxes.shape}")
