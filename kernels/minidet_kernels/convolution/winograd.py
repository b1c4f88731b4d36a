"""Fast 3 x 3 convolution with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3), and F(2 x 2, 3 x 3).

`kernels/CONVOLUTION.md` explains it with numbers and drawings; in short:

**In one dimension.** Four neighbouring outputs of a filter with three taps g see six inputs d:

    y0 = g0 d0 + g1 d1 + g2 d2,   ...,   y3 = g0 d3 + g1 d4 + g2 d5          12 multiplications

They are coefficients of a product of polynomials, and a product of polynomials can be computed by its values: evaluate
both factors at six points (here 0, 1, -1, 2, -2 and infinity), multiply value by value, and find the polynomial
through the results. Evaluating and finding back are fixed linear maps:

    y = A' [ (G g) * (B' d) ]                                                  6 multiplications

with the matrices B' (6 x 6), G (6 x 3) and A' (4 x 6) that stand in `winograd_f4.py`, row by row. Like a Fourier
transform, they turn a convolution into a product, which is why the six values are called frequencies here. For two
outputs four points do, and 4 multiplications instead of 6 (`winograd_f2.py`).

**In two dimensions** the same is done to columns and then to rows: a tile of 6 x 6 pixels and a 3 x 3 filter become 36
frequencies each, and give 4 x 4 pixels by 36 multiplications instead of 144; or 4 x 4 pixels 2 x 2 by 16 instead of 36.

**Many channels.** The sum over input channels can be taken between the transforms. For each frequency it is a matrix
product, (tiles x C) by (C x K), for which the tile of `simd.py` is made; the transforms work on 16 channels at a time
and cost little when C and K are large:

    x  -- B' . B -->  v (36, tiles, C)  -- 36 products with u (36, C, K) -->  m (36, tiles, K)  -- A' . A -->  y

**Gradients.** The input gradient is the convolution of grad with the flipped filter; the weight gradient is in
`winograd_weights.py`.

**Two schedules.** The threads share out tiles, or output channels; `choice.py` knows when which is faster.

**Accuracy.** Values at 2 and -2 grow with the power of the tap, so digits are lost: 5e-6 of the largest result at 64
channels, 2e-5 at 512. With tiles of 2 x 2 nothing is lost. A NaN or infinity spreads over all results of its tile.

Sources: Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional
neural networks", 2016 (sections 4.1 and 4.3 for these matrices).
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import parallel, serial
from minidet_kernels.convolution import winograd_f2 as f2
from minidet_kernels.convolution import winograd_f4 as f4
from minidet_kernels.convolution.finish import as_arrays, finish
from minidet_kernels.convolution.winograd_tiles import (
    BLOCK_FLOATS,
    SLAB,
    Geometry,
    Method,
    frequencies_shape,
    place,
    row_starts,
    scratch,
    see_tile,
    tile_geometry,
)
from minidet_kernels.memory import contiguous, empty, to_channels_last, to_public
from minidet_kernels.simd import LANES, ROWS, tile_of_16, tile_of_32
from minidet_kernels.vectors import load, store

# Input channels in one pass of a product: 128 x 32 weights are 16 KB, half the first-level cache.
PASS_CHANNELS = 128


def fits(channels: int, outputs: int, kernel_size: Pair, stride: Pair, padding: Pair) -> bool:
    """Whether these functions can do it: 3 x 3, stride 1, whole vectors of channels, an adjoint with padding >= 0."""
    whole = channels % LANES == 0 and outputs % LANES == 0
    return whole and kernel_size == (3, 3) and stride == (1, 1) and max(padding) <= 2


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    padding: Pair,
    method: Method,
    scale: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    k, c = weight.shape[:2]
    strides = (c * 9, 9, 3, 1)  # of weight, by output channel, input channel, row, column
    start = np.zeros(k, np.float32)
    if bias is not None:
        start[:] = bias
    return _run(x, weight, strides, 0, k, start, padding, method, (*as_arrays(k, scale, residual), relu))


def conv2d_input_grad(grad: np.ndarray, weight: np.ndarray, padding: Pair, method: Method) -> np.ndarray:
    c = weight.shape[1]
    strides = (9, c * 9, -3, -1)  # the channels change places, and the filter is read from its last tap to its first
    start = np.zeros(c, np.float32)
    finishing = (*as_arrays(c, None, None), False)
    return _run(grad, weight, strides, 8, c, start, (2 - padding[0], 2 - padding[1]), method, finishing)


def _run(x, weight, strides, first_tap, outputs, bias, padding, method, finishing):
    n, c, h, w = x.shape
    size = (h + 2 * padding[0] - 2, w + 2 * padding[1] - 2)
    geometry, shapes = _plan(n, c, outputs, size, padding, method, numba.get_num_threads())
    u, v, m = scratch(*shapes)
    y = empty((n, *size, outputs), np.float32)
    convolve = _convolve_by_outputs if method.by_outputs else _convolve_by_tiles
    weight = contiguous(weight).reshape(-1)
    convolve(to_channels_last(x), weight, strides, first_tap, bias, geometry, u, v, m, y, *finishing)
    return to_public(y)


@functools.lru_cache(maxsize=1024)
def _plan(
    n: int, c: int, k: int, size: Pair, padding: Pair, method: Method, threads: int
) -> tuple[Geometry, tuple[Pair, Pair, Pair]]:
    """The geometry, and the shapes of u, v and m: all that depends on sizes alone."""
    frequencies = (method.pixels + 2) ** 2
    if method.by_outputs:
        most = BLOCK_FLOATS // (frequencies * SLAB) - PASS_CHANNELS  # for u of 128 channels, and m of so many tiles
        geometry = tile_geometry(n, size, padding, method.pixels, most, 1, threads)
        u = frequencies_shape(threads, frequencies, PASS_CHANNELS * SLAB)
        v = frequencies_shape(1, frequencies, geometry.block * c)
        m = frequencies_shape(threads, frequencies, geometry.block * SLAB)
    else:
        most = BLOCK_FLOATS // (frequencies * (c + k))
        geometry = tile_geometry(n, size, padding, method.pixels, most, threads, threads)
        u = frequencies_shape(1, frequencies, c * k)
        v, m = (frequencies_shape(threads, frequencies, geometry.block * side) for side in (c, k))
    return geometry, (u, v, m)


# ---- forward, and input gradient ---------------------------------------------------------------------------------


@parallel
def _convolve_by_tiles(x, weight, strides, first_tap, bias, geometry, u, v, m, y, scale, residual, relu):
    """Each thread takes blocks of tiles through all three stages; v and m never leave its cache."""
    n, _, _, c = x.shape
    k, threads = y.shape[3], geometry.threads
    for output in prange(k // LANES):
        _transform_weights(weight, strides, first_tap, output * LANES, 0, c, scale, geometry, u[0], output * c * LANES)
    tiles = n * geometry.down * geometry.across
    blocks = -(-tiles // geometry.block)
    for thread in prange(threads):
        patch = np.empty((geometry.pixels + 2) ** 2 * LANES, np.float32)
        for block in range(blocks * thread // threads, blocks * (thread + 1) // threads):
            first, last = block * geometry.block, min((block + 1) * geometry.block, tiles)
            for tile in range(first, last):
                see_tile(x, tile, geometry, patch, v[thread], (tile - first) * c, SLAB)
            _multiply(v[thread], c, 0, c, u[0], c * LANES, m[thread], k, k, last - first, geometry)
            for tile in range(first, last):
                _put_tile(m[thread], (tile - first) * k, bias, tile, geometry, patch, y, 0, k, residual, relu)


@parallel
def _convolve_by_outputs(x, weight, strides, first_tap, bias, geometry, u, v, m, y, scale, residual, relu):
    """Each thread takes 32 output channels of a block of tiles, and transforms their weights as it needs them.

    With hundreds of channels u is four times the weights and as large as the third-level cache, or larger: here 128 x
    32 channels of it are made at a time, and used at once for all tiles of the block.
    """
    n, _, _, c = x.shape
    k, threads = y.shape[3], geometry.threads
    tiles, slabs = n * geometry.down * geometry.across, -(-k // SLAB)
    for first in range(0, tiles, geometry.block):
        last = min(first + geometry.block, tiles)
        for thread in prange(threads):
            patch = np.empty((geometry.pixels + 2) ** 2 * LANES, np.float32)
            begin, end = (last - first) * thread // threads, (last - first) * (thread + 1) // threads
            for tile in range(first + begin, first + end):
                see_tile(x, tile, geometry, patch, v[0], (tile - first) * c, SLAB)
        for thread in prange(threads):
            patch = np.empty((geometry.pixels + 2) ** 2 * LANES, np.float32)
            for slab in range(slabs * thread // threads, slabs * (thread + 1) // threads):
                output = slab * SLAB
                lanes = min(SLAB, k - output)
                for channel in range(0, c, PASS_CHANNELS):
                    end = min(channel + PASS_CHANNELS, c)
                    for lane in range(0, lanes, LANES):
                        _transform_weights(weight, strides, first_tap, output + lane, channel, end, scale, geometry,
                                           u[thread], lane * PASS_CHANNELS)  # fmt: skip
                    _multiply(v[0], c, channel, end, u[thread], PASS_CHANNELS * LANES,
                              m[thread], SLAB, lanes, last - first, geometry)  # fmt: skip
                for tile in range(first, last):
                    _put_tile(m[thread], (tile - first) * SLAB, bias, tile, geometry, patch, y, output, output + lanes,
                              residual, relu)  # fmt: skip


@serial
def _multiply(v, v_row, first, last, u, lane_step, m, m_row, lanes, tiles, geometry):
    """m (tiles, lanes) = v (tiles, channels) u (channels, lanes), at every frequency, for some of the channels.

    From channel 0 on, the sums begin; later channels are added to them, a pass at a time. u lies in blocks of 16 lanes,
    lane_step apart, and begins with channel `first`. Rows up to a multiple of 8 are computed for nothing.
    """
    frequencies = (geometry.pixels + 2) ** 2
    v_rows, m_rows = row_starts(geometry.block, v_row), row_starts(geometry.block, m_row)
    nothing, same = np.zeros(lanes, np.float32), row_starts(geometry.block, 0)
    for f in range(frequencies):
        v_at, u_at, m_at = f * (v.size // frequencies), f * (u.size // frequencies), f * (m.size // frequencies)
        for channel in range(first, last, PASS_CHANNELS):
            count, at = min(PASS_CHANNELS, last - channel), u_at + (channel - first) * LANES
            if channel == 0:
                _multiply_pass(v, v_at, v_rows, count, u, at, lane_step, nothing, 0, same, m, m_at, m_rows,
                               lanes, tiles)  # fmt: skip
            else:
                _multiply_pass(v, v_at + channel, v_rows, count, u, at, lane_step, m, m_at, m_rows, m, m_at, m_rows,
                               lanes, tiles)  # fmt: skip


@serial
def _multiply_pass(
    v, v_at, v_rows, channels, u, u_at, lane_step, start, start_at, start_rows, m, m_at, m_rows, lanes, tiles
):
    """m (tiles, lanes) = start + v (tiles, channels) u (channels, lanes), for one frequency."""
    for lane in range(0, lanes, 2 * LANES):
        at = u_at + lane // LANES * lane_step
        for row in range(0, tiles, ROWS):
            if lane + 2 * LANES <= lanes:
                tile_of_32(v, v_at, v_rows, 1, 0, u, at, LANES, lane_step,
                           start, start_at + lane, start_rows, m, m_at + lane, m_rows, row, channels, 1)  # fmt: skip
            else:
                tile_of_16(v, v_at, v_rows, 1, 0, u, at, LANES, lane_step,
                           start, start_at + lane, start_rows, m, m_at + lane, m_rows, row, channels, 1)  # fmt: skip


# ---- weights -----------------------------------------------------------------------------------------------------


@serial
def _transform_weights(weight, strides, first_tap, output, first, last, scale, geometry, u, to):
    """The frequencies of 16 output channels' weights, times their scales, for some input channels after each other."""
    g = np.empty(9 * LANES, np.float32)
    step = u.size // (geometry.pixels + 2) ** 2
    for channel in range(first, last):
        for lane in range(LANES):
            at = (output + lane) * strides[0] + channel * strides[1] + first_tap
            for r in range(3):
                for s in range(3):
                    g[(r * 3 + s) * LANES + lane] = weight[at + r * strides[2] + s * strides[3]] * scale[output + lane]
        if geometry.pixels == 4:
            f4.weights_to_frequencies(g, 0, LANES, u, to, step)
        else:
            f2.weights_to_frequencies(g, 0, LANES, u, to, step)
        to += LANES


# ---- results -----------------------------------------------------------------------------------------------------


@serial
def _put_tile(m, at, bias, tile, geometry, patch, y, first_output, last_output, residual, relu):
    """Some channels of a tile's results, plus bias, and finished; results outside the image are dropped."""
    _, h, w, k = y.shape
    image, top, left = place(tile, geometry)
    pixels = geometry.pixels
    flat, step = y.reshape(-1), m.size // (pixels + 2) ** 2
    whole = top + pixels <= h and left + pixels <= w
    for channel in range(first_output, last_output, LANES):
        source, target = at + channel - first_output, ((image * h + top) * w + left) * k + channel
        shift = load(bias, channel)
        if whole:
            _frequencies_to_image(geometry, m, source, step, shift, flat, target, w * k, k)
        else:
            _frequencies_to_image(geometry, m, source, step, shift, patch, 0, pixels * LANES, LANES)
            for i in range(min(pixels, h - top)):
                for j in range(min(pixels, w - left)):
                    store(flat, target + (i * w + j) * k, load(patch, (i * pixels + j) * LANES))
        if relu or residual.size > 0:
            for i in range(min(pixels, h - top)):
                for j in range(min(pixels, w - left)):
                    finish(flat, target + (i * w + j) * k, LANES, residual, relu)


@serial
def _frequencies_to_image(geometry, m, at, step, bias, y, to, row, column):
    if geometry.pixels == 4:
        f4.frequencies_to_image(m, at, step, bias, y, to, row, column)
    else:
        f2.frequencies_to_image(m, at, step, bias, y, to, row, column)
