"""Matching as it is told, one detection after the other; precision from the counts after each detection."""

from __future__ import annotations

import numpy as np

TRUE, FALSE = 1, 0


def match_detections(
    overlaps: np.ndarray,
    detection_counts: np.ndarray,
    truth_counts: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
    thresholds: np.ndarray,
) -> np.ndarray:
    matches = np.full((len(ignored), len(thresholds), int(detection_counts.sum())), -1, np.int64)
    first_detection = first_truth = first_pair = 0
    for detections, truths in zip(detection_counts, truth_counts, strict=True):
        of_group = overlaps[first_pair : first_pair + detections * truths].reshape(detections, truths)
        objects = slice(first_truth, first_truth + truths)
        for a in range(len(ignored)):
            for t, threshold in enumerate(thresholds):
                found = _match_group(of_group.astype(np.float64), ignored[a, objects], crowd[objects], threshold)
                for d, g in enumerate(found):
                    if g >= 0:
                        matches[a, t, first_detection + d] = first_truth + g
        first_detection += detections
        first_truth += truths
        first_pair += detections * truths
    return matches


def _match_group(overlaps: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, threshold: float) -> list[int]:
    """Which object each detection takes, -1 for none. overlaps (D, G)."""
    taken = np.zeros(len(crowd), bool)
    matches = []
    for of_detection in overlaps:
        possible = (of_detection >= threshold) & (crowd | ~taken)
        best = _largest(of_detection, possible & ~ignored)
        if best < 0:
            best = _largest(of_detection, possible & ignored)
        if best >= 0:
            taken[best] = True
        matches.append(best)
    return matches


def _largest(values: np.ndarray, possible: np.ndarray) -> int:
    """The place of the largest possible value, the last of equal ones; -1 if none is possible."""
    best = -1
    for place in range(len(values)):
        if possible[place] and (best < 0 or values[place] >= values[best]):
            best = place
    return best


def precision_at_recalls(
    outcomes: np.ndarray, detection_counts: np.ndarray, positives: np.ndarray, recalls: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, classes = positives.shape
    precision = np.full((rows, classes, len(recalls)), -1.0)
    recall = np.full((rows, classes), -1.0)
    reached = np.full((rows, classes, len(recalls)), -1, np.int64)
    ends = np.cumsum(detection_counts)
    for b in range(rows):
        for k in range(classes):
            if not positives[b, k]:
                continue
            start = int(ends[k] - detection_counts[k])
            of_class = outcomes[b, start : ends[k]]
            right, wrong = np.cumsum(of_class == TRUE), np.cumsum(of_class == FALSE)
            recall_after = right / positives[b, k]
            precision_after = right / (right + wrong + np.finfo(np.float64).eps)
            recall[b, k] = recall_after[-1] if len(of_class) else 0
            for r, level in enumerate(recalls):
                (enough,) = np.nonzero(recall_after >= level)
                precision[b, k, r] = precision_after[enough].max(initial=0)
                if len(enough):
                    reached[b, k, r] = start + enough[0]
    return precision, recall, reached
