"""Localization metrics on four images whose answers are known."""

import numpy as np
import pytest

from minidet.evaluation import localization_metrics

SCORES = np.eye(3)[[0, 1, 2, 0]]  # the classes 0, 1, 2, 0 are predicted
LABELS = [0, 1, 1, 0]  # the third is wrong
TRUTH = np.array([[0, 0, 10, 10]] * 4)
BOXES = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10], [0, 0, 4, 10]])  # IoU 1, 0.5, 1, 0.4


def test_four_images_by_hand() -> None:
    metrics = localization_metrics(SCORES, BOXES, LABELS, TRUTH)
    assert metrics["accuracy"] == 0.75
    assert metrics["mean_iou"] == pytest.approx((1 + 0.5 + 1 + 0.4) / 4)
    assert metrics["gt_known_loc"] == 0.75  # IoU of exactly 0.5 is right
    assert metrics["top1_error"] == 0.5  # the third has the wrong label, the fourth the wrong box


def test_a_box_turned_inside_out_counts_as_a_miss() -> None:
    metrics = localization_metrics(SCORES[:1], [[10, 10, 0, 0]], LABELS[:1], TRUTH[:1])
    assert metrics["mean_iou"] == 0


def test_no_images_and_different_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="not 0"):
        localization_metrics(np.zeros((0, 3)), np.zeros((0, 4)), [], np.zeros((0, 4)))
    with pytest.raises(ValueError, match="4, 4, 3, 4"):
        localization_metrics(SCORES, BOXES, LABELS[:3], TRUTH)
