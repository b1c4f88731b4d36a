"""RoIAlign with Numba: images are (N, H, W, C) inside, and the channels of a pixel are one vector.

A bin is a weighted sum of pixels, and the weight of a pixel is the product of one for its row and one for its column.
So the samples are not visited one by one: first the distinct rows and columns of every bin are listed, with their
weights added up (`_distinct`). Two samples a side touch 4 rows and 4 columns, 16 pixels, but in small bins only 2 or 3
rows and columns: 4 to 9 pixels.

The result is shared among the threads by boxes; in the adjoint, where boxes add into the same pixels, a thread owns
some rows of an image. No locks, the same bits on every run and for any number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import parallel, serial
from minidet_kernels.memory import empty_channels_last, to_channels_last, to_public
from minidet_kernels.roi_align.geometry import samples
from minidet_kernels.vectors import LANES, load, store, store_past_caches

# Channels whose sums stay in registers while a bin's pixels pass by: 4 vectors, enough to hide the latency of adding.
# Bins are the outer loops and blocks the inner one, so that whole pixels are read and written: the other way round
# takes half as long again.
BLOCK = 64
# Bytes of a result that is written past the caches: more than a core's own caches hold (4 MB), so that it would only
# drive the map from them. 10 to 15 % faster.
LARGE = 1 << 22
# Rows of the map that a thread owns in the adjoint. With fewer, the gradients of a bin, which reads 2 to 3 rows, would
# be loaded more often; with more, threads would be idle on a small map.
ROWS_PER_TASK = 4


def roi_align(
    x: np.ndarray, rois: np.ndarray, output_size: Pair, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> np.ndarray:
    image, x1, y1, x2, y2 = rois.T
    rows = _distinct(*samples(y1, y2, output_size[0], x.shape[2], spatial_scale, sampling_ratio, aligned))
    columns = _distinct(*samples(x1, x2, output_size[1], x.shape[3], spatial_scale, sampling_ratio, aligned))
    y = empty_channels_last((len(rois), x.shape[1], *output_size), x.dtype)
    x, image = to_channels_last(x), image.astype(np.int64)
    if x.dtype == np.float32 and x.shape[3] >= BLOCK:
        past_caches = y.nbytes >= LARGE and y.ctypes.data % 64 == 0 and x.shape[3] % LANES == 0
        _align_in_vectors(x, image, rows, columns, past_caches, y)
    else:
        _align(x, image, rows, columns, y)
    return to_public(y)


def roi_align_adjoint(
    grad: np.ndarray,
    rois: np.ndarray,
    input_size: tuple[int, int, int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> np.ndarray:
    image, x1, y1, x2, y2 = rois.T
    rows = _distinct(*samples(y1, y2, grad.shape[2], input_size[2], spatial_scale, sampling_ratio, aligned))
    columns = _distinct(*samples(x1, x2, grad.shape[3], input_size[3], spatial_scale, sampling_ratio, aligned))
    x_grad = empty_channels_last(input_size, grad.dtype)
    _spread(to_channels_last(grad), image.astype(np.int64), rows, columns, x_grad)
    return to_public(x_grad)


@parallel
def _distinct(pixel, weight, grid):
    """The pixels along one axis that a bin reads, each once: pixels (R, P, K), weights (R, P, K), how many (R, P).

    The weights are summed over the bin's samples and divided by their number.
    """
    _, boxes, bins, most = pixel.shape
    pixels = np.empty((boxes, bins, 2 * most), np.int64)
    weights = np.empty((boxes, bins, 2 * most), weight.dtype)
    counts = np.zeros((boxes, bins), np.int64)
    for r in prange(boxes):
        for i in range(bins):
            count = 0
            for s in range(most):
                for neighbour in range(2):
                    part = weight[neighbour, r, i, s] / grid[r]
                    if part > 0:
                        # samples stand in order: the pixel is one of the last two, or new
                        k = count
                        for back in range(max(count - 2, 0), count):
                            if pixels[r, i, back] == pixel[neighbour, r, i, s]:
                                k = back
                        weights[r, i, k] = part if k == count else weights[r, i, k] + part
                        pixels[r, i, k] = pixel[neighbour, r, i, s]
                        count = max(count, k + 1)
            counts[r, i] = count
    return pixels, weights, counts


@parallel
def _align(x, images, rows, columns, y):
    boxes, ho, wo, _ = y.shape
    for r in prange(boxes):
        for i in range(ho):
            for j in range(wo):
                _weighted_sum(x[images[r]], rows, columns, r, i, j, y[r, i, j])


@serial
def _weighted_sum(x, rows, columns, r, i, j, y):
    """y (C,) = bin (i, j) of box r on the map x (H, W, C)."""
    y[:] = 0
    for k in range(rows[2][r, i]):
        line, row_weight = x[rows[0][r, i, k]], rows[1][r, i, k]
        for m in range(columns[2][r, j]):
            values, weight = line[columns[0][r, j, m]], row_weight * columns[1][r, j, m]
            for c in range(len(y)):
                y[c] += weight * values[c]


@parallel
def _align_in_vectors(x, images, rows, columns, past_caches, y):
    """As `_align`, for at least 64 channels of float32. `past_caches`: how y is written, see store_past_caches."""
    boxes = len(y)
    pixels, results, zeros = x.reshape(-1), y.reshape(-1), np.zeros(16, np.float32)
    for r in prange(boxes):
        _sum_box(pixels, x.shape, images[r], rows, columns, r, zeros, past_caches, results)


@serial
def _sum_box(x, x_shape, image, rows, columns, r, zeros, past_caches, y):
    """The bins of box r. x and y lie flat, since views of parts of them would cost more time than the sums."""
    _, height, width, channels = x_shape
    row_of, row_weight, row_count = rows
    column_of, column_weight, column_count = columns
    ho, wo = row_count.shape[1], column_count.shape[1]
    for i in range(ho):
        for j in range(wo):
            for start in range(0, channels, BLOCK):
                # the last block begins early enough to be whole, and computes some channels again
                first = min(start, channels - BLOCK)
                a = b = c = d = load(zeros, 0)
                for k in range(row_count[r, i]):
                    line = (image * height + row_of[r, i, k]) * width
                    for m in range(column_count[r, j]):
                        at = (line + column_of[r, j, m]) * channels + first
                        weight = row_weight[r, i, k] * column_weight[r, j, m]
                        a = a + weight * load(x, at)
                        b = b + weight * load(x, at + 16)
                        c = c + weight * load(x, at + 32)
                        d = d + weight * load(x, at + 48)
                result = ((r * ho + i) * wo + j) * channels + first
                if past_caches:
                    store_past_caches(y, result, a)
                    store_past_caches(y, result + 16, b)
                    store_past_caches(y, result + 32, c)
                    store_past_caches(y, result + 48, d)
                else:
                    store(y, result, a)
                    store(y, result + 16, b)
                    store(y, result + 32, c)
                    store(y, result + 48, d)


@parallel
def _spread(grad, images, rows, columns, x_grad):
    n, h, _, _ = x_grad.shape
    blocks = -(-h // ROWS_PER_TASK)
    for task in prange(n * blocks):
        b, start = task // blocks, task % blocks * ROWS_PER_TASK
        stop = min(start + ROWS_PER_TASK, h)
        x_grad[b, start:stop] = 0
        for r in range(len(images)):
            if images[r] == b:
                _spread_box(grad[r], rows, columns, r, start, stop, x_grad[b])


@serial
def _spread_box(grad, rows, columns, r, start, stop, x_grad):
    """x_grad (H, W, C), its rows from start to stop, += what the bins of box r, grad (Ho, Wo, C), give back to them."""
    for i in range(grad.shape[0]):
        for k in range(rows[2][r, i]):
            row, row_weight = rows[0][r, i, k], rows[1][r, i, k]
            if start <= row < stop:
                for j in range(grad.shape[1]):
                    share = grad[i, j]
                    for m in range(columns[2][r, j]):
                        target, weight = x_grad[row, columns[0][r, j, m]], row_weight * columns[1][r, j, m]
                        for c in range(len(share)):
                            target[c] += weight * share[c]
