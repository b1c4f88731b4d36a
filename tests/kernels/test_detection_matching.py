"""The matching of detections and the precision that follows: by hand, in loops, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels import emulator


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def one_group(overlaps: list, ignored: list, crowd: list, thresholds=(0.5,)) -> list:
    """Which object each detection takes, for each threshold."""
    table = np.array(overlaps, float)
    counts = [np.array([count]) for count in table.shape]
    arrays = table.ravel(), *counts, np.array([ignored], bool), np.array(crowd, bool)
    return mk.match_detections(*arrays, thresholds)[0].tolist()


# ---- matching, by hand -------------------------------------------------------------------------------------------


def test_the_better_detection_chooses_first_and_the_other_takes_what_is_left() -> None:
    assert one_group([[0.6, 0.7], [0.55, 0.9]], [0, 0], [0, 0]) == [[1, 0]]
    assert one_group([[0.6, 0.7], [0.45, 0.9]], [0, 0], [0, 0]) == [[1, -1]]


def test_each_threshold_is_matched_by_itself() -> None:
    """At 0.5 the first takes object 0, at 0.75 it finds nothing, and leaves the object to the second."""
    assert one_group([[0.6], [0.8]], [0], [0], (0.5, 0.75, 0.9)) == [[0, -1], [-1, 0], [-1, -1]]


def test_an_overlap_of_the_threshold_is_enough_and_1_forgives_a_rounding_error() -> None:
    assert one_group([[0.5]], [0], [0], (0.5, 0.5 + 2**-52)) == [[0], [-1]]
    assert one_group([[1 - 2**-53]], [0], [0], (1,)) == [[0]]
    assert one_group([[1 - 1e-9]], [0], [0], (1,)) == [[-1]]


def test_of_equal_overlaps_the_last_object_is_taken() -> None:
    assert one_group([[0.6, 0.6, 0.5], [0.6, 0.6, 0.5]], [0, 0, 0], [0, 0, 0]) == [[1, 0]]


def test_an_ignored_object_is_taken_only_for_want_of_another() -> None:
    assert one_group([[0.9, 0.5]], [1, 0], [0, 0]) == [[1]]
    assert one_group([[0.9, 0.4]], [1, 0], [0, 0]) == [[0]]
    assert one_group([[0.9, 0.4], [0.9, 0.4]], [1, 0], [0, 0]) == [[0, -1]]


def test_a_crowd_is_taken_by_many() -> None:
    assert one_group([[0.9, 0.4]] * 3, [1, 1], [1, 0]) == [[0, 0, 0]]


def test_groups_and_ranges_of_sizes_do_not_meddle() -> None:
    """Three groups: 2 detections of 1 object, 1 of none, 1 of 2; the first range ignores object 2, the second none."""
    overlaps = np.array([0.6, 0.7, 0.9, 0.8], np.float32)
    detections, truths = np.array([2, 1, 1]), np.array([1, 0, 2])
    ignored = np.array([[0, 1, 0], [0, 0, 0]], bool)
    matches = mk.match_detections(overlaps, detections, truths, ignored, np.zeros(3, bool), (0.5, 0.65))
    assert matches.tolist() == [[[0, -1, -1, 2], [-1, 0, -1, 2]], [[0, -1, -1, 1], [-1, 0, -1, 1]]]
    assert matches.dtype == np.int64


def in_one_pass(table: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, threshold: float) -> list[int]:
    """The procedure as COCO's own program has it: the ignored objects sorted last, and a loop that stops there."""
    order = np.argsort(ignored, kind="stable")
    taken, matches = set(), []
    for row in table:
        needed, match = min(threshold, 1 - 1e-10), -1
        for g in order:
            if g in taken and not crowd[g]:
                continue
            if match >= 0 and not ignored[match] and ignored[g]:
                break
            if row[g] < needed:
                continue
            needed, match = row[g], int(g)
        if match >= 0:
            taken.add(match)
        matches.append(match)
    return matches


def test_cocos_own_loop_comes_to_the_same() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = rng.integers(0, 7, 2)
        table = rng.integers(0, 6, shape) / 5 if rng.random() < 0.7 else rng.random(shape)
        ignored, crowd = rng.random(shape[1]) < 0.4, rng.random(shape[1]) < 0.3
        thresholds = (0.2, 0.4, 0.5, 1)
        expected = [in_one_pass(table, ignored, crowd, threshold) for threshold in thresholds]
        assert one_group(table, ignored, crowd, thresholds) == expected


# ---- precision at recalls ------------------------------------------------------------------------------------------


def test_precision_by_hand() -> None:
    """Right, wrong, right, and one that does not count, of 4 objects: recall 1/4, 1/4, 1/2, precision 1, 1/2, 2/3."""
    outcomes = np.array([[1, 0, -1, 1]], np.int8)
    recalls = (0, 0.25, 0.3, 0.5, 0.75)
    precision, recall, reached = mk.precision_at_recalls(outcomes, np.array([4]), np.array([[4]]), recalls)
    np.testing.assert_allclose(precision, [[[1, 1, 2 / 3, 2 / 3, 0]]], rtol=1e-15)
    assert recall.tolist() == [[0.5]]
    assert reached.tolist() == [[[0, 0, 3, 3, -1]]]


def test_a_later_precision_that_is_higher_counts_for_lower_recalls() -> None:
    outcomes = np.array([[0, 0, 1, 1, 1]], np.int8)
    precision, _, reached = mk.precision_at_recalls(outcomes, np.array([5]), np.array([[3]]), (0, 1 / 3, 1))
    np.testing.assert_allclose(precision, [[[0.6, 0.6, 0.6]]])
    assert reached.tolist() == [[[0, 2, 4]]]


def test_classes_without_objects_or_detections() -> None:
    """Two evaluations of three classes with 1, 0 and 2 detections; the second evaluation has no object of class 0."""
    outcomes, positives = np.array([[1, 0, 1], [0, 0, 1]], np.int8), np.array([[1, 2, 1], [0, 2, 1]])
    precision, recall, reached = mk.precision_at_recalls(outcomes, np.array([1, 0, 2]), positives, (0.5,))
    np.testing.assert_allclose(precision[..., 0], [[1, 0, 0.5], [-1, 0, 0.5]])
    assert recall.tolist() == [[1, 0, 1], [-1, 0, 1]]
    assert reached[..., 0].tolist() == [[0, -1, 2], [-1, -1, 2]]


def test_the_precision_is_scikit_learns_with_the_best_of_all_higher_recalls() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is an oracle; pip install '.[test]'")
    rng = np.random.default_rng(1)
    for _ in range(20):
        outcomes = (rng.random(30) < 0.4).astype(np.int8)
        outcomes[rng.integers(30)] = 1
        precision, recall, _ = metrics.precision_recall_curve(outcomes, -np.arange(30.0))
        recalls = np.linspace(0, 1, 21)
        expected = [precision[:-1][recall[:-1] >= level - 1e-12].max() for level in recalls]
        levels = np.maximum(recalls - 1e-12, 0)
        result, _, _ = mk.precision_at_recalls(outcomes[None], np.array([30]), np.array([[outcomes.sum()]]), levels)
        np.testing.assert_allclose(result[0, 0], expected, rtol=1e-12)


# ---- errors ------------------------------------------------------------------------------------------------------

PAIRS, COUNT, NONE = np.array([0.5, 0.6]), np.array([2]), np.zeros(2, bool)
ONE = np.array([1])
GOOD = [PAIRS, ONE, COUNT, NONE[None], NONE]
CURVES = [np.ones((1, 2), np.int8), COUNT, np.array([[3]])]


def changed(arguments: list, place: int, to: object) -> list:
    return [*arguments[:place], to, *arguments[place + 1 :]]


@pytest.mark.parametrize(
    ("arguments", "thresholds", "error", "message"),
    [
        (changed(GOOD, 0, PAIRS[:1]), (0.5,), ValueError, "expected 2 overlaps, the sum of .*got 1"),
        (changed(GOOD, 0, PAIRS[None]), (0.5,), ValueError, r"overlaps \(P\).*got \(1, 2\)"),
        (changed(GOOD, 0, PAIRS > 0), (0.5,), TypeError, "overlaps float32 or float64, got bool"),
        (changed(GOOD, 0, PAIRS * np.nan), (0.5,), ValueError, "that are numbers, got NaN at 0"),
        (changed(GOOD, 0, [0.5, 0.6]), (0.5,), TypeError, "overlaps to be an array, got list"),
        (changed(GOOD, 1, np.array([1.0])), (0.5,), TypeError, "detection_counts int64, got float64"),
        (changed(GOOD, 1, np.array([-1])), (0.5,), ValueError, "detection_counts >= 0, got -1"),
        (changed(GOOD, 2, np.array([2, 0])), (0.5,), ValueError, r"truth_counts \(n\) = \(1\), got \(2,\)"),
        (changed(GOOD, 3, NONE), (0.5,), ValueError, r"ignored \(A, G\) = \(A, 2\), got \(2,\)"),
        (changed(GOOD, 4, NONE[:1]), (0.5,), ValueError, r"ignored \(A, G\) = \(A, 1\), got \(1, 2\)"),
        (changed(changed(GOOD, 2, ONE), 0, PAIRS[:1]), (0.5,), ValueError, "expected 1 objects in crowd.*got 2"),
        (changed(GOOD, 4, NONE.astype(int)), (0.5,), TypeError, "crowd and ignored of bool, got int64 and bool"),
        (GOOD, (0.5, 1.5), ValueError, "thresholds from 0 to 1, got 1.5"),
    ],
)
def test_bad_groups_are_refused_by_name(arguments, thresholds, error, message: str) -> None:
    with pytest.raises(error, match=f"match_detections: .*{message}"):
        mk.match_detections(*arguments, thresholds)


@pytest.mark.parametrize(
    ("arguments", "recalls", "error", "message"),
    [
        (
            changed(CURVES, 0, CURVES[0][:, :1]),
            (0.5,),
            ValueError,
            "expected 2 detections in outcomes, the sum of detection_counts, got 1",
        ),
        (changed(CURVES, 0, 2 * CURVES[0]), (0.5,), ValueError, "outcomes -1, 0 or 1, got others"),
        (changed(CURVES, 0, CURVES[0] > 0), (0.5,), TypeError, "outcomes int8 and positives int64, got bool"),
        (changed(CURVES, 2, np.array([3])), (0.5,), ValueError, r"positives \(B, K\) = \(1, 1\), got \(1,\)"),
        (changed(CURVES, 2, np.array([[-3]])), (0.5,), ValueError, "positives >= 0, got -3"),
        (CURVES, (0.5, 0.25), ValueError, r"ascending recalls, got \[0.5, 0.25\]; sort them"),
        (CURVES, (1.5,), ValueError, "recalls from 0 to 1, got 1.5"),
    ],
)
def test_bad_outcomes_are_refused_by_name(arguments, recalls, error, message: str) -> None:
    with pytest.raises(error, match=f"precision_at_recalls: .*{message}"):
        mk.precision_at_recalls(*arguments, recalls)


@pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))
def test_arrays_on_the_gpu_are_sent_to_the_cpu() -> None:
    with emulator.emulated("forward"):
        import cupy

        with pytest.raises(RuntimeError, match=r"no cuda version; move its arrays to the CPU with cupy\.asnumpy"):
            mk.match_detections(*map(cupy.asarray, GOOD), (0.5,))
