"""Skeletons on a picture: the right side orange, the left side blue, hidden joints hollow, the truth dashed.

Or joints coloured by how far they are from the truth.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from minidet.data.joints import HIDDEN, LSP_JOINTS, LSP_LIMBS, NOT_LABELLED
from minidet.drawing.canvas import BLACK, PALETTE, WHITE, draw_line, enlarge, enlargement, font, text_size

RIGHT_COLOR, LEFT_COLOR, MIDDLE_COLOR = PALETTE[0], PALETTE[1], PALETTE[2]

# Errors in fractions of the torso's diameter, up to which a joint has the colour: the usual range of PDJ curves ends at
# 0.2, and half a torso away is on another limb. Worse joints are larger too, by a pixel for each colour, for eyes that
# do not see colours.
ERROR_COLORS = ((0.1, PALETTE[3]), (0.2, PALETTE[2]), (0.5, PALETTE[5]), (np.inf, BLACK))
NOT_MEASURED_COLOR = (160, 160, 160)  # joints whose truth is not labelled

JOINT_RADIUS = 4  # in pixels of the drawing


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


def draw_pose_errors(
    image: np.ndarray,
    keypoints: np.ndarray,
    truth: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    limbs: Sequence[tuple[int, int]] = LSP_LIMBS,
    names: Sequence[str] = LSP_JOINTS,
    factor: float | None = None,
) -> np.ndarray:
    """Draw predicted people, their joints coloured by the error (ERROR_COLORS), and the true ones dashed beside them.

    keypoints (P, J, 3), truth (P, J, 3), sizes (P,) the torso's diameters that errors are measured by; a person whose
    size is NaN or 0, and a joint whose truth is not labelled, is not measured: grey. Without truth: as draw_skeleton.
    Other arguments and the result as draw_skeleton.
    """
    if truth is None:
        return draw_skeleton(image, keypoints, None, limbs, names, factor)
    keypoints, truth = np.asarray(keypoints, float), np.asarray(truth, float)
    if keypoints.shape != truth.shape or np.shape(sizes) != truth.shape[:1]:
        raise ValueError(
            f"draw_pose_errors: expected keypoints and truth (P, J, 3) and sizes (P,), got {keypoints.shape}, "
            f"{truth.shape} and {np.shape(sizes)}"
        )
    factor = factor or enlargement(*image.shape[:2])
    picture = enlarge(image, factor)
    draw = ImageDraw.Draw(picture)
    _draw_limbs(draw, truth, limbs, [WHITE] * len(names), factor, dash=5)
    _draw_limbs(draw, keypoints, limbs, [_side_color(name) for name in names], factor, dash=0)
    sizes = np.where(np.greater(sizes, 0), sizes, np.nan)
    errors = np.linalg.norm(keypoints[..., :2] - truth[..., :2], axis=2) / sizes[:, None]
    errors[truth[..., 2] == NOT_LABELLED] = np.nan
    for (places, _), of_person in zip(_people(keypoints, factor), errors, strict=True):
        for place, error in zip(places, of_person, strict=True):
            color, worse = error_color(error)
            _draw_disc(draw, place, JOINT_RADIUS + worse, fill=color, outline=WHITE, width=1)
    return np.array(picture)


def error_color(error: float) -> tuple[tuple[int, int, int], int]:
    """The colour of an error in torso diameters, and its place in ERROR_COLORS; NaN is not measured."""
    for place, (most, color) in enumerate(ERROR_COLORS):
        if error <= most:
            return color, place
    return NOT_MEASURED_COLOR, 0


def error_legend(width: int, text_height: int = 13) -> np.ndarray:
    """What draw_pose_errors' colours mean, a line for under a sheet: (h, width or what the text needs, 3) uint8."""
    below = [f"up to {most:g}" for most, _ in ERROR_COLORS[:-1]]
    entries = list(zip([*below, f"> {ERROR_COLORS[-2][0]:g}"], ERROR_COLORS, strict=True))
    entries = [(text, color) for text, (_, color) in entries] + [("truth not labelled", NOT_MEASURED_COLOR)]
    radii = [JOINT_RADIUS + place % len(ERROR_COLORS) for place in range(len(entries))]
    return _legend("error / torso diameter:", entries, radii, width, text_height)


def side_legend(width: int, text_height: int = 13) -> np.ndarray:
    """What draw_skeleton's colours mean, as error_legend."""
    entries = [("right", RIGHT_COLOR), ("left", LEFT_COLOR), ("middle", MIDDLE_COLOR)]
    return _legend("the person's side:", entries, [JOINT_RADIUS] * 3, width, text_height)


def _legend(title: str, entries, radii: Sequence[int], width: int, text_height: int) -> np.ndarray:
    line = text_height + 9
    title_end = 8 + text_size(title, text_height)[0] + 14
    ends = title_end + np.cumsum([11 + text_size(text, text_height)[0] + 20 for text, _ in entries])
    sheet = Image.new("RGB", (max(width, ends[-1]), line), WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((8, 2), title, fill=BLACK, font=font(text_height))
    for (text, color), radius, x in zip(entries, radii, [title_end, *ends[:-1]], strict=True):
        _draw_disc(draw, (x, line // 2), radius, fill=color, outline=BLACK)
        draw.text((x + 11, 2), text, fill=BLACK, font=font(text_height))
    return np.array(sheet)


def _side_color(name: str) -> tuple[int, int, int]:
    if name.startswith("right"):
        return RIGHT_COLOR
    return LEFT_COLOR if name.startswith("left") else MIDDLE_COLOR


def _people(keypoints, factor: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each person the joints' places (J, 2) in the enlarged picture and their v (J,)."""
    keypoints = np.asarray(keypoints, float)
    for person in keypoints.reshape(-1, *keypoints.shape[-2:]):
        yield (person[:, :2] + 0.5) * factor, person[:, 2]  # pixel centres -> continuous coordinates


def _draw_limbs(draw: ImageDraw.ImageDraw, keypoints, limbs, colors, factor: float, dash: int) -> None:
    for places, visibility in _people(keypoints, factor):
        labelled = visibility > NOT_LABELLED
        for a, b in limbs:
            if labelled[a] and labelled[b]:
                # The outer joint's colour: a hip is right or left, but the neck it leads to is neither.
                draw_line(draw, places[a], places[b], colors[a], width=3, dash=dash)


def _draw_people(draw: ImageDraw.ImageDraw, keypoints, limbs, colors, factor: float, dash: int) -> None:
    _draw_limbs(draw, keypoints, limbs, colors, factor, dash)
    for places, visibility in _people(keypoints, factor):
        for place, v, color in zip(places, visibility, colors, strict=True):
            if v > NOT_LABELLED:
                _draw_disc(draw, place, JOINT_RADIUS + 1, outline=BLACK, width=1)
                _draw_disc(draw, place, JOINT_RADIUS, fill=None if v == HIDDEN else color, outline=color, width=2)


def _draw_disc(draw: ImageDraw.ImageDraw, place, radius: float, **colors) -> None:
    """A filled circle or, without a fill, a ring."""
    x, y = place
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], **colors)
