"""Anchors against the tables that the authors' and torchvision's code print."""

import math

import numpy as np
import pytest

from minidet.boxes import base_anchors, classic_base_anchors, default_boxes, grid_anchors


def test_the_nine_classic_anchors():
    # The authors' MATLAB code prints these, in pixels that count from 1.
    counted_from_one = [
        [-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200],
        [-55, -55, 72, 72], [-119, -119, 136, 136], [-247, -247, 264, 264],
        [-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360],
    ]  # fmt: skip
    np.testing.assert_array_equal(classic_base_anchors(), np.float32(counted_from_one) - 1)


def test_torchvisions_anchors_of_one_level():
    # AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),)).cell_anchors, as its documentation's example prints.
    np.testing.assert_array_equal(
        base_anchors((32,)), np.float32([[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]])
    )


def test_ratio_is_the_outer_loop():
    sides = np.diff(base_anchors((8, 16), (1, 4)).reshape(4, 2, 2), axis=1)[:, 0]
    np.testing.assert_array_equal(sides, [[8, 8], [16, 16], [4, 16], [8, 32]])  # widths and heights


def test_anchors_over_a_map_go_row_by_row_cell_by_cell():
    base = np.float32([[-1, -2, 1, 2], [0, 0, 3, 3]])
    expected = []
    for row in range(2):
        for column in range(3):
            for x1, y1, x2, y2 in base.tolist():
                expected.append([x1 + column * 4, y1 + row * 8, x2 + column * 4, y2 + row * 8])
    anchors = grid_anchors(base, (2, 3), (8, 4))
    np.testing.assert_array_equal(anchors, expected)
    assert anchors.dtype == np.float32


@pytest.mark.parametrize("make", [classic_base_anchors, base_anchors])
def test_sizes_that_cannot_be_are_refused(make):
    with pytest.raises(ValueError, match="above 0"):
        make(16, ratios=(0,)) if make is classic_base_anchors else make((16,), (0,))


SSD300 = {
    "grids": [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)],
    "steps": [8, 16, 32, 64, 100, 300],
    "scales": [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
    "ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    "size": 300,
}


def test_ssd300_has_8732_default_boxes_as_in_a_loop():
    found = default_boxes(**SSD300)
    expected = []
    for level in range(6):
        rows, columns = SSD300["grids"][level]
        scale, following = SSD300["scales"][level : level + 2]
        for row in range(rows):
            for column in range(columns):
                sides = [(scale, scale), (math.sqrt(scale * following), math.sqrt(scale * following))]
                for ratio in SSD300["ratios"][level]:
                    sides.append((scale * math.sqrt(ratio), scale / math.sqrt(ratio)))
                    sides.append((scale / math.sqrt(ratio), scale * math.sqrt(ratio)))
                x, y = (column + 0.5) * SSD300["steps"][level], (row + 0.5) * SSD300["steps"][level]
                for w, h in sides:
                    w, h = min(w, 1) * 300, min(h, 1) * 300
                    expected.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    assert len(expected) == 8732
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4)
    assert found.dtype == np.float32


def test_default_boxes_of_a_cell_by_hand():
    """One level of one cell, 100 pixels: squares of 40 and sqrt(40 * 90) = 60, and 4 to 1."""
    found = default_boxes([(1, 1)], [100], [0.4, 0.9], [[4]], 100)
    np.testing.assert_allclose(
        found, [[30, 30, 70, 70], [20, 20, 80, 80], [10, 40, 90, 60], [40, 10, 60, 90]], atol=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": [8]}, "as many steps and ratios as grids, 6, and one more of scales, got 1, 6 and 7"),
        ({"scales": [0.1] * 6}, "got 6, 6 and 6"),
        ({"scales": [0.1] * 6 + [0.0]}, "expected scales above 0"),
        ({"ratios": [[2]] * 5 + [[-1]]}, "expected ratios above 0"),
    ],
)
def test_default_boxes_that_cannot_be_are_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        default_boxes(**SSD300 | changes)
