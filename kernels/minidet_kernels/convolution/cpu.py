"""Convolution with Numba: loops over pixels and taps, with the output channels innermost as one vector.

Inside, images are (N, H, W, C) and weights (groups, R, S, in, out), so that the innermost loop runs over
neighbouring numbers and LLVM turns it into vector instructions. Threads own disjoint parts of the result: no
locks, the same bits on every run.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import parallel, serial
from minidet_kernels.convolution import (
    choice,
    conv2d_output_size,
    direct,
    direct_weights,
    is_exact,
    winograd,
    winograd_weights,
)
from minidet_kernels.memory import contiguous, empty_channels_last, to_channels_last, to_public
from minidet_kernels.simd import LANES


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    scale: np.ndarray | None,
    residual: np.ndarray | None,
    relu: bool,
) -> np.ndarray:
    k, c, *kernel_size = weight.shape
    size = conv2d_output_size("conv2d", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    if _is_fast(x, weight, dilation, groups) and (k % LANES == 0 or (residual is None and not relu)):
        if _may_take_winograd(c, k, tuple(kernel_size), stride, padding) and (
            method := choice.forward(x.shape[0], c, k, size)
        ):
            return winograd.conv2d(x, weight, bias, padding, method, scale, residual, relu)
        return direct.conv2d(x, weight, bias, stride, padding, scale, residual, relu)
    if scale is not None:
        weight = weight * scale[:, None, None, None]
    y = empty_channels_last((x.shape[0], k, *size), x.dtype)
    y[...] = 0 if bias is None else bias
    _forward(_pad(x, padding), _group(weight, groups, "grsck"), y, stride, dilation)
    if residual is not None:
        y += to_channels_last(residual)
    return to_public(np.maximum(y, 0, out=y) if relu else y)


def conv2d_input_grad(
    grad: np.ndarray,
    weight: np.ndarray,
    input_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    if _is_fast(grad, weight, dilation, groups):
        k, c, *kernel_size = weight.shape
        if _may_take_winograd(k, c, tuple(kernel_size), stride, padding) and (
            method := choice.forward(grad.shape[0], k, c, input_size)
        ):
            return winograd.conv2d_input_grad(grad, weight, padding, method)
        return direct.conv2d_input_grad(grad, weight, input_size, stride, padding)
    x_grad = empty_channels_last((grad.shape[0], weight.shape[1] * groups, *input_size), grad.dtype)
    x_grad[...] = 0
    _input_grad(to_channels_last(grad), _group(weight, groups, "grskc"), x_grad, stride, padding, dilation)
    return to_public(x_grad)


def conv2d_weight_grad(
    x: np.ndarray,
    grad: np.ndarray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    if _is_fast(x, grad, dilation, groups):
        if _may_take_winograd(x.shape[1], grad.shape[1], kernel_size, stride, padding) and (
            method := choice.weight_grad(x.shape[0], x.shape[1], grad.shape[1], grad.shape[2:])
        ):
            return winograd_weights.conv2d_weight_grad(x, grad, padding, method)
        return direct_weights.conv2d_weight_grad(x, grad, kernel_size, stride, padding)
    c, k = x.shape[1] // groups, grad.shape[1] // groups
    weight_grad = np.zeros((groups, *kernel_size, c, k), x.dtype)
    _weight_grad(_pad(x, padding), to_channels_last(grad), weight_grad, stride, dilation)
    return np.ascontiguousarray(weight_grad.transpose(0, 4, 3, 1, 2)).reshape(groups * k, c, *kernel_size)


def _is_fast(a: np.ndarray, b: np.ndarray, dilation: Pair, groups: int) -> bool:
    """Gradient checks (float64), dilated and grouped kernels are rare: the loops below are good enough for them, and
    for operands without any number, of which the fast ways need not think."""
    return a.dtype == np.float32 and dilation == (1, 1) and groups == 1 and a.size > 0 and b.size > 0


def _may_take_winograd(c: int, k: int, kernel_size: Pair, stride: Pair, padding: Pair) -> bool:
    """Whether Winograd's method can do it, and nobody asked for the exact sum; `choice` says whether it is faster."""
    return not is_exact() and winograd.fits(c, k, kernel_size, stride, padding)


def _pad(x: np.ndarray, padding: Pair) -> np.ndarray:
    """(N, C, H, W) -> (N, H + 2*padding, W + 2*padding, C), zeros around."""
    (ph, pw), x = padding, to_channels_last(x)
    return np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0))) if ph or pw else x


def _group(weight: np.ndarray, groups: int, order: str) -> np.ndarray:
    """(K, C/groups, R, S) -> five axes in the given order: g group, k and c channels within it, r and s taps."""
    k, c, r_size, s_size = weight.shape
    grouped = weight.reshape(groups, k // groups, c, r_size, s_size)
    return contiguous(grouped.transpose(["gkcrs".index(axis) for axis in order]))


@parallel
def _forward(x, weight, y, stride, dilation):
    n, ho, wo, _ = y.shape
    for row in prange(n * ho):
        for j in range(wo):
            _gather_pixel(x[row // ho], weight, y[row // ho, row % ho, j], row % ho, j, stride, dilation)


@serial
def _gather_pixel(x, weight, pixel, i, j, stride, dilation):
    """One output pixel (K,) += what it sees of the image x (H, W, C)."""
    groups, r_size, s_size, c_size, k_size = weight.shape
    for r in range(r_size):
        h = i * stride[0] + r * dilation[0]
        for s in range(s_size):
            w = j * stride[1] + s * dilation[1]
            for g in range(groups):
                for c in range(c_size):
                    value = x[h, w, g * c_size + c]
                    for k in range(k_size):
                        pixel[g * k_size + k] += value * weight[g, r, s, c, k]


@parallel
def _input_grad(grad, weight, x_grad, stride, padding, dilation):
    n, h, w, _ = x_grad.shape
    for row in prange(n * h):
        for j in range(w):
            _collect_pixel(grad[row // h], weight, x_grad[row // h, row % h, j], row % h, j, stride, padding, dilation)


@serial
def _collect_pixel(grad, weight, pixel, h, w, stride, padding, dilation):
    """One input pixel (C,) += the shares of all output pixels of grad (Ho, Wo, K) that saw it."""
    groups, r_size, s_size, k_size, c_size = weight.shape
    for r in range(r_size):
        i = (
            h - r * dilation[0] + padding[0]
        )  # stride times the output row that saw this pixel through row r of the kernel
        if i < 0 or i % stride[0] != 0 or i // stride[0] >= grad.shape[0]:
            continue
        for s in range(s_size):
            j = w - s * dilation[1] + padding[1]
            if j < 0 or j % stride[1] != 0 or j // stride[1] >= grad.shape[1]:
                continue
            for g in range(groups):
                for k in range(k_size):
                    value = grad[i // stride[0], j // stride[1], g * k_size + k]
                    for c in range(c_size):
                        pixel[g * c_size + c] += value * weight[g, r, s, k, c]


@parallel
def _weight_grad(x, grad, weight_grad, stride, dilation):
    groups, r_size, s_size, c_size, _ = weight_grad.shape
    for task in prange(groups * r_size * s_size * c_size):
        c = task % c_size
        s = task // c_size % s_size
        r = task // (c_size * s_size) % r_size
        g = task // (c_size * s_size * r_size)
        _correlate(x, grad, weight_grad[g, r, s, c], g, r, s, c, c_size, stride, dilation)


@serial
def _correlate(x, grad, result, g, r, s, c, c_size, stride, dilation):
    """result (K,) += sum over output pixels of input channel c, as seen through tap (r, s), times grad."""
    n, ho, wo, _ = grad.shape
    k_size = result.shape[0]
    for row in range(n * ho):
        h = (row % ho) * stride[0] + r * dilation[0]
        for j in range(wo):
            w = j * stride[1] + s * dilation[1]
            value = x[row // ho, h, w, g * c_size + c]
            for k in range(k_size):
                result[k] += value * grad[row // ho, row % ho, j, g * k_size + k]
