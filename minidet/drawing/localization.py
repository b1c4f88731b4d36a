"""Estimated boxes beside true ones, as the lecture shows weakly supervised localization."""

import numpy as np
from PIL import Image, ImageDraw

from minidet.drawing.boxes import draw_rectangle
from minidet.drawing.canvas import LEAST_SIDE, PALETTE, enlarge, enlargement
from minidet.drawing.heatmaps import overlay

# The lecture's green and red, in the shades that colour-blind readers can tell apart (Okabe and Ito).
TRUE, ESTIMATED = PALETTE[3], PALETTE[5]
BOX_COLORS = "true box green, estimated red"  # to be written over a sheet


def draw_localization(
    image: np.ndarray,
    box: np.ndarray,
    truth: np.ndarray | None = None,
    heat_map: np.ndarray | None = None,
    least_side: int = LEAST_SIDE // 2,
) -> np.ndarray:
    """The estimated box in red over the true one in green; given a heat map, a second picture to the right shows it
    over the grey image, dark blue at its least value, yellow at its largest.

    image: (H, W, 3) uint8, or float in [0, 1]. box, truth: (4,) x1 y1 x2 y2 in pixels; a box of zeros is none.
    heat_map: (h, w), stretched over the image; one with NaN or infinity is shown as zeros, as it has no box. Returns
    (factor * H, factor * W or twice as wide, 3) uint8, the factor so that the longer side of a picture has least_side
    pixels.
    """
    factor = enlargement(*image.shape[:2], least_side)
    pictures = [enlarge(image, factor)]
    if heat_map is not None:
        shown = heat_map if np.isfinite(heat_map).all() else np.zeros_like(heat_map)
        limits = float(shown.min()), float(shown.max())
        pictures.append(Image.fromarray(overlay(image, shown, limits, factor=factor)))
    for picture in pictures:
        draw = ImageDraw.Draw(picture)
        for rectangle, color, width in ((truth, TRUE, 3), (box, ESTIMATED, 2)):
            if rectangle is not None and np.any(rectangle):
                draw_rectangle(draw, np.asarray(rectangle) * factor, color, width)
    return np.concatenate([np.asarray(picture) for picture in pictures], axis=1)
