"""Anchors that suit the data: shapes in clusters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidet.boxes import kmeans_anchors, shape_iou


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_the_iou_of_shapes_is_that_of_a_loop(count, anchors, seed):
    rng = np.random.default_rng(seed)
    sizes, others = rng.uniform(1, 50, (count, 2)), rng.uniform(1, 50, (anchors, 2))
    expected = np.zeros((count, anchors))
    for i, (w, h) in enumerate(sizes.tolist()):
        for j, (pw, ph) in enumerate(others.tolist()):
            common = min(w, pw) * min(h, ph)
            expected[i, j] = common / (w * h + pw * ph - common)
    np.testing.assert_allclose(shape_iou(sizes, others), expected, rtol=1e-12)


def test_clusters_far_apart_are_found_with_their_means_by_area():
    """Wide, tall and small boxes, whatever box k-means begins with."""
    sizes = np.float32([[40, 10], [44, 10], [42, 13], [5, 5], [7, 5], [10, 40], [12, 46]])
    for seed in range(20):
        found = kmeans_anchors(sizes, 3, np.random.default_rng(seed))
        np.testing.assert_allclose(found, [[6, 5], [42, 11], [11, 43]], rtol=1e-6)
        assert found.dtype == np.float32


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 10**6))
def test_each_anchor_is_the_mean_of_the_boxes_that_it_overlaps_with_most(count, anchors, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(1, 50, (count, 2))
    anchors = min(anchors, count)
    found = kmeans_anchors(sizes, anchors, rng)
    nearest = shape_iou(sizes, found).argmax(axis=1)
    for i in np.unique(nearest):
        np.testing.assert_allclose(found[i], sizes[nearest == i].mean(axis=0))
    assert (np.diff(found.prod(axis=1)) >= 0).all()


def test_as_many_anchors_as_different_sizes_fit_all():
    sizes = np.array([[3.0, 4], [3, 4], [8, 2], [20, 30]])
    found = kmeans_anchors(sizes, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(found, [[3, 4], [8, 2], [20, 30]])


@pytest.mark.parametrize(
    ("sizes", "count", "told"),
    [
        ([[3.0, 4], [3, 4]], 2, "1 to 1 anchors, for as many different sizes, got 2"),
        ([[10.0, 10], [np.nextafter(10, 11), 10]], 2, "1 to 1 anchors"),  # their IoU is 1
        ([[3.0, 4]], 0, "1 to 1 anchors, .* got 0"),
        ([[3.0, 0]], 1, r"widths and heights \(R, 2\) above 0"),
        ([[3.0, np.nan]], 1, r"widths and heights \(R, 2\) above 0"),
        ([[0.0, 0, 3, 4]], 1, r"\(R, 2\) above 0, got \(1, 4\)"),
        (np.zeros((0, 2)), 1, "1 to 0 anchors"),
    ],
)
def test_what_has_no_clusters_is_refused(sizes, count, told):
    with pytest.raises(ValueError, match=told):
        kmeans_anchors(np.array(sizes), count, np.random.default_rng(0))
