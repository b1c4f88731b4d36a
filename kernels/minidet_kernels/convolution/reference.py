"""Convolution in plain NumPy: one matrix product for each tap (r, s) of the kernel.

Seen through a single tap, convolution is a 1x1 convolution of a shifted image: a matrix (K, C) times the
pixels (C, Ho*Wo). The full kernel is the sum of R*S of them. All three functions walk over the taps and
differ in what they multiply.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.arguments import Pair
from minidet_kernels.convolution import conv2d_output_size


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
    n, c = x.shape[:2]
    k, _, r_size, s_size = weight.shape
    ho, wo = conv2d_output_size("conv2d", x.shape[2:], (r_size, s_size), stride, padding, dilation)
    x = _pad(x, padding)
    weight = weight.reshape(groups, k // groups, c // groups, r_size, s_size)
    y = np.zeros((n, groups, k // groups, ho * wo), x.dtype)
    for r, s in np.ndindex(r_size, s_size):
        seen = x[_seen_through(r, s, (ho, wo), stride, dilation)]  # (N, C, Ho, Wo)
        y += weight[..., r, s] @ seen.reshape(n, groups, c // groups, ho * wo)
    y = y.reshape(n, k, ho, wo)
    y = y if scale is None else y * scale[:, None, None]
    y = y if bias is None else y + bias[:, None, None]
    y = y if residual is None else y + residual
    return np.maximum(y, 0) if relu else y


def conv2d_input_grad(
    grad: np.ndarray,
    weight: np.ndarray,
    input_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    n, k, ho, wo = grad.shape
    c = weight.shape[1] * groups
    r_size, s_size = weight.shape[2:]
    grad = grad.reshape(n, groups, k // groups, ho * wo)
    weight = weight.reshape(groups, k // groups, c // groups, r_size, s_size)
    (h, w), (ph, pw) = input_size, padding
    x_grad = np.zeros((n, c, h + 2 * ph, w + 2 * pw), grad.dtype)  # of the padded image
    for r, s in np.ndindex(r_size, s_size):
        share = weight[..., r, s].swapaxes(-1, -2) @ grad  # (N, groups, C/groups, Ho*Wo)
        x_grad[_seen_through(r, s, (ho, wo), stride, dilation)] += share.reshape(n, c, ho, wo)
    return x_grad[:, :, ph : ph + h, pw : pw + w]


def conv2d_weight_grad(
    x: np.ndarray,
    grad: np.ndarray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    n, c = x.shape[:2]
    k, ho, wo = grad.shape[1:]
    x = _pad(x, padding)
    grad = grad.reshape(n, groups, k // groups, ho * wo)
    weight_grad = np.empty((groups, k // groups, c // groups, *kernel_size), x.dtype)
    for r, s in np.ndindex(*kernel_size):
        seen = x[_seen_through(r, s, (ho, wo), stride, dilation)].reshape(n, groups, c // groups, ho * wo)
        weight_grad[..., r, s] = (grad @ seen.swapaxes(-1, -2)).sum(axis=0)
    return weight_grad.reshape(k, c // groups, *kernel_size)


def _pad(x: np.ndarray, padding: Pair) -> np.ndarray:
    ph, pw = padding
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))


def _seen_through(r: int, s: int, output_size: Pair, stride: Pair, dilation: Pair) -> tuple[slice, ...]:
    """Index of the padded image's pixels that the outputs see through tap (r, s): a shifted, strided grid."""
    (ho, wo), (sh, sw), (dh, dw) = output_size, stride, dilation
    rows = slice(r * dh, r * dh + (ho - 1) * sh + 1, sh)
    columns = slice(s * dw, s * dw + (wo - 1) * sw + 1, sw)
    return slice(None), slice(None), rows, columns
