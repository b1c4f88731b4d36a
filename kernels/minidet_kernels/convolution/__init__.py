"""Convolution of images, and its two adjoints.

    y[n, k, i, j] = bias[k] + sum over c, r, s of  weight[k, c, r, s] * x[n, c, h, w]
    where  h = i*stride + r*dilation - padding  and  w = j*stride + s*dilation - padding

The name is the field's; mathematically it is a cross-correlation, since the kernel is not flipped. x is zero
outside the image. With `groups` = G the channels fall into G groups; the outputs of a group see the inputs of
the same group only.

Convolution is linear in x and linear in weight, so it has two adjoints, and they are its backward:

    <conv2d(x, weight), y>  =  <x, conv2d_input_grad(y, weight, x.shape[2:])>
                            =  <weight, conv2d_weight_grad(x, y, weight.shape[2:])>

`conv2d_input_grad` is also the forward of transposed convolution. Source: Dumoulin and Visin, "A guide to
convolution arithmetic for deep learning", 2016 (relation 6 for the output size, section 4 for the transposed
form).

All functions: float32 or float64, the same for all arrays; any memory layout; an empty batch gives an empty
result (or a zero weight gradient); no input is changed. The CPU version returns channels-last memory under
the public shape. A NaN or infinity in x or grad reaches exactly those results whose sum contains it; padding
counts as zeros, so NaN * 0 = NaN there too. Weights must be finite. The cost is that of the equation,
N*K*Ho*Wo * C/groups * R*S multiplications, for each of the three functions.

For 3 x 3 kernels in float32, stride 1, the CPU and CUDA versions take a quarter of the multiplications by Winograd's
method where that is faster (`winograd.py`, `choice.py`). It loses a decimal digit, 2e-5 of the largest result, and
spreads a NaN or infinity over the 4 x 4 pixels of its tile. `with minidet_kernels.exact():` goes without it.

Memory: no version but the reference builds a matrix of patches, nine times the image for 3 x 3. In float32 the CPU
version needs, besides the result and channels-last copies of arrays that are not so, for T threads,

    direct                  T * 1 MB, and a copy of the weights; for their gradient T copies
    Winograd, by tiles      T * 1 MB, and 4 times the weights, at most 9 MB; for their gradient T * 4 times, T * 2.4 MB
    Winograd, by outputs    T * 1 MB, and 14 KB a channel of x; for the weight gradient 17 KB a channel of x and of y

whatever the number and height of the images; but a thread has at least the rows of one output row, or 8 tiles, so that
images of thousands of columns, or of hundreds with 512 channels, take a few MB instead of 1.
Memory of 128 KB or more comes from a pool and returns to it (`pool.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from minidet_kernels.arguments import Pair, as_pair, as_size, check_count, check_floats, check_pixels, check_shape
from minidet_kernels.versions import choose

__all__ = ["conv2d", "conv2d_input_grad", "conv2d_output_size", "conv2d_weight_grad", "exact"]

_exact: ContextVar[bool] = ContextVar("convolution sums up as the equation says", default=False)


@contextmanager
def exact() -> Iterator[None]:
    """Within it, in this thread, convolution sums up the products of the equation: no Winograd."""
    before = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(before)


def is_exact() -> bool:
    """Whether `exact` was asked for."""
    return _exact.get()


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    *,
    scale: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """x (N, C, H, W), weight (K, C/groups, R, S), bias (K,) or None -> (N, K, Ho, Wo).

    scale (K,), residual (N, K, Ho, Wo) and relu are what often follows, done while the result is in the cache:

        y = max(scale[k] * sum + bias[k] + residual[n, k, i, j], 0)

    Raises ValueError when shapes do not fit or the output would be empty, TypeError for mixed or other
    dtypes.
    """
    stride, padding, dilation = _geometry("conv2d", stride, padding, dilation)
    groups = _as_groups("conv2d", groups)
    check_shape("conv2d", "x", x, "N C H W", (None, None, None, None))
    channels_per_group = _channels_per_group("conv2d", x.shape[1], groups)
    check_shape("conv2d", "weight", weight, "K C/groups R S", (None, channels_per_group, None, None))
    _check_groups("conv2d", "K", weight.shape[0], groups)
    size = conv2d_output_size("conv2d", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    arrays = {"x": x, "weight": weight}
    if bias is not None:
        check_shape("conv2d", "bias", bias, "K", weight.shape[:1])
        arrays["bias"] = bias
    if scale is not None:
        check_shape("conv2d", "scale", scale, "K", weight.shape[:1])
        arrays["scale"] = scale
    if residual is not None:
        check_shape("conv2d", "residual", residual, "N K Ho Wo", (x.shape[0], weight.shape[0], *size))
        arrays["residual"] = residual
    check_floats("conv2d", **arrays)
    version = choose(__name__, *arrays.values())
    return version.conv2d(x, weight, bias, stride, padding, dilation, groups, scale, residual, relu)


def conv2d_input_grad(
    grad: np.ndarray,
    weight: np.ndarray,
    input_size: Pair,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> np.ndarray:
    """grad (N, K, Ho, Wo), weight (K, C/groups, R, S), input_size (H, W) -> (N, C, H, W): the adjoint in x.

    Every output pixel hands its gradient back, times the weight, to the input pixels that it saw.
    Raises as `conv2d`; (Ho, Wo) must be what `conv2d` makes of (H, W).
    """
    operation = "conv2d_input_grad"
    stride, padding, dilation = _geometry(operation, stride, padding, dilation)
    groups = _as_groups(operation, groups)
    size = as_size(operation, "input_size", input_size)
    check_shape(operation, "weight", weight, "K C/groups R S", (None, None, None, None))
    _check_groups(operation, "K", weight.shape[0], groups)
    output_size = conv2d_output_size(operation, size, weight.shape[2:], stride, padding, dilation)
    check_shape(operation, "grad", grad, "N K Ho Wo", (None, weight.shape[0], *output_size))
    check_floats(operation, grad=grad, weight=weight)
    return choose(__name__, grad, weight).conv2d_input_grad(grad, weight, size, stride, padding, dilation, groups)


def conv2d_weight_grad(
    x: np.ndarray,
    grad: np.ndarray,
    kernel_size: Pair,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> np.ndarray:
    """x (N, C, H, W), grad (N, K, Ho, Wo), kernel_size (R, S) -> (K, C/groups, R, S): the adjoint in weight.

    Each weight joins an input pixel to an output pixel; its gradient sums their products over all such pairs.
    Raises as `conv2d`; (Ho, Wo) must be what `conv2d` makes of (H, W).
    """
    operation = "conv2d_weight_grad"
    stride, padding, dilation = _geometry(operation, stride, padding, dilation)
    groups = _as_groups(operation, groups)
    kernel_size = as_size(operation, "kernel_size", kernel_size)
    check_shape(operation, "x", x, "N C H W", (None, None, None, None))
    _channels_per_group(operation, x.shape[1], groups)
    output_size = conv2d_output_size(operation, x.shape[2:], kernel_size, stride, padding, dilation)
    check_shape(operation, "grad", grad, "N K Ho Wo", (x.shape[0], None, *output_size))
    _check_groups(operation, "K", grad.shape[1], groups)
    check_floats(operation, x=x, grad=grad)
    return choose(__name__, x, grad).conv2d_weight_grad(x, grad, kernel_size, stride, padding, dilation, groups)


@functools.lru_cache(maxsize=4096)
def conv2d_output_size(
    operation: str, input_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Pair:
    """(H, W) -> (Ho, Wo); ValueError, in the name of `operation`, if the kernel does not fit into the padded image."""
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True))  # what a dilated kernel covers
    padded = tuple(size + 2 * p for size, p in zip(input_size, padding, strict=True))
    if min(*input_size, *kernel_size) < 1 or spans[0] > padded[0] or spans[1] > padded[1]:
        raise ValueError(
            f"{operation}: the kernel spans {spans[0]} x {spans[1]} pixels (size {tuple(kernel_size)}, "
            f"dilation {dilation}) and does not fit into the padded "
            f"image of {padded[0]} x {padded[1]}; pad more, or use a smaller kernel"
        )
    check_pixels(operation, "a padded image", padded)
    rows, columns = ((whole - span) // s + 1 for whole, span, s in zip(padded, spans, stride, strict=True))
    return rows, columns


def _geometry(operation: str, stride: int | Pair, padding: int | Pair, dilation: int | Pair) -> tuple[Pair, Pair, Pair]:
    return (
        as_pair(operation, "stride", stride, minimum=1),
        as_pair(operation, "padding", padding, minimum=0),
        as_pair(operation, "dilation", dilation, minimum=1),
    )


def _as_groups(operation: str, groups: int) -> int:
    check_count(operation, groups=groups)
    return int(groups)


def _channels_per_group(operation: str, channels: int, groups: int) -> int:
    _check_groups(operation, "C", channels, groups)
    return channels // groups


def _check_groups(operation: str, letter: str, channels: int, groups: int) -> None:
    if channels % groups:
        raise ValueError(f"{operation}: expected groups to divide {letter} = {channels}, got groups = {groups}")
