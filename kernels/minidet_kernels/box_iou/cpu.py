"""Overlaps with Numba: the threads share the rows of the result; a row is computed 16 pairs at a time.

For that the coordinates of boxes2 lie in a row each (4, B): neighbouring numbers fill one vector register. Nothing but
the result is written to memory, while array operations make a dozen matrices of its size.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import strict_inlined, strict_parallel
from minidet_kernels.memory import contiguous, empty


def box_iou(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    return _all_pairs(_iou, boxes1, boxes2)


def generalized_box_iou(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    return _all_pairs(_giou, boxes1, boxes2)


def _all_pairs(kernel, boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    result = empty((len(boxes1), len(boxes2)), boxes1.dtype)
    smallest = np.finfo(boxes1.dtype).tiny  # a NumPy number of the boxes' own dtype
    # one kind of array only, for which Numba compiles: contiguous and writeable
    kernel(contiguous(boxes1), np.array(boxes2.T, order="C"), smallest, result)
    return result


@strict_parallel
def _iou(boxes1, others, smallest, iou):
    for i in prange(len(boxes1)):
        x1, y1, x2, y2 = boxes1[i]
        row = iou[i]
        for j in range(others.shape[1]):
            intersection, union = intersection_and_union(
                x1, y1, x2, y2, others[0, j], others[1, j], others[2, j], others[3, j]
            )
            row[j] = ratio(intersection, union, smallest)


@strict_parallel
def _giou(boxes1, others, smallest, giou):
    for i in prange(len(boxes1)):
        x1, y1, x2, y2 = boxes1[i]
        row = giou[i]
        for j in range(others.shape[1]):
            u1, v1, u2, v2 = others[0, j], others[1, j], others[2, j], others[3, j]
            intersection, union = intersection_and_union(x1, y1, x2, y2, u1, v1, u2, v2)
            hull = (larger(x2, u2) - smaller(x1, u1)) * (larger(y2, v2) - smaller(y1, v1))
            row[j] = ratio(intersection, union, smallest) - ratio(hull - union, hull, smallest)


@strict_inlined
def intersection_and_union(x1, y1, x2, y2, u1, v1, u2, v2):
    """Areas, of the boxes x1 y1 x2 y2 and u1 v1 u2 v2."""
    left, top = larger(x1, u1), larger(y1, v1)
    right, bottom = larger(smaller(x2, u2), left), larger(smaller(y2, v2), top)  # boxes apart: the sides are 0
    intersection = (right - left) * (bottom - top)
    return intersection, (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - intersection


@strict_inlined
def ratio(part, whole, smallest):
    """part / whole, and 0 where the whole is practically nothing: see the contract."""
    nothing = smallest - smallest  # 0 of the right dtype: a literal 0 would turn float32 into float64
    return part / whole if whole >= smallest else nothing


# Written out, they are one instruction each; Python's min and max also settle what NaN would give.


@strict_inlined
def smaller(a, b):
    return a if a < b else b


@strict_inlined
def larger(a, b):
    return a if a > b else b
