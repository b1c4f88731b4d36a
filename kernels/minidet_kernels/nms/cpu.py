"""Non-maximum suppression with Numba: greedily on a grid (`grid.py`), the classes shared among the threads."""

from __future__ import annotations

import functools
import math

import numpy as np
from numba import prange

from minidet_kernels.box_iou.cpu import intersection_and_union, ratio
from minidet_kernels.compiler import strict_parallel, strict_serial
from minidet_kernels.nms.grid import keep_best

Taken = tuple[np.ndarray, np.ndarray]


def nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: np.floating) -> np.ndarray:
    order = _best_first(scores)
    kept = np.empty(len(boxes), bool)
    if len(boxes):
        keep_best(boxes.take(order, axis=0), iou_threshold, *_limits(boxes.dtype), kept)
    return order[kept]


def batched_nms(boxes: np.ndarray, scores: np.ndarray, idxs: np.ndarray, iou_threshold: np.floating) -> np.ndarray:
    order = _best_first(scores)
    by_class = np.argsort(idxs[order], kind="stable")  # within a class still the best first
    labels = idxs[order[by_class]]
    bounds = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1, [len(labels)]])
    kept = np.empty(len(boxes), bool)
    if len(boxes):
        of_class = np.empty(len(boxes), bool)
        _keep_best_of_each(boxes.take(order[by_class], axis=0), bounds, iou_threshold, *_limits(boxes.dtype), of_class)
        kept[by_class] = of_class
    return order[kept]


def soft_nms_linear(
    boxes: np.ndarray, scores: np.ndarray, iou_threshold: np.floating, score_threshold: np.floating
) -> Taken:
    return _soft_nms(boxes, scores, iou_threshold, score_threshold, sigma=0.0)


def soft_nms_gaussian(boxes: np.ndarray, scores: np.ndarray, sigma: float, score_threshold: np.floating) -> Taken:
    return _soft_nms(boxes, scores, boxes.dtype.type(0), score_threshold, sigma)


def _soft_nms(
    boxes: np.ndarray, scores: np.ndarray, iou_threshold: np.floating, score_threshold: np.floating, sigma: float
) -> Taken:
    remaining = np.arange(len(boxes))
    boxes, scores = np.array(boxes, order="C"), np.array(scores)  # these copies shrink
    keep, kept_scores = np.empty_like(remaining), np.empty_like(scores)
    smallest, _ = _limits(boxes.dtype)
    count = _take_one_by_one(
        boxes, scores, remaining, iou_threshold, score_threshold, sigma, smallest, keep, kept_scores
    )
    return keep[:count], kept_scores[:count]


def _best_first(scores: np.ndarray) -> np.ndarray:
    """The indices by score, descending; equal scores by index, ascending."""
    if scores.dtype != np.float32:
        return np.argsort(-scores, kind="stable")
    # NumPy sorts plain integers four times as fast: the score's bits, made such that they ascend as integers while the
    # scores descend, and the index below them. A float32 is sign and magnitude; -(s + 0) makes one 0 of the two.
    bits = (-(scores + np.float32(0))).view(np.int32)
    ascending = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    keys = (ascending.astype(np.int64) << 32) | np.arange(len(scores))
    keys.sort()
    return keys & 0xFFFFFFFF


@functools.cache
def _limits(dtype: np.dtype) -> tuple[np.floating, float]:
    """The smallest normal number, in the dtype itself, and the distance from 1 to the next number, in double."""
    return np.finfo(dtype).tiny, float(np.finfo(dtype).eps)


@strict_parallel
def _keep_best_of_each(boxes, bounds, iou_threshold, smallest, eps, kept):
    """boxes (n, 4): class after class, each with its best first; class c is boxes[bounds[c] : bounds[c + 1]]."""
    for c in prange(len(bounds) - 1):
        start, stop = bounds[c], bounds[c + 1]
        keep_best(boxes[start:stop], iou_threshold, smallest, eps, kept[start:stop])


@strict_serial
def _take_one_by_one(boxes, scores, remaining, iou_threshold, score_threshold, sigma, smallest, keep, kept_scores):
    """Soft-NMS, linear if sigma is 0. Returns how many were taken.

    `remaining` (n,) are the indices left, in ascending order; `boxes` and `scores` lie as `remaining` does. Scores only
    fall, so boxes below score_threshold are left out for good, and each pass moves the others together.
    """
    n, count = len(remaining), 0
    while n:
        best = 0
        for j in range(1, n):
            best = j if scores[j] > scores[best] else best
        if scores[best] < score_threshold:
            break
        keep[count], kept_scores[count] = remaining[best], scores[best]
        count += 1
        x1, y1, x2, y2 = boxes[best]
        left = 0
        for j in range(n):
            intersection, union = intersection_and_union(
                x1, y1, x2, y2, boxes[j, 0], boxes[j, 1], boxes[j, 2], boxes[j, 3]
            )
            iou = ratio(intersection, union, smallest)
            if iou > iou_threshold:
                overlap = np.float64(iou)
                scores[j] = scores[j] * (math.exp(-overlap * overlap / sigma) if sigma > 0 else 1 - overlap)
            if j != best and scores[j] >= score_threshold:
                boxes[left], scores[left], remaining[left] = boxes[j], scores[j], remaining[j]
                left += 1
        n = left
    return count
