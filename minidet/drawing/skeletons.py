"""Skeletons on a picture: the right side orange, the left side blue, hidden joints hollow, the truth dashed."""

from collections.abc import Sequence

import numpy as np
from PIL import ImageDraw

from minidet.data.joints import HIDDEN, LSP_JOINTS, LSP_LIMBS, NOT_LABELLED
from minidet.drawing.canvas import BLACK, PALETTE, WHITE, draw_line, enlarge, enlargement

RIGHT_COLOR, LEFT_COLOR, MIDDLE_COLOR = PALETTE[0], PALETTE[1], PALETTE[2]


def draw_skeleton(
    image: np.ndarray,
    keypoints: np.ndarray,
    truth: np.ndarray | None = None,
    limbs: Sequence[tuple[int, int]] = LSP_LIMBS,
    names: Sequence[str] = LSP_JOINTS,
    factor: float | None = None,
) -> np.ndarray:
    """Draw people's joints and limbs.

    image: (H, W, 3) uint8, or float in [0, 1]. keypoints, truth: (J, 3) or (P, J, 3) x, y, v with whole numbers at
    pixel centres; v = 0 is left out, v = 1 is a hollow joint. names: those that start with right or left decide
    about the colours. factor: enlargement; by default as in draw_boxes.
    Returns (factor * H, factor * W, 3) uint8.
    """
    factor = factor or enlargement(*image.shape[:2])
    picture = enlarge(image, factor)
    draw = ImageDraw.Draw(picture)
    colors = [_side_color(name) for name in names]
    if truth is not None:
        _draw_people(draw, truth, limbs, [WHITE] * len(names), factor, dash=5)
    _draw_people(draw, keypoints, limbs, colors, factor, dash=0)
    return np.array(picture)


def _side_color(name: str) -> tuple[int, int, int]:
    if name.startswith("right"):
        return RIGHT_COLOR
    return LEFT_COLOR if name.startswith("left") else MIDDLE_COLOR


def _draw_people(draw: ImageDraw.ImageDraw, keypoints, limbs, colors, factor: float, dash: int) -> None:
    keypoints = np.asarray(keypoints, float)
    for person in keypoints.reshape(-1, *keypoints.shape[-2:]):
        places = (person[:, :2] + 0.5) * factor  # pixel centres -> continuous coordinates of the enlarged picture
        labelled = person[:, 2] > NOT_LABELLED
        for a, b in limbs:
            if labelled[a] and labelled[b]:
                # The outer joint's colour: a hip is right or left, but the neck it leads to is neither.
                draw_line(draw, places[a], places[b], colors[a], width=3, dash=dash)
        radius = 4
        for (x, y), visibility, color in zip(places, person[:, 2], colors, strict=True):
            if visibility > NOT_LABELLED:
                inside = None if visibility == HIDDEN else color
                draw.ellipse([x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1], outline=BLACK, width=1)
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=inside, outline=color, width=2)
