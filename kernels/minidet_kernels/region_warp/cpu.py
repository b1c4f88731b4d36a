"""Warping with Numba: a thread makes whole squares, (size, size, C) inside, whose channels lie side by side."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minidet_kernels.compiler import parallel, serial, strict_serial
from minidet_kernels.memory import contiguous, empty_channels_last, to_public


def region_warp(
    image: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: int, fill: np.ndarray | None
) -> np.ndarray:
    warped = empty_channels_last((len(rows), len(image), size, size), image.dtype)
    constant = np.zeros(len(image), image.dtype) if fill is None else contiguous(fill)
    _warp_all(contiguous(image.transpose(1, 2, 0)), rows, columns, constant, fill is None, warped)
    return to_public(warped)


@parallel
def _warp_all(image, rows, columns, fill, by_mean, warped):
    for p in prange(len(rows)):
        top, height, i, down = rows[p]
        left, width, j, across = columns[p]
        square = warped[p]
        if down == 0 or across == 0:
            square[:] = fill
        else:
            region = image[top : top + height, left : left + width]
            shown = square[i : i + down, j : j + across]
            _resize(region, shown)
            _surround(square, i, down, j, across, _mean(shown) if by_mean else fill)


@serial
def _resize(region, shown):
    """shown (h, w, C) = region (H, W, C) resized."""
    down, across, channels = shown.shape
    row, up = _taps(len(region), down, shown)
    column, part = _taps(len(region[0]), across, shown)
    for i in range(down):
        above, below = region[row[0, i]], region[row[1, i]]
        for j in range(across):
            left, right = column[0, j], column[1, j]
            for c in range(channels):
                top = part[0, j] * above[left, c] + part[1, j] * above[right, c]
                bottom = part[0, j] * below[left, c] + part[1, j] * below[right, c]
                shown[i, j, c] = up[0, i] * top + up[1, i] * bottom


@strict_serial
def _taps(length, count, shown):
    """The two pixels of `length` that each of `count` is between, and their weights: index and weight, (2, count), the
    latter of shown's dtype. Rounded as in NumPy: on or beside a pixel is a difference where its neighbour is NaN."""
    index, weight = np.empty((2, count), np.int64), np.empty((2, count), shown.dtype)
    step = length / count
    for i in range(count):
        place = min(max((i + 0.5) * step - 0.5, 0.0), length - 1.0)
        first = math.floor(place)
        index[0, i], index[1, i] = first, first if length == count else min(first + 1, length - 1)
        weight[0, i], weight[1, i] = 1 - (place - first), place - first
    return index, weight


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
