"""Joints in cells of their boxes and back, by hand, by a loop, and against torch's cubic interpolation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidet.boxes.keypoints import cubic_weights, heatmaps_to_keypoints, keypoints_to_cells


def test_cells_by_hand():
    """A box of 20 x 40 pixels in 4 x 4 cells of 5 x 10."""
    joints = [[10, 20, 2], [14.9, 29.9, 1], [15, 30, 2], [30, 60, 2], [30.1, 60, 2], [9.9, 30, 2], [12, 25, 0]]
    cells, valid = keypoints_to_cells(np.array([joints]), np.array([[10.0, 20, 30, 60]]), 4)
    assert valid.tolist() == [[True, True, True, True, False, False, False]]
    assert cells.tolist() == [[0, 0, 5, 15, 0, 0, 0]]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([7, 56]))
def test_cells_by_a_loop(seed, size):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-5, 30, (3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.5, 60, (3, 2))], axis=1)
    keypoints = np.concatenate([rng.uniform(0, 60, (3, 5, 2)), rng.integers(0, 3, (3, 5, 1))], axis=2)
    keypoints[0, 0, :2] = boxes[0, 2:]  # the last cell's far corner
    found, valid = keypoints_to_cells(keypoints, boxes, size)
    for p, (x1, y1, x2, y2) in enumerate(boxes):
        for j, (x, y, v) in enumerate(keypoints[p]):
            column, row = (math.floor((a - low) * (size / (high - low))) for a, low, high in ((x, x1, x2), (y, y1, y2)))
            column, row = size - 1 if x == x2 else column, size - 1 if y == y2 else row
            inside = 0 <= column < size and 0 <= row < size and v > 0
            assert valid[p, j] == inside
            assert found[p, j] == (row * size + column if inside else 0)


def test_a_map_as_large_as_its_box_is_read_as_it_is():
    heatmaps = np.zeros((1, 2, 8, 8), np.float32)
    heatmaps[0, 0, 3, 5], heatmaps[0, 1, 0, 7] = 2, 0.5
    keypoints, scores = heatmaps_to_keypoints(heatmaps, np.float32([[10, 20, 18, 28]]))
    np.testing.assert_allclose(keypoints[0], [[15.5, 23.5, 1], [17.5, 20.5, 1]])
    np.testing.assert_allclose(scores, [[2, 0.5]])


def test_what_is_put_into_a_cell_is_read_back_within_half_a_cell():
    rng = np.random.default_rng(0)
    boxes = np.float32([[3, 4, 60, 100], [10, 10, 70.5, 80]])
    keypoints = np.ones((2, 6, 3))
    keypoints[..., :2] = boxes[:, None, :2] + rng.random((2, 6, 2)) * (boxes[:, None, 2:] - boxes[:, None, :2])
    cells, valid = keypoints_to_cells(keypoints, boxes, 56)
    assert valid.all()
    found, _ = heatmaps_to_keypoints(np.eye(56 * 56, dtype=np.float32)[cells].reshape(2, 6, 56, 56), boxes)
    sides = boxes[:, None, 2:] - boxes[:, None, :2]
    # Half a cell, and half a pixel of the grid that the map was resized to.
    assert (np.abs(found[..., :2] - keypoints[..., :2]) <= sides * (0.5 / 56 + 0.5 / np.ceil(sides)) + 1e-4).all()


def test_a_map_that_is_finer_than_its_box_is_read_as_fine_as_wanted():
    """Of 8 x 8 cells over a box of 4 x 4 pixels one is high, which no middle of a pixel shows."""
    heatmaps, boxes = np.zeros((1, 1, 8, 8), np.float32), np.float32([[10, 20, 14, 24]])
    heatmaps[0, 0, 3, 6] = 1
    keypoints, scores = heatmaps_to_keypoints(heatmaps, boxes, least=8)
    np.testing.assert_allclose(keypoints[0, 0], [10 + 6.5 / 2, 20 + 3.5 / 2, 1])
    np.testing.assert_allclose(scores, [[1]])
    (((x, y, _),),), ((by_pixels,),) = heatmaps_to_keypoints(heatmaps, boxes)
    assert (x % 1, y % 1) == (0.5, 0.5)
    assert by_pixels < 1


def test_nobody_at_all():
    keypoints, scores = heatmaps_to_keypoints(np.zeros((0, 5, 56, 56), np.float32), np.zeros((0, 4), np.float32))
    assert keypoints.shape == (0, 5, 3)
    assert scores.shape == (0, 5)
    cells, valid = keypoints_to_cells(np.zeros((0, 5, 3)), np.zeros((0, 4)), 56)
    assert cells.shape == valid.shape == (0, 5)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 130), st.integers(0, 10**6))
def test_cubic_interpolation_is_torchs(size, new, seed):
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    row = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(row).reshape(1, 1, 1, size), size=(1, new), mode="bicubic", align_corners=False
    )
    np.testing.assert_allclose(cubic_weights(size, new) @ row, expected.reshape(-1).numpy(), atol=2e-5)
