"""Resampling in plain NumPy: a loop over the four pixels that each bilinear result looks at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidet_kernels.arguments import Pair

Taps = tuple[np.ndarray, np.ndarray]

# Of the neighbours that a Gram matrix joins a pixel to, those that come after it in reading order.
GRAM_OFFSETS = ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1))


def resize_bilinear(x: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    y = np.zeros((*x.shape[:2], rows[0].shape[1], columns[0].shape[1]), x.dtype)
    for row, column, weight in _taps_of_a_grid(rows, columns):
        y += weight.astype(x.dtype) * x[:, :, row, column]
    return y


def resize_bilinear_adjoint(grad: np.ndarray, rows: Taps, columns: Taps, input_size: Pair) -> np.ndarray:
    x_grad = np.zeros((*grad.shape[:2], *input_size), grad.dtype)
    for row, column, weight in _taps_of_a_grid(rows, columns):
        # `add.at` adds once for every index, also for repeated ones; x_grad[...] += would keep only the last
        np.add.at(x_grad, (slice(None), slice(None), row, column), weight.astype(grad.dtype) * grad)
    return x_grad


def resize_nearest(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return x[:, :, rows[:, None], columns]


def resize_nearest_adjoint(grad: np.ndarray, rows: np.ndarray, columns: np.ndarray, input_size: Pair) -> np.ndarray:
    x_grad = np.zeros((*grad.shape[:2], *input_size), grad.dtype)
    np.add.at(x_grad, (slice(None), slice(None), rows[:, None], columns), grad)
    return x_grad


def affine_warp(x: np.ndarray, matrices: np.ndarray, output_size: Pair) -> np.ndarray:
    y = np.zeros((len(matrices), x.shape[1], *output_size), x.dtype)
    for n, matrix in enumerate(matrices):
        image = x[n] if len(x) > 1 else x[0]
        for i, j, row, column, weight in _taps_of_a_warp(matrix, x.shape[2:], output_size):
            y[n, :, i, j] += weight[:, None].astype(x.dtype) * image[:, row, column].T
    return y


def affine_warp_adjoint(grad: np.ndarray, matrices: np.ndarray, input_size: Pair, images: int) -> np.ndarray:
    x_grad = np.zeros((images, grad.shape[1], *input_size), grad.dtype)
    for n, matrix in enumerate(matrices):
        image_grad = x_grad[n] if images > 1 else x_grad[0]
        for i, j, row, column, weight in _taps_of_a_warp(matrix, input_size, grad.shape[2:]):
            np.add.at(image_grad, (slice(None), row, column), weight.astype(grad.dtype) * grad[n, :, i, j].T)
    return x_grad


def affine_warp_gram(matrices: np.ndarray, input_size: Pair, output_size: Pair) -> np.ndarray:
    gram = np.zeros((5, *input_size))
    for matrix in matrices:
        taps = [_as_dictionary(*tap) for tap in _taps_of_a_warp(matrix, input_size, output_size)]
        for one in taps:
            for other in taps:
                for pixel in one.keys() & other.keys():  # pixels of the result for which both taps are inside
                    (h, w, weight), (h2, w2, weight2) = one[pixel], other[pixel]
                    if (h2 - h, w2 - w) in GRAM_OFFSETS:
                        gram[GRAM_OFFSETS.index((h2 - h, w2 - w)), h, w] += weight * weight2
    return gram


def gram_product(x: np.ndarray, gram: np.ndarray) -> np.ndarray:
    y = gram[0] * x
    for entry, (r, s) in zip(gram[1:], GRAM_OFFSETS[1:], strict=True):
        rows, rows_there = _overlap(x.shape[2], r)
        columns, columns_there = _overlap(x.shape[3], s)
        y[:, :, rows, columns] += entry[rows, columns] * x[:, :, rows_there, columns_there]
        y[:, :, rows_there, columns_there] += entry[rows, columns] * x[:, :, rows, columns]  # the other half
    return y


def _taps_of_a_grid(rows: Taps, columns: Taps) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Four times: the row (Ho, 1), column (Wo,) and weight (Ho, Wo) of one of the pixels that the results look at."""
    for row, row_weight in zip(*rows, strict=True):
        for column, column_weight in zip(*columns, strict=True):
            yield row[:, None], column, row_weight[:, None] * column_weight


def _taps_of_a_warp(matrix: np.ndarray, input_size: Pair, output_size: Pair) -> Iterator[tuple[np.ndarray, ...]]:
    """Four times: the results (i, j) for which a pixel (row, column) of the input is inside, and its weight."""
    i, j = (index.ravel() for index in np.indices(output_size))
    u, v = matrix @ np.stack([j, i, np.ones_like(i)])
    left, top = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    for r, s in np.ndindex(2, 2):
        row, column = top + r, left + s
        weight = (1 - np.abs(v - row)) * (1 - np.abs(u - column))
        inside = (row >= 0) & (row < input_size[0]) & (column >= 0) & (column < input_size[1])
        yield i[inside], j[inside], row[inside], column[inside], weight[inside]


def _as_dictionary(i, j, row, column, weight) -> dict[tuple[int, int], tuple[int, int, float]]:
    return {(i, j): tap for i, j, *tap in zip(i, j, row, column, weight, strict=True)}


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    """The pixels of an axis whose neighbour at `shift` is inside, and those neighbours."""
    first, last = max(-shift, 0), size - max(shift, 0)
    return slice(first, last), slice(first + shift, last + shift)
