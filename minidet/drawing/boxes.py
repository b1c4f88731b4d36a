"""Boxes on a picture: solid and coloured by class for predictions, white and dashed for the truth."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from minidet.drawing.canvas import PALETTE, WHITE, draw_line, draw_tag, enlarge, enlargement


def with_crowds(labels: np.ndarray, iscrowd: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """labels (R,) and names for draw_boxes, in which a box around many objects, iscrowd (R,) bool, is called a crowd:
    of label k it is K + k. classes: names by label, the background first."""
    return labels + iscrowd * (len(classes) - 1), (*classes, *(f"crowd: {name}" for name in classes[1:]))


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    truth_labels: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    factor: float | None = None,
) -> np.ndarray:
    """Draw predictions and, beside them, the truth.

    image: (H, W, 3) uint8, or float in [0, 1]. boxes: (R, 4) x1 y1 x2 y2 in continuous pixel coordinates; labels
    (R,), scores (R,). truth: (T, 4), truth_labels (T,). names: by label, the background first.
    factor: enlargement; by default whatever makes a small picture readable and a large one fit a screen.
    Returns (factor * H, factor * W, 3) uint8; the given image stays as it is.
    """
    factor = factor or enlargement(*image.shape[:2])
    picture = enlarge(image, factor)
    draw = ImageDraw.Draw(picture)
    truth = np.zeros((0, 4)) if truth is None else np.asarray(truth)
    for box in truth:
        draw_rectangle(draw, box * factor, WHITE, width=2, dash=6)
    order = np.argsort(scores, kind="stable") if scores is not None else range(len(boxes))  # the best one on top
    colors = [PALETTE[(int(labels[index]) if labels is not None else 0) % len(PALETTE)] for index in range(len(boxes))]
    for index in order:
        draw_rectangle(draw, np.asarray(boxes[index]) * factor, colors[index], width=3)
    # Names after all lines, which would cross them; the truth's hang from its box's lower edge, where they cannot cover
    # the prediction's at the upper one.
    for index, box in enumerate(truth):
        below = (float(box[0] * factor), min(float(box[3] * factor) + 18, picture.height))
        draw_tag(draw, below, _caption(truth_labels, None, names, index), WHITE, size=12)
    for index in order:
        corner = (float(boxes[index][0] * factor), float(boxes[index][1] * factor))
        draw_tag(draw, corner, _caption(labels, scores, names, index), colors[index])
    return np.array(picture)


def draw_masks(image: np.ndarray, masks: np.ndarray, labels: np.ndarray | None = None, opacity: float = 0.5):
    """Tint the pixels of each mask in its class's colour. masks: (R, H, W) bool. Returns (H, W, 3) uint8."""
    picture = np.array(enlarge(image, 1)).astype(np.float32)
    for index, mask in enumerate(masks):
        color = PALETTE[int(labels[index] if labels is not None else index) % len(PALETTE)]
        picture[mask] += opacity * (np.array(color, np.float32) - picture[mask])
    return picture.astype(np.uint8)


def _caption(labels, scores, names, index: int) -> str:
    parts = []
    if labels is not None:
        label = int(labels[index])
        parts.append(names[label] if names is not None and 0 <= label < len(names) else str(label))
    if scores is not None:
        parts.append(f"{float(scores[index]):.2f}")
    return " ".join(parts)


def draw_rectangle(draw: ImageDraw.ImageDraw, box: np.ndarray, color, width: int, dash: int = 0) -> None:
    """The outline of x1 y1 x2 y2, kept inside the picture so that a box at the border is still seen."""
    limit = np.array([draw.im.size[0] - 1, draw.im.size[1] - 1] * 2, float)
    x1, y1, x2, y2 = np.clip(np.asarray(box, float) - [0, 0, 1, 1], 0, limit)
    for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        draw_line(draw, start, end, color, width, dash)


def save_png(path, image: np.ndarray) -> None:
    """Write a drawing (H, W, 3) uint8 as PNG."""
    if not isinstance(image, np.ndarray):
        raise TypeError(f"save_png: expected a path and then an image, an array, got {type(image).__name__} for it")
    Image.fromarray(image).save(path, format="PNG")
