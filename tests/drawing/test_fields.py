"""A field's lines on the picture."""

import numpy as np

from minidet.drawing import draw_field
from minidet.drawing.canvas import PALETTE


def test_a_line_points_where_its_vector_does_and_short_ones_are_left_out():
    field = np.zeros((2, 4, 4))
    field[0, 1, 1] = 1  # to the right, from 15, 15 of 40 x 40 pixels
    field[1, 3, 3] = -0.05
    picture = draw_field(np.zeros((40, 40, 3), np.uint8), field, factor=1)
    assert picture.shape == (40, 40, 3)
    rows, columns = np.nonzero((picture == PALETTE[4]).all(axis=-1))
    assert 12 <= rows.min() <= rows.max() <= 18
    assert 14 <= columns.min() <= 15
    assert 29 <= columns.max() <= 32  # 1.4 cells, and the dot
    assert not draw_field(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2, 2)), factor=1).any()
