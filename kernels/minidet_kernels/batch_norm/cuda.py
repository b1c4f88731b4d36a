"""Batch normalisation on the GPU: launches the kernels of batch_norm.cu. Results are (N, C, H, W) without gaps."""

from __future__ import annotations

from pathlib import Path

import cupy

from minidet_kernels.cuda_source import THREADS, CudaSource

SOURCE = CudaSource(Path(__file__).with_name("batch_norm.cu"), THREADS=THREADS)


def batch_norm(
    x: cupy.ndarray, weight: cupy.ndarray, bias: cupy.ndarray, eps: float
) -> tuple[cupy.ndarray, cupy.ndarray, cupy.ndarray]:
    x, weight, bias = (cupy.ascontiguousarray(array) for array in (x, weight, bias))
    n, c, h, w = x.shape
    mean, variance = cupy.empty(c, x.dtype), cupy.empty(c, x.dtype)
    SOURCE.launch("mean_and_variance", x.dtype, (c,), (THREADS,), x, mean, variance, c, h * w, n * h * w)
    y = cupy.empty(x.shape, x.dtype)
    eps = x.dtype.type(eps)
    SOURCE.launch_for_each("normalize", x.dtype, x.size, x, weight, bias, mean, variance, eps, y, c, h * w)
    return y, mean, variance


def batch_norm_backward(
    grad: cupy.ndarray, x: cupy.ndarray, weight: cupy.ndarray, mean: cupy.ndarray, std: cupy.ndarray
) -> tuple[cupy.ndarray, cupy.ndarray, cupy.ndarray]:
    grad, x, weight, mean, std = (cupy.ascontiguousarray(array) for array in (grad, x, weight, mean, std))
    n, c, h, w = x.shape
    weight_grad, bias_grad = cupy.empty(c, x.dtype), cupy.empty(c, x.dtype)
    statistics = (grad, x, mean, std, weight_grad, bias_grad)
    SOURCE.launch("sums_of_gradients", x.dtype, (c,), (THREADS,), *statistics, c, h * w, n * h * w)
    x_grad = cupy.empty(x.shape, x.dtype)
    arrays = (grad, x, weight, mean, std, weight_grad, bias_grad, x_grad)
    SOURCE.launch_for_each("input_gradient", x.dtype, x.size, *arrays, c, h * w, n * h * w)
    return x_grad, weight_grad, bias_grad
