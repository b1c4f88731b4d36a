"""Batch normalisation, word for word."""

from __future__ import annotations

import numpy as np

BATCH_AND_PIXELS = (0, 2, 3)


def batch_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean = _mean(x)
    variance = _mean((x - _per_channel(mean)) ** 2)
    std = np.sqrt(variance + np.asarray(eps, x.dtype))
    z = (x - _per_channel(mean)) / _per_channel(std)
    return _per_channel(weight) * z + _per_channel(bias), mean, variance


def batch_norm_backward(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, _, h, w = x.shape
    m = n * h * w
    z = (x - _per_channel(mean)) / _per_channel(std)
    mean_grad, mean_product = _mean(grad), _mean(grad * z)
    x_grad = _per_channel(weight / std) * (grad - _per_channel(mean_grad) - z * _per_channel(mean_product))
    return x_grad, mean_product * m, mean_grad * m


def _mean(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (C,). In float64: a float32 sum over a large batch loses the small terms."""
    return x.mean(axis=BATCH_AND_PIXELS, dtype=np.float64).astype(x.dtype)


def _per_channel(values: np.ndarray) -> np.ndarray:
    """(C,) -> (1, C, 1, 1), to stand beside (N, C, H, W)."""
    return values[None, :, None, None]
