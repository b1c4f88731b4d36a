"""Metrics of weakly supervised localization: numbers by hand, a literal twin, and maps that have no box."""

import time

import numpy as np
import pytest
from scipy.ndimage import find_objects, label

from minidet.evaluation import (
    best_threshold,
    box_accuracy,
    max_box_acc,
    max_box_acc_v2,
    weak_localization_metrics,
)
from minidet.evaluation.weak_localization import V2_IOUS, box_accuracy_metrics, box_overlaps


def stairs(*steps: tuple[float, tuple[int, int, int, int]]) -> np.ndarray:
    """A map of 10 x 10: 0, and each value in its box x1 y1 x2 y2."""
    heat_map = np.zeros((10, 10), np.float32)
    for value, (x1, y1, x2, y2) in steps:
        heat_map[y1:y2, x1:x2] = value
    return heat_map


# The box shrinks with the threshold: 10 x 9 below 0.25, 6 x 6 below 0.5, 4 x 4 below 1.
SHRINKING = stairs((0.25, (0, 0, 10, 9)), (0.5, (0, 0, 6, 6)), (1.0, (0, 0, 4, 4)))
# A high square of 4 pixels with the object, a low one of 25 beside it.
TWO = stairs((1.0, (0, 0, 2, 2)), (0.6, (5, 5, 10, 10)))


def test_the_curve_by_hand() -> None:
    truth = [[0, 0, 6, 6]]
    # above 0: 10 x 9, IoU 36 / 90; above 0.25 and 0.4: 6 x 6; above 0.5: 4 x 4, IoU 16 / 36; above 1: nothing
    thresholds = [0.0, 0.1, 0.25, 0.4, 0.5, 0.9, 1.0]
    overlaps = box_overlaps(SHRINKING[None], truth, thresholds)["largest"]
    np.testing.assert_allclose(overlaps, [[0.4, 0.4, 1, 1, 4 / 9, 4 / 9, 0]], rtol=1e-12)
    curve = box_accuracy(SHRINKING[None], truth, thresholds, ious=(0.3, 0.4, 0.5, 1.0))
    assert curve.tolist() == [
        [1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1, 0],  # an overlap of exactly 0.4 is enough
        [0, 0, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],
    ]


def test_the_best_threshold_of_two_images_is_one_that_suits_both() -> None:
    maps = np.stack([SHRINKING, SHRINKING])
    truth = [[0, 0, 6, 6], [0, 0, 4, 4]]  # found above 0.25 to 0.49, and above 0.5 to 0.99
    assert box_accuracy(maps, truth, [0.1, 0.3, 0.6]).tolist() == [[0, 0.5, 0.5]]
    assert max_box_acc(maps, truth) == 0.5
    assert max_box_acc(maps[:1], truth[:1]) == 1
    assert best_threshold(maps[:1], truth[:1]) == 0.37  # the middle of 0.25, ..., 0.49
    assert best_threshold(maps[1:], truth[1:]) == 0.75


def test_the_first_version_takes_the_largest_component_and_the_second_the_best() -> None:
    truth = [[0, 0, 2, 2]]
    assert box_accuracy(TWO[None], truth, [0.1, 0.59, 0.7]).tolist() == [[0, 0, 1]]
    assert box_accuracy(TWO[None], truth, [0.1, 0.59, 0.7], components="all").tolist() == [[1, 1, 1]]
    both = np.stack([TWO, TWO])
    truth = [[0, 0, 2, 2], [5, 5, 10, 10]]  # by the largest component each at a threshold of its own
    assert max_box_acc(both, truth) == 0.5
    assert max_box_acc_v2(both, truth) == 1


def test_the_second_version_is_a_mean_over_overlaps_each_at_its_own_threshold() -> None:
    maps, truth = np.stack([SHRINKING, SHRINKING]), [[0, 0, 4, 4], [0, 0, 10, 10]]
    # IoU of the first 16 / 90, 16 / 36, 1, of the second 0.9, 0.36, 0.16, at 10 x 9, 6 x 6 and 4 x 4. 0.3: both are
    # found at 6 x 6; 0.5 and 0.7: one at a time, and none at 6 x 6
    assert max_box_acc_v2(maps, truth) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert V2_IOUS == (0.3, 0.5, 0.7)


def test_fraction_of_max_is_another_scale() -> None:
    lifted = SHRINKING - 1  # from -1 to 0
    assert box_accuracy(lifted[None], [[0, 0, 6, 6]], [0.3], mode="minmax").tolist() == [[1]]
    assert box_accuracy(lifted[None], [[0, 0, 6, 6]], [0.3], mode="fraction_of_max").tolist() == [[0]]


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan])
def test_a_map_that_is_empty_constant_or_nan_is_a_miss_and_no_crash(value: float) -> None:
    maps = np.stack([SHRINKING, np.full((10, 10), value, np.float32)])
    truth = [[0, 0, 6, 6], [0, 0, 10, 10]]
    with np.errstate(all="raise"):
        assert max_box_acc(maps, truth) == 0.5
        assert max_box_acc_v2(maps, truth) == 0.5
        assert max_box_acc(maps[1:], truth[1:]) == 0


def literal_overlap(heat_map: np.ndarray, truth: np.ndarray, threshold: float, components: str) -> float:
    """Min-max, threshold, components, the box of the largest or the best of all, IoU: written out for one map."""
    scaled = (heat_map.astype(float) - heat_map.min()) / (heat_map.max() - heat_map.min())
    labels, count = label(scaled > threshold, structure=np.ones((3, 3)))
    found = []
    for number, (rows, columns) in enumerate(find_objects(labels), start=1):
        width = max(min(columns.stop, truth[2]) - max(columns.start, truth[0]), 0)
        height = max(min(rows.stop, truth[3]) - max(rows.start, truth[1]), 0)
        area = (columns.stop - columns.start) * (rows.stop - rows.start)
        union = area + (truth[2] - truth[0]) * (truth[3] - truth[1]) - width * height
        found.append(((labels == number).sum(), width * height / union))
    if not count:
        return 0.0
    return max(iou for _, iou in found) if components == "all" else max(found, key=lambda pair: pair[0])[1]


@pytest.mark.parametrize("components", ["largest", "all"])
def test_random_maps_against_literal_loops(components: str) -> None:
    rng = np.random.default_rng(3)
    maps = rng.normal(size=(8, 5, 6)).astype(np.float32).repeat(2, axis=1).repeat(2, axis=2)
    corners = rng.uniform(0, 6, (8, 2))
    truth = np.hstack([corners, corners + rng.uniform(1, 6, (8, 2))])
    thresholds = np.array([0.013, 0.1, 0.37, 0.5, 0.8, 0.99])
    overlaps = box_overlaps(maps, truth, thresholds)[components]
    expected = [
        [literal_overlap(m, box, t, components) for t in thresholds] for m, box in zip(maps, truth, strict=True)
    ]
    np.testing.assert_allclose(overlaps, expected, rtol=1e-12)
    curve = box_accuracy(maps, truth, thresholds, (0.3, 0.5), components=components)
    assert curve.tolist() == [(np.array(expected) >= iou).mean(axis=0).tolist() for iou in (0.3, 0.5)]


def test_metrics_in_pieces_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(4)
    maps = rng.random((6, 4, 4)).astype(np.float32).repeat(3, axis=1).repeat(3, axis=2)
    truth = np.tile([2.0, 2, 9, 10], (6, 1))
    pieces = [box_overlaps(maps[i : i + 4], truth[i : i + 4]) for i in (0, 4)]
    together = {name: np.concatenate([piece[name] for piece in pieces]) for name in ("largest", "all")}
    assert box_accuracy_metrics(together) == {
        "max_box_acc": max_box_acc(maps, truth),
        "max_box_acc_v2": max_box_acc_v2(maps, truth),
        "best_threshold_minmax": best_threshold(maps, truth),
    }


def test_three_hundred_maps_and_a_hundred_thresholds_take_seconds() -> None:
    y, x = np.mgrid[:64, :64]
    hill = np.exp(-((y - 30) ** 2 + (x - 24) ** 2) / 300).astype(np.float32)
    start = time.process_time()
    max_box_acc(np.tile(hill, (300, 1, 1)), np.tile([10.0, 10, 40, 40], (300, 1)))
    assert time.process_time() - start < 30  # 1 to 2 here


# ---- the localization errors ----------------------------------------------------------------------------------------

RIGHT, HALF, WRONG = [0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4]  # IoU 1, 0.5, 0.4 with the true box
SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1], [0.2, 0.3, 0.5]])
LABELS = np.array([0, 1, 1, 0])  # best, best, second, third
TRUTH = np.array([RIGHT] * 4)


def test_four_images_by_hand() -> None:
    top = np.array([[RIGHT, WRONG, WRONG], [WRONG, RIGHT, RIGHT], [RIGHT, HALF, WRONG], [RIGHT, RIGHT, WRONG]])
    known = [RIGHT, WRONG, HALF, WRONG]  # the box of the true class
    metrics = weak_localization_metrics(SCORES, top, known, LABELS, TRUTH)
    assert metrics["accuracy"] == 0.5
    assert metrics["top1_error"] == 0.75  # the second has the wrong box, the others the wrong label
    assert metrics["top5_error"] == 0.5  # the third's second class is right, and its box just so
    assert metrics["gt_known_loc"] == metrics["gt_known_error"] == 0.5
    assert metrics["mean_iou"] == pytest.approx((1 + 0.4 + 0.5 + 0.4) / 4)


def test_only_the_first_five_classes_count() -> None:
    scores, top = np.arange(7, 0, -1.0)[None] / 28, np.array([[RIGHT] * 7])
    for true_class, error in ((4, 0), (5, 1)):
        metrics = weak_localization_metrics(scores, top, [RIGHT], [true_class], [RIGHT])
        assert (metrics["top1_error"], metrics["top5_error"]) == (1, error)


def test_equal_scores_are_ordered_by_class() -> None:
    metrics = weak_localization_metrics([[0.5, 0.5]], [[RIGHT, WRONG]], [WRONG], [1], [RIGHT])
    assert (metrics["accuracy"], metrics["top5_error"]) == (0, 1)


def test_an_empty_box_is_a_miss() -> None:
    metrics = weak_localization_metrics([[1.0]], [[[0, 0, 0, 0]]], [[0, 0, 0, 0]], [0], [RIGHT])
    assert (metrics["top1_error"], metrics["gt_known_loc"], metrics["mean_iou"]) == (1, 0, 0)


def test_other_shapes_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected maps \(N, H, W\) and as many true boxes \(N, 4\), not 0"):
        box_accuracy(np.zeros((0, 4, 4)), np.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"got \(2, 10, 10\) and \(1, 4\)"):
        box_accuracy(np.stack([TWO, TWO]), [RIGHT])
    with pytest.raises(ValueError, match="components 'largest' or 'all', got 'best'"):
        box_accuracy(TWO[None], [RIGHT], components="best")
    with pytest.raises(ValueError, match="mode among"):
        box_accuracy(TWO[None], [RIGHT], mode="maximum")
    with pytest.raises(ValueError, match="one row an image in all arrays, not 0"):
        weak_localization_metrics(SCORES, np.zeros((4, 3, 4)), [RIGHT] * 3, LABELS, TRUTH)
