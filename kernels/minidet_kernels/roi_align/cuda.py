"""RoIAlign on the GPU: launches the kernels of roi_align.cu. Results are (N, C, H, W) without gaps."""

from __future__ import annotations

from pathlib import Path

import cupy

from minidet_kernels.arguments import Pair
from minidet_kernels.cuda_source import CudaSource

SOURCE = CudaSource(Path(__file__).with_name("roi_align.cu"))


def roi_align(
    x: cupy.ndarray, rois: cupy.ndarray, output_size: Pair, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> cupy.ndarray:
    x, rois = cupy.ascontiguousarray(x), cupy.ascontiguousarray(rois)
    y = cupy.empty((len(rois), x.shape[1], *output_size), x.dtype)
    options = (x.dtype.type(spatial_scale), max(sampling_ratio, 0), int(aligned))
    SOURCE.launch_for_each("align", x.dtype, y.size, x, rois, y, *options, *x.shape, *output_size)
    return y


def roi_align_adjoint(
    grad: cupy.ndarray,
    rois: cupy.ndarray,
    input_size: tuple[int, int, int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> cupy.ndarray:
    grad, rois = cupy.ascontiguousarray(grad), cupy.ascontiguousarray(rois)
    x_grad = cupy.zeros(input_size, grad.dtype)
    options = (grad.dtype.type(spatial_scale), max(sampling_ratio, 0), int(aligned))
    SOURCE.launch_for_each("adjoint", grad.dtype, grad.size, grad, rois, x_grad, *options, *input_size, *grad.shape[2:])
    return x_grad
