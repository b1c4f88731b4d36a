"""COCO's metrics: three images by hand, and pycocotools' numbers to 1e-12 on random ones that are hard in every way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minidet_kernels as mk
from minidet.evaluation import coco_curves, evaluate_coco
from minidet.evaluation.coco import IOU_THRESHOLDS, RECALLS
from minidet.evaluation.overlaps import COCO_SIGMAS, OTHER_SIGMA, oks_sigmas
from tests.evaluation.coco_cases import CLASSES, TYPES, compare, random_case

# ---- by hand -----------------------------------------------------------------------------------------------------


def image(boxes: list, labels: list | None = None, scores: list | None = None, **more: Any) -> dict:
    result = {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.array(labels or [1] * len(boxes), int)}
    return result | ({} if scores is None else {"scores": np.array(scores, np.float32)}) | more


A, B = [0, 0, 100, 100], [200, 0, 300, 100]


def test_everything_found_exactly_is_1() -> None:
    """The first object and the first detection have the place 0, which must not be read as "none"."""
    metrics = evaluate_coco([image([A], scores=[0.5])], [image([A])], 1)
    assert {name: metrics[name] for name in ("map", "map_50", "map_large", "mar_1", "mar_large")} == pytest.approx(
        {"map": 1, "map_50": 1, "map_large": 1, "mar_1": 1, "mar_large": 1}
    )
    assert metrics["map_small"] == metrics["mar_medium"] == -1, "nobody is of that size"
    names = "map map_50 map_75 map_small map_medium map_large mar_1 mar_10 mar_100 mar_small mar_medium mar_large"
    assert list(metrics) == names.split()


def test_two_objects_one_found_after_a_false_alarm() -> None:
    """Precision is 1/2 up to recall 1/2, then 0: 51 of 101 recalls have 1/2."""
    far = [0, 200, 100, 300]
    metrics = evaluate_coco([image([far, A], scores=[0.9, 0.8])], [image([A, B])], 1)
    assert metrics["map_50"] == pytest.approx(51 / 101 / 2)
    assert (metrics["mar_1"], metrics["mar_10"]) == (0, 0.5)


def test_a_second_detection_of_the_same_object_is_wrong_and_has_no_second_choice_below_the_threshold() -> None:
    """IoU 1 and 0.9 with A; the second one comes before B's: precision 1, then 1/2, then 2/3."""
    shifted = [0, 0, 100, 90]
    metrics = evaluate_coco([image([A, shifted, B], scores=[0.9, 0.8, 0.7])], [image([A, B])], 1)
    assert metrics["map_50"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_iou_of_half_is_right_at_50_and_wrong_above() -> None:
    metrics = evaluate_coco([image([[0, 0, 100, 50]], scores=[1])], [image([A])], 1)
    assert metrics["map"] == pytest.approx(0.1)
    assert metrics["map_75"] == 0


def test_detections_within_a_crowd_are_not_wrong() -> None:
    crowd = image([A, B], iscrowd=np.array([True, False]))
    inside = [[10, 10, 30, 30], [50, 50, 90, 90], B]
    metrics = evaluate_coco([image(inside, scores=[0.9, 0.8, 0.7])], [crowd], 1)
    assert metrics["map"] == pytest.approx(1)


def test_absent_classes_are_left_out_of_the_mean() -> None:
    curves = coco_curves([image([A, B], [1, 2], [0.5, 0.5])], [image([A, B], [1, 3])], 3)
    assert curves.by_class() == pytest.approx([1, -1, 0])
    assert curves.average_precision() == pytest.approx(0.5)


def test_the_size_is_the_annotations_area_and_not_its_boxs() -> None:
    small = image([A], areas=np.array([500.0]))
    metrics = evaluate_coco([image([A], scores=[1])], [small], 1)
    assert (metrics["map_small"], metrics["map_large"]) == (pytest.approx(1), -1)


def test_only_a_hundred_detections_of_a_class_and_image_count() -> None:
    far = [[300, 300, 320, 320]] * 100
    found = image([*far, A], scores=[0.9] * 100 + [0.8])
    assert evaluate_coco([found], [image([A])], 1)["map"] == 0
    assert evaluate_coco([found], [image([A])], 1)["mar_100"] == 0
    assert coco_curves([found], [image([A])], 1, most_detections=[101]).average_recall(101) == 1


def test_scores_say_where_a_recall_is_reached() -> None:
    curves = coco_curves([image([A, B], scores=[0.75, 0.25])], [image([A, B])], 1)
    scores = curves.scores[0, :, 0, 0, -1]
    assert scores[[0, 50, 51, 100]].tolist() == [0.75, 0.75, 0.25, 0.25]
    missed = coco_curves([image([A], scores=[0.75])], [image([A, B])], 1).scores[0, :, 0, 0, -1]
    assert missed[[50, 51]].tolist() == [0.75, 0]


def test_the_same_joints_are_similar_by_1_and_a_distance_of_two_sigmas_by_the_root_of_e() -> None:
    """d = 2 sigma sqrt(area): OKS = exp(-1/2) = 0.607, right at 0.50, 0.55 and 0.60."""
    keypoints = np.full((1, 1, 3), [50.0, 50, 2])
    truth = image([A], keypoints=keypoints, areas=np.array([10000.0]))
    for distance, expected in ((0, 1), (2 * OTHER_SIGMA * 100, 0.3)):
        found = image([A], scores=[1], keypoints=keypoints + np.array([distance, 0, 0]))
        assert evaluate_coco([found], [truth], 1, "keypoints")["map"] == pytest.approx(expected)
        assert evaluate_coco([found], [truth], 1, "keypoints", sigmas=[1])["map"] == pytest.approx(1)
    assert list(evaluate_coco([], [], 1, "keypoints")) == [
        "map", "map_50", "map_75", "map_medium", "map_large", "mar_20", "mar_medium", "mar_large",
    ]  # fmt: skip


def test_sigmas_of_other_joints_are_the_mean_of_cocos() -> None:
    np.testing.assert_array_equal(oks_sigmas(17), COCO_SIGMAS)
    assert oks_sigmas(14).shape == (14,)
    assert np.mean(COCO_SIGMAS) == pytest.approx(OTHER_SIGMA, abs=5e-4)


@pytest.mark.parametrize("kind", TYPES)
def test_without_images_objects_or_detections_nothing_fails(kind: str) -> None:
    nothing = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "scores": np.zeros(0)}
    nothing |= {"masks": np.zeros((0, 8, 8), bool), "keypoints": np.zeros((0, 17, 3))}
    lists = dict.fromkeys(("boxes", "labels", "scores", "masks", "keypoints"), ())
    one = image([[0, 0, 4, 4]], scores=[1], masks=np.ones((1, 8, 8), bool), keypoints=np.ones((1, 17, 3)))
    for predictions, targets, expected in (
        ([], [], -1),
        ([nothing], [nothing], -1),
        ([one], [nothing], -1),
        ([nothing], [one], 0),
        ([lists], [one], 0),
        ([one], [lists], -1),
        ([nothing, one], [one, nothing], 0),
        ([nothing, one], [nothing, one], 1),
    ):
        assert evaluate_coco(predictions, targets, 2, kind)["map"] == pytest.approx(expected)


# ---- pycocotools -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_every_number_is_pycocotools(kind: str) -> None:
    """60 cases; `python -m tests.evaluation.coco_cases 1000` compares more."""
    pytest.importorskip("pycocotools", reason="pycocotools is the oracle; pip install '.[test]'")
    for seed in range(60):
        compare(seed, kind)


def test_thresholds_and_recalls_are_pycocotools_to_the_bit() -> None:
    module = pytest.importorskip("pycocotools.cocoeval", reason="pycocotools is the oracle; pip install '.[test]'")
    params = module.Params("bbox")
    np.testing.assert_array_equal(IOU_THRESHOLDS, params.iouThrs)
    np.testing.assert_array_equal(RECALLS, params.recThrs)


def test_the_reference_gives_the_same() -> None:
    for seed in range(3):
        predictions, targets = random_case(seed, "boxes")
        fast = coco_curves(predictions, targets, CLASSES)
        with mk.use("reference"):
            slow = coco_curves(predictions, targets, CLASSES)
        for name in ("precision", "recall", "scores"):
            np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))


# ---- errors ------------------------------------------------------------------------------------------------------

FOUND, TRUE = image([A, B], scores=[0.5, 0.25]), image([A])


@pytest.mark.parametrize(
    ("change", "true_change", "kind", "message"),
    [
        ({"labels": [1, 4]}, {}, "boxes", r"from 1 to num_classes = 3, got 4.*predictions\[1\]\['labels'\]\[1\]"),
        ({"labels": [0, 1]}, {}, "boxes", r"from 1 to num_classes = 3, got 0"),
        ({"scores": [0.5, np.nan]}, {}, "boxes", r"scores to be numbers, got nan in predictions\[1\]\['scores'\]\[1\]"),
        ({"scores": [0.5]}, {}, "boxes", r"expected 2 scores in predictions\[1\], as many as labels, got \(1,\)"),
        ({"boxes": [A, [5, 5, 4, 6]]}, {}, "boxes", r"x1 <= x2.*got \[5.*in predictions\[1\]\['boxes'\]\[1\]"),
        ({"boxes": [A, [5, 5, np.inf, 6]]}, {}, "boxes", "finite x1 y1 x2 y2"),
        ({"boxes": np.zeros((2, 5))}, {}, "boxes", r"expected boxes \(2, 4\) in predictions\[1\], got \(2, 5\)"),
        ({}, {"boxes": [[5, 5, 4, 6]]}, "boxes", r"in targets\[1\]\['boxes'\]\[0\]"),
        ({}, {}, "masks", r"expected 'masks' in predictions\[0\], got boxes, labels, scores"),
        ({}, {}, "polygons", "expected kind boxes, masks, keypoints, got 'polygons'"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_refused_with_its_place(change, true_change, kind, message) -> None:
    change, true_change = ({k: np.array(v) for k, v in c.items()} for c in (change, true_change))
    with pytest.raises(ValueError, match=message):
        evaluate_coco([FOUND, FOUND | change], [TRUE, TRUE | true_change], 3, kind)


def test_other_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="same images, got 1 and 2"):
        evaluate_coco([FOUND], [TRUE, TRUE], 3)
    with pytest.raises(ValueError, match=r"iou among \[0.5, 0.55.*got 0.6"):
        coco_curves([FOUND], [TRUE], 3, iou_thresholds=[0.5, 0.55]).average_precision(0.6)
    for most in ((100, 10), (), (0, 1)):
        with pytest.raises(ValueError, match="most_detections ascending from 1 on"):
            coco_curves([FOUND], [TRUE], 3, most_detections=most)
    assert coco_curves([FOUND], [TRUE], 3, most_detections=np.array([1, 5])).most_detections == (1, 5)
    masks = [np.ones((2, 8, 9), bool), np.ones((1, 9, 8), bool)]
    with pytest.raises(ValueError, match=r"as large as their image, got \(8, 9\) in predictions\[0\] and \(9, 8\)"):
        evaluate_coco([FOUND | {"masks": masks[0]}], [TRUE | {"masks": masks[1]}], 3, "masks")
    with pytest.raises(ValueError, match=r"of bool in image 0, got \(2, 8, 9\) float64"):
        evaluate_coco([FOUND | {"masks": masks[0] * 0.7}], [TRUE | {"masks": masks[0][:1]}], 3, "masks")
    people = [FOUND | {"keypoints": np.ones((2, 5, 3))}], [TRUE | {"keypoints": np.ones((1, 5, 3))}]
    with pytest.raises(ValueError, match="expected 5 sigmas, one a joint, got 4"):
        evaluate_coco(*people, 3, "keypoints", sigmas=[0.1] * 4)
    with pytest.raises(ValueError, match="expected predictions of 5 joints, as the targets have, got 4"):
        evaluate_coco([FOUND | {"keypoints": np.ones((2, 4, 3))}], people[1], 3, "keypoints")
    with pytest.raises(ValueError, match=r"keypoints \(1, 5, 3\) in targets\[0\], got \(1, 5, 2\)"):
        evaluate_coco(people[0], [TRUE | {"keypoints": np.ones((1, 5, 2))}], 3, "keypoints")
