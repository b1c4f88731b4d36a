"""The part of a scene that is nobody's object: slow waves of colour, thin lines, and the misleading cue."""

from functools import cache

import numpy as np

from minidet.data.shapes import Coverage, capsule_coverage

COLOR_RANGE = (8.0, 247.0)  # painted colours keep this distance from black and white, so that noise is not clipped
TEXTURE_CELLS = 5  # control points of the background along each axis; more makes its waves shorter
CLUTTER_LINES = (2, 7)  # fewest and most

# Colours and stripe directions (radians) of the background cue, one for each class.
CUE_SIDE = 0.22  # of the picture's side
CUE_COLORS = ((200, 60, 60), (60, 170, 60), (70, 70, 210), (200, 180, 40), (170, 60, 180), (40, 180, 180))
CUE_DIRECTIONS = np.pi * np.arange(6) / 6


@cache
def _smooth_basis(size: int, cells: int) -> np.ndarray:
    """(size, cells + 3) float32: values of uniform cubic B-splines, which turn control points into a smooth curve."""
    position = (np.arange(size) + 0.5) * cells / size
    distance = np.abs(position[:, None] - (np.arange(cells + 3)[None, :] - 1))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def paint_background(rng: np.random.Generator, size: int, level: str) -> np.ndarray:
    """(size, size, 3) float32: a base colour, and in textured scenes slow waves around it and a few thin lines."""
    base = rng.uniform(60, 195, 3).astype(np.float32)
    canvas = np.tile(base, (size, size, 1))
    if level == "flat":
        return canvas
    basis = _smooth_basis(size, TEXTURE_CELLS)
    control = rng.standard_normal((3, basis.shape[1], basis.shape[1]), dtype=np.float32) * rng.uniform(10, 35)
    canvas += (basis @ control @ basis.T).transpose(1, 2, 0)
    for _ in range(rng.integers(CLUTTER_LINES[0], CLUTTER_LINES[1] + 1)):
        start, direction = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        end = start + rng.uniform(0.15, 0.6) * size * np.array([np.cos(direction), np.sin(direction)])
        color = base + rng.uniform(-70, 70, 3)
        left, top = np.clip(np.floor(np.minimum(start, end)) - 3, 0, size).astype(int)
        right, bottom = np.clip(np.ceil(np.maximum(start, end)) + 3, 0, size).astype(int)
        window = (int(top), int(left), int(bottom - top), int(right - left))
        fractions = capsule_coverage(start, end, rng.uniform(0.4, 1.2), *window)
        blend(canvas, Coverage(window[0], window[1], fractions), color)
    return np.clip(canvas, *COLOR_RANGE)


def clip_window(coverage: Coverage, size: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of a window that lies in the picture: its slices there, and its fractions."""
    top, left, fractions = coverage
    height, width = fractions.shape
    rows, columns = slice(max(top, 0), min(top + height, size)), slice(max(left, 0), min(left + width, size))
    inner = fractions[
        max(-top, 0) : max(min(height, size - top), 0),
        max(-left, 0) : max(min(width, size - left), 0),
    ]
    return (rows, columns), inner


def blend(canvas: np.ndarray, coverage: Coverage, color: np.ndarray) -> None:
    """Paint `color` over the canvas (H, W, 3), in place, as far as the coverage says."""
    window, fractions = clip_window(coverage, len(canvas))
    canvas[window] += fractions[:, :, None] * (np.asarray(color, np.float32) - canvas[window])


def paint_cue(background: np.ndarray, cue: int, far_from: np.ndarray) -> None:
    """Paint cue number 0..5, a striped square, in place into the corner farthest from the point x, y `far_from`."""
    size = len(background)
    side = round(CUE_SIDE * size)
    left, top = np.where(np.asarray(far_from) < size / 2, size - side, 0)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    direction = CUE_DIRECTIONS[cue]
    stripes = np.sin((x * np.cos(direction) + y * np.sin(direction)) * np.float32(2 * np.pi / (side / 3)))
    color = np.asarray(CUE_COLORS[cue], np.float32) * (0.8 + 0.2 * stripes[:, :, None])
    background[top : top + side, left : left + side] = color
