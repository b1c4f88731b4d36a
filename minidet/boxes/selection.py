"""From what a network says of very many boxes to the few that go on: proposals, and detections."""

import numpy as np

import minidet_kernels as kernels

from .geometry import clip_boxes_to_image, remove_small_boxes


def filter_proposals(
    boxes: np.ndarray,
    scores: np.ndarray,
    levels: np.ndarray,
    size: tuple[int, int],
    limit: int,
    nms_threshold: float,
    min_size: float,
) -> np.ndarray:
    """The proposals (P, 4) among boxes (A, 4) with scores (A,), best first (Ren et al. 2015, section 3.3):

    1. boxes are cut to the image, whose size is (height, width);
    2. those with a side below min_size are dropped;
    3. of those of one level, levels (A,), integers, that overlap by more than nms_threshold (0.7) the best stays;
    4. of these the first `limit` (2000 in training, 300 at test).

    Equal scores: the box with the lower index comes first.
    """
    boxes = clip_boxes_to_image(boxes, size)
    large = remove_small_boxes(boxes, min_size)
    boxes, scores = boxes[large], scores[large]
    kept = kernels.batched_nms(boxes, scores, levels[large], nms_threshold)[:limit]
    return boxes[kept]


def filter_detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    score_threshold: float,
    nms_threshold: float,
    limit: int,
    min_size: float = 0.0,
) -> dict[str, np.ndarray]:
    """The detections among R boxes with scores for K classes: dict of boxes (D, 4), labels (D,) from 1, and scores (D,)
    D <= limit, best first.

    boxes (R, K, 4), one a class, or (R, 4) for all classes; scores (R, K), without the background. What scores more
    than score_threshold and has both sides of min_size stays, of each class the best of those that overlap by more than
    nms_threshold. Equal scores: the box with the lower index, then the lower class comes first.
    """
    rows, classes = np.nonzero(scores > score_threshold)
    boxes = boxes[rows] if boxes.ndim == 2 else boxes[rows, classes]
    scores = scores[rows, classes]
    if min_size > 0:
        large = remove_small_boxes(boxes, min_size)
        boxes, scores, classes = boxes[large], scores[large], classes[large]
    kept = kernels.batched_nms(boxes, scores, classes, nms_threshold)[:limit]
    return {"boxes": boxes[kept], "labels": classes[kept] + 1, "scores": scores[kept]}


def best_first(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices (min(count, A),) of the best scores (A,), descending; equal ones by index, as in suppression."""
    if 0 < count < len(scores):
        # Of all that could be among the best, so that sorting costs no more than it must: equal ones are all kept here.
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        candidates = np.flatnonzero(scores >= least)
        return candidates[np.argsort(-scores[candidates], kind="stable")[:count]]
    return np.argsort(-scores, kind="stable")[:count]
