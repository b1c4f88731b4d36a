"""RoIPool in plain NumPy: a loop over boxes, bins and the pixels of a bin, for all channels at once."""

from __future__ import annotations

import numpy as np

from minidet_kernels.arguments import Pair
from minidet_kernels.roi_pool.geometry import bin_ranges


def roi_pool(x: np.ndarray, rois: np.ndarray, output_size: Pair, spatial_scale: float) -> tuple[np.ndarray, np.ndarray]:
    images, x1, y1, x2, y2 = rois.T
    top, bottom = bin_ranges(y1, y2, output_size[0], x.shape[2], spatial_scale)
    left, right = bin_ranges(x1, x2, output_size[1], x.shape[3], spatial_scale)
    values = np.zeros((len(rois), x.shape[1], *output_size), x.dtype)
    argmax = np.full(values.shape, -1, np.int32)
    for r, image in enumerate(images.astype(np.int64)):
        for i, j in np.ndindex(*output_size):
            for row in range(top[r, i], bottom[r, i]):
                for column in range(left[r, j], right[r, j]):
                    value, best, index = x[image, :, row, column], values[r, :, i, j], argmax[r, :, i, j]
                    wins = (index == -1) | (value > best) | np.isnan(value)
                    best[wins] = value[wins]  # best and index are views: this writes into values and argmax
                    index[wins] = row * x.shape[3] + column
    return values, argmax


def roi_pool_gather(x: np.ndarray, rois: np.ndarray, argmax: np.ndarray) -> np.ndarray:
    images, values = rois[:, 0].astype(np.int64), np.zeros(argmax.shape, x.dtype)
    r, channel, i, j = np.nonzero(argmax >= 0)
    row, column = np.divmod(argmax[r, channel, i, j], x.shape[3])
    values[r, channel, i, j] = x[images[r], channel, row, column]
    return values


def roi_pool_scatter(
    grad: np.ndarray, rois: np.ndarray, argmax: np.ndarray, input_size: tuple[int, int, int, int]
) -> np.ndarray:
    images, x_grad = rois[:, 0].astype(np.int64), np.zeros(input_size, grad.dtype)
    r, channel, i, j = np.nonzero(argmax >= 0)
    row, column = np.divmod(argmax[r, channel, i, j], input_size[3])
    # `add.at` adds once for every bin, also where bins share a pixel; x_grad[...] += would keep only the last
    np.add.at(x_grad, (images[r], channel, row, column), grad[r, channel, i, j])
    return x_grad
