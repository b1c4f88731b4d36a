"""Masks pasted into the image, by hand and against torchvision's published steps in torch."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidet.boxes.masks import paste_masks


def test_a_full_mask_covers_its_box():
    """Every pixel whose centre is inside, but the corners: there the map is near 0 on two sides."""
    (found,) = paste_masks(np.ones((1, 14, 14)), [[10, 20.4, 38, 47.6]], (60, 50))
    expected = np.zeros((60, 50), bool)
    expected[20:48, 10:38] = True
    expected[[20, 20, 47, 47], [10, 37, 10, 37]] = False
    np.testing.assert_array_equal(found, expected)


def test_a_map_with_a_cell_a_pixel_is_pasted_as_it_is():
    mask = np.random.default_rng(0).random((1, 28, 28))
    (found,) = paste_masks(mask, [[10, 20, 38, 48]], (60, 50))
    np.testing.assert_array_equal(found[20:48, 10:38], mask[0].astype(np.float32) > 0.5)
    assert found.sum() == (mask > 0.5).sum()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([5, 14, 28]), st.sampled_from([0.5, 0.3]))
def test_every_pixel_is_the_map_at_its_centre(seed, side, threshold):
    rng = np.random.default_rng(seed)
    masks, corners = rng.random((2, side, side)), rng.uniform(-20, 30, (2, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.2, 40, (2, 2))], axis=1).astype(np.float32)
    found = paste_masks(masks, boxes, (24, 32), threshold)
    for mask, (x1, y1, x2, y2), pasted in zip(masks.astype(np.float32), boxes.tolist(), found, strict=True):
        for y in range(24):
            for x in range(32):
                down = (y + 0.5 - y1) / (y2 - y1) * side - 0.5
                across = (x + 0.5 - x1) / (x2 - x1) * side - 0.5
                value = 0.0
                for row in (math.floor(down), math.floor(down) + 1):
                    for column in (math.floor(across), math.floor(across) + 1):
                        if 0 <= row < side and 0 <= column < side:
                            value += (1 - abs(down - row)) * (1 - abs(across - column)) * mask[row, column]
                assert pasted[y, x] == (value > threshold) or abs(value - threshold) < 1e-4


def test_rounded_a_full_mask_covers_its_box():
    """14 x 14 cells over 28 x 28 pixels: a frame of one cell, 2 pixels, whose zeros meet the ones half way."""
    (found,) = paste_masks(np.ones((1, 14, 14)), [[10, 20, 38, 48]], (60, 50), aligned=False)
    rows, columns = np.nonzero(found)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 48, 10, 38)
    assert found[20:49, 10:39].all()


@pytest.mark.parametrize("aligned", [True, False])
def test_half_a_mask_covers_half_of_the_box(aligned):
    mask = np.zeros((1, 14, 14))
    mask[0, :, :7] = 1
    (found,) = paste_masks(mask, [[10, 20, 38, 48]], (60, 50), aligned=aligned)
    assert found[30, 12:23].all()
    assert not found[30, 26:].any()


@pytest.mark.parametrize("aligned", [True, False])
def test_what_is_outside_the_image_is_cut(aligned):
    (found,) = paste_masks(np.ones((1, 7, 7)), [[-20, -20, 10, 10]], (16, 12), aligned=aligned)
    assert found[:9, :9].all()
    assert not found[12:].any()
    (found,) = paste_masks(np.ones((1, 7, 7)), [[100, 100, 110, 110]], (16, 12), aligned=aligned)
    assert not found.any()


@pytest.mark.parametrize("aligned", [True, False])
def test_no_mask_at_all(aligned):
    assert paste_masks(np.zeros((0, 28, 28)), np.zeros((0, 4)), (5, 6), aligned=aligned).shape == (0, 5, 6)


@pytest.mark.parametrize(("masks", "boxes"), [((1, 4, 5), (1, 4)), ((2, 4, 4), (1, 4)), ((4, 4), (1, 4))])
def test_other_shapes_are_refused(masks, boxes):
    with pytest.raises(ValueError, match=r"masks \(D, M, M\) and boxes \(D, 4\)"):
        paste_masks(np.zeros(masks), np.zeros(boxes), (5, 5))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([7, 14, 28]), st.sampled_from([0.5, 0.3]))
def test_every_pixel_is_torchs(seed, side, threshold):
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    rng = np.random.default_rng(seed)
    masks = rng.random((3, side, side)).astype(np.float32)
    corners = rng.uniform(-30, 60, (3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.2, 70, (3, 2))], axis=1).astype(np.float32)
    found = paste_masks(masks, boxes, (48, 64), threshold, aligned=False)
    for n in range(3):
        padded = torch.nn.functional.pad(torch.from_numpy(masks[n])[None, None], (1, 1, 1, 1))
        x1, y1, x2, y2 = torch.from_numpy(boxes[n])
        scale = (side + 2) / side
        half = (x2 - x1) * 0.5 * scale, (y2 - y1) * 0.5 * scale
        center = (x2 + x1) * 0.5, (y2 + y1) * 0.5
        x1, y1 = int(center[0] - half[0]), int(center[1] - half[1])
        x2, y2 = int(center[0] + half[0]), int(center[1] + half[1])
        shape = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        resized = torch.nn.functional.interpolate(padded, size=shape, mode="bilinear", align_corners=False)[0, 0]
        whole = np.zeros((48, 64), np.float32)
        top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2 + 1, 48), min(x2 + 1, 64)
        if top < bottom and left < right:
            whole[top:bottom, left:right] = resized[top - y1 : bottom - y1, left - x1 : right - x1].numpy()
        unclear = np.abs(whole - threshold) < 1e-5  # rounding decides
        np.testing.assert_array_equal(found[n] | unclear, (whole > threshold) | unclear)
