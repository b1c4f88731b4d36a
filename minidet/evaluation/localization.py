"""Single-object localization: is the label right, and how well does the box fit."""

from typing import Any

import numpy as np

from ..boxes import paired_iou

CORRECT_IOU = 0.5  # a box is right from this overlap on (ILSVRC's localization task)


def localization_metrics(scores: Any, boxes: Any, labels: Any, truth: Any) -> dict[str, float]:
    """Metrics of one prediction an image.

    scores (N, K) of the classes, boxes (N, 4) predicted, labels (N,) true classes 0..K-1, truth (N, 4) true boxes.

    accuracy             the fraction of images whose best class is the true one
    mean_iou             intersection over union of predicted and true box, averaged over all images
    top1_error           the localization error: 1 - the fraction with the right label *and* IoU >= 0.5
    gt_known_loc         the fraction with IoU >= 0.5, whatever the label
    """
    scores, boxes, labels, truth = (np.asarray(array) for array in (scores, boxes, labels, truth))
    if not len(scores) == len(boxes) == len(labels) == len(truth) or not len(scores):
        counts = f"{len(scores)}, {len(boxes)}, {len(labels)}, {len(truth)}"
        raise ValueError(
            f"localization_metrics: expected as many scores, boxes, labels and truths, not 0, got {counts}"
        )
    right = scores.argmax(axis=1) == labels
    iou = paired_iou(boxes.astype(np.float64), truth.astype(np.float64))
    return {
        "accuracy": float(right.mean()),
        "mean_iou": float(iou.mean()),
        "top1_error": float(1 - (right & (iou >= CORRECT_IOU)).mean()),
        "gt_known_loc": float((iou >= CORRECT_IOU).mean()),
    }
