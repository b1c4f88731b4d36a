"""The box coder against numbers worked out by hand and the paper's formula in a loop."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidet.boxes import decode_boxes, encode_boxes


def test_a_box_moved_and_stretched_by_hand():
    anchor, box = np.float32([[10, 20, 30, 60]]), np.float32([[16, 26, 26, 46]])
    # Anchor: centre (20, 40), 20 x 40. Box: centre (21, 36), 10 x 20.
    expected = [[1 / 20, -4 / 40, math.log(0.5), math.log(0.5)]]
    np.testing.assert_allclose(encode_boxes(box, anchor), expected, rtol=1e-6)
    np.testing.assert_allclose(
        encode_boxes(box, anchor, (10, 10, 5, 5)), np.multiply(expected, (10, 10, 5, 5)), rtol=1e-6
    )


def test_zeros_mean_the_anchor_itself():
    anchors = np.float32([[0, 0, 10, 4], [3, 5, 4, 90]])
    np.testing.assert_array_equal(decode_boxes(np.zeros((2, 4), np.float32), anchors), anchors)


def boxes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners, sides = rng.uniform(-50, 150, (count, 2)), rng.uniform(2, 80, (count, 2))  # within LOG_CLIP of each other
    return np.concatenate([corners, corners + sides], axis=1)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 20), st.integers(0, 10**6), st.sampled_from([(1, 1, 1, 1), (10, 10, 5, 5)]))
def test_decoding_is_the_inverse_of_encoding(count, seed, weights):
    there, anchors = boxes(count, seed), boxes(count, seed + 1)
    np.testing.assert_allclose(decode_boxes(encode_boxes(there, anchors, weights), anchors, weights), there, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_boxes_of_each_class_are_those_of_a_loop(count, classes, seed):
    anchors = boxes(count, seed)
    deltas = np.random.default_rng(seed).normal(size=(count, classes, 4))
    decoded = decode_boxes(deltas, anchors, (10, 10, 5, 5))
    for r in range(count):
        x1, y1, x2, y2 = anchors[r]
        for k in range(classes):
            dx, dy, dw, dh = deltas[r, k] / (10, 10, 5, 5)
            x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
            w, h = (x2 - x1) * math.exp(dw), (y2 - y1) * math.exp(dh)
            np.testing.assert_allclose(decoded[r, k], [x - w / 2, y - h / 2, x + w / 2, y + h / 2], atol=1e-9)


def test_an_untrained_networks_numbers_do_not_overflow():
    decoded = decode_boxes(np.float32([[0, 0, 1000, 1000]]), np.float32([[0, 0, 16, 16]]))
    np.testing.assert_allclose(decoded, [[8 - 500, 8 - 500, 8 + 500, 8 + 500]], rtol=1e-5)  # 16 * (1000 / 16) wide


@pytest.mark.parametrize("which", ["boxes", "anchors"])
def test_a_box_without_area_is_named(which):
    good, bad = np.float32([[0, 0, 5, 5], [0, 0, 5, 5]]), np.float32([[0, 0, 5, 5], [3, 3, 3, 9]])
    with pytest.raises(ValueError, match=rf"expected {which} x1 < x2.*got sides \[0.0, 6.0\] at index 1"):
        encode_boxes(*((bad, good) if which == "boxes" else (good, bad)))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"decode_boxes: expected deltas \(R, 4\) or \(R, K, 4\)"):
        decode_boxes(np.zeros((2, 4)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="an anchor for each box"):
        encode_boxes(np.ones((2, 4)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="of floats"):
        decode_boxes(np.zeros((2, 4), int), np.zeros((2, 4)))
