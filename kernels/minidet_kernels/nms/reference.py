"""Non-maximum suppression, as it is told: one box after the other."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidet_kernels.box_iou.reference import iou_with_all

Taken = tuple[np.ndarray, np.ndarray]


def nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: np.floating) -> np.ndarray:
    keep: list[int] = []
    for candidate in _best_first(scores):
        if not (iou_with_all(boxes[candidate], boxes[keep]) > iou_threshold).any():
            keep.append(int(candidate))
    return np.array(keep, np.int64)


def batched_nms(boxes: np.ndarray, scores: np.ndarray, idxs: np.ndarray, iou_threshold: np.floating) -> np.ndarray:
    kept = np.zeros(len(boxes), bool)
    for label in np.unique(idxs):
        (members,) = np.nonzero(idxs == label)
        kept[members[nms(boxes[members], scores[members], iou_threshold)]] = True
    order = _best_first(scores)
    return order[kept[order]]


def soft_nms_linear(
    boxes: np.ndarray, scores: np.ndarray, iou_threshold: np.floating, score_threshold: np.floating
) -> Taken:
    return _soft_nms(boxes, scores, score_threshold, lambda iou: 1 - float(iou) if iou > iou_threshold else 1.0)


def soft_nms_gaussian(boxes: np.ndarray, scores: np.ndarray, sigma: float, score_threshold: np.floating) -> Taken:
    return _soft_nms(boxes, scores, score_threshold, lambda iou: math.exp(-float(iou) * float(iou) / sigma))


def _soft_nms(
    boxes: np.ndarray, scores: np.ndarray, score_threshold: np.floating, weight: Callable[[np.floating], float]
) -> Taken:
    scores = scores.copy()
    remaining = np.arange(len(boxes))
    keep: list[int] = []
    while len(remaining):
        best = remaining[scores[remaining].argmax()]  # the first of the best
        if scores[best] < score_threshold:
            break
        keep.append(int(best))
        remaining = remaining[remaining != best]
        for i, iou in zip(remaining, iou_with_all(boxes[best], boxes[remaining]), strict=True):
            scores[i] = float(scores[i]) * weight(iou)
    return np.array(keep, np.int64), scores[keep]


def _best_first(scores: np.ndarray) -> np.ndarray:
    """The indices by score, descending; equal scores by index, ascending, because the sort is stable."""
    return np.argsort(-scores, kind="stable")
