"""Fast 3 x 3 convolution in float32 with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3).

**In one dimension.** Four neighbouring outputs of a filter with three taps g see six inputs d:

    y0 = g0 d0 + g1 d1 + g2 d2,   ...,   y3 = g0 d3 + g1 d4 + g2 d5          12 multiplications

They are coefficients of a product of polynomials, and a product of polynomials can be computed by its values: evaluate
both factors at six points (here 0, 1, -1, 2, -2 and infinity), multiply value by value, and find the polynomial
through the results. Evaluating and finding back are fixed linear maps:

    y = A' [ (G g) * (B' d) ]                                                  6 multiplications

with the matrices B' (6 x 6), G (6 x 3) and A' (4 x 6) that stand in the functions below, row by row. Like a Fourier
transform, they turn a convolution into a product, which is why the six values are called frequencies here.

**In two dimensions** the same is done to columns and then to rows: a tile of 6 x 6 pixels and a 3 x 3 filter become 36
frequencies each, and give 4 x 4 pixels by 36 multiplications instead of 144.

**Many channels.** The sum over input channels can be taken between the transforms. For each of the 36 frequencies it is
a matrix product, (tiles x C) by (C x K), for which the tile of `simd.py` is made; the transforms work on 16 channels at
a time and cost little when C and K are large:

    x  -- B' . B -->  v (36, tiles, C)  -- 36 products with u (36, C, K) -->  m (36, tiles, K)  -- A' . A -->  y

**Gradients.** The input gradient is the convolution of grad with the flipped filter. The weight gradient goes the same
way backwards: every linear map is replaced by its adjoint, A' by A and G by G', and the products are summed over tiles.

**Accuracy.** Values at 2 and -2 grow with the power of the tap, so digits are lost: about 1e-6 of the result's scale
at 128 channels, ten times as much as the direct sum loses. A NaN or infinity spreads over all results of its tile.

Sources: Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional
neural networks", 2016 (section 4.3 for these matrices).
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import inlined, parallel, serial
from minidet_kernels.memory import to_channels_last, to_public
from minidet_kernels.simd import LANES, ROWS, tile_of_16, tile_of_32
from minidet_kernels.vectors import load, store

FREQUENCIES = 36
PIXELS = 4  # of a side of the tile of results
SEEN = 6  # of a side of the tile of pixels that it sees

# float32 of the frequencies that a thread holds at once: 1 MB, the second-level cache of current servers. Fewer tiles
# at a time read all weights more often, more are pushed out of the cache between the transforms and the products.
BLOCK_FLOATS = 1 << 18
# Input channels in one pass of a product: 128 x 32 weights are 16 KB, half the first-level cache.
PASS_CHANNELS = 128
# Output channels that a thread works on at once where the weights are many: two vectors, the width of the tile.
SLAB = 2 * LANES
# Weights (C K) up to which all threads read them as a whole. Above, their frequencies are more than the cache holds.
LARGEST_BY_TILES = 1 << 16
# Tiles at a time where each thread takes some outputs: their m, 64 * 32 * 36 float32, and 128 * 32 * 36 of u are
# 0.9 MB.
OUTPUT_BLOCK = 64
# Between the frequencies of a tile lie a few floats more than needed: at a distance of exactly a power of two they
# would compete for the same cache lines.
GAP = LANES


class Geometry(NamedTuple):
    """What the compiled loops need to know besides the arrays."""

    down: int  # tiles of an image, below each other
    across: int
    padding_h: int  # rows of zeros above the image
    padding_w: int
    block: int  # tiles that a thread works on at once
    threads: int


def fits(channels: int, outputs: int, kernel_size: Pair, stride: Pair, padding: Pair) -> bool:
    """Whether these functions can do it: 3 x 3, stride 1, whole vectors of channels, an adjoint with padding >= 0."""
    whole = channels % LANES == 0 and outputs % LANES == 0
    return whole and kernel_size == (3, 3) and stride == (1, 1) and max(padding) <= 2


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, padding: Pair) -> np.ndarray:
    k, c = weight.shape[:2]
    strides = (c * 9, 9, 3, 1)  # of weight, by output channel, input channel, row, column
    start = np.zeros(k, np.float32) if bias is None else np.ascontiguousarray(bias)
    return _run(x, weight, strides, 0, k, start, padding)


def conv2d_input_grad(grad: np.ndarray, weight: np.ndarray, padding: Pair) -> np.ndarray:
    c = weight.shape[1]
    strides = (9, c * 9, -3, -1)  # the channels change places, and the filter is read from its last tap to its first
    return _run(grad, weight, strides, 8, c, np.zeros(c, np.float32), (2 - padding[0], 2 - padding[1]))


def conv2d_weight_grad(x: np.ndarray, grad: np.ndarray, padding: Pair) -> np.ndarray:
    c, k = x.shape[1], grad.shape[1]
    by_outputs = c * k > LARGEST_BY_TILES // 2  # twice as much as in the forward: every thread has results of its own
    correlate = _correlate_by_outputs if by_outputs else _correlate_by_tiles
    geometry = _geometry(grad.shape[0], c, k, grad.shape[2:], padding, OUTPUT_BLOCK * 4 if by_outputs else 0)
    weight_grad = np.empty((k, c, 3, 3), np.float32)
    correlate(to_channels_last(x), to_channels_last(grad), geometry, weight_grad.reshape(-1))
    return weight_grad


def _run(x, weight, strides, first_tap, outputs, bias, padding):
    n, c, h, w = x.shape
    size = (h + 2 * padding[0] - 2, w + 2 * padding[1] - 2)
    weight = np.require(weight, requirements=["C", "A", "W"]).reshape(-1)
    y = np.empty((n, *size, outputs), np.float32)
    by_outputs = c * outputs > LARGEST_BY_TILES
    convolve = _convolve_by_outputs if by_outputs else _convolve_by_tiles
    geometry = _geometry(n, c, outputs, size, padding, OUTPUT_BLOCK if by_outputs else 0)
    convolve(to_channels_last(x), weight, strides, first_tap, bias, geometry, y)
    return to_public(y)


def _geometry(n: int, c: int, k: int, size: Pair, padding: Pair, block: int) -> Geometry:
    """block: tiles that all threads work on at once; 0 for as many a thread as fit into its cache."""
    down, across = (-(-side // PIXELS) for side in size)
    threads = numba.get_num_threads()
    tiles = n * down * across
    if not block:
        block = min(BLOCK_FLOATS // (FREQUENCIES * (c + k)), -(-tiles // threads))
    block = max(min(block, tiles) // ROWS * ROWS, ROWS)
    return Geometry(down, across, *padding, block, threads)


# ---- forward, and input gradient ---------------------------------------------------------------------------------


@parallel
def _convolve_by_tiles(x, weight, strides, first_tap, bias, geometry, y):
    """Each thread takes blocks of tiles through all three stages; v and m never leave its cache."""
    n, _, _, c = x.shape
    k = y.shape[3]
    u = np.empty(FREQUENCIES * c * k, np.float32)
    for outputs in prange(k // LANES):
        _transform_weights(weight, strides, first_tap, outputs * LANES, 0, c, u, outputs * c * LANES, c * k)
    tiles = n * geometry.down * geometry.across
    blocks = -(-tiles // geometry.block)
    for thread in prange(geometry.threads):
        v_step, m_step = geometry.block * c + GAP, geometry.block * k + GAP
        v, m = np.zeros(FREQUENCIES * v_step, np.float32), np.empty(FREQUENCIES * m_step, np.float32)
        v_rows, m_rows, same = _rows(geometry.block, c), _rows(geometry.block, k), _rows(geometry.block, 0)
        nothing, patch = np.zeros(k, np.float32), np.empty(SEEN * SEEN * LANES, np.float32)
        for block in range(blocks * thread // geometry.threads, blocks * (thread + 1) // geometry.threads):
            first, last = block * geometry.block, min((block + 1) * geometry.block, tiles)
            for tile in range(first, last):
                _see_tile(x, tile, geometry, patch, v, (tile - first) * c, v_step)
            for f in range(FREQUENCIES):
                _multiply(v, f * v_step, v_rows, min(c, PASS_CHANNELS), u, f * c * k, c * LANES,
                          nothing, 0, same, m, f * m_step, m_rows, k, last - first)  # fmt: skip
                for channel in range(PASS_CHANNELS, c, PASS_CHANNELS):
                    _multiply(v, f * v_step + channel, v_rows, min(c - channel, PASS_CHANNELS),
                              u, f * c * k + channel * LANES, c * LANES,
                              m, f * m_step, m_rows, m, f * m_step, m_rows, k, last - first)  # fmt: skip
            for tile in range(first, last):
                _put_tile(m, (tile - first) * k, m_step, bias, tile, geometry, patch, y, 0, k)


@parallel
def _convolve_by_outputs(x, weight, strides, first_tap, bias, geometry, y):
    """Each thread takes 32 output channels of a block of tiles, and transforms their weights as it needs them.

    With hundreds of channels u is four times the weights and as large as the third-level cache, or larger: here 128 x
    32 channels of it are made at a time, and used at once for all tiles of the block.
    """
    n, _, _, c = x.shape
    k = y.shape[3]
    tiles = n * geometry.down * geometry.across
    v_step, m_step = geometry.block * c + GAP, geometry.block * SLAB + GAP
    v = np.zeros(FREQUENCIES * v_step, np.float32)
    v_rows, m_rows = _rows(geometry.block, c), _rows(geometry.block, SLAB)
    for first in range(0, tiles, geometry.block):
        last = min(first + geometry.block, tiles)
        for tile in prange(first, last):
            patch = np.empty(SEEN * SEEN * LANES, np.float32)
            _see_tile(x, tile, geometry, patch, v, (tile - first) * c, v_step)
        for slab in prange(-(-k // SLAB)):
            lanes, u_step = min(SLAB, k - slab * SLAB), PASS_CHANNELS * SLAB + GAP
            u = np.empty(FREQUENCIES * u_step, np.float32)
            m, patch = np.zeros(FREQUENCIES * m_step, np.float32), np.empty(SEEN * SEEN * LANES, np.float32)
            for channel in range(0, c, PASS_CHANNELS):
                count = min(PASS_CHANNELS, c - channel)
                for lane in range(0, lanes, LANES):
                    _transform_weights(weight, strides, first_tap, slab * SLAB + lane, channel, channel + count,
                                       u, lane * PASS_CHANNELS, u_step)  # fmt: skip
                for f in range(FREQUENCIES):
                    _multiply(v, f * v_step + channel, v_rows, count, u, f * u_step, PASS_CHANNELS * LANES,
                              m, f * m_step, m_rows, m, f * m_step, m_rows, lanes, last - first)  # fmt: skip
            for tile in range(first, last):
                at = (tile - first) * SLAB
                _put_tile(m, at, m_step, bias, tile, geometry, patch, y, slab * SLAB, slab * SLAB + lanes)


@serial
def _rows(count, step):
    """Where the rows of a matrix begin."""
    return np.arange(0, count) * step


@serial
def _multiply(
    v, v_at, v_rows, channels, u, u_at, lane_step, start, start_at, start_rows, m, m_at, m_rows, lanes, tiles
):
    """m (tiles, lanes) = start + v (tiles, channels) u (channels, lanes), for one frequency.

    u lies in blocks of 16 lanes, lane_step apart. Rows up to a multiple of 8 are computed for nothing.
    """
    for lane in range(0, lanes, 2 * LANES):
        at = u_at + lane // LANES * lane_step
        for row in range(0, tiles, ROWS):
            if lane + 2 * LANES <= lanes:
                tile_of_32(v, v_at, v_rows, 1, 0, u, at, LANES, lane_step,
                           start, start_at + lane, start_rows, m, m_at + lane, m_rows, row, channels, 1)  # fmt: skip
            else:
                tile_of_16(v, v_at, v_rows, 1, 0, u, at, LANES, lane_step,
                           start, start_at + lane, start_rows, m, m_at + lane, m_rows, row, channels, 1)  # fmt: skip


# ---- weight gradient ---------------------------------------------------------------------------------------------


@parallel
def _correlate_by_tiles(x, grad, geometry, weight_grad):
    """Each thread adds up the products of its own tiles."""
    n, _, _, c = x.shape
    k = grad.shape[3]
    tiles = n * geometry.down * geometry.across
    blocks = -(-tiles // geometry.block)
    partial = np.zeros((geometry.threads, FREQUENCIES * c * k), np.float32)
    for thread in prange(geometry.threads):
        v_step, d_step = geometry.block * c + GAP, geometry.block * k + GAP
        v, d = np.empty(FREQUENCIES * v_step, np.float32), np.empty(FREQUENCIES * d_step, np.float32)
        patch = np.empty(SEEN * SEEN * LANES, np.float32)
        v_rows, rows = _rows(c, 1), _rows(c, k)
        for block in range(blocks * thread // geometry.threads, blocks * (thread + 1) // geometry.threads):
            first, last = block * geometry.block, min((block + 1) * geometry.block, tiles)
            for tile in range(first, last):
                _see_tile(x, tile, geometry, patch, v, (tile - first) * c, v_step)
                _see_grad(grad, tile, geometry, patch, d, (tile - first) * k, d_step)
            for f in range(FREQUENCIES):
                _add_products(v, f * v_step, v_rows, c, d, f * d_step, k, 0, k,
                              partial[thread], f * c * k, rows, last - first)  # fmt: skip
    for channel in prange(c):
        _transform_back(partial, channel, c, k, weight_grad)


@parallel
def _correlate_by_outputs(x, grad, geometry, weight_grad):
    """A block of tiles at a time; each thread adds up all of its products at some of the frequencies and outputs."""
    n, _, _, c = x.shape
    k = grad.shape[3]
    tiles = n * geometry.down * geometry.across
    total = np.zeros((1, FREQUENCIES * c * k), np.float32)
    v_step, d_step = geometry.block * c + GAP, geometry.block * k + GAP
    v, d = np.empty(FREQUENCIES * v_step, np.float32), np.empty(FREQUENCIES * d_step, np.float32)
    v_rows, rows, slabs = _rows(c, 1), _rows(c, k), -(-k // SLAB)
    for first in range(0, tiles, geometry.block):
        last = min(first + geometry.block, tiles)
        for tile in prange(first, last):
            patch = np.empty(SEEN * SEEN * LANES, np.float32)
            _see_tile(x, tile, geometry, patch, v, (tile - first) * c, v_step)
            _see_grad(grad, tile, geometry, patch, d, (tile - first) * k, d_step)
        for task in prange(FREQUENCIES * slabs):
            f, lane = task // slabs, task % slabs * SLAB
            _add_products(v, f * v_step, v_rows, c, d, f * d_step, k, lane, min(lane + SLAB, k),
                          total[0], f * c * k, rows, last - first)  # fmt: skip
    for channel in prange(c):
        _transform_back(total, channel, c, k, weight_grad)


@serial
def _add_products(v, v_at, v_rows, c, d, d_at, k, first_lane, last_lane, total, at, rows, tiles):
    """total (C, lanes) += v' (C, tiles) d (tiles, lanes), for one frequency."""
    for lane in range(first_lane, last_lane, 2 * LANES):
        for row in range(0, c, ROWS):
            if lane + 2 * LANES <= last_lane:
                tile_of_32(v, v_at, v_rows, c, 0, d, d_at + lane, k, LANES,
                           total, at + lane, rows, total, at + lane, rows, row, tiles, 1)  # fmt: skip
            else:
                tile_of_16(v, v_at, v_rows, c, 0, d, d_at + lane, k, LANES,
                           total, at + lane, rows, total, at + lane, rows, row, tiles, 1)  # fmt: skip


# ---- tiles in and out --------------------------------------------------------------------------------------------


@serial
def _place(tile, geometry):
    """Image, and upper left result, of a tile."""
    image, inside = tile // (geometry.down * geometry.across), tile % (geometry.down * geometry.across)
    return image, inside // geometry.across * PIXELS, inside % geometry.across * PIXELS


@serial
def _see_tile(x, tile, geometry, patch, v, at, step):
    """The frequencies of the 6 x 6 pixels that a tile sees; those outside the image are zeros."""
    _, h, w, c = x.shape
    image, row, column = _place(tile, geometry)
    top, left = row - geometry.padding_h, column - geometry.padding_w
    flat = x.reshape(-1)
    whole = top >= 0 and left >= 0 and top + SEEN <= h and left + SEEN <= w
    for channel in range(0, c, LANES):
        if whole:
            _image_to_frequencies(flat, ((image * h + top) * w + left) * c + channel, w * c, c, v, at + channel, step)
        else:
            _cut_out(flat, image, top, left, channel, h, w, c, SEEN, patch)
            _image_to_frequencies(patch, 0, SEEN * LANES, LANES, v, at + channel, step)


@serial
def _see_grad(grad, tile, geometry, patch, d, at, step):
    """The frequencies of the 4 x 4 gradients of a tile; those outside the image are zeros."""
    _, h, w, k = grad.shape
    image, top, left = _place(tile, geometry)
    flat = grad.reshape(-1)
    whole = top + PIXELS <= h and left + PIXELS <= w
    for channel in range(0, k, LANES):
        if whole:
            _grad_to_frequencies(flat, ((image * h + top) * w + left) * k + channel, w * k, k, d, at + channel, step)
        else:
            _cut_out(flat, image, top, left, channel, h, w, k, PIXELS, patch)
            _grad_to_frequencies(patch, 0, PIXELS * LANES, LANES, d, at + channel, step)


@serial
def _cut_out(flat, image, top, left, channel, h, w, c, side, patch):
    """16 channels of side x side pixels, with zeros where there is no image."""
    patch[: side * side * LANES] = 0
    for i in range(max(0, -top), min(side, h - top)):
        for j in range(max(0, -left), min(side, w - left)):
            source = ((image * h + top + i) * w + left + j) * c + channel
            store(patch, (i * side + j) * LANES, load(flat, source))


@serial
def _put_tile(m, at, step, bias, tile, geometry, patch, y, first_output, last_output):
    """Some channels of a tile's results, plus bias; results outside the image are dropped."""
    _, h, w, k = y.shape
    image, top, left = _place(tile, geometry)
    flat = y.reshape(-1)
    whole = top + PIXELS <= h and left + PIXELS <= w
    for channel in range(first_output, last_output, LANES):
        source, target = at + channel - first_output, ((image * h + top) * w + left) * k + channel
        if whole:
            _frequencies_to_image(m, source, step, load(bias, channel), flat, target, w * k, k)
        else:
            _frequencies_to_image(m, source, step, load(bias, channel), patch, 0, PIXELS * LANES, LANES)
            for i in range(min(PIXELS, h - top)):
                for j in range(min(PIXELS, w - left)):
                    store(flat, target + (i * w + j) * k, load(patch, (i * PIXELS + j) * LANES))


# ---- the transforms, on 16 channels at a time ---------------------------------------------------------------------


@inlined
def _of_image(d0, d1, d2, d3, d4, d5):
    """B' d."""
    return (
        4 * d0 - 5 * d2 + d4,
        (d4 + d3) - 4 * (d1 + d2),
        (d4 - d3) + 4 * (d1 - d2),
        (d4 - d2) + 2 * (d3 - d1),
        (d4 - d2) - 2 * (d3 - d1),
        4 * d1 - 5 * d3 + d5,
    )


@inlined
def _to_image(m0, m1, m2, m3, m4, m5):
    """A' m."""
    return (
        m0 + (m1 + m2) + (m3 + m4),
        (m1 - m2) + 2 * (m3 - m4),
        (m1 + m2) + 4 * (m3 + m4),
        (m1 - m2) + 8 * (m3 - m4) + m5,
    )


@inlined
def _of_grad(y0, y1, y2, y3):
    """A y, the adjoint of `_to_image`."""
    even, odd = y0 + y2, y1 + y3
    far_even, far_odd = y0 + 4 * y2, 2 * y1 + 8 * y3
    return y0, even + odd, even - odd, far_even + far_odd, far_even - far_odd, y3


@inlined
def _of_weights(g0, g1, g2):
    """G g."""
    near, far = SIXTH * (g0 + g2), SIXTH * (QUARTER * g0 + g2)
    return (
        QUARTER * g0,
        MINUS * near - SIXTH * g1,
        SIXTH * g1 - near,
        far + TWELFTH * g1,
        far - TWELFTH * g1,
        g2,
    )


@inlined
def _to_weights(m0, m1, m2, m3, m4, m5):
    """G' m, the adjoint of `_of_weights`."""
    near, far = m1 + m2, m3 + m4
    return (
        QUARTER * (m0 + SIXTH * far) - SIXTH * near,
        SIXTH * (m2 - m1) + TWELFTH * (m3 - m4),
        SIXTH * (far - near) + m5,
    )


QUARTER, SIXTH, TWELFTH, MINUS = (np.float32(value) for value in (1 / 4, 1 / 6, 1 / 12, -1))


@inlined
def _image_column(x, at, row):
    return _of_image(
        load(x, at), load(x, at + row), load(x, at + 2 * row),
        load(x, at + 3 * row), load(x, at + 4 * row), load(x, at + 5 * row),
    )  # fmt: skip


@inlined
def _grad_column(x, at, row):
    return _of_grad(load(x, at), load(x, at + row), load(x, at + 2 * row), load(x, at + 3 * row))


@inlined
def _frequency_column(m, at, row):
    return _to_image(
        load(m, at), load(m, at + row), load(m, at + 2 * row),
        load(m, at + 3 * row), load(m, at + 4 * row), load(m, at + 5 * row),
    )  # fmt: skip


@inlined
def _weight_column(g, at, row):
    return _of_weights(load(g, at), load(g, at + row), load(g, at + 2 * row))


@inlined
def _store_six(v, at, step, row):
    store(v, at, row[0])
    store(v, at + step, row[1])
    store(v, at + 2 * step, row[2])
    store(v, at + 3 * step, row[3])
    store(v, at + 4 * step, row[4])
    store(v, at + 5 * step, row[5])


@inlined
def _store_four(y, at, step, row, bias):
    store(y, at, row[0] + bias)
    store(y, at + step, row[1] + bias)
    store(y, at + 2 * step, row[2] + bias)
    store(y, at + 3 * step, row[3] + bias)


@serial
def _image_to_frequencies(x, at, row, column, v, to, step):
    """B' d B: first the columns of the tile, then the rows of what comes out."""
    a = _image_column(x, at, row)
    b = _image_column(x, at + column, row)
    c = _image_column(x, at + 2 * column, row)
    d = _image_column(x, at + 3 * column, row)
    e = _image_column(x, at + 4 * column, row)
    f = _image_column(x, at + 5 * column, row)
    _store_six(v, to, step, _of_image(a[0], b[0], c[0], d[0], e[0], f[0]))
    _store_six(v, to + 6 * step, step, _of_image(a[1], b[1], c[1], d[1], e[1], f[1]))
    _store_six(v, to + 12 * step, step, _of_image(a[2], b[2], c[2], d[2], e[2], f[2]))
    _store_six(v, to + 18 * step, step, _of_image(a[3], b[3], c[3], d[3], e[3], f[3]))
    _store_six(v, to + 24 * step, step, _of_image(a[4], b[4], c[4], d[4], e[4], f[4]))
    _store_six(v, to + 30 * step, step, _of_image(a[5], b[5], c[5], d[5], e[5], f[5]))


@serial
def _frequencies_to_image(m, at, step, bias, y, to, row, column):
    """A' m A + bias."""
    a = _frequency_column(m, at, 6 * step)
    b = _frequency_column(m, at + step, 6 * step)
    c = _frequency_column(m, at + 2 * step, 6 * step)
    d = _frequency_column(m, at + 3 * step, 6 * step)
    e = _frequency_column(m, at + 4 * step, 6 * step)
    f = _frequency_column(m, at + 5 * step, 6 * step)
    _store_four(y, to, column, _to_image(a[0], b[0], c[0], d[0], e[0], f[0]), bias)
    _store_four(y, to + row, column, _to_image(a[1], b[1], c[1], d[1], e[1], f[1]), bias)
    _store_four(y, to + 2 * row, column, _to_image(a[2], b[2], c[2], d[2], e[2], f[2]), bias)
    _store_four(y, to + 3 * row, column, _to_image(a[3], b[3], c[3], d[3], e[3], f[3]), bias)


@serial
def _grad_to_frequencies(grad, at, row, column, d, to, step):
    """A y A'."""
    p = _grad_column(grad, at, row)
    q = _grad_column(grad, at + column, row)
    r = _grad_column(grad, at + 2 * column, row)
    s = _grad_column(grad, at + 3 * column, row)
    _store_six(d, to, step, _of_grad(p[0], q[0], r[0], s[0]))
    _store_six(d, to + 6 * step, step, _of_grad(p[1], q[1], r[1], s[1]))
    _store_six(d, to + 12 * step, step, _of_grad(p[2], q[2], r[2], s[2]))
    _store_six(d, to + 18 * step, step, _of_grad(p[3], q[3], r[3], s[3]))
    _store_six(d, to + 24 * step, step, _of_grad(p[4], q[4], r[4], s[4]))
    _store_six(d, to + 30 * step, step, _of_grad(p[5], q[5], r[5], s[5]))


@serial
def _transform_weights(weight, strides, first_tap, output, first, last, u, to, step):
    """G g G' of 16 output channels, for some input channels after each other; `step` between the frequencies."""
    g = np.empty(9 * LANES, np.float32)
    for channel in range(first, last):
        for lane in range(LANES):
            at = (output + lane) * strides[0] + channel * strides[1] + first_tap
            for r in range(3):
                for s in range(3):
                    g[(r * 3 + s) * LANES + lane] = weight[at + r * strides[2] + s * strides[3]]
        a = _weight_column(g, 0, 3 * LANES)
        b = _weight_column(g, LANES, 3 * LANES)
        d = _weight_column(g, 2 * LANES, 3 * LANES)
        _store_six(u, to, step, _of_weights(a[0], b[0], d[0]))
        _store_six(u, to + 6 * step, step, _of_weights(a[1], b[1], d[1]))
        _store_six(u, to + 12 * step, step, _of_weights(a[2], b[2], d[2]))
        _store_six(u, to + 18 * step, step, _of_weights(a[3], b[3], d[3]))
        _store_six(u, to + 24 * step, step, _of_weights(a[4], b[4], d[4]))
        _store_six(u, to + 30 * step, step, _of_weights(a[5], b[5], d[5]))
        to += LANES


@serial
def _transform_back(partial, channel, c, k, weight_grad):
    """G' m G of one input channel, m the sum of what the threads found, in the order of the threads."""
    m = np.empty(FREQUENCIES * LANES, np.float32)
    g = np.empty(9 * LANES, np.float32)
    for lane in range(0, k, LANES):
        for f in range(FREQUENCIES):
            at = (f * c + channel) * k + lane
            total = load(partial[0], at)
            for thread in range(1, len(partial)):
                total = total + load(partial[thread], at)
            store(m, f * LANES, total)
        for column in range(6):
            p = _to_weights(
                load(m, column * LANES), load(m, (6 + column) * LANES), load(m, (12 + column) * LANES),
                load(m, (18 + column) * LANES), load(m, (24 + column) * LANES), load(m, (30 + column) * LANES),
            )  # fmt: skip
            store(m, column * LANES, p[0])
            store(m, (6 + column) * LANES, p[1])
            store(m, (12 + column) * LANES, p[2])
        for r in range(3):
            at = r * 6 * LANES
            p = _to_weights(
                load(m, at), load(m, at + LANES), load(m, at + 2 * LANES),
                load(m, at + 3 * LANES), load(m, at + 4 * LANES), load(m, at + 5 * LANES),
            )  # fmt: skip
            store(g, r * 3 * LANES, p[0])
            store(g, (r * 3 + 1) * LANES, p[1])
            store(g, (r * 3 + 2) * LANES, p[2])
        for output in range(LANES):
            for tap in range(9):
                weight_grad[((lane + output) * c + channel) * 9 + tap] = g[tap * LANES + output]
