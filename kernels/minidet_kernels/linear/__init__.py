"""The fully connected layer: a matrix product, and the two that are its gradients.

    y[n, k] = bias[k] + sum over c of x[n, c] * weight[k, c]             Y = X W' + b
    d x[n, c] = sum over k of g[n, k] * weight[k, c]                     dX = G W
    d weight[k, c] = sum over n of g[n, k] * x[n, c]                     dW = G' X

for the cotangent g of y; the gradient of the bias is the sum of g's rows. Source: any textbook, e.g. Goodfellow et al.
2016, "Deep Learning", section 6.5. The three are the three ways to contract two of x, weight, y, so that the
derivatives of each are the other two, as with convolution.

A kernel of its own because of what the first layer behind a backbone is: VGG16's has 25088 * 4096 weights, 411 MB. With
few rows nearly all time is spent on reading them, or on writing their gradient, and NumPy's BLAS (one thread, see
compiler.py) leaves half of the memory's speed unused.

All functions: float32 or float64, any memory layout, N may be 0, no input is changed; the same bits on every run.
2 * N*C*K operations each.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.arguments import check_floats, check_shape
from minidet_kernels.versions import choose

__all__ = ["linear", "linear_input_grad", "linear_weight_grad"]


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """x (N, C), weight (K, C), bias (K,) or None -> y (N, K).

    Raises ValueError for other shapes, TypeError for other or mixed dtypes.
    """
    biases = () if bias is None else (bias,)
    version = choose(__name__, x, weight, *biases)
    check_shape("linear", "weight", weight, "K C", (None, None))
    check_shape("linear", "x", x, "N C", (None, weight.shape[1]))
    if bias is not None:
        check_shape("linear", "bias", bias, "K", weight.shape[:1])
    check_floats("linear", x=x, weight=weight, **({} if bias is None else {"bias": bias}))
    y = version.linear(x, weight)
    if bias is not None:
        y += bias
    return y


def linear_input_grad(grad: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """grad (N, K), weight (K, C) -> d x (N, C), the adjoint of `linear` in x. Raises as `linear`."""
    version = choose(__name__, grad, weight)
    check_shape("linear_input_grad", "weight", weight, "K C", (None, None))
    check_shape("linear_input_grad", "grad", grad, "N K", (None, weight.shape[0]))
    check_floats("linear_input_grad", grad=grad, weight=weight)
    return version.linear_input_grad(grad, weight)


def linear_weight_grad(x: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """x (N, C), grad (N, K) -> d weight (K, C), the adjoint of `linear` in weight. Raises as `linear`."""
    version = choose(__name__, x, grad)
    check_shape("linear_weight_grad", "x", x, "N C", (None, None))
    check_shape("linear_weight_grad", "grad", grad, "N K", (len(x), None))
    check_floats("linear_weight_grad", x=x, grad=grad)
    return version.linear_weight_grad(x, grad)
