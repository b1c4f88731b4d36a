"""What is done to a result of a convolution while it is still in the first-level cache: y = max(y + residual, 0).

Done afterwards, in a pass of its own, each would read and write the whole result from memory again: at 1 x 1 kernels
that takes as long as the convolution. The scale of the channels is given to the weights, where it costs nothing.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.compiler import serial
from minidet_kernels.memory import to_channels_last
from minidet_kernels.simd import LANES
from minidet_kernels.vectors import bits_of, load, store, where_larger

NOTHING = np.empty(0, np.float32)  # a residual that is not there


def as_arrays(channels: int, scale: np.ndarray | None, residual: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """scale (K,), ones if there is none, and the residual (N, K, H, W) as numbers in the order of the result."""
    scale = np.ones(channels, np.float32) if scale is None else np.ascontiguousarray(scale)
    return scale, NOTHING if residual is None else to_channels_last(residual).reshape(-1)


@serial
def finish(y, at, count, residual, relu):
    """count (a multiple of 16) numbers of y, and of the residual if there is one, from `at` on. NaN stays NaN."""
    zero = bits_of(np.int32(0))
    for i in range(at, at + count, LANES):
        value = load(y, i)
        if residual.size > 0:
            value = value + load(residual, i)
        if relu:
            value = where_larger(value, zero, value, zero)
        store(y, i, value)
