"""The box coder: how a network says where a box is, relative to one that is there already.

Of a box with centre x, y and sides w, h, and an anchor (or proposal) with centre xa, ya and sides wa, ha, it says

    dx = (x - xa) / wa    dy = (y - ya) / ha    dw = log(w / wa)    dh = log(h / ha)

(Girshick et al. 2014, "R-CNN", appendix C; Ren et al. 2015, "Faster R-CNN", equation 2). The same shift, as
a part of the box, gives the same numbers for small and large boxes, and a box that is right already four zeros.
"""

import math
from typing import Any

import numpy as np

Weights = tuple[float, float, float, float]

# The largest dw and dh that are decoded: a box becomes at most 1000 / 16 times as wide as its anchor. Without a limit
# the exponential of an untrained network's number overflows. The authors' code for Mask R-CNN and torchvision have it.
LOG_CLIP = math.log(1000 / 16)


def encode_boxes(boxes: np.ndarray, anchors: np.ndarray, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> np.ndarray:
    """Boxes (R, 4) as deltas (R, 4) from anchors (R, 4), one each: dx, dy, dw, dh times weights.

    weights: Fast R-CNN's (10, 10, 5, 5) are one over the deltas' usual standard deviations, so that the network's
    targets vary by about 1. Raises ValueError for a box or an anchor without area: its logarithm is infinite.
    """
    _check("encode_boxes", boxes=boxes, anchors=anchors)
    if boxes.shape != anchors.shape:
        raise ValueError(f"encode_boxes: expected an anchor for each box, got {boxes.shape} and {anchors.shape}")
    centers, sides = _centers_and_sides(boxes)
    anchor_centers, anchor_sides = _centers_and_sides(anchors)
    for name, given in (("boxes", sides), ("anchors", anchor_sides)):
        if not (given > 0).all():
            worst = int((given > 0).all(axis=-1).argmin())
            raise ValueError(
                f"encode_boxes: expected {name} x1 < x2, y1 < y2, got sides {given[worst].tolist()} at index {worst}; "
                "remove them first (remove_small_boxes)"
            )
    deltas = np.concatenate([(centers - anchor_centers) / anchor_sides, np.log(sides / anchor_sides)], axis=-1)
    return deltas * np.asarray(weights, deltas.dtype)


def decode_boxes(
    deltas: np.ndarray, anchors: np.ndarray, weights: Weights = (1.0, 1.0, 1.0, 1.0), clip: float = LOG_CLIP
) -> np.ndarray:
    """The boxes that deltas from anchors (R, 4) mean: encode_boxes' inverse, for deltas (R, 4) or, with K for each
    anchor, one a class, (R, K, 4). Same shape and dtype as deltas. clip: see LOG_CLIP."""
    _check("decode_boxes", deltas=deltas, anchors=anchors)
    if len(deltas) != len(anchors) or anchors.ndim != 2 or deltas.ndim not in (2, 3):
        raise ValueError(
            f"decode_boxes: expected deltas (R, 4) or (R, K, 4) and anchors (R, 4), got {deltas.shape}, {anchors.shape}"
        )
    centers, sides = _centers_and_sides(anchors if deltas.ndim == 2 else anchors[:, None])
    deltas = deltas / np.asarray(weights, deltas.dtype)
    new_centers = deltas[..., :2] * sides + centers
    half_sides = np.exp(np.minimum(deltas[..., 2:], deltas.dtype.type(clip))) * sides * deltas.dtype.type(0.5)
    return np.concatenate([new_centers - half_sides, new_centers + half_sides], axis=-1)


def _centers_and_sides(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides * boxes.dtype.type(0.5), sides


def _check(function: str, **arrays: Any) -> None:
    for name, array in arrays.items():
        if array.ndim < 2 or array.shape[-1] != 4 or array.dtype.kind != "f":
            raise ValueError(f"{function}: expected {name} (R, 4) of floats, got {array.shape} of {array.dtype}")
