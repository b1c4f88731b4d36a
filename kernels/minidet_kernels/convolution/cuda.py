"""Convolution on the GPU: launches the kernels of convolution.cu. Results are (N, C, H, W) without gaps.

Nothing is copied to make it a matrix. Where a result has too few numbers to keep the GPU busy, blocks share its sums:
their partial sums take at most BLOCKS * 64 * 64 numbers (8 MB in float32), and are added in a fixed order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cupy

from minidet_kernels.arguments import Pair
from minidet_kernels.convolution import conv2d_output_size
from minidet_kernels.cuda_source import CudaSource

# A block makes 64 x 64 results, 8 x 4 in each of its 128 threads, from slices that are 16 deep: 19 KB of shared memory
# in float32, so that three blocks fit on a multiprocessor of Turing (64 KB), and more on all others.
TILE = {"ROWS": 64, "COLUMNS": 64, "DEPTH": 16, "THREADS": 128}
# fused: the sums of products are where the GPU spends its time, and one rounding less does them no harm
SOURCE = CudaSource(Path(__file__).with_name("convolution.cu"), fused=True, **TILE)

# Blocks that keep a GPU busy: four for each of the 108 to 132 multiprocessors of an A100 or H100. The same number for
# every GPU, so that all give the same bits.
BLOCKS = 512
# Blocks share a sum only if each gets that much of it: four slices, against the time to begin and to add up.
LEAST_DEPTH = 64


def conv2d(
    x: cupy.ndarray,
    weight: cupy.ndarray,
    bias: cupy.ndarray | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> cupy.ndarray:
    k, c, *kernel_size = weight.shape
    output_size = conv2d_output_size("conv2d", x.shape[2:], tuple(kernel_size), stride, padding, dilation)
    axes = _axes(x.shape[2:], kernel_size, output_size, stride, padding, dilation)
    taps = math.prod(kernel_size)
    steps = (c * taps, taps, k // groups * c * taps)
    return _correlate(x, weight, bias, (x.shape[0], k, *output_size), [axes], steps, groups)


def conv2d_input_grad(
    grad: cupy.ndarray,
    weight: cupy.ndarray,
    input_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> cupy.ndarray:
    k, c, *kernel_size = weight.shape
    axes = _axes(input_size, kernel_size, grad.shape[2:], stride, padding, dilation)
    phases = list(itertools.product(*(_phases(axis) for axis in axes)))
    taps = math.prod(kernel_size)
    steps = (taps, c * taps, k // groups * c * taps)
    return _correlate(grad, weight, None, (grad.shape[0], c * groups, *input_size), phases, steps, groups)


def conv2d_weight_grad(
    x: cupy.ndarray,
    grad: cupy.ndarray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> cupy.ndarray:
    n, c, k = x.shape[0], x.shape[1] // groups, grad.shape[1]
    shape = (k, c, *kernel_size)
    axes = _axes(x.shape[2:], kernel_size, grad.shape[2:], stride, padding, dilation)
    depth = n * math.prod(grad.shape[2:])
    across, down = _tiles(c * math.prod(kernel_size), k // groups)
    parts = _parts(groups * across * down, depth)
    partial = cupy.empty(shape if parts == 1 else (parts, *shape), x.dtype)
    SOURCE.launch(
        "weight_gradient",
        x.dtype,
        (across, down, groups * parts),
        (TILE["THREADS"],),
        *(cupy.ascontiguousarray(x), cupy.ascontiguousarray(grad), partial),
        *(n, groups, k // groups, c, parts, _part_depth(depth, parts), math.prod(shape)),
        *(*axes[0], *axes[1]),
    )
    return _sum(partial, shape, parts)


class Axis(NamedTuple):
    """One direction of a convolution, or of a phase of its input gradient: `struct Axis` of the .cu file says more."""

    size: int  # of the source
    plane: int  # of the result
    count: int  # results that are made
    first: int
    spread: int
    stride: int
    shift: int
    start: int
    taps: int
    first_tap: int
    tap_step: int


def _axes(input_size, kernel_size, output_size, stride, padding, dilation) -> tuple[Axis, Axis]:
    """conv2d's two directions."""
    axes = []
    for size, taps, out, s, p, d, tap_step in zip(
        input_size, kernel_size, output_size, stride, padding, dilation, (kernel_size[1], 1), strict=True
    ):
        # A longer step than the padded image is never made, and might not fit into an int.
        s, d = min(s, size + 2 * p), min(d, size + 2 * p)
        axes.append(Axis(size, out, out, 0, 1, s, d, -p, taps, 0, tap_step))
    return tuple(axes)


def _phases(axis: Axis) -> Iterator[Axis]:
    """The input gradient of the convolution `axis`, as convolutions of stride 1.

    Pixel h is seen by output i through tap r where h + padding = i * stride + r * dilation. With stride 2 and no
    dilation even h + padding are seen through even taps only, odd ones through odd taps: each of these phases is a
    convolution of grad without stride, and no product is with a zero that a stride has put in between. In general
    the taps of a phase are `step` apart. Pixels of no phase have the gradient 0.
    """
    stride, padding, dilation = axis.stride, -axis.start, axis.shift
    step = stride // math.gcd(stride, dilation)
    for tap in range(min(step, axis.taps)):
        first = (tap * dilation - padding) % stride
        if first < axis.size:
            yield Axis(
                size=axis.plane,
                plane=axis.size,
                count=len(range(first, axis.size, stride)),
                first=first,
                spread=stride,
                stride=1,
                shift=-(step * dilation // stride),
                start=(first + padding - tap * dilation) // stride,
                taps=len(range(tap, axis.taps, step)),
                first_tap=tap * axis.tap_step,
                tap_step=step * axis.tap_step,
            )


def _correlate(
    source: cupy.ndarray,
    weight: cupy.ndarray,
    bias: cupy.ndarray | None,
    shape: tuple[int, ...],
    phases: Sequence[tuple[Axis, Axis]],
    steps: tuple[int, int, int],
    groups: int,
) -> cupy.ndarray:
    """The result of that shape, phase by phase. `steps`: row_step, channel_step, group_step of the kernel."""
    n, channels, rows = shape[0], source.shape[1] // groups, shape[1] // groups
    source, weight = cupy.ascontiguousarray(source), cupy.ascontiguousarray(weight)
    tiles = [_tiles(n * h.count * w.count, rows) for h, w in phases]
    depths = [channels * h.taps * w.taps for h, w in phases]
    parts = _parts(groups * sum(map(math.prod, tiles)), max(depths, default=0))
    everywhere = sum(h.count * w.count for h, w in phases) == shape[2] * shape[3]
    allocate = cupy.empty if everywhere else cupy.zeros
    partial = allocate(shape if parts == 1 else (parts, *shape), source.dtype)
    for (h, w), (across, down), depth in zip(phases, tiles, depths, strict=True):
        SOURCE.launch(
            "correlate",
            source.dtype,
            (across, down, groups * parts),
            (TILE["THREADS"],),
            *(source, weight, weight if bias is None else cupy.ascontiguousarray(bias), partial),
            *(n, groups, rows, channels, *steps, int(bias is not None)),
            *(parts, _part_depth(depth, parts), math.prod(shape)),
            *(*h, *w),
        )
    return _sum(partial, shape, parts)


def _tiles(columns: int, rows: int) -> Pair:
    """The grid of blocks that covers a matrix of results."""
    return -(-columns // TILE["COLUMNS"]), -(-rows // TILE["ROWS"])


def _parts(blocks: int, depth: int) -> int:
    """How many blocks share each sum."""
    return max(1, min(BLOCKS // max(blocks, 1), depth // LEAST_DEPTH))


def _part_depth(depth: int, parts: int) -> int:
    """How much of the sum each of them gets: whole slices."""
    return -(-depth // (parts * TILE["DEPTH"])) * TILE["DEPTH"]


def _sum(partial: cupy.ndarray, shape: tuple[int, ...], parts: int) -> cupy.ndarray:
    if parts == 1:
        return partial
    result = cupy.empty(shape, partial.dtype)
    SOURCE.launch_for_each("add_parts", result.dtype, result.size, partial, result, parts)
    return result
