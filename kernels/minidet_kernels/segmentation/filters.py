"""Separable filters with Numba, for planes (C, H, W): a Gaussian and its derivative, along rows and along columns.

Sums are taken in the order of the contract, each operation rounded by itself; the innermost loops go along a row, so
that vector instructions work on many of its pixels at a time.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import strict_inlined, strict_parallel


def smoothed(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """image (C, H, W), contiguous -> the same smoothed along rows, then columns."""
    return along_columns(along_rows(image, weights, False), weights, False)


def along_rows(image: np.ndarray, weights: np.ndarray, odd: bool) -> np.ndarray:
    """odd: weights of a derivative, for differences of pixels; else for their sums."""
    result = np.empty_like(image)
    _along_rows(image, weights, odd, result)
    return result


def along_columns(image: np.ndarray, weights: np.ndarray, odd: bool) -> np.ndarray:
    result = np.empty_like(image)
    _along_columns(image, weights, odd, result)
    return result


@strict_parallel
def _along_rows(image, weights, odd, result):
    channels, height, width = image.shape
    radius = len(weights) - 1
    for plane_row in prange(channels * height):
        channel, row = plane_row // height, plane_row % height
        padded = np.empty(width + 2 * radius, image.dtype)
        padded[:radius] = image[channel, row, 0]
        padded[radius : radius + width] = image[channel, row]
        padded[radius + width :] = image[channel, row, width - 1]
        total = result[channel, row]
        _begin(total, padded[radius:], weights[0])
        for i in range(1, radius + 1):
            _add(total, padded[radius - i :], padded[radius + i :], weights[i], odd)


@strict_parallel
def _along_columns(image, weights, odd, result):
    channels, height, _ = image.shape
    for plane_row in prange(channels * height):
        channel, row = plane_row // height, plane_row % height
        total = result[channel, row]
        _begin(total, image[channel, row], weights[0])
        for i in range(1, len(weights)):
            above, below = image[channel, max(row - i, 0)], image[channel, min(row + i, height - 1)]
            _add(total, above, below, weights[i], odd)


@strict_inlined
def _begin(total, centre, weight):
    for column in range(len(total)):
        total[column] = weight * centre[column]


@strict_inlined
def _add(total, before, after, weight, odd):
    if odd:
        for column in range(len(total)):
            total[column] += weight * (after[column] - before[column])
    else:
        for column in range(len(total)):
            total[column] += weight * (before[column] + after[column])
