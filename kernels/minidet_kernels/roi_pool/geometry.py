"""Which pixels RoIPool looks at: the bins of every box along one axis. Little work, so in NumPy for reference and cpu.

Bins begin and end at rounded numbers, and a coordinate that one version rounds up and another down would let them read
different pixels. So both take the numbers from here, which are computed in the dtype of the boxes and in the order that
torchvision has. The GPU's threads compute them for themselves (roi_pool.cu), operation by operation as here.
"""

from __future__ import annotations

import numpy as np


def bin_ranges(
    low: np.ndarray, high: np.ndarray, bins: int, map_size: int, spatial_scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels from start to stop - 1 belong to a bin: start, stop (R, P) int64, both within the map.

    low, high (R,): the box along this axis, (x1, x2) or (y1, y2); the map has `map_size` pixels along it.
    """
    number = low.dtype.type
    first = _round_half_away(low * number(spatial_scale))
    last = _round_half_away(high * number(spatial_scale))
    bin_size = (last - first + 1).astype(number) / number(bins)
    i = np.arange(bins, dtype=number)
    start = np.floor(i * bin_size[:, None]).astype(np.int64) + first[:, None]
    stop = np.ceil((i + 1) * bin_size[:, None]).astype(np.int64) + first[:, None]
    return start.clip(0, map_size), stop.clip(0, map_size)


def _round_half_away(value: np.ndarray) -> np.ndarray:
    """1.5 and 2.5 -> 2 and 3, -0.5 -> -1, as C rounds; NumPy would round halves to the even neighbour, 2.5 to 2.

    Not the floor of value + 0.5: the largest number below 0.5 plus 0.5 is rounded to 1.
    """
    whole = np.trunc(value)
    return (whole + np.where(np.abs(value - whole) >= 0.5, np.sign(value), 0)).astype(np.int64)
