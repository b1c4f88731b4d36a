"""Batch normalisation with Numba: an image is a list of pixels (N*H*W, C), and every pass reads it once, from memory.

Sums over the pixels are taken in blocks: within a block in the array's own dtype, over blocks in float64. The blocks
do not depend on the number of threads, so neither do the bits of the result; and no float32 sum grows so long that
it loses small terms.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import parallel
from minidet_kernels.memory import empty_channels_last, to_channels_last, to_public

# Pixels summed by one thread at a stretch. Longer blocks lose digits, shorter ones cost in their overhead.
BLOCK = 512


def batch_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pixels = _pixels(x)
    m = len(pixels)
    mean = (_block_sums(pixels).sum(axis=0) / m).astype(x.dtype)
    variance = (_block_squares(pixels, mean).sum(axis=0) / m).astype(x.dtype)
    scale = weight / np.sqrt(variance + np.asarray(eps, x.dtype))
    y = empty_channels_last(x.shape, x.dtype)
    _scale_and_shift(pixels, scale, mean, np.ascontiguousarray(bias), y.reshape(pixels.shape))
    return to_public(y), mean, variance


def batch_norm_backward(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pixels, grads = _pixels(x), _pixels(grad)
    m = len(pixels)
    mean, per_std = np.ascontiguousarray(mean), 1 / std
    of_grad, of_product = _block_sums_of_two(grads, pixels, mean, per_std)
    bias_grad, weight_grad = of_grad.sum(axis=0), of_product.sum(axis=0)
    x_grad = empty_channels_last(x.shape, x.dtype)
    mean_grad, mean_product = (bias_grad / m).astype(x.dtype), (weight_grad / m).astype(x.dtype)
    _backward(grads, pixels, weight * per_std, mean, per_std, mean_grad, mean_product, x_grad.reshape(pixels.shape))
    return to_public(x_grad), weight_grad.astype(x.dtype), bias_grad.astype(x.dtype)


def _pixels(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (N*H*W, C)."""
    n, c, h, w = x.shape
    return to_channels_last(x).reshape(n * h * w, c)  # -1 would have no answer where there are no channels


@parallel
def _block_sums(x):
    """x (M, C) -> the sums of its blocks (M / BLOCK, C), float64."""
    m, channels = x.shape
    blocks = -(-m // BLOCK)
    sums = np.empty((blocks, channels), np.float64)
    for k in prange(blocks):
        total = np.zeros(channels, x.dtype)
        for i in range(k * BLOCK, min((k + 1) * BLOCK, m)):
            for c in range(channels):
                total[c] += x[i, c]
        sums[k] = total
    return sums


@parallel
def _block_squares(x, mean):
    """x (M, C), mean (C,) -> the sums of (x - mean)^2 of its blocks (M / BLOCK, C), float64."""
    m, channels = x.shape
    blocks = -(-m // BLOCK)
    sums = np.empty((blocks, channels), np.float64)
    for k in prange(blocks):
        total = np.zeros(channels, x.dtype)
        for i in range(k * BLOCK, min((k + 1) * BLOCK, m)):
            for c in range(channels):
                difference = x[i, c] - mean[c]
                total[c] += difference * difference
        sums[k] = total
    return sums


@parallel
def _scale_and_shift(x, scale, mean, bias, y):
    m, channels = x.shape
    for k in prange(-(-m // BLOCK)):
        for i in range(k * BLOCK, min((k + 1) * BLOCK, m)):
            for c in range(channels):
                y[i, c] = (x[i, c] - mean[c]) * scale[c] + bias[c]


@parallel
def _block_sums_of_two(grad, x, mean, per_std):
    """The sums of grad and of grad z over the blocks, each (M / BLOCK, C) float64."""
    m, channels = x.shape
    blocks = -(-m // BLOCK)
    of_grad = np.empty((blocks, channels), np.float64)
    of_product = np.empty((blocks, channels), np.float64)
    for k in prange(blocks):
        total, product = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
        for i in range(k * BLOCK, min((k + 1) * BLOCK, m)):
            for c in range(channels):
                total[c] += grad[i, c]
                product[c] += grad[i, c] * (x[i, c] - mean[c]) * per_std[c]
        of_grad[k], of_product[k] = total, product
    return of_grad, of_product


@parallel
def _backward(grad, x, scale, mean, per_std, mean_grad, mean_product, x_grad):
    m, channels = x.shape
    for k in prange(-(-m // BLOCK)):
        for i in range(k * BLOCK, min((k + 1) * BLOCK, m)):
            for c in range(channels):
                z = (x[i, c] - mean[c]) * per_std[c]
                x_grad[i, c] = scale[c] * (grad[i, c] - mean_grad[c] - z * mean_product[c])
