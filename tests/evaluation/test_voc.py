"""VOC's average precision: small cases by hand, and the devkit's procedure written out in loops on 1,000 others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from minidet.evaluation import evaluate_voc, voc_curves


def image(boxes: list, labels: list | None = None, scores: list | None = None, **more: Any) -> dict:
    result = {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.array(labels or [1] * len(boxes), int)}
    return result | ({} if scores is None else {"scores": np.array(scores)}) | more


A, B, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]


# ---- by hand -----------------------------------------------------------------------------------------------------


def both(predictions: list[dict], targets: list[dict], classes: int = 1) -> list[float]:
    return [evaluate_voc(predictions, targets, classes, metric=metric)["map"] for metric in ("area", "11_point")]


def test_everything_found_is_1_and_nothing_found_is_0() -> None:
    assert both([image([A, B], scores=[0.5, 0.5])], [image([A, B])]) == pytest.approx([1, 1])
    assert both([image([FAR], scores=[0.5])], [image([A, B])]) == [0, 0]
    assert both([image([], scores=[])], [image([A])]) == [0, 0]


def test_right_wrong_right() -> None:
    """Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: the recalls 0 to 0.5 have 1, those above 2/3."""
    found = image([A, FAR, B], scores=[0.9, 0.8, 0.7])
    assert both([found], [image([A, B])]) == pytest.approx([1 / 2 + 1 / 2 * 2 / 3, (6 + 5 * 2 / 3) / 11])


def test_a_second_detection_is_wrong_and_has_no_second_choice() -> None:
    """Both detections overlap most with A; the second, by 0.64 with A and by 0.56 with C, does not get C."""
    c = [0, 3, 10, 13]
    found = image([A, [0, 2.5, 10, 8.9]], scores=[0.9, 0.8])
    curve = voc_curves([found], [image([A, c])], 1)[0]
    assert curve.precision.tolist() == [1, 0.5]
    assert curve.recall.tolist() == [0.5, 0.5]


def test_difficult_objects_are_neither_found_nor_missed() -> None:
    found = image([B, B, A], scores=[0.9, 0.8, 0.7])
    for key in ("difficult", "iscrowd"):
        curve = voc_curves([found], [image([A, B], **{key: np.array([False, True])})], 1)[0]
        assert (curve.objects, curve.precision.tolist(), curve.scores.tolist()) == (1, [1], [0.7])


def test_in_a_crowd_overlap_is_iou_as_anywhere() -> None:
    """COCO takes what lies within a crowd for a part of it."""
    crowd = image([[0, 0, 40, 40], FAR], iscrowd=np.array([True, False]))
    curve = voc_curves([image([A, FAR], scores=[0.9, 0.8])], [crowd], 1)[0]
    assert curve.precision.tolist() == [0, 0.5]


@pytest.mark.parametrize("found", range(11))
def test_a_recall_of_tenths_reaches_its_threshold(found: int) -> None:
    """Of ten objects: the thresholds 0, 0.1, ... found / 10 have precision 1, the others 0."""
    boxes = [[20 * k, 0, 20 * k + 10, 10] for k in range(10)]
    predictions = [image(boxes[:found], scores=[0.5] * found)]
    expected = (found + 1) / 11 if found else 0
    assert evaluate_voc(predictions, [image(boxes)], 1, metric="11_point")["map"] == pytest.approx(expected)


def test_a_class_without_objects_is_left_out() -> None:
    predictions, targets = [image([A, A, B], [1, 2, 3], [0.5] * 3)], [image([A, B], [1, 2], difficult=[False, True])]
    curves = voc_curves(predictions, targets, 3)
    assert [curve.average_precision() for curve in curves] == [1, -1, -1]
    assert evaluate_voc(predictions, targets, 3) == {"map": 1}
    assert evaluate_voc([], [], 3) == {"map": -1}


def test_iou_of_exactly_the_threshold_is_right() -> None:
    half = [image([[0, 0, 10, 5]], scores=[1])]
    assert evaluate_voc(half, [image([A])], 1) == {"map": 1}
    assert evaluate_voc(half, [image([A])], 1, iou_threshold=0.51) == {"map": 0}


def test_an_order_of_images_or_detections_with_other_scores_changes_nothing() -> None:
    predictions, targets = random_case(np.random.default_rng(5), ties=False)
    turned = [{key: value[::-1] for key, value in found.items()} for found in predictions][::-1]
    for metric in ("area", "11_point"):
        expected = evaluate_voc(predictions, targets, 3, metric=metric)
        assert evaluate_voc(turned, targets[::-1], 3, metric=metric) == pytest.approx(expected)


# ---- the devkit's procedure, in loops ------------------------------------------------------------------------------


def random_case(rng: np.random.Generator, ties: bool = True) -> tuple[list[dict], list[dict]]:
    """Boxes on a grid so coarse that many overlaps are equal to each other and to 1/2; few scores; empty images."""
    predictions, targets = [], []
    for _ in range(rng.integers(0, 5)) if ties else range(4):
        sides = []
        for count in rng.choice([0, 1, 4, 9], 2):
            boxes = np.sort(rng.integers(0, 5, (count, 2, 2)), axis=1).reshape(count, 4)
            sides.append({"boxes": boxes.astype(np.float32), "labels": rng.integers(1, 4, count)})
        found, truth = sides
        found["scores"] = rng.integers(0, 4, len(found["labels"])) / 4 if ties else rng.random(len(found["labels"]))
        truth["difficult"] = rng.random(len(truth["labels"])) < 0.25
        predictions.append(found)
        targets.append(truth)
    return predictions, targets


def devkit(predictions: list[dict], targets: list[dict], label: int, minoverlap: float) -> tuple[list, list, int]:
    """recall and precision after each detection, as VOCevaldet computes them, with continuous boxes."""
    objects, npos = [], 0
    for truth in targets:
        own = [k for k in range(len(truth["labels"])) if truth["labels"][k] == label]
        objects.append({"bb": [truth["boxes"][k] for k in own], "diff": [truth["difficult"][k] for k in own],
                        "det": [False] * len(own)})  # fmt: skip
        npos += sum(not truth["difficult"][k] for k in own)
    detections = []
    for i, found in enumerate(predictions):
        for k in range(len(found["labels"])):
            if found["labels"][k] == label:
                detections.append((float(found["scores"][k]), i, found["boxes"][k]))
    detections.sort(key=lambda detection: -detection[0])
    tp, fp = [], []
    for _, i, bb in detections:
        ovmax, jmax = -math.inf, None
        for j, bbgt in enumerate(objects[i]["bb"]):
            iw = min(bb[2], bbgt[2]) - max(bb[0], bbgt[0])
            ih = min(bb[3], bbgt[3]) - max(bb[1], bbgt[1])
            if iw > 0 and ih > 0:
                ua = (bb[2] - bb[0]) * (bb[3] - bb[1]) + (bbgt[2] - bbgt[0]) * (bbgt[3] - bbgt[1]) - iw * ih
                ov = float(iw * ih) / float(ua)
                if ov > ovmax:
                    ovmax, jmax = ov, j
        right = wrong = 0
        if ovmax >= minoverlap:
            if not objects[i]["diff"][jmax]:
                if not objects[i]["det"][jmax]:
                    right, objects[i]["det"][jmax] = 1, True
                else:
                    wrong = 1
        else:
            wrong = 1
        tp.append((tp[-1] if tp else 0) + right)
        fp.append((fp[-1] if fp else 0) + wrong)
    recall = [t / npos if npos else math.nan for t in tp]
    precision = [t / (t + f) if t + f else math.nan for t, f in zip(tp, fp, strict=True)]  # Matlab: 0 / 0 is NaN
    return recall, precision, npos


def area_of_the_devkit(recall: list, precision: list) -> float:
    """VOCap, of 2010 and later. Matlab's max takes no notice of NaN."""
    mrec, mpre = [0, *recall, 1], [0, *precision, 0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = mpre[i + 1] if math.isnan(mpre[i]) else max(mpre[i], mpre[i + 1])
    return sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)) if mrec[i] != mrec[i - 1])


def eleven_points_of_the_devkit(recall: list, precision: list) -> float:
    """Until 2009. The thresholds are 3/10 and so on to the bit; Matlab's 0:0.1:1 may be one bit off."""
    ap = 0.0
    for k in range(11):
        reached = [p for r, p in zip(recall, precision, strict=True) if r >= k / 10 and not math.isnan(p)]
        ap += max(reached, default=0) / 11
    return ap


@pytest.mark.parametrize("threshold", [0.5, 0.25])
def test_a_thousand_cases_are_as_the_devkit_has_them(threshold: float) -> None:
    methods = {"area": area_of_the_devkit, "11_point": eleven_points_of_the_devkit}
    with_objects = 0
    for seed in range(500):
        predictions, targets = random_case(np.random.default_rng(seed))
        curves = voc_curves(predictions, targets, 3, threshold)
        expected: dict[str, list[float]] = {metric: [] for metric in methods}
        for label, curve in enumerate(curves, start=1):
            recall, precision, npos = devkit(predictions, targets, label, threshold)
            assert curve.objects == npos
            if npos:
                for metric, method in methods.items():
                    expected[metric].append(method(recall, precision))
                    assert curve.average_precision(metric) == pytest.approx(expected[metric][-1], abs=1e-12)
                with_objects += 1
        for metric, values in expected.items():
            found = evaluate_voc(predictions, targets, 3, threshold, metric)["map"]
            assert found == pytest.approx(np.mean(values) if values else -1, abs=1e-12)
    assert with_objects > 800, "cases that say something"


def test_what_cannot_be_evaluated_is_refused() -> None:
    found, truth = [image([A], scores=[0.5])], [image([A])]
    with pytest.raises(ValueError, match="expected metric area or 11_point, got 'auc'"):
        evaluate_voc(found, truth, 1, metric="auc")
    with pytest.raises(ValueError, match="iou_threshold above 0 and at most 1, got 0"):
        evaluate_voc(found, truth, 1, iou_threshold=0)
    with pytest.raises(ValueError, match=r"expected 1 difficult in targets\[0\], as many as labels, got \(2,\)"):
        evaluate_voc(found, [image([A], difficult=np.zeros(2, bool))], 1)
    with pytest.raises(ValueError, match=r"num_classes = 1, got 2.*in targets\[0\]\['labels'\]\[0\]"):
        evaluate_voc(found, [image([A], [2])], 1)
