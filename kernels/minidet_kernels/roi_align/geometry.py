"""Where RoIAlign looks: the samples of every bin along one axis. Little work, so in NumPy for reference and cpu.

A coordinate that one version rounds up and another down would let them read different pixels. So both take the numbers
from here, which are computed in the dtype of the boxes and in the order that torchvision has. The GPU's threads compute
them for themselves (roi_align.cu), operation by operation as here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Samples(NamedTuple):
    """Of R boxes with P bins, at most S samples a bin that are inside the map.

    A sample is the mean of two neighbouring pixels, pixel[0] and pixel[1], with the weights weight[0] and weight[1].
    A weight of 0 means that the pixel is not looked at; both are 0 for samples outside the map, and for places in the
    array that a box with fewer samples does not need.
    """

    pixel: np.ndarray  # (2, R, P, S) int64
    weight: np.ndarray  # (2, R, P, S)
    grid: np.ndarray  # (R,) how many samples a bin has, those outside the map included


def samples(
    low: np.ndarray,
    high: np.ndarray,
    bins: int,
    map_size: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Samples:
    """low, high (R,): the box along this axis, (x1, x2) or (y1, y2); the map has `map_size` pixels along it."""
    number = low.dtype.type
    offset = number(0.5 if aligned else 0)
    start = low * number(spatial_scale) - offset
    size = high * number(spatial_scale) - offset - start
    if not aligned:
        size = np.maximum(size, number(1))
    bin_size = size / number(bins)
    bin_start = start[:, None] + np.arange(bins, dtype=number) * bin_size[:, None]  # (R, P)
    if sampling_ratio > 0:
        grid = np.full(len(low), sampling_ratio)
        s = np.arange(sampling_ratio)
    else:
        grid = np.ceil(bin_size).astype(np.int64)
        s = _near_the_map(bin_start, bin_size, grid, map_size)  # (R, P, S)
    step = (s.astype(number) + number(0.5)) * bin_size[:, None, None]
    position = bin_start[:, :, None] + step / np.maximum(grid, 1).astype(number)[:, None, None]
    inside = (position >= -1) & (position <= map_size) & (s < grid[:, None, None])
    return Samples(*_neighbours(position, inside, map_size), grid)


def _near_the_map(bin_start: np.ndarray, bin_size: np.ndarray, grid: np.ndarray, map_size: int) -> np.ndarray:
    """Which of a bin's samples 0 to grid - 1 can be inside the map: (R, P, S), with numbers >= grid where fewer can.

    A box much larger than the map has mostly samples that count as 0; without this they would take all memory. Samples
    are 1/2 to 1 pixel apart if a bin has several, so that at most 2 * (map_size + 3) lie from -2 to map_size + 1; that
    is a pixel more than needed on either side, for rounding.
    """
    spacing = np.maximum(bin_size / np.maximum(grid, 1), 0.5)
    first = np.floor((-2 - bin_start) / spacing[:, None]).astype(np.int64)
    first = np.clip(first, 0, np.maximum(grid - 1, 0)[:, None])
    count = min(grid.max(initial=0), 2 * (map_size + 3) + 2)
    return first[:, :, None] + np.arange(count)


def _neighbours(position: np.ndarray, inside: np.ndarray, map_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The two pixels beside each position, and their weights, both 0 where the position is not inside."""
    position = np.where(inside, np.maximum(position, 0), 0)  # from -1 to 0 the first pixel is repeated
    low = np.minimum(position.astype(np.int64), map_size - 1)
    high = np.minimum(low + 1, map_size - 1)
    part = np.minimum(position - low.astype(position.dtype), 1)
    part = np.where(low == map_size - 1, 0, part)  # and beyond the last one, that
    weight = np.stack([1 - part, part]) * inside
    return np.stack([low, high]), weight.astype(position.dtype, copy=False)
