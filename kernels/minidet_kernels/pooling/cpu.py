"""Pooling with Numba: images are (N, H, W, C) inside; the innermost loop runs over a pixel's channels as one vector.

Where windows only read (max, average, gather) the threads share the rows of the result; where they add into
shared pixels (scatter, the average's adjoint) a thread owns some channels of an image. No locks, the same
bits on every run.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import parallel, serial
from minidet_kernels.memory import empty_channels_last, to_channels_last, to_public

# Channels that a thread owns when it scatters: a multiple of the 16 float32 of a cache line, so that no two
# threads write to the same line. More would leave threads idle when the batch is small, fewer would read each
# line of the image several times.
CHANNELS_PER_TASK = 32


def max_pool2d(
    x: np.ndarray, output_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[np.ndarray, np.ndarray]:
    shape = (*x.shape[:2], *output_size)
    values, indices = empty_channels_last(shape, x.dtype), empty_channels_last(shape, np.int64)
    _max(to_channels_last(x), values, indices, kernel_size, stride, padding, dilation)
    return to_public(values), to_public(indices)


def max_pool2d_gather(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    values = empty_channels_last(indices.shape, x.dtype)
    _gather(to_channels_last(x), to_channels_last(indices), values)
    return to_public(values)


def max_pool2d_scatter(grad: np.ndarray, indices: np.ndarray, input_size: Pair) -> np.ndarray:
    x_grad = empty_channels_last((*grad.shape[:2], *input_size), grad.dtype)
    _scatter(to_channels_last(grad), to_channels_last(indices), x_grad)
    return to_public(x_grad)


def avg_pool2d(x: np.ndarray, count: np.ndarray, kernel_size: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    y = empty_channels_last((*x.shape[:2], *count.shape), x.dtype)
    _average(to_channels_last(x), count, y, kernel_size, stride, padding)
    return to_public(y)


def avg_pool2d_adjoint(
    grad: np.ndarray, count: np.ndarray, input_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair
) -> np.ndarray:
    x_grad = empty_channels_last((*grad.shape[:2], *input_size), grad.dtype)
    _spread(to_channels_last(grad), count, x_grad, kernel_size, stride, padding)
    return to_public(x_grad)


@parallel
def _max(x, values, indices, kernel_size, stride, padding, dilation):
    n, ho, wo, _ = values.shape
    for row in prange(n * ho):
        b, i = row // ho, row % ho
        for j in range(wo):
            top, left = i * stride[0] - padding[0], j * stride[1] - padding[1]
            _window_max(x[b], values[b, i, j], indices[b, i, j], top, left, kernel_size, dilation)


@serial
def _window_max(x, best, index, top, left, kernel_size, dilation):
    """best, index (C,) = the maximum of x (H, W, C) over one window, and where it is."""
    h, w, channels = x.shape
    best[:] = -np.inf
    index[:] = -1
    first = True
    for r in range(kernel_size[0]):
        for s in range(kernel_size[1]):
            row, column = top + r * dilation[0], left + s * dilation[1]
            if 0 <= row < h and 0 <= column < w:
                for c in range(channels):
                    value = x[row, column, c]
                    wins = first or value > best[c] or value != value  # NaN alone is unequal to itself
                    best[c] = value if wins else best[c]
                    index[c] = row * w + column if wins else index[c]
                first = False


@parallel
def _gather(x, indices, values):
    n, ho, wo, channels = values.shape
    w = x.shape[2]
    for row in prange(n * ho):
        b, i = row // ho, row % ho
        for j in range(wo):
            for c in range(channels):
                at = indices[b, i, j, c]
                values[b, i, j, c] = x[b, at // w, at % w, c] if at >= 0 else 0


@parallel
def _scatter(grad, indices, x_grad):
    n, _, _, channels = grad.shape
    slabs = -(-channels // CHANNELS_PER_TASK)
    for task in prange(n * slabs):
        b, start = task // slabs, task % slabs * CHANNELS_PER_TASK
        stop = min(start + CHANNELS_PER_TASK, channels)
        _scatter_image(grad[b, :, :, start:stop], indices[b, :, :, start:stop], x_grad[b, :, :, start:stop])


@serial
def _scatter_image(grad, indices, x_grad):
    w = x_grad.shape[1]
    x_grad[:] = 0
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            for c in range(grad.shape[2]):
                at = indices[i, j, c]
                if at >= 0:
                    x_grad[at // w, at % w, c] += grad[i, j, c]


@parallel
def _average(x, count, y, kernel_size, stride, padding):
    n, ho, wo, channels = y.shape
    for row in prange(n * ho):
        b, i = row // ho, row % ho
        for j in range(wo):
            top, left = i * stride[0] - padding[0], j * stride[1] - padding[1]
            _window_sum(x[b], y[b, i, j], top, left, kernel_size)
            for c in range(channels):
                y[b, i, j, c] /= count[i, j]


@serial
def _window_sum(x, total, top, left, kernel_size):
    """total (C,) = the sum of x (H, W, C) over one window."""
    h, w, channels = x.shape
    total[:] = 0
    for row in range(max(top, 0), min(top + kernel_size[0], h)):
        for column in range(max(left, 0), min(left + kernel_size[1], w)):
            for c in range(channels):
                total[c] += x[row, column, c]


@parallel
def _spread(grad, count, x_grad, kernel_size, stride, padding):
    n, _, _, channels = grad.shape
    slabs = -(-channels // CHANNELS_PER_TASK)
    for task in prange(n * slabs):
        b, start = task // slabs, task % slabs * CHANNELS_PER_TASK
        stop = min(start + CHANNELS_PER_TASK, channels)
        _spread_image(grad[b, :, :, start:stop], count, x_grad[b, :, :, start:stop], kernel_size, stride, padding)


@serial
def _spread_image(grad, count, x_grad, kernel_size, stride, padding):
    """x_grad (H, W, C) = each window's share, added to all pixels of the window."""
    h, w, channels = x_grad.shape
    x_grad[:] = 0
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            top, left = i * stride[0] - padding[0], j * stride[1] - padding[1]
            for row in range(max(top, 0), min(top + kernel_size[0], h)):
                for column in range(max(left, 0), min(left + kernel_size[1], w)):
                    for c in range(channels):
                        x_grad[row, column, c] += grad[i, j, c] / count[i, j]
