"""The rectified linear unit on the GPU: launches the kernels of relu.cu."""

from __future__ import annotations

from pathlib import Path

import cupy

from minidet_kernels.cuda_source import CudaSource

SOURCE = CudaSource(Path(__file__).with_name("relu.cu"))


def relu(x: cupy.ndarray) -> cupy.ndarray:
    x = cupy.ascontiguousarray(x)
    y = cupy.empty(x.shape, x.dtype)
    SOURCE.launch_for_each("relu", x.dtype, x.size, x, y)
    return y


def relu_backward(grad: cupy.ndarray, y: cupy.ndarray) -> cupy.ndarray:
    grad, y = cupy.ascontiguousarray(grad), cupy.ascontiguousarray(y)
    x_grad = cupy.empty(y.shape, y.dtype)
    SOURCE.launch_for_each("relu_backward", y.dtype, y.size, grad, y, x_grad)
    return x_grad
