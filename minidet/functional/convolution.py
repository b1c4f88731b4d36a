"""Convolution, transposed convolution and the fully connected layer, on Tensors.

Convolution is bilinear: linear in the image x and linear in the weight w. With the cotangent g of the result there are
three maps, and the derivative of each with respect to either argument is again one of the three:

    y  = conv2d(x, w)          dx = input_grad(g, w)       dw = weight_grad(x, g)

so that three short classes that call one another give derivatives of every order.
"""

from typing import Any

import numpy as np

import minidet_kernels as kernels
from minidet_kernels.arguments import as_pair, check_floats

from ..autograd import Function

IntPair = int | tuple[int, int]


class Conv2d(Function):
    def forward(self, x, weight, *bias, **geometry):
        self.save(x, weight)
        self.geometry, self.input_size, self.kernel_size = geometry, x.shape[2:], weight.shape[2:]
        return kernels.conv2d(x, weight, *bias, **geometry)

    def backward(self, grad, x, weight):
        needs_x, needs_weight, *needs_bias = self.needs
        dx = Conv2dInputGrad.apply(grad, weight, input_size=self.input_size, **self.geometry) if needs_x else None
        dw = Conv2dWeightGrad.apply(x, grad, kernel_size=self.kernel_size, **self.geometry) if needs_weight else None
        return dx, dw, *(_channel_sums(grad) if needs else None for needs in needs_bias)


def _channel_sums(grad: Any) -> Any:
    """grad (N, K, H, W) -> (K,). Where channels lie last, BLAS adds up an image's pixels 10 times faster than `sum`."""
    if not isinstance(grad, np.ndarray) or not grad.transpose(0, 2, 3, 1).flags.c_contiguous:
        return grad.sum(axis=(0, 2, 3))
    n, k, h, w = grad.shape
    pixels = grad.transpose(0, 2, 3, 1).reshape(n, h * w, k)
    return (np.ones(h * w, grad.dtype) @ pixels).sum(axis=0)


class Conv2dInputGrad(Function):
    """The adjoint of conv2d in x; as a layer of its own, the transposed convolution."""

    def forward(self, grad, weight, *bias, input_size, **geometry):
        self.save(grad, weight)
        self.geometry, self.kernel_size = geometry, weight.shape[2:]
        image = kernels.conv2d_input_grad(grad, weight, input_size, **geometry)
        for shift in bias:  # of the layer
            image += shift.reshape(-1, 1, 1)  # a new image would be new memory, which takes longer than the sum
        return image

    def backward(self, outer, grad, weight):  # outer: the cotangent of the image-shaped result
        needs_grad, needs_weight, *needs_bias = self.needs
        return (
            Conv2d.apply(outer, weight, **self.geometry) if needs_grad else None,
            Conv2dWeightGrad.apply(outer, grad, kernel_size=self.kernel_size, **self.geometry)
            if needs_weight
            else None,
            *(_channel_sums(outer) if needs else None for needs in needs_bias),
        )


class Conv2dWeightGrad(Function):
    """The adjoint of conv2d in the weight."""

    def forward(self, x, grad, *, kernel_size, **geometry):
        self.save(x, grad)
        self.geometry, self.input_size = geometry, x.shape[2:]
        return kernels.conv2d_weight_grad(x, grad, kernel_size, **geometry)

    def backward(self, outer, x, grad):  # outer: the cotangent of the weight-shaped result
        needs_x, needs_grad = self.needs
        return (
            Conv2dInputGrad.apply(grad, outer, input_size=self.input_size, **self.geometry) if needs_x else None,
            Conv2d.apply(x, outer, **self.geometry) if needs_grad else None,
        )


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
) -> Any:
    """2-D convolution (cross-correlation, as all networks call it), as torch.nn.functional.conv2d.

        y[n, k, i, j] = bias[k] + sum over c, r, s of weight[k, c, r, s] * input[n, c, i*stride + r*dilation - padding,
                                                                              j*stride + s*dilation - padding]

    input (N, C, H, W), weight (K, C/groups, R, S), bias (K,) or None, one dtype for all; returns (N, K, H', W') with
    H' = (H + 2*padding - dilation*(R - 1) - 1) // stride + 1.
    """
    biases = () if bias is None else (bias,)
    channels = weight.shape[1] * groups if weight.ndim == 4 else None
    if input.ndim == 4 and input.shape[1] != channels == input.shape[3]:
        raise ValueError(
            f"conv2d: expected input (N, C, H, W) with C = {channels}, got {input.shape}; looks channels-last, "
            "use input.transpose(0, 3, 1, 2)"
        )
    return Conv2d.apply(input, weight, *biases, stride=stride, padding=padding, dilation=dilation, groups=groups)


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
) -> Any:
    """Transposed convolution: the adjoint of conv2d, which turns a small map into a large one.

    input (N, C, H, W), weight (C, K/groups, R, S), bias (K,) or None; returns (N, K, H', W') with
    H' = (H - 1)*stride - 2*padding + dilation*(R - 1) + output_padding + 1. A convolution with a stride maps several
    heights to one; output_padding (less than the stride) says which of them to go back to.
    """
    operation = "conv_transpose2d"
    step, extra = as_pair(operation, "stride", stride, 1), as_pair(operation, "output_padding", output_padding, 0)
    around, spread = as_pair(operation, "padding", padding, 0), as_pair(operation, "dilation", dilation, 1)
    if input.ndim != 4 or weight.ndim != 4 or input.shape[1] != weight.shape[0]:
        raise ValueError(
            f"conv_transpose2d: expected input (N, C, H, W) and weight (C, K/groups, R, S) with the same C, "
            f"got {input.shape} and {weight.shape}"
        )
    if bias is not None:
        outputs = weight.shape[1] * groups
        if bias.shape != (outputs,):
            raise ValueError(f"conv_transpose2d: expected bias ({outputs},), got {bias.shape}")
        check_floats("conv_transpose2d", input=input, weight=weight, bias=bias)
    if extra[0] >= step[0] or extra[1] >= step[1]:
        raise ValueError(
            f"conv_transpose2d: expected output_padding from 0 to less than the stride, got {output_padding} "
            f"with stride {stride}"
        )
    input_size = tuple(
        (n - 1) * s - 2 * p + d * (r - 1) + more + 1
        for n, s, p, d, r, more in zip(input.shape[2:], step, around, spread, weight.shape[2:], extra, strict=True)
    )
    if min(input_size) < 1:
        raise ValueError(
            f"conv_transpose2d: the result would have {input_size[0]} x {input_size[1]} pixels; use less padding than "
            f"{padding}, or a larger kernel"
        )
    biases = () if bias is None else (bias,)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return Conv2dInputGrad.apply(input, weight, *biases, input_size=input_size, **geometry)


class Linear(Function):
    """Y = X W' + b: dX = G W, dW = G' X, db = the sum of G's rows. Bilinear, as convolution is: three maps again."""

    def forward(self, x, weight, *bias):
        self.save(x, weight)
        return kernels.linear(x, weight, *bias)

    def backward(self, grad, x, weight):
        needs_x, needs_weight, *needs_bias = self.needs
        return (
            LinearInputGrad.apply(grad, weight) if needs_x else None,
            LinearWeightGrad.apply(x, grad) if needs_weight else None,
            *(grad.sum(axis=0) if needs else None for needs in needs_bias),
        )


class LinearInputGrad(Function):
    """G W, the adjoint of X W' in X."""

    def forward(self, grad, weight):
        self.save(grad, weight)
        return kernels.linear_input_grad(grad, weight)

    def backward(self, outer, grad, weight):  # outer: the cotangent of the result, shaped as X
        needs_grad, needs_weight = self.needs
        return (
            Linear.apply(outer, weight) if needs_grad else None,
            LinearWeightGrad.apply(outer, grad) if needs_weight else None,
        )


class LinearWeightGrad(Function):
    """G' X, the adjoint of X W' in W."""

    def forward(self, x, grad):
        self.save(x, grad)
        return kernels.linear_weight_grad(x, grad)

    def backward(self, outer, x, grad):  # outer: the cotangent of the result, shaped as W
        needs_x, needs_grad = self.needs
        return (
            LinearInputGrad.apply(grad, outer) if needs_x else None,
            Linear.apply(x, outer) if needs_grad else None,
        )


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """y = input weight' + bias: input (..., C), weight (K, C), bias (K,) or None, one dtype; returns (..., K)."""
    if weight.ndim != 2 or input.ndim < 1 or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: expected input (..., C) and weight (K, C) of the same C, got {input.shape}, {weight.shape}"
        )
    biases = () if bias is None else (bias,)
    if bias is not None and bias.shape != (weight.shape[0],):
        raise ValueError(f"linear: expected bias ({weight.shape[0]},) for weight {weight.shape}, got {bias.shape}")
    check_floats("linear", input=input, weight=weight, **({} if bias is None else {"bias": bias}))
    rows = input if input.ndim == 2 else input.reshape((-1, input.shape[-1]))
    y = Linear.apply(rows, weight, *biases)
    return y if input.ndim == 2 else y.reshape((*input.shape[:-1], weight.shape[0]))
