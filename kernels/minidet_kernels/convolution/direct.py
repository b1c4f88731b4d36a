"""Fast convolution in float32, directly on channels-last images: no patch matrix, one tile (see `simd.py`) for all three functions.

**Forward and input gradient** are the same loop, `_correlate`. In the forward, output pixel (i, j) sums over the padded pixels from
(i*stride, j*stride) on. In the input gradient, the roles are swapped: an image pixel sums over the output pixels that saw it. With
stride 2 these depend on whether its row and its column are even or odd: in one row of pixels only taps 0, 2, ... of the kernel
arrive, in the next only taps 1, 3, ... So the image falls into stride x stride *phases*, each a plain convolution of `grad` with some
taps of the kernel, in reverse order, and no multiplication is wasted on zeros. The forward is the case of a single phase.

**Weight gradient**: the rows of a tile are 8 weights (r, s, c), its lanes 32 output channels, and the sum runs over pixels.

The threads share out the images, or bands of rows of them. A thread copies its band with zeros around it into its own scratch memory,
small enough to stay in the cache, so that the tile meets no borders. For the weight gradient every thread adds up its own partial
result; they are summed in a fixed order, so that the bits depend on the number of threads only.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import parallel, serial
from minidet_kernels.convolution import conv2d_output_size
from minidet_kernels.memory import to_channels_last, to_public
from minidet_kernels.simd import (
    LANES,
    ROWS,
    add_tile_of_16,
    add_tile_of_32,
    tile_of_16,
    tile_of_32,
)

# float32 in a thread's padded band: 512 KB, a quarter of the second-level cache of current servers. Larger bands copy fewer rows twice.
BAND_FLOATS = 1 << 17
# Pixels that a weight-gradient tile sums over before it puts its result down: their 32 channels are 16 KB, half the first-level cache.
CHUNK_PIXELS = 128


class Phase(NamedTuple):
    """Along one axis: results first_result, first_result + step, ... take their sum over `taps` from first_source on."""

    first_result: int
    results: int
    first_source: int
    taps: tuple[int, ...]


class Geometry(NamedTuple):
    """What the compiled loops need to know besides the arrays."""

    result_step_h: int  # between the pixels of a phase
    result_step_w: int
    source_step_h: int  # between the pixels where their sums start
    source_step_w: int
    result_h: int
    result_w: int
    margin_h: int  # rows above the source that are zero
    margin_w: int  # columns to the left of it
    padded_w: int
    span: int  # padded rows that one row of results needs
    grid_rows: int  # rows of results in the longest phase
    band: int  # rows of results that a thread works on at once
    copies: bool  # whether there is any margin: else the source is used as it lies
    threads: int


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: Pair, padding: Pair) -> np.ndarray:
    k, c, r_size, s_size = weight.shape
    size = conv2d_output_size("conv2d", x.shape[2:], (r_size, s_size), stride, padding, (1, 1))
    phases = [[Phase(0, results, 0, tuple(range(taps)))] for results, taps in zip(size, (r_size, s_size), strict=True)]
    strides = (c * r_size * s_size, r_size * s_size, s_size, 1)  # of weight, by output channel, input channel, r, s
    return _run(x, weight, strides, bias, k, phases, size, (1, 1), stride, padding)


def conv2d_input_grad(
    grad: np.ndarray, weight: np.ndarray, input_size: Pair, stride: Pair, padding: Pair
) -> np.ndarray:
    _, c, r_size, s_size = weight.shape
    axes = [adjoint_phases(*axis) for axis in zip(input_size, (r_size, s_size), stride, padding, strict=True)]
    phases, margin = [axis[0] for axis in axes], (axes[0][1], axes[1][1])
    strides = (r_size * s_size, c * r_size * s_size, s_size, 1)  # input and output channels have changed places
    return _run(grad, weight, strides, None, c, phases, input_size, stride, (1, 1), margin)


def adjoint_phases(size: int, kernel: int, stride: int, padding: int) -> tuple[list[Phase], int]:
    """The phases of the input gradient along one axis, and the margin of zeros that they need before `grad`.

    Image row h saw output row i through tap r if h + padding = i * stride + r: the taps of h are those with the same remainder.
    """
    phases = []
    for remainder in range(min(stride, size + padding)):
        taps = range(remainder, kernel, stride)
        first = (remainder - padding) % stride  # the first image row with this remainder
        if first < size:
            nearest = (first + padding - remainder) // stride  # the output row that saw it through the first tap
            results = -(-(size - first) // stride)
            phases.append(Phase(first, results, nearest - len(taps) + 1, tuple(reversed(taps))))
    margin = max(0, -min(phase.first_source for phase in phases))
    return [phase._replace(first_source=phase.first_source + margin) for phase in phases], margin


def _run(
    source: np.ndarray,
    weight: np.ndarray,
    weight_strides: tuple[int, int, int, int],
    bias: np.ndarray | None,
    channels: int,
    phases: Sequence[Sequence[Phase]],
    size: Pair,
    result_step: Pair,
    source_step: Pair,
    margin: Pair,
) -> np.ndarray:
    n = source.shape[0]
    lanes = -(-channels // LANES) * LANES  # channels of the result, rounded up to whole vectors
    table, taps, geometry = _plan(
        source.shape, tuple(map(tuple, phases)), size, result_step, source_step, margin, numba.get_num_threads()
    )
    start = np.zeros(lanes, np.float32)
    if bias is not None:
        start[:channels] = bias
    result = np.empty((n * size[0] * size[1] + 1) * lanes, np.float32)  # one pixel more: see _place_pixels
    weight = np.require(weight, requirements=["C", "A", "W"]).reshape(-1)
    _correlate(to_channels_last(source), weight, weight_strides, channels, taps, table, geometry, start, result)
    result = result[: n * size[0] * size[1] * lanes].reshape(n, *size, lanes)
    if lanes != channels:
        result = np.ascontiguousarray(result[..., :channels])
    return to_public(result)


@functools.lru_cache(maxsize=1024)
def _plan(
    source_shape: tuple[int, int, int, int],
    phases: tuple[tuple[Phase, ...], tuple[Phase, ...]],
    size: Pair,
    result_step: Pair,
    source_step: Pair,
    margin: Pair,
    threads: int,
) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """All that depends on shapes alone: a row of numbers for each phase, the taps in the order of the phases, the geometry."""
    n, c, height, width = source_shape
    table, taps = [], []
    for row in phases[0]:
        for column in phases[1]:
            table.append((*row[:3], len(row.taps), *column[:3], len(column.taps), len(taps)))
            taps += [(r, s) for r in row.taps for s in column.taps]
    span = max(max(phase.first_source + len(phase.taps) for phase in phases[0]), 1)
    grid_rows = max(phase.results for phase in phases[0])
    padded_width, padded_height = (
        max(phase.first_source + (phase.results - 1) * step + len(phase.taps) for phase in axis)
        for axis, step in zip(reversed(phases), reversed(source_step), strict=True)
    )
    copies = margin != (0, 0) or padded_width > width or padded_height > height
    padded_width = max(padded_width, width + margin[1]) if copies else width
    band = band_rows(n, grid_rows, padded_width * c, source_step[0], span, threads)
    geometry = Geometry(
        *result_step, *source_step, *size, *margin, padded_width, span, grid_rows, band, copies, threads
    )
    return np.array(table, np.int64), np.array(taps, np.int64).reshape(-1, 2), geometry


def band_rows(n: int, rows: int, row_floats: int, step: int, span: int, threads: int) -> int:
    """Rows of results in a band: as many as fit into the scratch memory, but at least two bands a thread if there are few images."""
    fitting = (BAND_FLOATS // max(row_floats, 1) - span) // step + 1
    shared = rows if n >= 2 * threads else -(-rows * n // (2 * threads))
    return max(1, min(fitting, shared, rows))


@parallel
def _correlate(source, weight, weight_strides, channels, taps, phases, geometry, start, result):
    n, _, _, c = source.shape
    lanes = start.size
    packed = np.empty(lanes * len(taps) * c, np.float32)
    for block in prange(lanes // LANES):
        _pack(weight, weight_strides, channels, c, taps, block, packed)
    bands = -(-geometry.grid_rows // geometry.band)
    flat = source.reshape(-1)
    for thread in prange(geometry.threads):
        scratch = np.empty(_scratch_size(geometry, c), np.float32)
        rows = np.empty((2, _pixels_at_most(geometry, phases)), np.int64)
        for task in range(n * bands * thread // geometry.threads, n * bands * (thread + 1) // geometry.threads):
            image, first = task // bands, task % bands * geometry.band
            seen, offset = _padded_band(source, flat, image, first, geometry, scratch)
            for phase in range(len(phases)):
                pixels = _place_pixels(phases[phase], image, first, offset, c, lanes, geometry, rows, result.size)
                _sum_band(seen, packed, start, result, phases[phase], pixels, rows, c, len(taps), geometry)


@serial
def _pack(weight, strides, channels, c_size, taps, block, packed):
    """The weights of 16 output channels in the order in which the tile reads them: (taps, input channels, 16)."""
    at = block * len(taps) * c_size * LANES
    for tap in range(len(taps)):
        for c in range(c_size):
            source = c * strides[1] + taps[tap, 0] * strides[2] + taps[tap, 1] * strides[3]
            for lane in range(LANES):
                k = block * LANES + lane
                packed[at + lane] = weight[k * strides[0] + source] if k < channels else 0
            at += LANES


@serial
def _scratch_size(geometry, c):
    rows = (geometry.band - 1) * geometry.source_step_h + geometry.span
    return rows * geometry.padded_w * c if geometry.copies else 0


@serial
def _pixels_at_most(geometry, phases):
    return geometry.band * phases[:, 5].max() + ROWS


@serial
def _padded_band(source, flat, image, first, geometry, scratch):
    """Where the rows from grid row `first` on lie: the array, and the offset of the first. Copied with zeros around if need be."""
    _, height, width, c = source.shape
    top = first * geometry.source_step_h - geometry.margin_h
    if not geometry.copies:
        return flat, (image * height + top) * width * c
    left = geometry.margin_w * c
    row_floats = geometry.padded_w * c
    for row in range((geometry.band - 1) * geometry.source_step_h + geometry.span):
        at = row * row_floats
        if top + row < 0 or top + row >= height:
            scratch[at : at + row_floats] = 0
        else:
            begin = (image * height + top + row) * width * c
            scratch[at : at + left] = 0
            scratch[at + left : at + left + width * c] = flat[begin : begin + width * c]
            scratch[at + left + width * c : at + row_floats] = 0
    return scratch, 0


@serial
def _place_pixels(phase, image, first, offset, c, lanes, geometry, rows, result_size):
    """rows[0] = where the sum of each pixel of the band starts, rows[1] = where its result goes; returns how many there are.

    A tile has 8 rows: what is missing to a multiple of 8 computes the first pixel again and puts it into the spare one at the end.
    """
    first_row, row_count, source_row, _, first_column, columns, source_column, _, _ = phase
    pixels = 0
    for i in range(first, min(first + geometry.band, row_count)):
        h = first_row + i * geometry.result_step_h
        source_start = ((i - first) * geometry.source_step_h + source_row) * geometry.padded_w + source_column
        result_start = (image * geometry.result_h + h) * geometry.result_w + first_column
        for j in range(columns):
            rows[0, pixels] = offset + (source_start + j * geometry.source_step_w) * c
            rows[1, pixels] = (result_start + j * geometry.result_step_w) * lanes
            pixels += 1
    for missing in range(pixels, -(-pixels // ROWS) * ROWS):
        rows[0, missing] = rows[0, 0]
        rows[1, missing] = result_size - lanes
    return pixels


@serial
def _sum_band(seen, packed, start, result, phase, pixels, rows, c, tap_count, geometry):
    """The sums of all pixels of a band: 32 output channels at a time, so that their weights stay in the cache."""
    tap_rows, tap_columns, first_tap = phase[3], phase[7], phase[8]
    inner, outer = tap_columns * c, tap_rows
    lane_step = tap_count * c * LANES  # from the weights of 16 output channels to those of the next 16
    lane = 0
    while lane < start.size:
        weights = lane // LANES * lane_step + first_tap * c * LANES
        wide = lane + 2 * LANES <= start.size
        for row in range(0, pixels, ROWS):
            if wide:
                tile_of_32(seen, 0, rows[0], 1, geometry.padded_w * c, packed, weights, LANES, lane_step,
                           start, lane, result, lane, rows[1], row, inner, outer)  # fmt: skip
            else:
                tile_of_16(seen, 0, rows[0], 1, geometry.padded_w * c, packed, weights, LANES, lane_step,
                           start, lane, result, lane, rows[1], row, inner, outer)  # fmt: skip
        lane += 2 * LANES if wide else LANES


def conv2d_weight_grad(x: np.ndarray, grad: np.ndarray, kernel_size: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    (k, ho, wo), c = grad.shape[1:], x.shape[1]
    phases = tuple(
        (Phase(0, results, 0, tuple(range(taps))),) for results, taps in zip((ho, wo), kernel_size, strict=True)
    )
    _, taps, geometry = _plan(x.shape, phases, (ho, wo), (1, 1), stride, padding, numba.get_num_threads())
    grad = to_channels_last(grad)
    lanes = -(-k // LANES) * LANES
    if lanes != k:
        grad = np.pad(grad, ((0, 0), (0, 0), (0, 0), (0, lanes - k)))
    weight_grad = np.empty((k, c, len(taps)), np.float32)
    _correlate_images(to_channels_last(x), grad, taps, geometry, weight_grad)
    return weight_grad.reshape(k, c, *kernel_size)


@parallel
def _correlate_images(source, grad, taps, geometry, weight_grad):
    n, _, _, c = source.shape
    lanes = grad.shape[3]
    weights = -(-len(taps) * c // ROWS) * ROWS  # of one output channel, rounded up to whole tiles
    partial = np.zeros((geometry.threads, weights * lanes), np.float32)
    bands = -(-geometry.grid_rows // geometry.band)
    flat, flat_grad = source.reshape(-1), grad.reshape(-1)
    for thread in prange(geometry.threads):
        scratch = np.empty(_scratch_size(geometry, c), np.float32)
        rows = _place_weights(taps, c, lanes, weights, geometry)
        for task in range(n * bands * thread // geometry.threads, n * bands * (thread + 1) // geometry.threads):
            image, first = task // bands, task % bands * geometry.band
            seen, offset = _padded_band(source, flat, image, first, geometry, scratch)
            _add_band(seen, offset, flat_grad, image, first, rows, c, lanes, geometry, partial[thread])
    for k in prange(weight_grad.shape[0]):
        for channel in range(c):
            for tap in range(len(taps)):
                total = partial[0, (tap * c + channel) * lanes + k]
                for thread in range(1, geometry.threads):
                    total += partial[thread, (tap * c + channel) * lanes + k]
                weight_grad[k, channel, tap] = total


@serial
def _place_weights(taps, c, lanes, weights, geometry):
    """rows[0] = the first padded pixel and channel that each weight (r, s, c) meets, rows[1] = where its gradient goes."""
    rows = np.zeros((2, weights), np.int64)
    for weight in range(weights):
        rows[1, weight] = weight * lanes
        if (
            weight < len(taps) * c
        ):  # what is missing to a multiple of 8 meets the first pixel, and is dropped at the end
            tap = weight // c
            rows[0, weight] = (taps[tap, 0] * geometry.padded_w + taps[tap, 1]) * c + weight % c
    return rows


@serial
def _add_band(seen, offset, grad, image, first, rows, c, lanes, geometry, partial):
    """partial (weights, lanes) += products of the band's pixels with grad, a chunk of rows at a time."""
    height, width = geometry.result_h, geometry.result_w
    step, row_step = geometry.source_step_w * c, geometry.source_step_h * geometry.padded_w * c
    last = min(first + geometry.band, height)
    chunk = max(1, CHUNK_PIXELS // width)
    for i in range(first, last, chunk):
        count = min(chunk, last - i)
        pixels = offset + (i - first) * row_step
        lane = 0
        while lane < lanes:
            grads = (image * height + i) * width * lanes + lane
            wide = lane + 2 * LANES <= lanes
            for row in range(0, rows.shape[1], ROWS):
                if wide:
                    add_tile_of_32(seen, pixels, rows[0], step, row_step, grad, grads, lanes, LANES,
                                   partial, 0, partial, lane, rows[1], row, width, count)  # fmt: skip
                else:
                    add_tile_of_16(seen, pixels, rows[0], step, row_step, grad, grads, lanes, LANES,
                                   partial, 0, partial, lane, rows[1], row, width, count)  # fmt: skip
            lane += 2 * LANES if wide else LANES
