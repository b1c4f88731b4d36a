"""A grid on its image: what must be seen is looked for in the pixels."""

import numpy as np

from minidet.drawing import draw_cells, draw_confidences
from minidet.drawing.canvas import PALETTE, WHITE
from minidet.drawing.cells import OPACITY

GREY = np.full((20, 30, 3), 100, np.uint8)


def test_lines_part_the_cells_and_nothing_else_changes() -> None:
    picture = draw_cells(GREY, (2, 3), factor=4)
    assert picture.shape == (80, 120, 3)
    lines = (picture == WHITE).all(axis=2)
    assert lines[40].all()
    assert lines[:, [40, 80]].all()
    assert lines.sum() == 120 + 2 * 80 - 2
    assert (picture[~lines] == 100).all()


def test_a_cell_has_its_classs_colour_as_strong_as_it_is_sure() -> None:
    """Two rows and three columns; the last cell is half sure, all others not at all."""
    picture = draw_cells(GREY, (2, 3), np.array([1, 1, 1, 1, 1, 4]), np.array([0, 0, 0, 0, 0, 0.5]), factor=4)
    assert (picture[10, 10] == 100).all()
    expected = 100 + OPACITY * 0.5 * (np.array(PALETTE[4], float) - 100)
    np.testing.assert_allclose(picture[60, 100], expected, atol=1)


def test_without_probabilities_every_cell_is_sure() -> None:
    picture = draw_cells(GREY, (1, 1), np.array([2]), factor=1)
    np.testing.assert_allclose(picture[3, 3], 100 + OPACITY * (np.array(PALETTE[2], float) - 100), atol=1)


def test_the_more_confident_a_box_the_thicker_its_lines() -> None:
    boxes = np.array([[2, 2, 12, 18], [16, 2, 28, 18], [5, 5, 9, 9]])
    picture = draw_confidences(GREY, boxes, np.array([1.0, 0.4, 0.05]), [1, 2, 3], factor=4)
    counts = [int((picture == PALETTE[label]).all(axis=2).sum()) for label in (1, 2, 3)]
    assert counts[0] > 1.5 * counts[1] > 0
    assert counts[2] == 0
