"""The fully connected layer on the GPU: matrix products by CuPy, which has the vendor's library for them."""

from __future__ import annotations

import cupy


def linear(x: cupy.ndarray, weight: cupy.ndarray) -> cupy.ndarray:
    return cupy.matmul(x, weight.T)


def linear_input_grad(grad: cupy.ndarray, weight: cupy.ndarray) -> cupy.ndarray:
    return cupy.matmul(grad, weight)


def linear_weight_grad(x: cupy.ndarray, grad: cupy.ndarray) -> cupy.ndarray:
    return cupy.matmul(grad.T, x)
