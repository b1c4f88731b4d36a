"""Where along one axis a window lies, in the image and in the square: the same for every version."""

from __future__ import annotations

import numpy as np


def placements(low: np.ndarray, high: np.ndarray, factor: float, length: int, size: int) -> np.ndarray:
    """Boxes from low to high (P,) on an axis of `length` pixels -> (P, 4) int64: the first pixel of the image that the
    square shows and their number, the first pixel of the square that shows them and their number; numbers may be 0."""
    middle, half = (low + high) / 2, (high - low) / 2 * factor
    first = _round(middle - half)
    last = np.maximum(_round(middle + half), first + 1)
    inside = np.clip(first, 0, length), np.clip(last, 0, length)
    stretch = size / (last - first)
    start = np.minimum(_round((inside[0] - first) * stretch), size)
    count = np.minimum(_round((inside[1] - inside[0]) * stretch), size - start)
    return np.stack([inside[0], inside[1] - inside[0], start, count], axis=1).astype(np.int64)


def _round(x: np.ndarray) -> np.ndarray:
    """To whole numbers, halves upwards, wherever the axis begins."""
    return np.floor(x + 0.5)
