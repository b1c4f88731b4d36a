"""COCO's metrics: three images by hand, and pycocotools' numbers to 1e-12 on random ones that are hard in every way."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minidet_kernels as mk
from minidet.evaluation import coco_curves, evaluate_coco
from minidet.evaluation.coco import IOU_THRESHOLDS, RECALLS
from minidet.evaluation.overlaps import COCO_SIGMAS, OTHER_SIGMA, oks_sigmas

CLASSES = 3
JOINTS = (17, 5)
TYPES = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}


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
    one = image([[0, 0, 4, 4]], scores=[1], masks=np.ones((1, 8, 8), bool), keypoints=np.ones((1, 17, 3)))
    for predictions, targets, expected in (
        ([], [], -1),
        ([nothing], [nothing], -1),
        ([one], [nothing], -1),
        ([nothing], [one], 0),
        ([nothing, one], [one, nothing], 0),
        ([nothing, one], [nothing, one], 1),
    ):
        assert evaluate_coco(predictions, targets, 2, kind)["map"] == pytest.approx(expected)


# ---- pycocotools -------------------------------------------------------------------------------------------------


def random_side(rng: np.random.Generator, kind: str, joints: int, is_truth: bool, crowded: bool) -> dict:
    """One image's objects or detections: boxes on a coarse grid, so that many overlaps are equal, or anywhere."""
    count = int(rng.choice([0, 1, 3, 8]))
    if crowded and not is_truth:
        count = 130
    if rng.random() < 0.5:
        corners = np.sort(rng.integers(0, 6, (count, 2, 2)), axis=1) * 32.0
    else:
        corners = np.sort(rng.random((count, 2, 2)).astype(np.float32), axis=1) * 160
    boxes = corners.reshape(count, 4).astype(np.float32)
    result = {"boxes": boxes, "labels": rng.integers(1, 1 + rng.integers(1, CLASSES + 1), count)}
    if kind == "masks":
        height, width = 20, 24
        result["masks"] = np.zeros((count, height, width), bool)
        for mask, (x1, y1, x2, y2) in zip(result["masks"], (boxes / 8).astype(int), strict=True):
            mask[y1:y2, x1:x2] = rng.random((y2 - y1, x2 - x1)) < rng.choice([0.6, 1])
    if kind == "keypoints":
        places = (
            boxes[:, None, :2] + rng.integers(0, 9, (count, joints, 2)) * (boxes[:, None, 2:] - boxes[:, None, :2]) / 8
        )
        visible = rng.integers(0, 3, (count, joints, 1)) * (rng.random((count, 1, 1)) < 0.8)
        result["keypoints"] = np.concatenate([places, visible], axis=2)
    if not is_truth:
        return result | {"scores": (rng.integers(0, 5, count) / 4 if rng.random() < 0.5 else rng.random(count))}
    result["iscrowd"] = rng.random(count) < 0.2
    result["areas"] = rng.choice([100.0, 32**2, 5000, 96**2, 1e4, 0], count)
    return result


def random_case(seed: int, kind: str) -> tuple[list[dict], list[dict]]:
    rng = np.random.default_rng(seed)
    joints = JOINTS[rng.integers(2)]
    images, crowded = int(rng.integers(1, 6)), rng.random() < 0.1
    predictions, targets = [], []
    for _ in range(images):
        truth = random_side(rng, kind, joints, True, crowded)
        found = random_side(rng, kind, joints, False, crowded)
        if rng.random() < 0.5 and len(truth["labels"]) and len(found["labels"]):  # detections on objects
            taken = rng.integers(0, len(truth["labels"]), len(found["labels"]))
            near = rng.random(len(taken)) < 0.7
            for key in set(truth) & set(found):
                found[key][near] = truth[key][taken][near]
            if kind == "keypoints":
                found["keypoints"][..., :2] += rng.integers(-4, 5, found["keypoints"][..., :2].shape)
        predictions.append(found)
        targets.append(truth)
    return predictions, targets


def with_pycocotools(predictions: list[dict], targets: list[dict], kind: str, seed: int) -> Any:
    """pycocotools' evaluation; ids of annotations, images and categories with gaps and in any order."""
    module = pytest.importorskip("pycocotools.cocoeval", reason="pycocotools is the oracle; pip install '.[test]'")
    from pycocotools import mask as rle
    from pycocotools.coco import COCO

    rng = np.random.default_rng(seed)
    image_ids = np.sort(rng.choice(100, len(targets), replace=False))
    category_ids = np.sort(rng.choice(90, CLASSES, replace=False))
    annotation_ids = iter(1 + rng.permutation(sum(len(target["labels"]) for target in targets)))
    annotations, results = [], []
    for image_id, found, truth in zip(image_ids, predictions, targets, strict=True):
        for side, entries in ((truth, annotations), (found, results)):
            for row, label in enumerate(side["labels"]):
                entry = {"image_id": int(image_id), "category_id": int(category_ids[label - 1])}
                if kind == "boxes" or side is truth:
                    x1, y1, x2, y2 = side["boxes"][row].astype(float).tolist()
                    entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
                if kind == "masks":
                    entry["segmentation"] = rle.encode(np.asfortranarray(side["masks"][row].astype(np.uint8)))
                if kind == "keypoints":
                    entry["keypoints"] = side["keypoints"][row].ravel().tolist()
                if side is truth:
                    entry |= {"id": int(next(annotation_ids)), "area": float(side["areas"][row])}
                    entry |= {"iscrowd": int(side["iscrowd"][row])}
                    if kind == "keypoints":
                        entry["num_keypoints"] = int((side["keypoints"][row, :, 2] > 0).sum())
                else:
                    entry["score"] = float(side["scores"][row])
                entries.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": int(i), "height": 20, "width": 24} for i in rng.permutation(image_ids)],
            "categories": [{"id": int(i)} for i in rng.permutation(category_ids)],
            "annotations": annotations,
        }
        coco.createIndex()
        if results:
            found_coco = coco.loadRes(results)
        else:
            found_coco = COCO()
            found_coco.dataset = coco.dataset | {"annotations": []}
            found_coco.createIndex()
        evaluation = module.COCOeval(coco, found_coco, TYPES[kind])
        joints = next((t["keypoints"].shape[1] for t in targets if kind == "keypoints"), 17)
        if kind == "keypoints" and joints != 17:
            evaluation.params.kpt_oks_sigmas = np.full(joints, OTHER_SIGMA)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("kind", TYPES)
def test_every_number_is_pycocotools(kind: str) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is the oracle; pip install '.[test]'")

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 2**32 - 1))
    def compare(seed: int) -> None:
        predictions, targets = random_case(seed, kind)
        expected = with_pycocotools(predictions, targets, kind, seed)
        curves = coco_curves(predictions, targets, CLASSES, kind)
        for name in ("precision", "recall", "scores"):
            np.testing.assert_allclose(getattr(curves, name), expected.eval[name], rtol=0, atol=1e-12, err_msg=name)
        metrics = list(evaluate_coco(predictions, targets, CLASSES, kind).values())
        stats = expected.stats if kind != "keypoints" else expected.stats[[0, 1, 2, 3, 4, 5, 8, 9]]
        np.testing.assert_allclose(metrics, stats, rtol=0, atol=1e-12)

    compare()


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
    masks = [np.ones((2, 8, 9), bool), np.ones((1, 9, 8), bool)]
    with pytest.raises(ValueError, match=r"as large as their image, got \(8, 9\) in predictions\[0\] and \(9, 8\)"):
        evaluate_coco([FOUND | {"masks": masks[0]}], [TRUE | {"masks": masks[1]}], 3, "masks")
    with pytest.raises(ValueError, match=r"of bool in image 0, got \(2, 8, 9\) float64"):
        evaluate_coco([FOUND | {"masks": masks[0] * 0.7}], [TRUE | {"masks": masks[0][:1]}], 3, "masks")
    people = [FOUND | {"keypoints": np.ones((2, 5, 3))}], [TRUE | {"keypoints": np.ones((1, 5, 3))}]
    with pytest.raises(ValueError, match="expected 5 sigmas, one a joint, got 4"):
        evaluate_coco(*people, 3, "keypoints", sigmas=[0.1] * 4)
    with pytest.raises(ValueError, match=r"keypoints \(1, 5, 3\) in targets\[0\], got \(1, 5, 2\)"):
        evaluate_coco(people[0], [TRUE | {"keypoints": np.ones((1, 5, 2))}], 3, "keypoints")
