"""Pooling on the GPU: launches the kernels of pooling.cu. Results are (N, C, H, W) without gaps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cupy
import numpy as np

from minidet_kernels.arguments import Pair
from minidet_kernels.cuda_source import CudaSource

SOURCE = CudaSource(Path(__file__).with_name("pooling.cu"))


def max_pool2d(
    x: cupy.ndarray, output_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[cupy.ndarray, cupy.ndarray]:
    x = cupy.ascontiguousarray(x)
    shape = (*x.shape[:2], *output_size)
    values, indices = cupy.empty(shape, x.dtype), cupy.empty(shape, cupy.int64)
    stride, dilation = (_within(steps, x.shape[2:], padding) for steps in (stride, dilation))
    sizes = (*x.shape[2:], *output_size, *kernel_size, *stride, *padding, *dilation)
    SOURCE.launch_for_each("max_pool", x.dtype, values.size, x, values, indices, *sizes)
    return values, indices


def max_pool2d_gather(x: cupy.ndarray, indices: cupy.ndarray) -> cupy.ndarray:
    x, indices = cupy.ascontiguousarray(x), cupy.ascontiguousarray(indices)
    values = cupy.empty(indices.shape, x.dtype)
    pixels, outputs = _plane_sizes(x, indices)
    SOURCE.launch_for_each("gather", x.dtype, values.size, x, indices, values, pixels, outputs)
    return values


def max_pool2d_scatter(grad: cupy.ndarray, indices: cupy.ndarray, input_size: Pair) -> cupy.ndarray:
    grad, indices = cupy.ascontiguousarray(grad), cupy.ascontiguousarray(indices)
    x_grad = cupy.zeros((*grad.shape[:2], *input_size), grad.dtype)
    pixels, outputs = _plane_sizes(x_grad, grad)
    SOURCE.launch_for_each("scatter", grad.dtype, grad.size, grad, indices, x_grad, pixels, outputs)
    return x_grad


def avg_pool2d(x: cupy.ndarray, count: np.ndarray, kernel_size: Pair, stride: Pair, padding: Pair) -> cupy.ndarray:
    x, count = cupy.ascontiguousarray(x), cupy.asarray(count)
    y = cupy.empty((*x.shape[:2], *count.shape), x.dtype)
    sizes = (*x.shape[2:], *count.shape, *kernel_size, *_within(stride, x.shape[2:], padding), *padding)
    SOURCE.launch_for_each("average", x.dtype, y.size, x, count, y, *sizes)
    return y


def avg_pool2d_adjoint(
    grad: cupy.ndarray, count: np.ndarray, input_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair
) -> cupy.ndarray:
    grad, count = cupy.ascontiguousarray(grad), cupy.asarray(count)
    x_grad = cupy.empty((*grad.shape[:2], *input_size), grad.dtype)
    sizes = (*input_size, *count.shape, *kernel_size, *_within(stride, input_size, padding), *padding)
    SOURCE.launch_for_each("average_adjoint", grad.dtype, x_grad.size, grad, count, x_grad, *sizes)
    return x_grad


def _within(steps: Pair, input_size: Pair, padding: Pair) -> Iterator[int]:
    """A step longer than the padded image is never made, and might not fit into an int."""
    return (min(step, size + 2 * pad) for step, size, pad in zip(steps, input_size, padding, strict=True))


def _plane_sizes(image: cupy.ndarray, output: cupy.ndarray) -> Pair:
    """H*W and Ho*Wo."""
    return image.shape[2] * image.shape[3], output.shape[2] * output.shape[3]
