"""How much of what is there do proposals find: recall against their number, and the mean average best overlap.

Nothing says that a proposal is wrong: too many of them cost time, and that is all. So precision is not asked for, and
two objects may be found by the same box.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

import minidet_kernels as mk


def proposal_recall(
    proposals: Sequence[Any], truth: Sequence[Any], iou_thresholds: Any = (0.5,), counts: Any = (2000,)
) -> np.ndarray:
    """recall (T, N): the fraction of all objects of which one of the first counts[n] boxes of their image has an
    overlap of at least iou_thresholds[t].

    proposals: of each image (P, 4), x1 y1 x2 y2, the most promising first. truth: of each image (R, 4), the objects; an
    image may have none, and crowds do not belong there. iou_thresholds (T,), counts (N,), whole numbers from 1 on, in
    any order; an image with fewer boxes is taken with those it has. Raises ValueError for different numbers of images,
    no object at all, a count below 1.
    """
    best = best_overlaps(proposals, truth, counts)
    return (best >= np.reshape(iou_thresholds, (-1, 1, 1))).mean(axis=1)


def mean_average_best_overlap(
    proposals: Sequence[Any], truth: Sequence[Any], labels: Sequence[Any], num_classes: int
) -> tuple[float, np.ndarray]:
    """(MABO, ABO (num_classes,)) of Uijlings et al., section 5.

    ABO of a class: the mean over its objects of the largest overlap that a box has with them; NaN of a class without
    an object. MABO: the mean of ABO over the classes that have one, each class alike however many objects it has.

    proposals, truth: as for `proposal_recall`. labels: of each image (R,), from 1 to num_classes, as for
    `evaluate_coco`; ABO begins with class 1. To know them for the first n boxes, give only those.
    """
    best = best_overlaps(proposals, truth, None)[:, 0]
    labels = np.concatenate([np.asarray(of_image, np.int64) for of_image in labels])
    if len(labels) != len(best) or labels.min() < 1 or labels.max() > num_classes:
        raise ValueError(
            f"mean_average_best_overlap: expected a label from 1 to {num_classes} an object, got {len(labels)} for "
            f"{len(best)} objects, among them {np.unique(labels)[:10].tolist()}"
        )
    counts = np.bincount(labels, minlength=num_classes + 1)[1:]
    sums = np.bincount(labels, best, minlength=num_classes + 1)[1:]
    average = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return float(np.nanmean(average)), average


def best_overlaps(proposals: Sequence[Any], truth: Sequence[Any], counts: Any = None) -> np.ndarray:
    """(objects of all images, N): the largest IoU of each object with the first counts[n] boxes of its image; 0 where
    there is no box. counts None: N = 1, all boxes. Raises ValueError as `proposal_recall` does."""
    if len(proposals) != len(truth):
        raise ValueError(f"expected proposals and truth of the same images, got {len(proposals)} and {len(truth)}")
    if counts is not None and (np.ndim(counts) != 1 or not len(counts) or min(counts) < 1):
        raise ValueError(f"expected numbers of boxes from 1 on, got {counts!r}")
    rows = [_of_image(*of_image, counts) for of_image in zip(proposals, truth, strict=True)]
    best = np.concatenate(rows) if rows else np.zeros((0, 1))
    if not len(best):
        raise ValueError(f"expected at least one object in {len(truth)} images, got none: there is nothing to find")
    return best


def _of_image(boxes: Any, objects: Any, counts: Any) -> np.ndarray:
    boxes, objects = (np.asarray(array, np.float64).reshape(-1, 4) for array in (boxes, objects))
    overlaps = np.concatenate([np.zeros((len(objects), 1)), mk.box_iou(objects, boxes)], axis=1)  # of no box: 0
    best_of_first = np.maximum.accumulate(overlaps, axis=1)
    return best_of_first[:, np.minimum([len(boxes)] if counts is None else counts, len(boxes))]
