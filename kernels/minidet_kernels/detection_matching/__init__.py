"""Detections and true objects: who found whom, and how precise the found ones are at each recall (COCO's evaluation).

**Matching.** In each group - the detections and the true objects of one class in one image - the detections choose one
after the other, the best score first, and at each IoU threshold t anew. A detection takes, of all objects that it
overlaps with by at least t, the one that it overlaps with most:

    match(d) = argmax overlap(d, g)    over the objects g with overlap(d, g) >= min(t, 1 - 1e-10)
                                       that are a crowd or that no better detection has taken

and nothing if there is none. Some objects are *ignored*: crowds, and those whose size is not asked for. A detection
takes one of them only where no other object is left for it, and then counts neither as right nor as wrong. Several
detections may take the same crowd. Of equal overlaps the later object is taken. The 1 - 1e-10 lets a threshold of 1
find what overlaps by all but a rounding error.

All ranges of sizes (A) and all thresholds (T) are matched by themselves, and so are all groups: they lie one after the
other, the detections of each with the best score first. The overlaps of group i are detection_counts[i] rows of
truth_counts[i] numbers, and the groups' numbers stand in one array without gaps.

**Precision at recalls.** The detections of a class, of all images, the best score first; each is right (TRUE), wrong
(FALSE) or left out (LEFT_OUT). After n of them

    recall(n) = right / positives        precision(n) = right / (right + wrong + 2^-52)

and the result at recall r is the best precision of all n with recall(n) >= r, 0 if there is none. The 2^-52 keeps
0 / 0 from arising, as in pycocotools, so that its numbers come out to the last bit.

Source: the definition of COCO's metrics (cocodataset.org, "Detection evaluation"), and pycocotools where it leaves a
choice: ties, crowds, ignored objects.

Arrays may be of any memory; none is changed. TypeError: not arrays, other dtypes. ValueError: other shapes, counts that
do not add up, NaN, thresholds outside [0, 1].

There is no CUDA version: a group is a handful of boxes, in which each detection waits for the better ones, and
evaluation has its arrays on the CPU anyway. Cost: A * T * (number of overlaps) for the matching; (number of rows) *
(detections + classes * recalls) for the precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidet_kernels.arguments import check_fraction, check_shape
from minidet_kernels.versions import choose

__all__ = ["FALSE", "LEFT_OUT", "TRUE", "match_detections", "precision_at_recalls"]

LEFT_OUT, FALSE, TRUE = -1, 0, 1  # what became of a detection


def match_detections(
    overlaps: np.ndarray,
    detection_counts: np.ndarray,
    truth_counts: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
    thresholds: Sequence[float],
) -> np.ndarray:
    """-> matches (A, T, D), int64: for each range of sizes and each threshold the object that each detection takes, a
    place in `crowd`, or -1.

    overlaps (P,) float32 or float64, compared as float64: group after group, detection after detection, object after
    object; P = sum of detection_counts * truth_counts. detection_counts, truth_counts (n,) int64 of the n groups, with
    the sums D and G. ignored (A, G) bool, crowd (G,) bool. thresholds: T numbers from 0 to 1.
    """
    name = "match_detections"
    check_shape(name, "overlaps", overlaps, "P", (None,))
    check_shape(name, "detection_counts", detection_counts, "n", (None,))
    check_shape(name, "truth_counts", truth_counts, "n", detection_counts.shape)
    check_shape(name, "crowd", crowd, "G", (None,))
    check_shape(name, "ignored", ignored, "A G", (None, len(crowd)))
    if overlaps.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected overlaps float32 or float64, got {overlaps.dtype}; convert with .astype")
    if crowd.dtype != np.bool_ or ignored.dtype != np.bool_:
        raise TypeError(f"{name}: expected crowd and ignored of bool, got {crowd.dtype} and {ignored.dtype}")
    for threshold in thresholds:
        check_fraction(name, "thresholds", threshold)
    # before any look at values: on a GPU they could not be looked at
    version = choose(__name__, overlaps, detection_counts, truth_counts, ignored, crowd)
    _check_counts(name, detection_counts=detection_counts, truth_counts=truth_counts)
    _check_sum(name, "overlaps", len(overlaps), "detection_counts * truth_counts", detection_counts * truth_counts)
    _check_sum(name, "objects in crowd and ignored", len(crowd), "truth_counts", truth_counts)
    if np.isnan(overlaps).any():
        raise ValueError(f"{name}: expected overlaps that are numbers, got NaN at {int(np.isnan(overlaps).argmax())}")
    least = np.minimum(np.asarray(thresholds, np.float64), 1 - 1e-10)
    return version.match_detections(overlaps, detection_counts, truth_counts, ignored, crowd, least)


def precision_at_recalls(
    outcomes: np.ndarray, detection_counts: np.ndarray, positives: np.ndarray, recalls: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> precision (B, K, R), float64; recall (B, K), float64, after all detections; and which detection reaches each
    recall first (B, K, R), int64: its place among all D, or -1 where that recall is not reached.

    outcomes (B, D) int8: in each of B evaluations TRUE, FALSE or LEFT_OUT; class after class, in each the best score
    first. detection_counts (K,) int64 of the classes, their sum is D. positives (B, K) int64: the objects to be found.
    recalls: R numbers from 0 to 1, ascending. Precision and recall are -1 where nothing is to be found.
    """
    name = "precision_at_recalls"
    check_shape(name, "detection_counts", detection_counts, "K", (None,))
    check_shape(name, "outcomes", outcomes, "B D", (None, None))
    check_shape(name, "positives", positives, "B K", (len(outcomes), len(detection_counts)))
    if outcomes.dtype != np.int8 or positives.dtype != np.int64:
        raise TypeError(
            f"{name}: expected outcomes int8 and positives int64, got {outcomes.dtype} and {positives.dtype}"
        )
    levels = np.asarray(recalls, np.float64)
    for recall in recalls:
        check_fraction(name, "recalls", recall)
    if (levels[1:] < levels[:-1]).any():
        raise ValueError(f"{name}: expected ascending recalls, got {levels.tolist()}; sort them")
    version = choose(__name__, outcomes, detection_counts, positives)
    _check_counts(name, detection_counts=detection_counts)
    _check_sum(name, "detections in outcomes", outcomes.shape[1], "detection_counts", detection_counts)
    if outcomes.size and not LEFT_OUT <= outcomes.min() <= outcomes.max() <= TRUE:
        raise ValueError(f"{name}: expected outcomes {LEFT_OUT}, {FALSE} or {TRUE}, got others")
    if (positives < 0).any():
        raise ValueError(f"{name}: expected positives >= 0, got {int(positives.min())}")
    return version.precision_at_recalls(outcomes, detection_counts, positives, levels)


def _check_counts(operation: str, **counts: np.ndarray) -> None:
    for name, array in counts.items():
        if array.dtype != np.int64:
            raise TypeError(f"{operation}: expected {name} int64, got {array.dtype}; convert with .astype")
        if (array < 0).any():
            raise ValueError(f"{operation}: expected {name} >= 0, got {int(array.min())}")


def _check_sum(operation: str, what: str, got: int, terms: str, counts: np.ndarray) -> None:
    if int(counts.sum()) != got:
        raise ValueError(f"{operation}: expected {int(counts.sum())} {what}, the sum of {terms}, got {got}")
