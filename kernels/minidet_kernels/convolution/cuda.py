"""Convolution on the GPU: launches the kernels of convolution.cu. Results are (N, C, H, W) without gaps."""

from __future__ import annotations

from pathlib import Path

import cupy

from minidet_kernels.arguments import Pair
from minidet_kernels.convolution import conv2d_output_size
from minidet_kernels.cuda_source import CudaSource

# A block makes a tile of TILE x TILE results, one a thread: 256 threads, and 2 * 16 * 17 numbers of shared memory.
TILE = 16
# fused: the sums of products are where the GPU spends its time, and one rounding less does them no harm
SOURCE = CudaSource(Path(__file__).with_name("convolution.cu"), fused=True, TILE=TILE)


def conv2d(
    x: cupy.ndarray,
    weight: cupy.ndarray,
    bias: cupy.ndarray | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> cupy.ndarray:
    n = x.shape[0]
    k, _, *kernel_size = weight.shape
    output_size = conv2d_output_size("conv2d", x.shape[2:], tuple(kernel_size), stride, padding, dilation)
    bias = cupy.zeros(k, x.dtype) if bias is None else bias
    y = cupy.empty((n, k, *output_size), x.dtype)
    geometry = _geometry(x.shape, y.shape, kernel_size, stride, padding, dilation, groups)
    _launch("conv2d", (k, n * output_size[0] * output_size[1]), (x, weight, bias), y, geometry)
    return y


def conv2d_input_grad(
    grad: cupy.ndarray,
    weight: cupy.ndarray,
    input_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> cupy.ndarray:
    n, c = grad.shape[0], weight.shape[1] * groups
    x_grad = cupy.empty((n, c, *input_size), grad.dtype)
    geometry = _geometry(x_grad.shape, grad.shape, weight.shape[2:], stride, padding, dilation, groups)
    _launch("conv2d_input_grad", (c, n * input_size[0] * input_size[1]), (grad, weight), x_grad, geometry)
    return x_grad


def conv2d_weight_grad(
    x: cupy.ndarray,
    grad: cupy.ndarray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> cupy.ndarray:
    c, k = x.shape[1], grad.shape[1]
    weight_grad = cupy.empty((k, c // groups, *kernel_size), x.dtype)
    geometry = _geometry(x.shape, grad.shape, kernel_size, stride, padding, dilation, groups)
    columns = c // groups * kernel_size[0] * kernel_size[1]
    _launch("conv2d_weight_grad", (k, columns), (x, grad), weight_grad, geometry)
    return weight_grad


def _geometry(x_shape, y_shape, kernel_size, stride, padding, dilation, groups) -> tuple[int, ...]:
    """The 16 integers of the kernels' GEOMETRY."""
    n, c, h, w = x_shape
    _, k, ho, wo = y_shape
    return (n, c // groups, h, w, k // groups, ho, wo, *kernel_size, *stride, *padding, *dilation, groups)


def _launch(
    kernel: str, result_size: Pair, operands: tuple[cupy.ndarray, ...], result: cupy.ndarray, geometry: tuple[int, ...]
) -> None:
    """A grid of tiles that covers the matrix of results, (rows of all groups, columns of one)."""
    (rows, columns), groups = result_size, geometry[-1]
    grid = (-(-columns // TILE), -(-(rows // groups) // TILE), groups)
    operands = tuple(cupy.ascontiguousarray(operand) for operand in operands)
    SOURCE.launch(kernel, result.dtype, grid, (TILE, TILE), *operands, result, *geometry)
