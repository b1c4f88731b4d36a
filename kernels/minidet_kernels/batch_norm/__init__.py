"""Batch normalisation of images: each channel shifted and scaled to mean 0 and variance 1 over the batch.

    mean[c] = mean of x[:, c] over n, i, j           std[c] = sqrt(variance of x[:, c] + eps)
    y[n, c, i, j] = weight[c] * z[n, c, i, j] + bias[c]        z = (x - mean) / std

Not linear: mean and std depend on x. With the cotangent g of y and m = N*H*W,

    d bias = sum of g        d weight = sum of g z        d x = weight / std * (g - sum(g) / m - z sum(g z) / m)

sums over n, i, j. Source: Ioffe and Szegedy 2015, algorithm 1 and section 3. The variance is the biased one (divided
by m) and is computed about the mean, in two passes: sum(x^2) - m mean^2 loses all digits when the mean is large.

float32 or float64 (sums over the batch in float64; the CPU version adds up runs of 512 numbers in the array's own dtype
first, which float32 numbers above 6e35 overflow), any memory layout, no input is changed; the CPU version
returns channels-last memory under the public shape. NaN and infinity spread over their channel. Cost: a few
operations an element; memory traffic decides.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.arguments import check_floats, check_number, check_shape
from minidet_kernels.versions import choose

__all__ = ["batch_norm", "batch_norm_backward"]


def batch_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (N, C, H, W), weight (C,), bias (C,) -> y (N, C, H, W), mean (C,), variance (C,).

    Raises ValueError for other shapes, an x without a value in each channel, or an eps that is negative or not finite;
    TypeError for other dtypes.
    """
    _check("batch_norm", x, weight=weight, bias=bias)
    check_number("batch_norm", eps=eps)
    return choose(__name__, x, weight, bias).batch_norm(x, weight, bias, eps)


def batch_norm_backward(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """grad, x (N, C, H, W), weight, mean, std (C,) -> d x (N, C, H, W), d weight (C,), d bias (C,).

    mean and std are those of x: batch_norm's mean, and the root of its variance + eps. Raises as batch_norm.
    """
    _check("batch_norm_backward", x, weight=weight, mean=mean, std=std)
    check_shape("batch_norm_backward", "grad", grad, "N C H W", x.shape)
    check_floats("batch_norm_backward", grad=grad, x=x)
    return choose(__name__, grad, x, weight, mean, std).batch_norm_backward(grad, x, weight, mean, std)


def _check(operation: str, x: np.ndarray, **channels: np.ndarray) -> None:
    check_shape(operation, "x", x, "N C H W", (None, None, None, None))
    check_floats(operation, x=x, **channels)
    for name, array in channels.items():
        check_shape(operation, name, array, "C", (x.shape[1],))
    if x.shape[0] * x.shape[2] * x.shape[3] == 0:
        raise ValueError(f"{operation}: expected at least one value a channel, got x {x.shape}")
