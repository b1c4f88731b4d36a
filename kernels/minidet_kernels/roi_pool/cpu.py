"""RoIPool with Numba: images are (N, H, W, C) inside; the innermost loop runs over a pixel's channels as one vector.

Where boxes only read (maximum, gather) the threads share the boxes. Where they add into the same pixels (scatter) each
thread adds its share of the boxes into a partial result of its own; then these are summed in a fixed order. So the
bits depend on the number of threads, and on nothing else.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import parallel, serial
from minidet_kernels.memory import empty, empty_channels_last, to_channels_last, to_public
from minidet_kernels.roi_pool.geometry import bin_ranges
from minidet_kernels.vectors import bits_of, load, store, where_larger

# Channels whose maxima, and their places, stay in registers while a bin's pixels pass by: 4 vectors of each. Bins are
# the outer loops and blocks the inner one, so that whole pixels are read and written: the other way round takes twice
# as long.
BLOCK = 64


def roi_pool(x: np.ndarray, rois: np.ndarray, output_size: Pair, spatial_scale: float) -> tuple[np.ndarray, np.ndarray]:
    images, x1, y1, x2, y2 = rois.T
    rows = bin_ranges(y1, y2, output_size[0], x.shape[2], spatial_scale)
    columns = bin_ranges(x1, x2, output_size[1], x.shape[3], spatial_scale)
    shape = (len(rois), x.shape[1], *output_size)
    values, argmax = empty_channels_last(shape, x.dtype), empty_channels_last(shape, np.int32)
    pool = _pool_in_vectors if x.dtype == np.float32 and x.shape[1] >= BLOCK else _pool
    pool(to_channels_last(x), images.astype(np.int64), rows, columns, values, argmax)
    return to_public(values), to_public(argmax)


def roi_pool_gather(x: np.ndarray, rois: np.ndarray, argmax: np.ndarray) -> np.ndarray:
    values = empty_channels_last(argmax.shape, x.dtype)
    _gather(to_channels_last(x), rois[:, 0].astype(np.int64), to_channels_last(argmax), values)
    return to_public(values)


def roi_pool_scatter(
    grad: np.ndarray, rois: np.ndarray, argmax: np.ndarray, input_size: tuple[int, int, int, int]
) -> np.ndarray:
    n, c, h, w = input_size
    # as many partial results as there are threads, but not more than twice the memory of grad: small boxes on a large
    # map are added up sooner than partial results are
    worth = 2 * grad.size // (n * c * h * w) if n * c else 0
    partial = empty((min(numba.get_num_threads(), max(worth, 1)), n, h, w, c), grad.dtype)
    _scatter(to_channels_last(grad), rois[:, 0].astype(np.int64), to_channels_last(argmax), partial)
    if len(partial) > 1:
        _add_up(partial)
    return to_public(partial[0])


@parallel
def _pool(x, images, rows, columns, values, argmax):
    boxes, ho, wo, _ = values.shape
    for r in prange(boxes):
        for i in range(ho):
            for j in range(wo):
                top, bottom = rows[0][r, i], rows[1][r, i]
                left, right = columns[0][r, j], columns[1][r, j]
                _bin_max(x[images[r]], top, bottom, left, right, values[r, i, j], argmax[r, i, j])


@serial
def _bin_max(x, top, bottom, left, right, best, index):
    """best, index (C,) = the maximum of x (H, W, C) over the bin, and where it is."""
    _, width, channels = x.shape
    best[:] = 0
    index[:] = -1
    if top < bottom and left < right:
        best[:] = x[top, left]
        index[:] = top * width + left
    for row in range(top, bottom):
        for column in range(left, right):
            values, at = x[row, column], np.int32(row * width + column)
            for c in range(channels):
                value = values[c]
                wins = (value > best[c]) | (value != value)  # NaN alone is unequal to itself
                best[c] = value if wins else best[c]
                index[c] = at if wins else index[c]


@parallel
def _pool_in_vectors(x, images, rows, columns, values, argmax):
    """As `_pool`, for at least 64 channels of float32."""
    boxes = len(values)
    pixels, maxima, places, zeros = x.reshape(-1), values.reshape(-1), argmax.reshape(-1), np.zeros(16, np.float32)
    for r in prange(boxes):
        _pool_box(pixels, x.shape, images[r], rows, columns, r, zeros, maxima, places)


@serial
def _pool_box(x, x_shape, image, rows, columns, r, zeros, values, argmax):
    """The bins of box r. All arrays lie flat, since views of parts of them would cost more than the comparisons."""
    _, height, width, channels = x_shape
    (top, bottom), (left, right) = rows, columns
    ho, wo = top.shape[1], left.shape[1]
    for i in range(ho):
        for j in range(wo):
            for start in range(0, channels, BLOCK):
                # the last block begins early enough to be whole, and finds some maxima again
                first = min(start, channels - BLOCK)
                a = b = c = d = load(zeros, 0)
                at_a = at_b = at_c = at_d = bits_of(np.int32(-1))
                if top[r, i] < bottom[r, i] and left[r, j] < right[r, j]:
                    place = top[r, i] * width + left[r, j]
                    p = (image * height * width + place) * channels + first
                    a, b, c, d = load(x, p), load(x, p + 16), load(x, p + 32), load(x, p + 48)
                    at_a = at_b = at_c = at_d = bits_of(np.int32(place))
                for row in range(top[r, i], bottom[r, i]):
                    for column in range(left[r, j], right[r, j]):
                        place = row * width + column
                        p = (image * height * width + place) * channels + first
                        at = bits_of(np.int32(place))
                        v = load(x, p)
                        at_a, a = where_larger(v, a, at, at_a), where_larger(v, a, v, a)
                        v = load(x, p + 16)
                        at_b, b = where_larger(v, b, at, at_b), where_larger(v, b, v, b)
                        v = load(x, p + 32)
                        at_c, c = where_larger(v, c, at, at_c), where_larger(v, c, v, c)
                        v = load(x, p + 48)
                        at_d, d = where_larger(v, d, at, at_d), where_larger(v, d, v, d)
                result = ((r * ho + i) * wo + j) * channels + first
                store(values, result, a)
                store(values, result + 16, b)
                store(values, result + 32, c)
                store(values, result + 48, d)
                store(argmax, result, at_a)
                store(argmax, result + 16, at_b)
                store(argmax, result + 32, at_c)
                store(argmax, result + 48, at_d)


@parallel
def _gather(x, images, argmax, values):
    boxes, ho, wo, channels = values.shape
    _, h, w, _ = x.shape
    for r in prange(boxes):
        image = x[images[r]].reshape(h * w, channels)
        for i in range(ho):
            for j in range(wo):
                for c in range(channels):
                    at = argmax[r, i, j, c]
                    values[r, i, j, c] = image[at, c] if at >= 0 else 0


@parallel
def _scatter(grad, images, argmax, partial):
    parts, _, h, w, channels = partial.shape
    boxes = len(images)
    for part in prange(parts):
        partial[part] = 0
        for r in range(part * boxes // parts, (part + 1) * boxes // parts):
            _scatter_box(grad[r], argmax[r], partial[part, images[r]].reshape(h * w, channels))


@serial
def _scatter_box(grad, argmax, x_grad):
    """x_grad (H*W, C) += the gradients of one box, grad (Ho, Wo, C)."""
    ho, wo, channels = grad.shape
    for i in range(ho):
        for j in range(wo):
            for c in range(channels):
                at = argmax[i, j, c]
                if at >= 0:
                    x_grad[at, c] += grad[i, j, c]


@parallel
def _add_up(partial):
    """partial[0] += all the others."""
    parts, n, h, _, _ = partial.shape
    for row in prange(n * h):
        b, i = row // h, row % h
        for part in range(1, parts):
            partial[0, b, i] += partial[part, b, i]
