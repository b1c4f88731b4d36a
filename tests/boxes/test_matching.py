"""The matcher and the sampler against a literal loop over the paper's rules, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidet.boxes import BELOW, BETWEEN, match_bipartite, match_boxes, sample_balanced


def match_in_loops(iou, high, low, allow_low_quality):
    objects, anchors = iou.shape
    result = []
    for a in range(anchors):
        best, best_iou = -1, -1.0
        for r in range(objects):
            if iou[r, a] > best_iou:
                best, best_iou = r, iou[r, a]
        if objects and best_iou >= high:
            result.append(best)
        elif objects and best_iou >= low:
            result.append(BETWEEN)
        else:
            result.append(BELOW)
        if not allow_low_quality:
            continue
        for r in range(objects):  # an object's best anchors, all of them, but not where nothing overlaps
            if iou[r, a] > 0 and all(iou[r, a] >= iou[r, other] for other in range(anchors)):
                result[a] = best
    return result


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 4),
    st.integers(0, 12),
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([(0.7, 0.3), (0.5, 0.5), (0.4, 0.0)]),
)
def test_matching_is_that_of_a_loop(objects, anchors, seed, allow_low_quality, thresholds):
    # Few different values, so that ties, zeros and exact thresholds are common.
    iou = np.random.default_rng(seed).choice([0, 0, 0.2, 0.3, 0.5, 0.7, 0.9], (objects, anchors))
    expected = match_in_loops(iou, *thresholds, allow_low_quality)
    np.testing.assert_array_equal(match_boxes(iou, *thresholds, allow_low_quality), expected)


def test_an_object_that_nothing_overlaps_with_makes_no_anchor_its_own():
    iou = np.array([[0.0, 0.0, 0.0], [0.0, 0.8, 0.1]])
    np.testing.assert_array_equal(match_boxes(iou, 0.7, 0.3, allow_low_quality=True), [BELOW, 1, BELOW])


def test_equally_good_anchors_are_all_an_objects():
    iou = np.array([[0.4, 0.1, 0.4]])
    np.testing.assert_array_equal(match_boxes(iou, 0.7, 0.3, allow_low_quality=True), [0, BELOW, 0])
    np.testing.assert_array_equal(match_boxes(iou, 0.7, 0.3), [BETWEEN, BELOW, BETWEEN])


def test_without_objects_all_is_background():
    np.testing.assert_array_equal(match_boxes(np.zeros((0, 3)), 0.7, 0.3, allow_low_quality=True), [BELOW] * 3)


def test_thresholds_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"0 <= low <= high <= 1, got low 0\.7 and high 0\.3"):
        match_boxes(np.zeros((1, 1)), 0.3, 0.7)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 60), st.integers(0, 40), st.floats(0, 1), st.integers(0, 10**6))
def test_a_sample_is_as_large_as_it_can_be(candidates, count, fraction, seed):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, candidates)  # negative, positive, neither
    positives, negatives = sample_balanced(kind == 1, kind == 0, count, fraction, rng)
    assert (kind[positives] == 1).all()
    assert (kind[negatives] == 0).all()
    assert len(set(positives)) == len(positives)
    assert len(set(negatives)) == len(negatives)
    assert len(positives) == min((kind == 1).sum(), int(count * fraction))
    assert len(negatives) == min((kind == 0).sum(), count - len(positives))


def test_every_candidate_is_drawn_equally_often():
    positive = np.arange(10) < 4
    drawn = np.zeros(10)
    rng = np.random.default_rng(0)
    for _ in range(3000):
        positives, negatives = sample_balanced(positive, ~positive, 4, 0.5, rng)
        drawn[positives] += 1
        drawn[negatives] += 1
    np.testing.assert_allclose(drawn[:4], 3000 * 2 / 4, rtol=0.1)
    np.testing.assert_allclose(drawn[4:], 3000 * 2 / 6, rtol=0.1)


def test_a_sample_is_the_generators():
    kinds = np.arange(50) % 3 == 0
    first, again = (sample_balanced(kinds, ~kinds, 10, 0.5, np.random.default_rng(5)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_kinds_of_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="of bool"):
        sample_balanced(np.ones(3), np.zeros(3), 2, 0.5, np.random.default_rng(0))


def test_two_objects_with_the_same_best_box_do_not_share_it():
    """The second overlaps with it more, so that the first takes its next best."""
    iou = np.array([[0.8, 0.3, 0.0], [0.9, 0.6, 0.1]])
    assert match_bipartite(iou).tolist() == [1, 0]


def test_an_object_that_overlaps_with_nothing_that_is_left_has_no_box():
    assert match_bipartite(np.array([[0.5, 0.0], [0.4, 0.0]])).tolist() == [0, BELOW]
    assert match_bipartite(np.zeros((2, 0))).tolist() == [BELOW, BELOW]
    assert match_bipartite(np.zeros((0, 3))).tolist() == []


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 5), st.integers(0, 7), st.integers(0, 10**6))
def test_the_bipartite_match_is_that_of_a_loop(objects, boxes, seed):
    iou = np.random.default_rng(seed).integers(0, 6, (objects, boxes)) / 5
    pairs = sorted((-iou[r, a], r, a) for r in range(objects) for a in range(boxes) if iou[r, a] > 0)
    expected, taken = {}, set()
    for _, r, a in pairs:
        if r not in expected and a not in taken:
            expected[r] = a
            taken.add(a)
    assert match_bipartite(iou).tolist() == [expected.get(r, BELOW) for r in range(objects)]
