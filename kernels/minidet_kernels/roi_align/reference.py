"""RoIAlign in plain NumPy: loops over the samples of a bin and the four pixels of a sample, for all bins at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidet_kernels.arguments import Pair
from minidet_kernels.roi_align.geometry import Samples, samples


def roi_align(
    x: np.ndarray, rois: np.ndarray, output_size: Pair, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> np.ndarray:
    image, x1, y1, x2, y2 = rois.T
    rows = samples(y1, y2, output_size[0], x.shape[2], spatial_scale, sampling_ratio, aligned)
    columns = samples(x1, x2, output_size[1], x.shape[3], spatial_scale, sampling_ratio, aligned)
    y = np.zeros((len(rois), x.shape[1], *output_size), x.dtype)
    for r, n in enumerate(image.astype(np.int64)):
        for row, column, weight in _pixels(rows, columns, r):
            y[r] += np.where(weight > 0, weight * x[n][:, row, column], 0)
        y[r] /= _samples_in_a_bin(rows, columns, r)
    return y


def roi_align_adjoint(
    grad: np.ndarray,
    rois: np.ndarray,
    input_size: tuple[int, int, int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> np.ndarray:
    image, x1, y1, x2, y2 = rois.T
    rows = samples(y1, y2, grad.shape[2], input_size[2], spatial_scale, sampling_ratio, aligned)
    columns = samples(x1, x2, grad.shape[3], input_size[3], spatial_scale, sampling_ratio, aligned)
    x_grad = np.zeros(input_size, grad.dtype)
    for r, n in enumerate(image.astype(np.int64)):
        share = grad[r] / _samples_in_a_bin(rows, columns, r)
        for row, column, weight in _pixels(rows, columns, r):
            # `add.at` adds once for every bin, also where bins share a pixel; x_grad[...] += would keep only the last
            np.add.at(x_grad[n], (slice(None), row, column), np.where(weight > 0, weight * share, 0))
    return x_grad


def _samples_in_a_bin(rows: Samples, columns: Samples, r: int) -> int:
    """At least 1, so that a box without samples gives 0."""
    return max(int(rows.grid[r] * columns.grid[r]), 1)


def _pixels(rows: Samples, columns: Samples, r: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """One pixel of one sample of every bin of box r: its row (Ho, 1), its column (Wo,) and its weight (Ho, Wo)."""
    for row, row_weight in _along(rows, r):
        for column, column_weight in _along(columns, r):
            yield row[:, None], column, row_weight[:, None] * column_weight


def _along(axis: Samples, r: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One neighbour of one sample of every bin: the pixels (P,) and their weights (P,)."""
    for s in range(axis.pixel.shape[3]):
        for neighbour in range(2):
            weight = axis.weight[neighbour, r, :, s]
            if weight.any():
                yield axis.pixel[neighbour, r, :, s], weight
