"""RoIPool on the GPU: launches the kernels of roi_pool.cu. Results are (N, C, H, W) without gaps."""

from __future__ import annotations

from pathlib import Path

import cupy
import numpy as np

from minidet_kernels.arguments import Pair
from minidet_kernels.cuda_source import CudaSource

SOURCE = CudaSource(Path(__file__).with_name("roi_pool.cu"))


def roi_pool(
    x: cupy.ndarray, rois: cupy.ndarray, output_size: Pair, spatial_scale: float
) -> tuple[cupy.ndarray, cupy.ndarray]:
    x, rois = cupy.ascontiguousarray(x), cupy.ascontiguousarray(rois)
    shape = (len(rois), x.shape[1], *output_size)
    values, argmax = cupy.empty(shape, x.dtype), cupy.empty(shape, np.int32)
    sizes = (x.dtype.type(spatial_scale), *x.shape, *output_size)
    SOURCE.launch_for_each("roi_pool", x.dtype, values.size, x, rois, values, argmax, *sizes)
    return values, argmax


def roi_pool_gather(x: cupy.ndarray, rois: cupy.ndarray, argmax: cupy.ndarray) -> cupy.ndarray:
    x, rois, argmax = (cupy.ascontiguousarray(array) for array in (x, rois, argmax))
    values = cupy.empty(argmax.shape, x.dtype)
    sizes = _sizes(x.shape, argmax)
    SOURCE.launch_for_each("gather", x.dtype, values.size, x, rois, argmax, values, *sizes)
    return values


def roi_pool_scatter(
    grad: cupy.ndarray, rois: cupy.ndarray, argmax: cupy.ndarray, input_size: tuple[int, int, int, int]
) -> cupy.ndarray:
    grad, rois, argmax = (cupy.ascontiguousarray(array) for array in (grad, rois, argmax))
    x_grad = cupy.zeros(input_size, grad.dtype)
    sizes = _sizes(input_size, argmax)
    SOURCE.launch_for_each("scatter", grad.dtype, grad.size, grad, rois, argmax, x_grad, *sizes)
    return x_grad


def _sizes(x_shape: tuple[int, ...], argmax: cupy.ndarray) -> tuple[int, int, int, int]:
    """N, C, Ho*Wo and H*W."""
    n, c, h, w = x_shape
    return n, c, argmax.shape[2] * argmax.shape[3], h * w
