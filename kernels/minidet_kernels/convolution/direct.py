"""Fast convolution in float32, directly on channels-last images: no patch matrix, one tile (`simd.py`) for all of it.

**Forward and input gradient** are the same loop, `_correlate`. In the forward, output pixel (i, j) sums over the padded
pixels from (i*stride, j*stride) on. In the input gradient, the roles are swapped: an image pixel sums over the output
pixels that saw it. With stride 2 these depend on whether its row and its column are even or odd: in one row of pixels
only taps 0, 2, ... of the kernel arrive, in the next only taps 1, 3, ... So the image falls into stride x stride
*phases*, each a plain convolution of `grad` with some taps of the kernel, in reverse order, and no multiplication is
wasted on zeros. The forward is the case of a single phase.

The weight gradient is in `direct_weights.py`, the input gradient to images with few channels in `few_channels.py`.

The threads share out the images, or bands of rows of them. A thread copies its band with zeros around it into its own
scratch memory, small enough to stay in the cache, so that the tile meets no borders.
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
from minidet_kernels.convolution import conv2d_output_size, few_channels
from minidet_kernels.convolution.finish import as_arrays, finish
from minidet_kernels.memory import contiguous, empty, to_channels_last, to_public
from minidet_kernels.simd import LANES, ROWS, copy_lanes, tile_of_16, tile_of_32

# Channels of an image up to which its gradient is faster by way of `few_channels.py`: here it would fill half a vector.
FEW_CHANNELS = LANES // 2
# float32 in the scratch memory of a thread, a padded band: 512 KB, a quarter to a half of the second-level cache of
# current processors. Larger bands copy fewer rows twice.
BAND_FLOATS = 1 << 17
# Steps of a tile's sum whose weights, 128 bytes a step, stay near while the tiles of a band pass by: the 3 x 3 x 32
# weights of a small layer. Their 36 KB are more than a first-level cache of 32 KB; parts of 192, which fit, but put the
# results down more often, were between 7 % slower and 4 % faster.
CACHED_WEIGHTS = 288


class Phase(NamedTuple):
    """Along one axis, some of the results, evenly spaced, and what they sum over.

    Result number i of the phase lies at first_result + i * result_step. Its sum starts at first_source + i *
    source_step of the padded source, and meets the kernel's `taps` in this order.
    """

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
    channels: int  # of the source
    span: int  # padded rows that one row of results needs
    grid_rows: int  # rows of results in the longest phase
    band: int  # rows of results that a thread works on at once
    groups: int  # of images, as equal as can be; of several only if the band is a whole image
    images: int  # of the largest group, that a thread works on at once
    image_floats: int  # from the rows of one image of the band to those of the next
    copies: bool  # whether there is any margin: else the source is used as it lies
    threads: int


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Pair,
    padding: Pair,
    scale: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """residual and relu: only with whole vectors of output channels."""
    k, c, r_size, s_size = weight.shape
    size = conv2d_output_size("conv2d", x.shape[2:], (r_size, s_size), stride, padding, (1, 1))
    phases = [[Phase(0, results, 0, tuple(range(taps)))] for results, taps in zip(size, (r_size, s_size), strict=True)]
    strides = (c * r_size * s_size, r_size * s_size, s_size, 1)  # of weight, by output channel, input channel, r, s
    finishing = (*as_arrays(k, scale, residual), relu)
    return _run(x, weight, strides, bias, k, phases, size, (1, 1), stride, padding, finishing)


def conv2d_input_grad(
    grad: np.ndarray, weight: np.ndarray, input_size: Pair, stride: Pair, padding: Pair
) -> np.ndarray:
    _, c, r_size, s_size = weight.shape
    if c <= FEW_CHANNELS and r_size * s_size > 1:
        return few_channels.conv2d_input_grad(grad, weight, input_size, stride, padding)
    axes = [adjoint_phases(*axis) for axis in zip(input_size, (r_size, s_size), stride, padding, strict=True)]
    phases, margin = [axis[0] for axis in axes], (axes[0][1], axes[1][1])
    strides = (r_size * s_size, c * r_size * s_size, s_size, 1)  # input and output channels have changed places
    finishing = (*as_arrays(c, None, None), False)
    return _run(grad, weight, strides, None, c, phases, input_size, stride, (1, 1), margin, finishing)


@functools.lru_cache(maxsize=1024)
def adjoint_phases(size: int, kernel: int, stride: int, padding: int) -> tuple[tuple[Phase, ...], int]:
    """The phases of the input gradient along one axis, and the margin of zeros that they need before `grad`.

    Image row h saw output row i through tap r if h + padding = i * stride + r: the taps of h are those with the same
    remainder.
    """
    phases = []
    for first in range(min(stride, size)):  # the first image row of each remainder that occurs
        remainder = (first + padding) % stride
        taps = range(remainder, kernel, stride)
        nearest = (first + padding - remainder) // stride  # the output row that saw it through the first tap
        results = -(-(size - first) // stride)
        phases.append(Phase(first, results, nearest - len(taps) + 1, tuple(reversed(taps))))
    margin = max(0, -min(phase.first_source for phase in phases))
    return tuple(phase._replace(first_source=phase.first_source + margin) for phase in phases), margin


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
    finishing: tuple[np.ndarray, np.ndarray, bool],
) -> np.ndarray:
    n = source.shape[0]
    lanes = -(-channels // LANES) * LANES  # channels of the result, rounded up to whole vectors
    table, taps, geometry = _plan(
        source.shape, tuple(map(tuple, phases)), size, result_step, source_step, margin, numba.get_num_threads()
    )
    start = np.zeros(lanes, np.float32)
    if bias is not None:
        start[:channels] = bias
    result = empty(((n * size[0] * size[1] + 1) * lanes,), np.float32)  # one pixel more: see _place_pixels
    weight = contiguous(weight).reshape(-1)
    _correlate(
        to_channels_last(source), weight, weight_strides, channels, taps, table, geometry, start, result, *finishing
    )
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
    """All that depends on shapes alone: a row of numbers a phase, the taps in the order of the phases, the geometry."""
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
    image_floats = ((band - 1) * source_step[0] + span) * padded_width * c
    groups = group_count(n, image_floats, threads) if band == grid_rows else n
    images = -(-n // max(groups, 1))
    geometry = Geometry(
        *result_step, *source_step, *size, *margin, padded_width, c, span, grid_rows, band, groups, images,
        image_floats if copies else height * width * c, copies, threads,
    )  # fmt: skip
    return np.array(table, np.int64), np.array(taps, np.int64).reshape(-1, 2), geometry


def band_rows(n: int, rows: int, row_floats: int, step: int, span: int, threads: int) -> int:
    """Rows of results in a band: as many as fit into the scratch memory; two bands a thread if there are few images."""
    fitting = (BAND_FLOATS // max(row_floats, 1) - span) // step + 1
    shared = rows if n >= 2 * threads else -(-rows * n // (2 * threads))
    return max(1, min(fitting, shared, rows))


def group_count(n: int, image_floats: int, threads: int) -> int:
    """Groups of images that share a scratch memory: as few as can be, and equally many for each thread."""
    most = max(BAND_FLOATS // max(image_floats, 1), 1)
    return min(n, -(-n // (threads * most)) * threads)


@parallel
def _correlate(source, weight, weight_strides, channels, taps, phases, geometry, start, result, scale, residual, relu):
    n, _, _, c = source.shape
    lanes = start.size
    packed = np.empty(lanes * len(taps) * c, np.float32)
    for block in prange(lanes // LANES):
        _pack(weight, weight_strides, channels, c, taps, block, scale, packed)
    bands = -(-geometry.grid_rows // geometry.band)
    tasks = geometry.groups * bands
    flat = source.reshape(-1)
    for thread in prange(geometry.threads):
        scratch = np.empty(_scratch_size(geometry), np.float32)
        sources = np.empty(_pixels_at_most(geometry, phases), np.int64)
        results, zeros = np.empty_like(sources), np.zeros_like(sources)
        for task in range(tasks * thread // geometry.threads, tasks * (thread + 1) // geometry.threads):
            group, first = task // bands, task % bands * geometry.band
            image = n * group // geometry.groups
            images = n * (group + 1) // geometry.groups - image
            seen, offset = _padded_band(source, flat, image, images, first, geometry, scratch)
            for phase in range(len(phases)):
                pixels = _place_pixels(
                    phases[phase], image, images, first, c, lanes, geometry, sources, results, result.size
                )
                _sum_band(seen, offset, packed, start, result, phases[phase], pixels, sources, results, zeros, geometry,
                          residual, relu)  # fmt: skip


@serial
def _pack(weight, strides, channels, c_size, taps, block, scale, packed):
    """The weights of 16 output channels, times their scales, in the order in which the tile reads them: (taps, input
    channels, 16)."""
    first = block * len(taps) * c_size * LANES
    available = min(LANES, channels - block * LANES)
    scales = scale[block * LANES : block * LANES + available]
    for c in range(c_size):  # outside, because the taps of a weight are neighbours in memory
        for tap in range(len(taps)):
            at = first + (tap * c_size + c) * LANES
            source = c * strides[1] + taps[tap, 0] * strides[2] + taps[tap, 1] * strides[3]
            source += block * LANES * strides[0]
            if available == LANES:
                for lane in range(LANES):
                    packed[at + lane] = weight[source + lane * strides[0]] * scales[lane]
            else:
                for lane in range(available):
                    packed[at + lane] = weight[source + lane * strides[0]] * scales[lane]
                packed[at + available : at + LANES] = 0


@serial
def _scratch_size(geometry):
    return geometry.images * geometry.image_floats if geometry.copies else 0


@serial
def _pixels_at_most(geometry, phases):
    return geometry.images * geometry.band * phases[:, 5].max() + ROWS


@serial
def _padded_band(source, flat, image, images, first, geometry, scratch):
    """The array, and the offset in it, where the band from grid row `first` on lies: a padded copy if need be."""
    _, height, width, c = source.shape
    top = first * geometry.source_step_h - geometry.margin_h
    if not geometry.copies:
        return flat, (image * height + top) * width * c
    left = geometry.margin_w * c
    row_floats = geometry.padded_w * c
    rows = geometry.image_floats // max(row_floats, 1)
    for row in range(images * rows):
        at, h = row * row_floats, top + row % rows
        if h < 0 or h >= height:
            scratch[at : at + row_floats] = 0
        else:
            begin = ((image + row // rows) * height + h) * width * c
            scratch[at : at + left] = 0
            copy_numbers(scratch, at + left, flat, begin, width * c)
            scratch[at + left + width * c : at + row_floats] = 0
    return scratch, 0


@serial
def copy_numbers(target, at, source, begin, count):
    """target[at : at + count] = source[begin : begin + count]; written with slices, Numba copies number by number."""
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        copy_lanes(target, at + i, source, begin + i)
    for i in range(whole, count):
        target[at + i] = source[begin + i]


@serial
def _place_pixels(phase, image, images, first, c, lanes, geometry, sources, results, result_size):
    """Fills in where the sum of each pixel of the band starts and where its result goes; returns how many there are.

    A tile has 8 rows: what is missing to a multiple of 8 computes the first pixel again and puts it into the spare one
    at the end.
    """
    first_row, row_count, source_row, _, first_column, columns, source_column, _, _ = phase
    pixels = 0
    for number in range(images):
        for i in range(first, min(first + geometry.band, row_count)):
            row = (i - first) * geometry.source_step_h + source_row
            source_start = number * geometry.image_floats + (row * geometry.padded_w + source_column) * c
            h = first_row + i * geometry.result_step_h
            result_start = ((image + number) * geometry.result_h + h) * geometry.result_w + first_column
            for j in range(columns):
                sources[pixels] = source_start + j * geometry.source_step_w * c
                results[pixels] = (result_start + j * geometry.result_step_w) * lanes
                pixels += 1
    for missing in range(pixels, -(-pixels // ROWS) * ROWS):
        sources[missing] = sources[0]
        results[missing] = result_size - lanes
    return pixels


@serial
def _sum_band(seen, offset, packed, start, result, phase, pixels, sources, results, zeros, geometry, residual, relu):
    """The sums of all pixels of a band, over as many weights at a time as stay in the first-level cache: some rows of
    the kernel, or some part of one."""
    tap_rows, tap_columns, first_tap = phase[3], phase[7], phase[8]
    c = geometry.channels
    inner, row_floats = tap_columns * c, geometry.padded_w * c
    rows = _equal_parts(tap_rows, CACHED_WEIGHTS // max(inner, 1))
    part = _equal_parts(inner, CACHED_WEIGHTS)
    lane_step = packed.size // (start.size // LANES)  # from the weights of 16 output channels to those of the next 16
    for lane in range(0, start.size, 2 * LANES):
        weights = lane // LANES * lane_step + first_tap * c * LANES
        lanes = min(2 * LANES, start.size - lane)
        for row in range(0, max(tap_rows, 1), rows):  # without taps, too, the result gets its bias
            for step in range(0, max(inner, 1), part):
                begin, begins = (start, zeros) if row + step == 0 else (result, results)
                is_last = row + rows >= tap_rows and step + part >= inner
                _tiles(seen, offset + row * row_floats + step, packed, weights + (row * inner + step) * LANES,
                       lane_step, begin, begins, result, lane, lanes, sources, results, pixels,
                       min(part, inner - step), min(rows, tap_rows - row), row_floats,
                       residual, relu, is_last and (relu or residual.size > 0))  # fmt: skip


@serial
def _equal_parts(whole, most):
    """The size of the parts, if something is cut into as few as possible, none larger than `most` (or than 1)."""
    parts = max(-(-whole // max(most, 1)), 1)
    return max(-(-whole // parts), 1)


@serial
def _tiles(seen, at, packed, weights, lane_step, start, starts, result, lane, lanes,
           sources, results, pixels, inner, outer, row_floats, residual, relu, finishes):  # fmt: skip
    """One part of the sum, for 32 (or the last 16) channels of all pixels of a band; `finishes`: with the last part."""
    if lanes == 2 * LANES:
        for row in range(0, pixels, ROWS):
            tile_of_32(seen, at, sources, 1, row_floats, packed, weights, LANES, lane_step,
                       start, lane, starts, result, lane, results, row, inner, outer)  # fmt: skip
            if finishes:
                _finish_tile(result, results, row, pixels, lane, lanes, residual, relu)
    else:
        for row in range(0, pixels, ROWS):
            tile_of_16(seen, at, sources, 1, row_floats, packed, weights, LANES, lane_step,
                       start, lane, starts, result, lane, results, row, inner, outer)  # fmt: skip
            if finishes:
                _finish_tile(result, results, row, pixels, lane, lanes, residual, relu)


@serial
def _finish_tile(result, results, row, pixels, lane, lanes, residual, relu):
    for pixel in range(row, min(row + ROWS, pixels)):
        finish(result, results[pixel] + lane, lanes, residual, relu)
