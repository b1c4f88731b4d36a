"""A field of vectors on its image: a line from each cell's centre, with a dot at its end."""

import numpy as np
from PIL import ImageDraw

from minidet.drawing.canvas import PALETTE, enlarge, enlargement

LEAST_LENGTH = 0.1  # of a unit vector; shorter ones are left out, or noise would cover the image
LENGTH = 1.4  # of a unit vector, in cells


def draw_field(image: np.ndarray, field: np.ndarray, factor: float | None = None) -> np.ndarray:
    """image: (H, W, 3) uint8, or float in [0, 1]; field: (2, h, w), x and y of a vector in each of h x w cells over it.
    factor: enlargement, as in `draw_boxes`. Returns (factor * H, factor * W, 3) uint8."""
    factor = factor or enlargement(*image.shape[:2])
    picture = enlarge(image, factor)
    draw = ImageDraw.Draw(picture)
    rows, columns = field.shape[1:]
    across, down = picture.width / columns, picture.height / rows
    for row, column in np.argwhere(np.hypot(*field) >= LEAST_LENGTH).tolist():
        x, y = (column + 0.5) * across, (row + 0.5) * down
        dx, dy = field[:, row, column] * (across * LENGTH, down * LENGTH)
        draw.line([(x, y), (x + dx, y + dy)], fill=PALETTE[4], width=2)
        draw.ellipse([x + dx - 2, y + dy - 2, x + dx + 2, y + dy + 2], fill=PALETTE[4])
    return np.array(picture)
