"""Total variation on the GPU: launches the kernels of total_variation.cu. Results are without gaps."""

from __future__ import annotations

from pathlib import Path

import cupy
import numpy as np

from minidet_kernels.cuda_source import THREADS, CudaSource

# 16 pixels a thread, against one tree a block: the tree is a small part of the work, and an image of 1000 x 1000 still
# has a block for each multiprocessor.
PIXELS_OF_A_BLOCK = 16 * THREADS

SOURCE = CudaSource(
    Path(__file__).with_name("total_variation.cu"), THREADS=THREADS, PIXELS_OF_A_BLOCK=PIXELS_OF_A_BLOCK
)


def tv_anisotropic(x: cupy.ndarray) -> cupy.ndarray:
    return _total(x, "sum_absolute")


def tv_isotropic(x: cupy.ndarray) -> cupy.ndarray:
    return _total(x, "sum_lengths")


def _total(x: cupy.ndarray, kernel: str) -> cupy.ndarray:
    x = cupy.ascontiguousarray(x)
    n, c, h, w = x.shape
    parts = -(-h * w // PIXELS_OF_A_BLOCK)
    sums, totals = cupy.empty((n, c, parts), np.float64), cupy.empty((n, c), np.float64)
    SOURCE.launch(kernel, x.dtype, (sums.size,), (THREADS,), x, sums, parts, h, w)
    SOURCE.launch("sum_parts", x.dtype, (totals.size,), (THREADS,), sums, totals, parts)
    return totals


def tv_anisotropic_subgradient(x: cupy.ndarray) -> cupy.ndarray:
    return _subgradient(x, "anisotropic_subgradient")


def tv_isotropic_subgradient(x: cupy.ndarray) -> cupy.ndarray:
    return _subgradient(x, "isotropic_subgradient")


def _subgradient(x: cupy.ndarray, kernel: str) -> cupy.ndarray:
    x = cupy.ascontiguousarray(x)
    s = cupy.empty(x.shape, x.dtype)
    SOURCE.launch_for_each(kernel, x.dtype, x.size, x, s, *x.shape[2:])
    return s


def image_gradient(x: cupy.ndarray) -> cupy.ndarray:
    x = cupy.ascontiguousarray(x)
    p = cupy.empty((2, *x.shape), x.dtype)
    SOURCE.launch_for_each("gradient", x.dtype, x.size, x, p, *x.shape[2:])
    return p


def image_gradient_adjoint(p: cupy.ndarray) -> cupy.ndarray:
    p = cupy.ascontiguousarray(p)
    x = cupy.empty(p.shape[1:], p.dtype)
    SOURCE.launch_for_each("gradient_adjoint", p.dtype, x.size, p, x, *x.shape[2:])
    return x


def project_anisotropic(p: cupy.ndarray, radius: np.floating) -> cupy.ndarray:
    p = cupy.ascontiguousarray(p)
    result = cupy.empty(p.shape, p.dtype)
    SOURCE.launch_for_each("clip", p.dtype, p.size, p, radius, result)
    return result


def project_isotropic(p: cupy.ndarray, radius: np.floating) -> cupy.ndarray:
    p = cupy.ascontiguousarray(p)
    result = cupy.empty(p.shape, p.dtype)
    SOURCE.launch_for_each("shorten", p.dtype, p.size // 2, p, radius, result)
    return result
