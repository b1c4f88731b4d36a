"""Recall and best overlap of proposals: boxes whose overlaps are known, and plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidet.evaluation import best_overlaps, mean_average_best_overlap, proposal_recall

# An object of 10 x 10, and boxes that overlap it by 0, 0.5, 0.8 and 1.
OBJECT = [0, 0, 10, 10]
NONE, HALF, MOST, ALL = [20, 20, 30, 30], [0, 0, 10, 5], [0, 0, 8, 10], OBJECT
FAR = [50, 50, 60, 60]  # another object


def test_recall_by_hand() -> None:
    proposals = [[NONE, HALF, MOST], [MOST, ALL], np.zeros((0, 4))]
    truth = [[OBJECT], [OBJECT, FAR], [OBJECT]]
    recall = proposal_recall(proposals, truth, [0.5, 0.8, 1], [1, 2, 3, 100])
    # Of four objects: the first needs two boxes for 0.5 and three for 0.8, the second one and two, two are never found.
    expected = [[1 / 4, 2 / 4, 2 / 4, 2 / 4], [1 / 4, 1 / 4, 2 / 4, 2 / 4], [0, 1 / 4, 1 / 4, 1 / 4]]
    np.testing.assert_allclose(recall, expected)


def test_counts_and_overlaps_come_in_any_order() -> None:
    recall = proposal_recall([[NONE, HALF, ALL]], [[OBJECT]], [0.9, 0.3], [3, 1, 2])
    assert recall.tolist() == [[1, 0, 0], [1, 0, 1]]


def test_an_overlap_as_large_as_asked_for_counts() -> None:
    assert proposal_recall([[HALF]], [[OBJECT]], [0.5, 0.5001]).tolist() == [[1], [0]]


def test_one_box_may_find_two_objects() -> None:
    assert proposal_recall([[OBJECT]], [[OBJECT, MOST]]).tolist() == [[1]]


def test_an_image_without_an_object_changes_nothing() -> None:
    assert proposal_recall([[ALL], [NONE] * 9], [[OBJECT], []]).tolist() == [[1]]


def test_best_overlap_by_hand() -> None:
    """Class 1: 0.8, 0 and 1, the mean is 0.6. Class 2: 0.5. Class 3 has no object. MABO = (0.6 + 0.5) / 2."""
    proposals = [[HALF, MOST], [ALL], []]
    truth = [[OBJECT], [OBJECT, [0, 0, 10, 20]], [OBJECT]]
    mean, of_classes = mean_average_best_overlap(proposals, truth, [[1], [1, 2], [1]], num_classes=3)
    np.testing.assert_allclose(of_classes, [0.6, 0.5, np.nan])
    assert mean == pytest.approx(0.55)


@given(st.integers(0, 2**32 - 1))
def test_best_overlaps_in_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corners = rng.integers(0, 10, (count, 2, 2))
        return np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1).astype(np.float32)

    images = range(rng.integers(1, 4))
    proposals, truth = [boxes(rng.integers(0, 5)) for _ in images], [boxes(rng.integers(0, 3)) for _ in images]
    truth[0] = boxes(1)
    counts = [1, 3, 9]
    expected = []
    for found, objects in zip(proposals, truth, strict=True):
        for x1, y1, x2, y2 in objects.tolist():
            row = []
            for count in counts:
                best = 0.0
                for a1, b1, a2, b2 in found[:count].tolist():
                    common = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
                    best = max(best, common / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - common))
                row.append(best)
            expected.append(row)
    np.testing.assert_allclose(best_overlaps(proposals, truth, counts), expected, rtol=1e-12)
    np.testing.assert_allclose(best_overlaps(proposals, truth), np.array(expected)[:, 2:], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: proposal_recall([[ALL]], []), "the same images, got 1 and 0"),
        (lambda: proposal_recall([[ALL]], [[]]), "at least one object in 1 images, got none"),
        (lambda: proposal_recall([], []), "at least one object in 0 images"),
        (lambda: proposal_recall([[ALL]], [[OBJECT]], counts=[0, 1]), r"numbers of boxes from 1 on, got \[0, 1\]"),
        (
            lambda: mean_average_best_overlap([[ALL]], [[OBJECT]], [[0]], 1),
            r"label from 1 to 1 an object, .* among them \[0\]",
        ),
        (
            lambda: mean_average_best_overlap([[ALL]], [[OBJECT]], [[2]], 1),
            r"label from 1 to 1 an object, .* among them \[2\]",
        ),
        (lambda: mean_average_best_overlap([[ALL]], [[OBJECT]], [[1, 1]], 1), "got 2 for 1 objects"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
