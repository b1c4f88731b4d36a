"""Convolution on the GPU: launches the kernels of convolution.cu. Results are (N, C, H, W) without gaps.

Two methods. The implicit matrix product takes everything, and nothing is copied to make it a matrix. Where a result has
too few numbers to keep the GPU busy, blocks share its sums: their partial sums take at most BLOCKS * 64 * 64 numbers
(8 MB in float32), and are added in a fixed order.

Winograd's method takes float32, 3 x 3, stride 1, no groups and no dilation, where there are enough channels and tiles.
It needs memory for the weights at 36 frequencies, 4 times what they take themselves (the weight gradient: and once more
8 MB for partial sums), and for some tiles at a time at 36 frequencies, 32 MB at most (up to 1800 channels in and out).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cupy

from minidet_kernels.arguments import Pair
from minidet_kernels.convolution import conv2d_output_size, is_exact
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

FREQUENCIES, PIXELS = 36, 4  # of Winograd's method: as in the .cu file
# Numbers of the tiles' frequencies at a time: 32 MB, which fit into the cache L2 of an A100 or H100 (40 and 50 MB).
# They are written and read once each between the steps of the method; twice as many would go through memory.
SLAB = 1 << 23
# From where Winograd's method pays, by counting: a tile of one channel is moved as (16 + 36 * 2) numbers before and as
# many after the products, some 700 bytes, to save 108 * 2 FLOP for each channel on the other side. At 10 FLOP a byte,
# which is what Turing to Hopper have between their multipliers and L2, that is 32 channels; twice that, to be sure.
LEAST_CHANNELS = 64
# And for each weight 36 numbers are written and read, 300 bytes, to save 216 FLOP for each tile: 14 tiles. But fewer
# than a block's width would leave most of it empty.
FEWEST_TILES = TILE["COLUMNS"]


def conv2d(
    x: cupy.ndarray,
    weight: cupy.ndarray,
    bias: cupy.ndarray | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    scale: cupy.ndarray | None,
    residual: cupy.ndarray | None,
    relu: bool,
) -> cupy.ndarray:
    if scale is not None:
        weight = weight * scale[:, None, None, None]
    y = _forward(x, weight, bias, stride, padding, dilation, groups)
    if residual is not None:
        y += residual
    return cupy.maximum(y, 0, out=y) if relu else y


def _forward(x, weight, bias, stride, padding, dilation, groups) -> cupy.ndarray:
    k, c, *kernel_size = weight.shape
    output_size = conv2d_output_size("conv2d", x.shape[2:], tuple(kernel_size), stride, padding, dilation)
    shape = (x.shape[0], k, *output_size)
    if _takes_winograd(x, k, kernel_size, output_size, stride, dilation, groups):
        return _winograd(x, weight, bias, shape, padding)
    axes = _axes(x.shape[2:], kernel_size, output_size, stride, padding, dilation)
    taps = math.prod(kernel_size)
    steps = (c * taps, taps, k // groups * c * taps)
    return _correlate(x, weight, bias, shape, [axes], steps, groups)


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
    shape = (grad.shape[0], c * groups, *input_size)
    if _takes_winograd(grad, c, kernel_size, input_size, stride, dilation, groups):
        return _winograd(grad, weight, None, shape, padding, turned=True)
    axes = _axes(input_size, kernel_size, grad.shape[2:], stride, padding, dilation)
    phases = list(itertools.product(*(_phases(axis) for axis in axes)))
    taps = math.prod(kernel_size)
    steps = (taps, c * taps, k // groups * c * taps)
    return _correlate(grad, weight, None, shape, phases, steps, groups)


def conv2d_weight_grad(
    x: cupy.ndarray,
    grad: cupy.ndarray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> cupy.ndarray:
    if _takes_winograd(x, grad.shape[1], kernel_size, grad.shape[2:], stride, dilation, groups):
        return _winograd_weight_grad(x, grad, padding)
    n, c, k = x.shape[0], x.shape[1] // groups, grad.shape[1]
    shape = (k, c, *kernel_size)
    axes = _axes(x.shape[2:], kernel_size, grad.shape[2:], stride, padding, dilation)
    depth = n * math.prod(grad.shape[2:])
    across, down = _tiles(c * math.prod(kernel_size), k // groups)
    parts = _parts(groups * across * down, depth, math.prod(shape))
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
    parts = _parts(groups * sum(map(math.prod, tiles)), max(depths, default=0), math.prod(shape))
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


def _parts(blocks: int, depth: int, size: int) -> int:
    """How many blocks share each sum, if `size` results take `blocks` blocks."""
    most = BLOCKS * TILE["ROWS"] * TILE["COLUMNS"]  # partial sums
    return max(1, min(BLOCKS // max(blocks, 1), most // max(size, 1), depth // LEAST_DEPTH))


def _part_depth(depth: int, parts: int) -> int:
    """How much of the sum each of them gets: whole slices."""
    return -(-depth // (parts * TILE["DEPTH"])) * TILE["DEPTH"]


def _sum(partial: cupy.ndarray, shape: tuple[int, ...], parts: int) -> cupy.ndarray:
    if parts == 1:
        return partial
    result = cupy.empty(shape, partial.dtype)
    SOURCE.launch_for_each("add_parts", result.dtype, result.size, partial, result, parts)
    return result


def _takes_winograd(
    source: cupy.ndarray, outputs: int, kernel_size: Pair, size: Pair, stride: Pair, dilation: Pair, groups: int
) -> bool:
    """Whether Winograd's method can do it, and is likely to be faster."""
    if (
        is_exact()
        or source.dtype != cupy.float32
        or (*kernel_size, *stride, *dilation, groups) != (3, 3, 1, 1, 1, 1, 1)
    ):
        return False
    down, across = _tiles_of_an_image(size)
    return min(source.shape[1], outputs) >= LEAST_CHANNELS and len(source) * down * across >= FEWEST_TILES


def _winograd(
    source: cupy.ndarray,
    weight: cupy.ndarray,
    bias: cupy.ndarray | None,
    shape: tuple[int, ...],
    padding: Pair,
    turned: bool = False,
) -> cupy.ndarray:
    """conv2d; with the weights turned, the input gradient: conv2d of grad, padded to the input's size."""
    dtype, (channels, *size), rows = source.dtype, source.shape[1:], shape[1]
    # from weight to weight: of the next channel of the result, of the source
    steps = (9, 9 * rows) if turned else (9 * channels, 9)
    padding = tuple(2 - p for p in padding) if turned else padding
    source, weight = cupy.ascontiguousarray(source), cupy.ascontiguousarray(weight)
    bias_or_any = weight if bias is None else cupy.ascontiguousarray(bias)
    at_frequencies = cupy.empty((FREQUENCIES, rows, channels), dtype)
    SOURCE.launch_for_each(
        "weight_to_frequencies", dtype, rows * channels, weight, at_frequencies, channels, *steps, int(turned)
    )
    result = cupy.empty(shape, dtype)
    grid = _tiles_of_an_image(shape[2:])
    slabs, most = _slabs(shape[0] * math.prod(grid), channels + rows)
    before, after = (cupy.empty((FREQUENCIES, c, most), dtype) for c in (channels, rows))
    for first, tiles in slabs:
        SOURCE.launch_for_each(
            "image_to_frequencies", dtype, channels * tiles,
            source, before, channels, *size, *padding, first, tiles, *grid,
        )  # fmt: skip
        SOURCE.launch(
            "sum_over_channels", dtype, (*_tiles(tiles, rows), FREQUENCIES), (TILE["THREADS"],),
            at_frequencies, before, after, rows, channels, tiles,
        )  # fmt: skip
        SOURCE.launch_for_each(
            "frequencies_to_image", dtype, rows * tiles,
            after, bias_or_any, result, int(bias is not None), rows, *shape[2:], first, tiles, *grid,
        )  # fmt: skip
    return result


def _winograd_weight_grad(x: cupy.ndarray, grad: cupy.ndarray, padding: Pair) -> cupy.ndarray:
    dtype, channels, rows = x.dtype, x.shape[1], grad.shape[1]
    x, grad = cupy.ascontiguousarray(x), cupy.ascontiguousarray(grad)
    grid = _tiles_of_an_image(grad.shape[2:])
    slabs, most = _slabs(len(x) * math.prod(grid), channels + rows)
    across, down = _tiles(channels, rows)
    parts = _parts(across * down * FREQUENCIES, most, FREQUENCIES * rows * channels)
    of_image, of_grad = (cupy.empty((FREQUENCIES, c, most), dtype) for c in (channels, rows))
    partial = cupy.empty((parts, FREQUENCIES, rows, channels), dtype)
    for first, tiles in slabs:
        SOURCE.launch_for_each(
            "image_to_frequencies", dtype, channels * tiles,
            x, of_image, channels, *x.shape[2:], *padding, first, tiles, *grid,
        )  # fmt: skip
        SOURCE.launch_for_each(
            "grad_to_frequencies", dtype, rows * tiles,
            grad, of_grad, rows, *grad.shape[2:], first, tiles, *grid,
        )  # fmt: skip
        SOURCE.launch(
            "sum_over_tiles", dtype, (across, down, FREQUENCIES * parts), (TILE["THREADS"],),
            of_grad, of_image, partial, rows, channels, tiles, parts, _part_depth(tiles, parts), int(first > 0),
        )  # fmt: skip
    result = cupy.empty((rows, channels, 3, 3), dtype)
    SOURCE.launch_for_each("frequencies_to_weight", dtype, rows * channels, partial, result, parts)
    return result


def _tiles_of_an_image(size: Pair) -> Pair:
    return -(-size[0] // PIXELS), -(-size[1] // PIXELS)


def _slabs(tiles: int, channels: int) -> tuple[list[Pair], int]:
    """First tile and number of tiles of each slab, in whole blocks, and the largest number."""
    block = TILE["COLUMNS"]
    most = min(max(1, SLAB // (FREQUENCIES * channels * block)) * block, tiles)
    return [(first, min(most, tiles - first)) for first in range(0, tiles, most)], most
