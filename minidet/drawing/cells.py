"""A detector's grid on its image: which class each cell says, and how confident it is."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from minidet.drawing.boxes import draw_rectangle
from minidet.drawing.canvas import PALETTE, WHITE, enlarge, enlargement

OPACITY = 0.65  # of the colour of a cell that is sure
THICKEST = 6  # pixels, the lines of a box that is sure


def draw_cells(
    image: np.ndarray,
    cells: tuple[int, int],
    labels: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
    factor: float | None = None,
) -> np.ndarray:
    """The grid over its image, and what each cell says that there is (Redmon et al. 2016, figure 2).

    image: (H, W, 3) uint8, or float in [0, 1]. cells: rows and columns. labels (rows * columns,), row by row: the cell
    gets the colour of that class; probabilities, as many in [0, 1]: the surer, the stronger; 1 by default. factor:
    enlargement, as in `draw_boxes`. Returns (factor * H, factor * W, 3) uint8.
    """
    rows, columns = cells
    factor = factor or enlargement(*image.shape[:2])
    picture = np.asarray(enlarge(image, factor), np.float32)
    height, width = picture.shape[:2]
    if labels is not None:
        strength = np.ones(rows * columns) if probabilities is None else np.clip(probabilities, 0, 1)
        colors = np.array([PALETTE[int(label) % len(PALETTE)] for label in labels], np.float32).reshape(
            rows, columns, 3
        )
        cell = (np.arange(height) * rows // height)[:, None], (np.arange(width) * columns // width)[None]
        opacity = OPACITY * strength.reshape(rows, columns)[cell][..., None]
        picture = picture + opacity * (colors[cell] - picture)
    drawn = Image.fromarray((picture + 0.5).astype(np.uint8))
    draw = ImageDraw.Draw(drawn)
    for row in range(1, rows):
        draw.line([(0, row * height / rows), (width, row * height / rows)], fill=WHITE)
    for column in range(1, columns):
        draw.line([(column * width / columns, 0), (column * width / columns, height)], fill=WHITE)
    return np.array(drawn)


def draw_confidences(
    image: np.ndarray, boxes: np.ndarray, confidences: np.ndarray, labels: Sequence[int], factor: float | None = None
) -> np.ndarray:
    """All boxes of a grid at once, the thicker the more confident (Redmon et al. 2016, figure 2).

    boxes (R, 4) in pixels of the image, confidences (R,) in [0, 1], labels (R,): their colours. Boxes whose lines would
    be thinner than half a pixel are left out. Returns (factor * H, factor * W, 3) uint8.
    """
    factor = factor or enlargement(*image.shape[:2])
    picture = enlarge(image, factor)
    draw = ImageDraw.Draw(picture)
    widths = np.rint(np.clip(confidences, 0, 1) * THICKEST).astype(int)
    for index in np.argsort(confidences, kind="stable"):
        if widths[index]:
            color = PALETTE[int(labels[index]) % len(PALETTE)]
            draw_rectangle(draw, np.asarray(boxes[index]) * factor, color, width=int(widths[index]))
    return np.array(picture)
