"""The fully connected layer on the CPU: three ways to multiply, chosen by how many rows x has.

few rows    The weight is read, or its gradient written, once from end to end, by all threads, and everything else
            stays in the cache: the functions below. Up to `FEW` rows that is what takes the time.
more rows   The multiplications take the time: the tile of simd.py, on blocks that stay in the cache (product.py).
the rest    NumPy's BLAS: float64, small layers, and sizes that are no multiples of vectors and tiles, as a last layer
            with a class count has.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import parallel, serial
from minidet_kernels.linear.product import LANES as TILE_LANES
from minidet_kernels.linear.product import ROW_STEP, multiply
from minidet_kernels.memory import contiguous, empty
from minidet_kernels.vectors import load, store

# Rows up to which the loops below are faster than tiles: 4 to 16 of them, by the size of the weight (measured).
FEW = 8
# Weights up to which one thread of BLAS has finished before threads have started: 1 MB of float32.
SMALL = 1 << 18
# Rows of the weight that are worked on at once: 8 sums hide the time that an addition takes.
ROWS = 8
# Numbers of a row that are read at a stretch: 16 KB, so that 8 rows of the weight stay in the second cache for every
# row of x; shorter stretches leave the processor's prefetching behind.
STRETCH = 4096
LANES = 64  # 4 vectors


def linear(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    if not _fits(x.dtype, weight.shape):
        return np.matmul(x, weight.T)
    x, weight = contiguous(x), contiguous(weight)
    if len(x) > FEW and len(x) >= len(weight) and len(weight) % TILE_LANES == 0:
        return multiply(_whole_tiles(x), np.ascontiguousarray(weight.T))[: len(x)]  # the smaller one is turned
    if len(x) > FEW:
        # Y' = W X', so that the weight is the matrix that is read as it lies
        rows = -(-len(x) // LANES) * LANES
        x_columns = np.zeros((x.shape[1], rows), np.float32)
        x_columns[:, : len(x)] = x.T
        return np.ascontiguousarray(multiply(weight, x_columns)[:, : len(x)].T)
    y = empty((len(x), len(weight)), np.float32)
    _dot_products(x, weight, y)
    return y


def linear_input_grad(grad: np.ndarray, weight: np.ndarray) -> np.ndarray:
    if not _fits(grad.dtype, weight.shape):
        return np.matmul(grad, weight)
    grad, weight = contiguous(grad), contiguous(weight)
    if len(grad) > FEW:
        return multiply(_whole_tiles(grad), weight)[: len(grad)]
    x_grad = np.zeros((len(grad), weight.shape[1]), np.float32)
    _weighted_sums(grad, weight, x_grad)
    return x_grad


def linear_weight_grad(x: np.ndarray, grad: np.ndarray) -> np.ndarray:
    if not _fits(x.dtype, (grad.shape[1], x.shape[1])):
        return np.matmul(grad.T, x)
    x = contiguous(x)
    if len(x) > FEW:
        return multiply(contiguous(grad.T), x)
    weight_grad = empty((grad.shape[1], x.shape[1]), np.float32)
    _outer_products(contiguous(grad), x, weight_grad)
    return weight_grad


def _whole_tiles(x: np.ndarray) -> np.ndarray:
    """x with rows of zeros below, up to a whole number of tiles; x itself if there is nothing to add."""
    missing = -len(x) % ROW_STEP
    return np.concatenate([x, np.zeros((missing, x.shape[1]), np.float32)]) if missing else x


def _fits(dtype: np.dtype, weight_shape: tuple[int, int]) -> bool:
    """Whether the vectors and tiles go in without a remainder, and are worth it."""
    outputs, channels = weight_shape
    return dtype == np.float32 and outputs * channels >= SMALL and outputs % ROWS == 0 and channels % LANES == 0


@parallel
def _dot_products(x, weight, y):
    """y (N, K) = x (N, C) weight' (C, K). A task is 8 rows of the weight."""
    outputs, channels = weight.shape
    flat_x, flat_weight, zeros = x.reshape(-1), weight.reshape(-1), np.zeros(16, np.float32)
    for task in prange(outputs // ROWS):
        k = task * ROWS
        y[:, k : k + ROWS] = 0
        for start in range(0, channels, STRETCH):
            stop = min(start + STRETCH, channels)
            for n in range(len(x)):
                _dot_products_of_8_rows(
                    flat_x, n * channels, flat_weight, k * channels, channels, start, stop, zeros, y[n, k : k + ROWS]
                )


@serial
def _dot_products_of_8_rows(x, x_row, weight, row, row_step, start, stop, zeros, y):
    """y (8,) += the sums from start to stop; the row of x begins at x_row, the weight's first one at `row`."""
    a = b = c = d = e = f = g = h = load(zeros, 0)
    for i in range(start, stop, 16):
        v, at = load(x, x_row + i), row + i
        a = a + v * load(weight, at)
        b = b + v * load(weight, at + row_step)
        c = c + v * load(weight, at + 2 * row_step)
        d = d + v * load(weight, at + 3 * row_step)
        e = e + v * load(weight, at + 4 * row_step)
        f = f + v * load(weight, at + 5 * row_step)
        g = g + v * load(weight, at + 6 * row_step)
        h = h + v * load(weight, at + 7 * row_step)
    lanes = np.empty((ROWS, 16), np.float32)
    flat = lanes.reshape(-1)
    store(flat, 0, a), store(flat, 16, b), store(flat, 32, c), store(flat, 48, d)
    store(flat, 64, e), store(flat, 80, f), store(flat, 96, g), store(flat, 112, h)
    for k in range(ROWS):
        for lane in range(16):
            y[k] += lanes[k, lane]


@parallel
def _weighted_sums(grad, weight, x_grad):
    """x_grad (N, C), zeros, += grad (N, K) weight (K, C). A task is a stretch of columns, through all rows."""
    outputs, channels = weight.shape
    flat_weight, flat_x_grad = weight.reshape(-1), x_grad.reshape(-1)
    stretch = STRETCH // 2  # half as long, for more tasks than threads
    for task in prange(-(-channels // stretch)):
        start, stop = task * stretch, min((task + 1) * stretch, channels)
        for k in range(0, outputs, ROWS):
            for n in range(len(grad)):
                _add_8_rows(
                    grad[n, k : k + ROWS], flat_weight, k * channels, channels, flat_x_grad, n * channels, start, stop
                )


@serial
def _add_8_rows(grad, weight, row, row_step, x_grad, x_row, start, stop):
    """A row of x_grad, from start to stop, += grad (8,) times 8 rows of the weight."""
    for i in range(start, stop, 16):
        total, at = load(x_grad, x_row + i), row + i
        total = total + grad[0] * load(weight, at)
        total = total + grad[1] * load(weight, at + row_step)
        total = total + grad[2] * load(weight, at + 2 * row_step)
        total = total + grad[3] * load(weight, at + 3 * row_step)
        total = total + grad[4] * load(weight, at + 4 * row_step)
        total = total + grad[5] * load(weight, at + 5 * row_step)
        total = total + grad[6] * load(weight, at + 6 * row_step)
        total = total + grad[7] * load(weight, at + 7 * row_step)
        store(x_grad, x_row + i, total)


@parallel
def _outer_products(grad, x, weight_grad):
    """weight_grad (K, C) = grad' (K, N) x (N, C). A task is 8 rows."""
    outputs, channels = weight_grad.shape
    flat_grad, flat_x, flat_result = grad.reshape(-1), x.reshape(-1), weight_grad.reshape(-1)
    zeros = np.zeros(16, np.float32)
    for task in prange(outputs // ROWS):
        for start in range(0, channels, STRETCH // 4):  # so short that all rows of x stay in the first cache
            stop = min(start + STRETCH // 4, channels)
            for k in range(task * ROWS, (task + 1) * ROWS, 2):
                _outer_products_of_2_rows(
                    flat_grad, k, outputs, flat_x, channels, flat_result, k * channels, start, stop, len(x), zeros
                )


@serial
def _outer_products_of_2_rows(grad, k, outputs, x, channels, result, row, start, stop, count, zeros):
    for i in range(start, stop, LANES):
        a = b = c = d = e = f = g = h = load(zeros, 0)
        for n in range(count):
            first, second, at = grad[n * outputs + k], grad[n * outputs + k + 1], n * channels + i
            v = load(x, at)
            a, e = a + first * v, e + second * v
            v = load(x, at + 16)
            b, f = b + first * v, f + second * v
            v = load(x, at + 32)
            c, g = c + first * v, g + second * v
            v = load(x, at + 48)
            d, h = d + first * v, h + second * v
        at = row + i
        store(result, at, a), store(result, at + 16, b), store(result, at + 32, c), store(result, at + 48, d)
        at += channels
        store(result, at, e), store(result, at + 16, f), store(result, at + 32, g), store(result, at + 48, h)
