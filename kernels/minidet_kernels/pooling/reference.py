"""Pooling in plain NumPy: a loop over the pixels (r, s) of the window, each time for all windows at once."""

from __future__ import annotations

import numpy as np

from minidet_kernels.arguments import Pair


def max_pool2d(
    x: np.ndarray, output_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[np.ndarray, np.ndarray]:
    n, c, h, w = x.shape
    top = np.arange(output_size[0]) * stride[0] - padding[0]  # (Ho,) first row of each window
    left = np.arange(output_size[1]) * stride[1] - padding[1]  # (Wo,) first column
    best = np.full((n, c, *output_size), -np.inf, x.dtype)
    indices = np.full((n, c, *output_size), -1, np.int64)
    for r, s in np.ndindex(*kernel_size):  # row-major, so that the first of equal values wins
        row = (top + r * dilation[0])[:, None]
        column = (left + s * dilation[1])[None, :]
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)  # (Ho, Wo)
        value = x[:, :, row.clip(0, h - 1), column.clip(0, w - 1)]  # (N, C, Ho, Wo)
        wins = inside & ((value > best) | np.isnan(value) | (indices == -1))
        best = np.where(wins, value, best)
        indices = np.where(wins, row * w + column, indices)
    return best, indices


def max_pool2d_gather(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    n, c, h, w = x.shape
    ho, wo = indices.shape[2:]
    chosen = indices.reshape(n, c, ho * wo)
    values = np.take_along_axis(x.reshape(n, c, h * w), chosen.clip(0), axis=2)
    return np.where(chosen == -1, x.dtype.type(0), values).reshape(indices.shape)


def max_pool2d_scatter(grad: np.ndarray, indices: np.ndarray, input_size: Pair) -> np.ndarray:
    n, c = grad.shape[:2]
    h, w = input_size
    x_grad = np.zeros((n, c, h * w), grad.dtype)
    batch, channel, i, j = np.nonzero(indices >= 0)
    # `add.at` adds once for every index, also for repeated ones; x_grad[...] += would keep only the last
    np.add.at(x_grad, (batch, channel, indices[batch, channel, i, j]), grad[batch, channel, i, j])
    return x_grad.reshape(n, c, h, w)


def avg_pool2d(x: np.ndarray, count: np.ndarray, kernel_size: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    n, c, h, w = x.shape
    padded = np.zeros((n, c, *_padded_size((h, w), count.shape, kernel_size, stride, padding)), x.dtype)
    padded[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + w] = x
    total = np.zeros((n, c, *count.shape), x.dtype)
    for r, s in np.ndindex(*kernel_size):
        total += padded[_pixel_of_all_windows(r, s, count.shape, stride)]
    return total / count


def avg_pool2d_adjoint(
    grad: np.ndarray, count: np.ndarray, input_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair
) -> np.ndarray:
    n, c = grad.shape[:2]
    (h, w), (ph, pw) = input_size, padding
    padded = np.zeros((n, c, *_padded_size(input_size, count.shape, kernel_size, stride, padding)), grad.dtype)
    for r, s in np.ndindex(*kernel_size):
        padded[_pixel_of_all_windows(r, s, count.shape, stride)] += grad / count
    return padded[:, :, ph : ph + h, pw : pw + w]


def _padded_size(input_size: Pair, output_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair) -> Pair:
    """Large enough for the padded image and for a last window that ceil_mode lets stick out of it."""
    rows, columns = (
        max(size + 2 * pad, (outputs - 1) * step + kernel)
        for size, outputs, kernel, step, pad in zip(input_size, output_size, kernel_size, stride, padding, strict=True)
    )
    return rows, columns


def _pixel_of_all_windows(r: int, s: int, output_size: Pair, stride: Pair) -> tuple[slice, ...]:
    """Index into the padded image: pixel (r, s) of every window."""
    (ho, wo), (sh, sw) = output_size, stride
    return slice(None), slice(None), slice(r, r + (ho - 1) * sh + 1, sh), slice(s, s + (wo - 1) * sw + 1, sw)
