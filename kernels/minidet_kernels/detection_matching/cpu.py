"""Matching and precision with Numba: the threads share the groups, and the curves.

Most detections overlap with nothing: they are passed over before any range or threshold is looked at.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import strict_inlined, strict_parallel
from minidet_kernels.memory import contiguous, empty

TRUE, FALSE = 1, 0
EPS = 2.0**-52  # of float64


def match_detections(
    overlaps: np.ndarray,
    detection_counts: np.ndarray,
    truth_counts: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
    thresholds: np.ndarray,
) -> np.ndarray:
    matches = empty((len(ignored), len(thresholds), int(detection_counts.sum())), np.int64)
    _match(
        contiguous(overlaps.astype(np.float64, copy=False)),
        _starts(detection_counts),
        _starts(truth_counts),
        _starts(detection_counts * truth_counts),
        contiguous(ignored),
        contiguous(crowd),
        contiguous(thresholds),
        matches,
    )
    return matches


def _starts(counts: np.ndarray) -> np.ndarray:
    """(n,) -> (n + 1,): where each group begins, and the end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


@strict_parallel
def _match(overlaps, detection_starts, truth_starts, pair_starts, ignored, crowd, thresholds, matches):
    ranges, levels, _ = matches.shape
    for group in prange(len(pair_starts) - 1):
        first, last = detection_starts[group], detection_starts[group + 1]
        start, end = truth_starts[group], truth_starts[group + 1]
        taken = np.zeros((ranges, levels, end - start), np.bool_)
        for d in range(first, last):
            matches[:, :, d] = -1
            at = pair_starts[group] + (d - first) * (end - start)
            row = overlaps[at : at + end - start]
            if _are_all_below(row, thresholds):
                continue
            for a in range(ranges):
                for t in range(levels):
                    best = _best(row, ignored[a, start:end], crowd[start:end], taken[a, t], thresholds[t])
                    if best >= 0:
                        taken[a, t, best] = True
                        matches[a, t, d] = start + best


@strict_inlined
def _are_all_below(overlaps, thresholds):
    for overlap in overlaps:
        for threshold in thresholds:
            if overlap >= threshold:
                return False
    return True


@strict_inlined
def _best(overlaps, ignored, crowd, taken, threshold):
    """The object that a detection takes: of those that count, or else of the ignored ones, the nearest."""
    best, best_ignored = -1, -1
    most, most_ignored = threshold, threshold
    for g in range(len(overlaps)):
        if taken[g] and not crowd[g]:
            continue
        if ignored[g]:
            if overlaps[g] >= most_ignored:
                best_ignored, most_ignored = g, overlaps[g]
        elif overlaps[g] >= most:
            best, most = g, overlaps[g]
    return best if best >= 0 else best_ignored


def precision_at_recalls(
    outcomes: np.ndarray, detection_counts: np.ndarray, positives: np.ndarray, recalls: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (*positives.shape, len(recalls))
    precision, recall, reached = empty(shape, np.float64), empty(shape[:2], np.float64), empty(shape, np.int64)
    _measure(
        contiguous(outcomes),
        _starts(detection_counts),
        contiguous(positives),
        contiguous(recalls),
        precision,
        recall,
        reached,
    )
    return precision, recall, reached


@strict_parallel
def _measure(outcomes, starts, positives, recalls, precision, recall, reached):
    rows, classes = positives.shape
    for curve in prange(rows * classes):
        b, k = curve // classes, curve % classes
        reached[b, k] = -1
        if positives[b, k] == 0:
            precision[b, k] = -1
            recall[b, k] = -1
            continue
        precision[b, k] = 0
        of_class = outcomes[b, starts[k] : starts[k + 1]]
        recall[b, k] = _measure_one(of_class, positives[b, k], recalls, starts[k], precision[b, k], reached[b, k])


@strict_inlined
def _measure_one(outcomes, positives, recalls, start, precision, reached):
    """Fills in precision (R,) and reached (R,); returns the recall after all detections.

    Both change only with detections that are right, but for a recall of 0, which the first detection reaches. At first
    precision[r] is the best one between r and the next recall, then, from the last recall backwards, of all later ones.
    """
    right = wrong = level = 0
    while level < len(recalls) and recalls[level] == 0 and len(outcomes):
        reached[level] = start
        level += 1
    for d in range(len(outcomes)):
        if outcomes[d] == FALSE:
            wrong += 1
        elif outcomes[d] == TRUE:
            right += 1
            while level < len(recalls) and recalls[level] <= right / positives:
                reached[level] = start + d
                level += 1
            if level > 0:
                precision[level - 1] = max(precision[level - 1], right / (right + wrong + EPS))
    for r in range(len(recalls) - 2, -1, -1):
        precision[r] = max(precision[r], precision[r + 1])
    return right / positives
