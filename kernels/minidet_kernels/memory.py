"""Channels-last memory under the public shape (N, C, H, W).

The channels of a pixel lie side by side, so that one vector instruction works on 16 of them. NumPy's strides
say how the memory lies; the shape stays (N, C, H, W) for whoever uses the array. Results of the CPU versions
are channels-last, their inputs are copied only where they are not. Large ones come from a pool (`pool.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidet_kernels.pool import POOL

# So few planes, as an image has, NumPy moves one by one several times as fast as pixel by pixel.
FEW_CHANNELS = 4


def contiguous(x: np.ndarray) -> np.ndarray:
    """The same numbers without gaps, aligned and writeable; x itself if it is so already.

    Numba compiles a function again for each kind of array, read-only ones included: here there is only one kind.
    """
    return x if x.flags.carray else np.require(x, requirements=["C", "A", "W"])


def to_channels_last(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) in any memory -> (N, H, W, C), `contiguous`; a view if it can be."""
    moved = x.transpose(0, 2, 3, 1)
    if moved.flags.carray or x.shape[1] > FEW_CHANNELS or x.strides[3] != x.itemsize:
        return contiguous(moved)
    copy = empty(moved.shape, x.dtype)
    for c in range(x.shape[1]):
        copy[..., c] = x[:, c]
    return copy


def empty(shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
    """As np.empty; memory of 128 KB or more is taken from what dead arrays left behind."""
    return POOL.empty(shape, dtype)


def empty_channels_last(shape: tuple[int, int, int, int], dtype: np.dtype) -> np.ndarray:
    """New memory (N, H, W, C) for a result of the public `shape` (N, C, H, W); return it through `to_public`."""
    n, c, h, w = shape
    return empty((n, h, w, c), dtype)


def to_public(x: np.ndarray) -> np.ndarray:
    """(N, H, W, C) -> the view (N, C, H, W)."""
    return x.transpose(0, 3, 1, 2)
