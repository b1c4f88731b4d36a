"""Overlaps of all pairs of boxes: intersection over union, and the generalized one.

    IoU[a, b]  = I / U             I = area of the intersection of boxes1[a] and boxes2[b],  U = area + area - I
    GIoU[a, b] = I / U - (H - U) / H                     H = area of the smallest box around both

IoU is in [0, 1], GIoU in [-1, 1]: below 0 for boxes that are far apart. Source of GIoU: Rezatofighi et al. 2019,
algorithm 1.

Boxes are x1 y1 x2 y2 in continuous coordinates: a width is x2 - x1, without the papers' +1. A box may be a line or a
point. There is no 0 / 0: a quotient whose divisor, U or H, is below the smallest normal number of its dtype (1.2e-38 in
float32) is 0. So two equal points have IoU 0 and GIoU 0.

float32 or float64, the same for both, any memory; A or B may be 0; no input is changed. Every operation is rounded by
itself in the order that `reference.py` shows: all versions give the same bits, and `nms` compares the same numbers.
Cost: about 15 operations a pair, and the result's A * B numbers of memory; no other array of that size is made.
`box_iou_blocks` is for results that do not fit.

On the GPU, whose host code never waits, values are not looked at and raise nothing: a box with NaN has IoU 0 with all
others (its GIoU may be NaN), and infinite boxes or those with x2 < x1 have overlaps without meaning. CuPy takes float32
numbers below 1.2e-38 for 0 there, so that overlaps of boxes with sides or areas that small can be others. A result has
at most 2^31 - 1024 numbers; `box_iou_blocks` goes beyond.

TypeError: other dtypes, not arrays. ValueError: other shapes, NaN, infinity, x2 < x1, y2 < y1, and coordinates beyond
4.6e18 (float32) or 3.3e153 (float64), whose areas could overflow.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidet_kernels.arguments import check_boxes, check_number
from minidet_kernels.versions import choose

__all__ = ["box_iou", "box_iou_blocks", "generalized_box_iou"]


def box_iou(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    """boxes1 (A, 4), boxes2 (B, 4) -> IoU of all pairs (A, B)."""
    check_boxes("box_iou", boxes1=boxes1, boxes2=boxes2)
    return choose(__name__, boxes1, boxes2).box_iou(boxes1, boxes2)


def generalized_box_iou(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    """boxes1 (A, 4), boxes2 (B, 4) -> generalized IoU of all pairs (A, B)."""
    check_boxes("generalized_box_iou", boxes1=boxes1, boxes2=boxes2)
    return choose(__name__, boxes1, boxes2).generalized_box_iou(boxes1, boxes2)


def box_iou_blocks(
    boxes1: np.ndarray, boxes2: np.ndarray, max_bytes: int = 32 << 20
) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows of `box_iou(boxes1, boxes2)` a block at a time, for results that do not fit into memory.

        for rows, iou in box_iou_blocks(anchors, truth):  # iou (rows, B)
            best[rows] = iou.max(axis=1)

    A block has as many rows as fit into max_bytes, at least one. The default, 32 MB, costs no speed (a row of work is
    much more than a call) and fits anywhere. Raises as `box_iou`, before the first block.
    """
    check_boxes("box_iou_blocks", boxes1=boxes1, boxes2=boxes2)
    check_number("box_iou_blocks", positive=True, max_bytes=max_bytes)
    version = choose(__name__, boxes1, boxes2)
    step = max(1, int(max_bytes) // max(1, len(boxes2) * boxes2.dtype.itemsize))
    blocks = (slice(start, min(start + step, len(boxes1))) for start in range(0, len(boxes1), step))
    return ((rows, version.box_iou(boxes1[rows], boxes2)) for rows in blocks)
