"""Warping with Numba: a thread makes whole squares, (size, size, C) inside, whose channels lie side by side."""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import parallel, serial
from minidet_kernels.memory import contiguous, empty_channels_last, to_public
from minidet_kernels.resample.geometry import axis_taps


def region_warp(
    image: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: int, fill: np.ndarray | None
) -> np.ndarray:
    warped = empty_channels_last((len(rows), len(image), size, size), image.dtype)
    constant = np.zeros(len(image), image.dtype) if fill is None else contiguous(fill)
    index, weight, starts = _taps(rows, columns, image.dtype)
    _warp_all(
        contiguous(image.transpose(1, 2, 0)), rows, columns, index, weight, starts, constant, fill is None, warped
    )
    return to_public(warped)


def _taps(rows: np.ndarray, columns: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels that each pixel of a result is between, and their weights, index and weight (2, T), for all pairs
    of lengths before and after that occur, one after the other; and where those of each region's rows and columns
    start, (2, P). By NumPy, as in the reference: compiled code may round the places otherwise, and on or beside a pixel
    is a difference where its neighbour is NaN."""
    pairs = np.concatenate([rows[:, [1, 3]], columns[:, [1, 3]]])
    distinct, number = np.unique(pairs, axis=0, return_inverse=True)
    counts = distinct[:, 1]
    taps = [axis_taps(int(length), int(count), False, None) for length, count in distinct if count]
    index = np.concatenate([np.zeros((2, 0), np.int64), *(one for one, _ in taps)], axis=1)
    weight = np.concatenate([np.zeros((2, 0)), *(one for _, one in taps)], axis=1).astype(dtype)
    return index, weight, (np.cumsum(counts) - counts)[number].reshape(2, -1)


@parallel
def _warp_all(image, rows, columns, index, weight, starts, fill, by_mean, warped):
    for p in prange(len(rows)):
        top, height, i, down = rows[p]
        left, width, j, across = columns[p]
        square = warped[p]
        if down == 0 or across == 0:
            square[:] = fill
        else:
            region = image[top : top + height, left : left + width]
            shown = square[i : i + down, j : j + across]
            _resize(region, shown, index, weight, starts[0, p], starts[1, p])
            _surround(square, i, down, j, across, _mean(shown) if by_mean else fill)


@serial
def _resize(region, shown, index, weight, first_row, first_column):
    """shown (h, w, C) = region (H, W, C) resized."""
    down, across, channels = shown.shape
    for i in range(down):
        row = first_row + i
        above, below = region[index[0, row]], region[index[1, row]]
        for j in range(across):
            column = first_column + j
            left, right = index[0, column], index[1, column]
            for c in range(channels):
                top = weight[0, column] * above[left, c] + weight[1, column] * above[right, c]
                bottom = weight[0, column] * below[left, c] + weight[1, column] * below[right, c]
                shown[i, j, c] = weight[0, row] * top + weight[1, row] * bottom


@serial
def _mean(shown):
    """(C,), summed in double."""
    down, across, channels = shown.shape
    sums = np.zeros(channels)
    for i in range(down):
        for j in range(across):
            for c in range(channels):
                sums[c] += shown[i, j, c]
    return (sums / (down * across)).astype(shown.dtype)


@serial
def _surround(square, i, down, j, across, fill):
    square[:i] = fill
    square[i + down :] = fill
    square[i : i + down, :j] = fill
    square[i : i + down, j + across :] = fill
