"""The operator of super-resolution: what copies of an image, each rotated and shifted, look like in low resolution."""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np

from minidet_kernels.arguments import Pair, as_size, check_count
from minidet_kernels.pooling import avg_pool2d, avg_pool2d_adjoint
from minidet_kernels.resample import affine_warp, affine_warp_adjoint, affine_warp_gram, gram_product
from minidet_kernels.resample.geometry import check_matrices
from minidet_kernels.solvers.energy import LinearOperator
from minidet_kernels.versions import array_module


def decimated_warps(matrices: np.ndarray, size: int | Pair, low_size: int | Pair, samples: int = 1) -> LinearOperator:
    """K h = (D A_1 h, ..., D A_L h): h (1, C, H, W) -> (L, C, H', W'), with size = (H, W) and low_size = (H', W').

    A_l is `affine_warp` by matrices[l], in pixels of the high resolution. D divides the image into H' x W' cells and
    takes from each the mean of samples x samples points, evenly spread:

    - samples=1: the point in the middle of the cell. D is `resize_bilinear` to low_size. As a warp followed by it would
      interpolate twice, the point is looked up in h directly. A copy's pixel then sees 2 x 2 pixels of h, K'K joins
      neighbours only, and is applied through its Gram matrix at a cost that does not depend on L.
    - samples = H/H': all pixels of the cell. D is `avg_pool2d`, and K exactly D A_l.

    Both are one warp onto a grid of samples * low_size points, and average pooling. h may be on the GPU; the matrices
    stay on the host. Raises as `affine_warp`; ValueError also for a low_size larger than size, and samples < 1.
    """
    matrices = check_matrices("decimated_warps", matrices)
    size = as_size("decimated_warps", "size", size)
    low_size = as_size("decimated_warps", "low_size", low_size)
    if low_size[0] > size[0] or low_size[1] > size[1]:
        raise ValueError(f"decimated_warps: expected low_size within size = {size}, got {low_size}")
    check_count("decimated_warps", samples=samples)
    grid = (samples * low_size[0], samples * low_size[1])
    warps = matrices @ _grid_to_pixels(size, grid)

    def forward(h: np.ndarray) -> np.ndarray:
        return avg_pool2d(affine_warp(h, warps, grid), samples)

    def adjoint(y: np.ndarray) -> np.ndarray:
        return affine_warp_adjoint(avg_pool2d_adjoint(y, grid, samples), warps, size, images=1)

    if samples > 1:
        return LinearOperator(forward, adjoint)

    @functools.cache  # once for NumPy's arrays and once for CuPy's, there where they are
    def gram(module: ModuleType, dtype: np.dtype) -> np.ndarray:
        return affine_warp_gram(module.asarray(warps), size, grid).astype(dtype)

    return LinearOperator(forward, adjoint, lambda h: gram_product(h, gram(array_module(h), h.dtype)))


def _grid_to_pixels(size: Pair, grid: Pair) -> np.ndarray:
    """(3, 3): point (j, i, 1) of a grid that covers the image, to its place in pixels, centre upon centre."""
    (rows, columns) = (whole / parts for whole, parts in zip(size, grid, strict=True))
    return np.array([[columns, 0, (columns - 1) / 2], [0, rows, (rows - 1) / 2], [0, 0, 1]])
