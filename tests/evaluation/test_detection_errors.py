"""Kinds of errors, confused classes and the worst errors, on scenes made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidet.evaluation import coco_curves, confusion_matrix, detection_errors, worst_errors


def image(boxes: list, labels: list, scores: list | None = None, **more: Any) -> dict:
    result = {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.array(labels, int)}
    return result | ({} if scores is None else {"scores": np.array(scores, np.float32)}) | more


CAT, DOG = [0, 0, 10, 10], [20, 0, 30, 10]  # classes 1 and 2
TRUTH = image([CAT, DOG], [1, 2])
FAR, HALF, THIRD = [50, 50, 60, 60], [0, 0, 10, 5], [0, 0, 10, 3]  # HALF and THIRD overlap the cat by 0.5 and 0.3
EDGE = [0, 0, 10, 1]  # by 0.1


@pytest.mark.parametrize(
    ("box", "label", "kind", "nearest"),
    [
        (CAT, 1, "right", 0),
        (HALF, 1, "right", 0),
        (THIRD, 1, "localization", 0),
        (EDGE, 1, "localization", 0),
        ([0, 0, 10, 0.9], 1, "background", -1),
        (CAT, 2, "confusion", 0),
        (HALF, 2, "confusion", 0),
        (THIRD, 2, "both", 0),
        (FAR, 1, "background", -1),
        (DOG, 3, "confusion", 1),
        ([0, 0, 30, 10], 1, "localization", 0),  # a third of it is the cat, a third the dog
        ([2, 0, 30, 10], 3, "both", 1),
    ],
)
def test_one_detection_of_each_kind(box: list, label: int, kind: str, nearest: int) -> None:
    errors = detection_errors([image([box], [label], [0.9])], [TRUTH], 3)
    assert (errors.kinds.tolist(), errors.nearest.tolist()) == ([kind], [nearest])
    assert sum(errors.counts().values()) == (kind != "right") + (
        1 if kind in ("right", "localization", "confusion") else 2
    )


def test_the_second_of_two_is_a_duplicate_even_if_it_fits_better() -> None:
    found = image([CAT, HALF], [1, 1], [0.6, 0.7])
    errors = detection_errors([found], [TRUTH], 2)
    assert errors.kinds.tolist() == ["right", "duplicate"]
    assert errors.boxes.tolist() == [HALF, CAT]
    assert errors.nearest.tolist() == [0, 0]
    assert errors.counts() == {
        "localization": 0, "confusion": 0, "duplicate": 1, "both": 0, "background": 0, "missed": 1,
    }  # fmt: skip


def test_missed_objects_are_explained_by_a_box_that_fits_badly_or_a_wrong_class() -> None:
    found = image([THIRD, FAR], [1, 1], [0.9, 0.8])
    errors = detection_errors([found, image([], [], [])], [TRUTH, TRUTH], 2)
    assert errors.missed.tolist() == [True] * 4
    assert errors.explained.tolist() == [True, False, False, False]
    assert errors.truth_images.tolist() == [0, 0, 1, 1]
    assert errors.counts()["missed"] == 3


def test_a_box_that_fits_badly_explains_nothing_where_the_object_is_found() -> None:
    errors = detection_errors([image([CAT, THIRD], [1, 1], [0.9, 0.8])], [TRUTH], 2)
    assert errors.kinds.tolist() == ["right", "localization"]
    assert errors.explained.tolist() == [False, False]


def test_low_scores_are_not_looked_at() -> None:
    found = image([CAT, FAR], [1, 1], [0.5, 0.49])
    assert detection_errors([found], [TRUTH], 2).kinds.tolist() == ["right"]
    assert detection_errors([found], [TRUTH], 2, score=0.2).kinds.tolist() == ["right", "background"]
    assert detection_errors([found], [TRUTH], 2, score=0.6).missed.tolist() == [True, True]


def test_another_iou_moves_the_border_between_right_and_localization() -> None:
    found = [image([HALF], [1], [0.9])]
    assert detection_errors(found, [TRUTH], 2, iou=0.75).kinds.tolist() == ["localization"]
    with pytest.raises(ValueError, match=r"iou above 0.1 and at most 1, got 0.1"):
        detection_errors(found, [TRUTH], 2, iou=0.1)


def test_detections_within_a_crowd_are_no_errors_and_crowds_are_not_missed() -> None:
    truth = image([[0, 0, 40, 40], DOG], [1, 2], iscrowd=np.array([True, False]))
    found = image([[1, 1, 9, 9], [20, 20, 30, 30], [2, 2, 8, 8]], [1, 1, 2], [0.9, 0.8, 0.7])
    errors = detection_errors([found], [truth], 2)
    assert errors.kinds.tolist() == ["in a crowd", "in a crowd", "background"]
    assert errors.missed.tolist() == [False, True]
    assert confusion_matrix([found], [truth], 2).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_a_box_that_touches_a_crowd_fits_it_neither_well_nor_badly() -> None:
    truth = image([[0, 0, 40, 40]], [1], iscrowd=np.array([True]))
    for label in (1, 2):
        found = image([[30, 0, 130, 10]], [label], [0.9])  # a tenth of it is in the crowd
        assert detection_errors([found], [truth], 2).kinds.tolist() == ["background"]


def test_confused_classes_by_hand() -> None:
    """Image 0: the cat is right, the dog taken for a cat. Image 1: a dog where nothing is, a cat nobody found."""
    predictions = [
        image([CAT, DOG], [1, 1], [0.9, 0.8]),
        image([FAR, DOG], [2, 2], [0.9, 0.6]),
    ]
    matrix = confusion_matrix(predictions, [TRUTH, TRUTH], 2)
    assert matrix.tolist() == [[0, 0, 1], [1, 1, 0], [0, 1, 1]]
    assert matrix.dtype == np.int64
    assert confusion_matrix(predictions, [TRUTH, TRUTH], 2, score=0.85).tolist() == [[0, 0, 1], [1, 1, 0], [2, 0, 0]]


def test_an_object_goes_to_its_own_class_before_a_better_score_of_another() -> None:
    found = [image([CAT, HALF], [2, 1], [0.9, 0.6])]
    assert confusion_matrix(found, [TRUTH], 2).tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_a_detection_takes_one_object_only() -> None:
    truth = image([CAT, CAT], [1, 2])
    assert confusion_matrix([image([CAT], [1], [0.9])], [truth], 2).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_two_objects_are_confused_with_one_detection_each() -> None:
    truth = image([CAT, [0, 0, 10, 9]], [1, 1])
    found = [image([[0, 0, 10, 9], CAT, CAT], [2, 2, 3], [0.9, 0.8, 0.7])]
    assert confusion_matrix(found, [truth], 3).tolist() == [[0, 0, 0, 1], [0, 0, 2, 0], [0] * 4, [0] * 4]


def test_the_right_ones_are_cocos() -> None:
    """Against precision and recall of COCO's evaluation, on random scenes."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        sides = []
        for count in rng.integers(0, 9, (3, 2)).ravel():
            boxes = np.sort(rng.integers(0, 5, (count, 2, 2)), axis=1).reshape(count, 4)
            sides.append(image(boxes, rng.integers(1, 4, count), rng.random(count), iscrowd=rng.random(count) < 0.2))
        predictions, targets = sides[:3], [{k: side[k] for k in ("boxes", "labels", "iscrowd")} for side in sides[3:]]
        matrix = confusion_matrix(predictions, targets, 3, score=0)
        errors = detection_errors(predictions, targets, 3, score=0)
        recall = coco_curves(predictions, targets, 3).recall[0, :, 0, -1]
        sought = np.bincount(np.concatenate([t["labels"][~t["iscrowd"]] for t in targets]), minlength=4)[1:]
        right = np.diag(matrix)[1:]
        np.testing.assert_allclose(right[sought > 0], (recall * sought)[sought > 0])
        assert right.sum() == (errors.kinds == "right").sum()
        np.testing.assert_array_equal(matrix[1:].sum(axis=1), sought)
        labels = errors.labels[errors.kinds != "in a crowd"]
        np.testing.assert_array_equal(matrix[:, 1:].sum(axis=0), np.bincount(labels, minlength=4)[1:])


def test_the_worst_errors_are_the_surest_and_the_largest() -> None:
    big = [0, 0, 40, 40]
    predictions = [image([CAT, FAR], [2, 1], [0.7, 0.8]), image([FAR], [2], [0.9])]
    targets = [TRUTH, image([CAT, big], [1, 2])]
    wrong, missed = worst_errors(predictions, targets, 2, count=2)
    assert [(e.kind, e.image, e.box.tolist(), e.label) for e in wrong] == [
        ("background", 1, FAR, 2), ("background", 0, FAR, 1),
    ]  # fmt: skip
    assert [e.score for e in wrong] == pytest.approx([0.9, 0.8])
    assert wrong[0].truth_box is None
    assert [(e.kind, e.image, e.box.tolist(), e.label) for e in missed] == [
        ("missed", 1, big, 2),
        ("missed", 0, CAT, 1),
    ]
    third = worst_errors(predictions, targets, 2)[0][2]
    assert (third.kind, third.truth_box.tolist(), third.truth_label) == ("confusion", CAT, 1)


def test_an_iou_of_no_overlap_is_refused() -> None:
    one = image([CAT], [1], [1])
    for judge in (detection_errors, confusion_matrix, worst_errors):
        with pytest.raises(ValueError, match=r"iou above 0\.1 and at most 1, got 0"):
            judge([one], [one], 2, iou=0)


def test_nothing_anywhere_is_no_error() -> None:
    nothing = image([], [], [])
    assert sum(detection_errors([nothing], [nothing], 2).counts().values()) == 0
    assert confusion_matrix([nothing], [nothing], 2).tolist() == [[0] * 3] * 3
    assert worst_errors([], [], 2) == ([], [])
    assert detection_errors([image([CAT], [1], [1])], [nothing], 2).counts()["background"] == 1
