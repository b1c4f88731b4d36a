"""Anchors against the tables that the authors' and torchvision's code print."""

import numpy as np
import pytest

from minidet.boxes import base_anchors, classic_base_anchors, grid_anchors


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
