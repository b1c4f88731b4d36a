"""Resampling with Numba: images are (N, H, W, C) inside, and a pixel's channels are one vector.

Where results are gathered, the threads share their rows. The adjoints scatter: in resizing, a thread owns rows of the
input and looks up which results touch them; in warping, where that would need the inverse matrix, each thread adds into
an image of its own, and these are summed in a fixed order. No locks, the same bits on every run.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import inlined, parallel, serial
from minidet_kernels.memory import contiguous, empty_channels_last, to_channels_last, to_public

Taps = tuple[np.ndarray, np.ndarray]


def resize_bilinear(x: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    y = empty_channels_last((*x.shape[:2], rows[0].shape[1], columns[0].shape[1]), x.dtype)
    _resize(to_channels_last(x), *_in_dtype(rows, x.dtype), *_in_dtype(columns, x.dtype), y)
    return to_public(y)


def resize_bilinear_adjoint(grad: np.ndarray, rows: Taps, columns: Taps, input_size: Pair) -> np.ndarray:
    x_grad = empty_channels_last((*grad.shape[:2], *input_size), grad.dtype)
    # the indices ascend: the results that look at a row of the input follow one another, from `first` to before `last`
    first = np.searchsorted(rows[0][1], np.arange(input_size[0]))
    last = np.searchsorted(rows[0][0], np.arange(input_size[0]), side="right")
    taps = (*_in_dtype(rows, grad.dtype), *_in_dtype(columns, grad.dtype))
    _resize_adjoint(to_channels_last(grad), *taps, first, last, x_grad)
    return to_public(x_grad)


def resize_nearest(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    y = empty_channels_last((*x.shape[:2], len(rows), len(columns)), x.dtype)
    _copy(to_channels_last(x), rows, columns, y)
    return to_public(y)


def resize_nearest_adjoint(grad: np.ndarray, rows: np.ndarray, columns: np.ndarray, input_size: Pair) -> np.ndarray:
    x_grad = empty_channels_last((*grad.shape[:2], *input_size), grad.dtype)
    # the rows ascend: the copies of row h follow one another, from first[h] to before first[h + 1]
    first = np.searchsorted(rows, np.arange(input_size[0] + 1))
    _add_copies(to_channels_last(grad), first, columns, x_grad)
    return to_public(x_grad)


def affine_warp(x: np.ndarray, matrices: np.ndarray, output_size: Pair) -> np.ndarray:
    y = empty_channels_last((len(matrices), x.shape[1], *output_size), x.dtype)
    _warp(to_channels_last(x), matrices, y)
    return to_public(y)


def affine_warp_adjoint(grad: np.ndarray, matrices: np.ndarray, input_size: Pair, images: int) -> np.ndarray:
    parts = -(-numba.get_num_threads() // max(images, 1))  # so that few images keep all threads busy too
    sums = np.empty((images, parts, *input_size, grad.shape[1]), grad.dtype)
    _warp_adjoint(to_channels_last(grad), matrices, sums)
    return to_public(sums[:, 0] if parts == 1 else sums.sum(axis=1))


def affine_warp_gram(matrices: np.ndarray, input_size: Pair, output_size: Pair) -> np.ndarray:
    gram = np.zeros((5, *input_size))
    _gram(matrices, output_size, gram)
    return gram


def gram_product(x: np.ndarray, gram: np.ndarray) -> np.ndarray:
    planes = contiguous(x).reshape(-1, *x.shape[2:])
    y = np.empty_like(planes)
    _gram_product(planes, contiguous(gram), y)
    return y.reshape(x.shape)


def _in_dtype(taps: Taps, dtype: np.dtype) -> Taps:
    return taps[0], taps[1].astype(dtype)


@parallel
def _resize(x, row_index, row_weight, column_index, column_weight, y):
    n, ho, wo, channels = y.shape
    for task in prange(n * ho):
        b, i = task // ho, task % ho
        above, below = x[b, row_index[0, i]], x[b, row_index[1, i]]
        for j in range(wo):
            left, right = column_index[0, j], column_index[1, j]
            for c in range(channels):
                top = column_weight[0, j] * above[left, c] + column_weight[1, j] * above[right, c]
                bottom = column_weight[0, j] * below[left, c] + column_weight[1, j] * below[right, c]
                y[b, i, j, c] = row_weight[0, i] * top + row_weight[1, i] * bottom


@parallel
def _resize_adjoint(grad, row_index, row_weight, column_index, column_weight, first, last, x_grad):
    n, h, _, _ = x_grad.shape
    for task in prange(n * h):
        b, row = task // h, task % h
        x_grad[b, row] = 0
        for i in range(first[row], last[row]):
            for tap in range(2):
                if row_index[tap, i] == row:
                    _spread_row(grad[b, i], row_weight[tap, i], column_index, column_weight, x_grad[b, row])


@serial
def _spread_row(grad, row_weight, index, weight, x_grad):
    """x_grad (W, C) += row_weight * what a row of results, grad (Wo, C), gives back."""
    for j in range(grad.shape[0]):
        for tap in range(2):
            share, source, target = row_weight * weight[tap, j], grad[j], x_grad[index[tap, j]]
            for c in range(len(source)):
                target[c] += share * source[c]


@parallel
def _copy(x, rows, columns, y):
    n, ho, wo, channels = y.shape
    for task in prange(n * ho):
        b, i = task // ho, task % ho
        for j in range(wo):
            for c in range(channels):
                y[b, i, j, c] = x[b, rows[i], columns[j], c]


@parallel
def _add_copies(grad, first, columns, x_grad):
    n, h, _, channels = x_grad.shape
    for task in prange(n * h):
        b, row = task // h, task % h
        x_grad[b, row] = 0
        for i in range(first[row], first[row + 1]):
            for j in range(len(columns)):
                for c in range(channels):
                    x_grad[b, row, columns[j], c] += grad[b, i, j, c]


@inlined
def _position(matrix, i, j):
    """(u, v) that result (i, j) looks at."""
    u = matrix[0, 0] * j + matrix[0, 1] * i + matrix[0, 2]
    v = matrix[1, 0] * j + matrix[1, 1] * i + matrix[1, 2]
    return u, v


@inlined
def _tap(u, v, number, h, w):
    """Row, column and weight of one of the four pixels (number 0 to 3) around (u, v), and whether it is inside."""
    row, column = math.floor(v) + number // 2, math.floor(u) + number % 2
    weight = (1 - abs(v - row)) * (1 - abs(u - column))
    return row, column, weight, 0 <= row < h and 0 <= column < w


@parallel
def _warp(x, matrices, y):
    n, ho, _, _ = y.shape
    for task in prange(n * ho):
        b, i = task // ho, task % ho
        _warp_row(x[min(b, len(x) - 1)], matrices[b], i, y[b, i])  # x has n images, or one


@serial
def _warp_row(x, matrix, i, y):
    """y (Wo, C) = row i of the warped image x (H, W, C)."""
    h, w, channels = x.shape
    weights = np.empty(4, x.dtype)
    for j in range(len(y)):
        u, v = _position(matrix, i, j)
        if 0 <= u < w - 1 and 0 <= v < h - 1:  # most pixels: all four are inside
            row, column = int(v), int(u)
            _fill(weights, v - row, u - column)
            for c in range(channels):
                above = weights[0] * x[row, column, c] + weights[1] * x[row, column + 1, c]
                below = weights[2] * x[row + 1, column, c] + weights[3] * x[row + 1, column + 1, c]
                y[j, c] = above + below
        else:
            y[j] = 0
            for number in range(4):
                row, column, weight, inside = _tap(u, v, number, h, w)
                if inside:
                    for c in range(channels):
                        y[j, c] += weight * x[row, column, c]


@inlined
def _fill(weights, down, right):
    """The weights of the four pixels, for a position so far below and to the right of the first."""
    weights[0], weights[1] = (1 - down) * (1 - right), (1 - down) * right
    weights[2], weights[3] = down * (1 - right), down * right


@parallel
def _warp_adjoint(grad, matrices, sums):
    """sums[b, part] = what a part of the result's rows gives back to image b."""
    n, ho, _, _ = grad.shape
    images, parts = sums.shape[:2]
    rows = n * ho // max(images, 1)  # of results that look at one image
    for task in prange(images * parts):
        b, part = task // parts, task % parts
        sums[b, part] = 0
        for row in range(b * rows + rows * part // parts, b * rows + rows * (part + 1) // parts):
            _unwarp_row(grad[row // ho, row % ho], matrices[row // ho], row % ho, sums[b, part])


@serial
def _unwarp_row(grad, matrix, i, x_grad):
    """x_grad (H, W, C) += what row i of the results, grad (Wo, C), gives back."""
    h, w, channels = x_grad.shape
    weights = np.empty(4, x_grad.dtype)
    for j in range(len(grad)):
        u, v = _position(matrix, i, j)
        if 0 <= u < w - 1 and 0 <= v < h - 1:
            row, column = int(v), int(u)
            _fill(weights, v - row, u - column)
            for c in range(channels):
                x_grad[row, column, c] += weights[0] * grad[j, c]
                x_grad[row, column + 1, c] += weights[1] * grad[j, c]
                x_grad[row + 1, column, c] += weights[2] * grad[j, c]
                x_grad[row + 1, column + 1, c] += weights[3] * grad[j, c]
        else:
            for number in range(4):
                row, column, weight, inside = _tap(u, v, number, h, w)
                if inside:
                    for c in range(channels):
                        x_grad[row, column, c] += weight * grad[j, c]


@serial
def _gram(matrices, output_size, gram):
    """Once a problem, so one thread does: 10 products for every pixel of the results."""
    h, w = gram.shape[1:]
    for matrix in matrices:
        for i in range(output_size[0]):
            for j in range(output_size[1]):
                u, v = _position(matrix, i, j)
                for one in range(4):
                    row, column, weight, inside = _tap(u, v, one, h, w)
                    for other in range(one, 4):  # the taps are numbered in reading order
                        row2, column2, weight2, inside2 = _tap(u, v, other, h, w)
                        if inside and inside2:
                            gram[3 * (row2 - row) + column2 - column, row, column] += weight * weight2


@parallel
def _gram_product(x, gram, y):
    planes, h, _ = x.shape
    for task in prange(planes * h):
        plane, i = task // h, task % h
        here, total = x[plane, i], y[plane, i]
        total[:] = 0
        _add_product(gram[0, i], here, total)
        _add_product(gram[1, i, :-1], here[1:], total[:-1])
        _add_product(gram[1, i, :-1], here[:-1], total[1:])
        if i + 1 < h:
            below = x[plane, i + 1]
            _add_product(gram[2, i, 1:], below[:-1], total[1:])
            _add_product(gram[3, i], below, total)
            _add_product(gram[4, i, :-1], below[1:], total[:-1])
        if i > 0:
            above = x[plane, i - 1]
            _add_product(gram[2, i - 1, 1:], above[1:], total[:-1])
            _add_product(gram[3, i - 1], above, total)
            _add_product(gram[4, i - 1, :-1], above[:-1], total[1:])


@serial
def _add_product(weight, x, total):
    """total += weight * x: on plain rows, which become vectors."""
    for k in range(len(x)):
        total[k] += weight[k] * x[k]
