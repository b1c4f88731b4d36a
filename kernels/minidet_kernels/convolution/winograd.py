"""Fast 3 x 3 convolution in float32 with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3).

**In one dimension.** Four neighbouring outputs of a filter with three taps g see six inputs d:

    y0 = g0 d0 + g1 d1 + g2 d2,   ...,   y3 = g0 d3 + g1 d4 + g2 d5          12 multiplications

They are coefficients of a product of polynomials, and a product of polynomials can be computed by its values: evaluate
both factors at six points (here 0, 1, -1, 2, -2 and infinity), multiply value by value, and find the polynomial
through the results. Evaluating and finding back are fixed linear maps:

    y = A' [ (G g) * (B' d) ]                                                  6 multiplications

with the matrices B' (6 x 6), G (6 x 3) and A' (4 x 6) that stand in `winograd_transforms.py`, row by row. Like a
Fourier transform, they turn a convolution into a product, which is why the six values are called frequencies here.

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
from minidet_kernels.compiler import parallel, serial
from minidet_kernels.convolution.winograd_transforms import (
    FREQUENCIES,
    PIXELS,
    SEEN,
    frequencies_to_image,
    grad_to_frequencies,
    image_to_frequencies,
    transform_back,
    transform_weights,
)
from minidet_kernels.memory import to_channels_last, to_public
from minidet_kernels.simd import LANES, ROWS, tile_of_16, tile_of_32
from minidet_kernels.vectors import load, store

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
    start = np.zeros(k, np.float32)
    if bias is not None:
        start[:] = bias
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
        transform_weights(weight, strides, first_tap, outputs * LANES, 0, c, u, outputs * c * LANES, c * k)
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
                    transform_weights(weight, strides, first_tap, slab * SLAB + lane, channel, channel + count,
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
        transform_back(partial, channel, c, k, weight_grad)


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
        transform_back(total, channel, c, k, weight_grad)


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
            image_to_frequencies(flat, ((image * h + top) * w + left) * c + channel, w * c, c, v, at + channel, step)
        else:
            _cut_out(flat, image, top, left, channel, h, w, c, SEEN, patch)
            image_to_frequencies(patch, 0, SEEN * LANES, LANES, v, at + channel, step)


@serial
def _see_grad(grad, tile, geometry, patch, d, at, step):
    """The frequencies of the 4 x 4 gradients of a tile; those outside the image are zeros."""
    _, h, w, k = grad.shape
    image, top, left = _place(tile, geometry)
    flat = grad.reshape(-1)
    whole = top + PIXELS <= h and left + PIXELS <= w
    for channel in range(0, k, LANES):
        if whole:
            grad_to_frequencies(flat, ((image * h + top) * w + left) * k + channel, w * k, k, d, at + channel, step)
        else:
            _cut_out(flat, image, top, left, channel, h, w, k, PIXELS, patch)
            grad_to_frequencies(patch, 0, PIXELS * LANES, LANES, d, at + channel, step)


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
            frequencies_to_image(m, source, step, load(bias, channel), flat, target, w * k, k)
        else:
            frequencies_to_image(m, source, step, load(bias, channel), patch, 0, PIXELS * LANES, LANES)
            for i in range(min(PIXELS, h - top)):
                for j in range(min(PIXELS, w - left)):
                    store(flat, target + (i * w + j) * k, load(patch, (i * PIXELS + j) * LANES))
