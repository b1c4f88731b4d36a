"""A region is cut out, resized, and put into its place."""

from __future__ import annotations

import numpy as np

from minidet_kernels.resample.geometry import axis_taps
from minidet_kernels.resample.reference import resize_bilinear


def region_warp(
    image: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: int, fill: np.ndarray | None
) -> np.ndarray:
    warped = np.zeros((len(rows), len(image), size, size), image.dtype)
    if fill is not None:
        warped[...] = fill[:, None, None]
    for square, (top, height, i, down), (left, width, j, across) in zip(warped, rows, columns, strict=True):
        if down == 0 or across == 0:
            continue
        region = image[None, :, top : top + height, left : left + width]
        taps = axis_taps(height, down, False, None), axis_taps(width, across, False, None)
        shown = resize_bilinear(region, *taps)[0]
        if fill is None:
            square[...] = shown.mean(axis=(1, 2), dtype=np.float64)[:, None, None]
        square[:, i : i + down, j : j + across] = shown
    return warped
