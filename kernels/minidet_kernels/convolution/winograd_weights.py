"""The weight gradient of `winograd.py`, which runs it backwards: every linear map is replaced by its adjoint,
A' by A and G by G', and the products are summed over tiles.

    x     -- B' . B -->  v (36, tiles, C)
    grad  -- A . A' -->  d (36, tiles, K)    36 products v' d -->  m (36, C, K)  -- G' . G -->  weight_grad (K, C, 3, 3)

The threads share out the tiles, and each has a sum of its own, or pairs of 32 input and 32 output channels.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import parallel, serial
from minidet_kernels.convolution import winograd_f2 as f2
from minidet_kernels.convolution import winograd_f4 as f4
from minidet_kernels.convolution.winograd_tiles import (
    BLOCK_FLOATS,
    SLAB,
    Method,
    cut_out,
    frequencies_shape,
    place,
    row_starts,
    scratch,
    see_tile,
    tile_geometry,
)
from minidet_kernels.memory import empty, to_channels_last
from minidet_kernels.simd import LANES, ROWS, tile_of_16, tile_of_32
from minidet_kernels.vectors import load, store

# Tiles in one pass of a product of the weight gradient: 64 x 32 of v and as many of d are 16 KB, half the first-level
# cache.
PASS_TILES = 64


def conv2d_weight_grad(x: np.ndarray, grad: np.ndarray, padding: Pair, method: Method) -> np.ndarray:
    (n, c), (k, *size) = x.shape[:2], grad.shape[1:]
    frequencies, threads = (method.pixels + 2) ** 2, numba.get_num_threads()
    if n == 0:
        return np.zeros((k, c, 3, 3), np.float32)
    weight_grad = empty((k, c, 3, 3), np.float32)
    arrays = to_channels_last(x), to_channels_last(grad)
    if method.by_outputs:
        most = BLOCK_FLOATS // 2 // (frequencies * SLAB)  # of d, which a thread reads again and again
        geometry = tile_geometry(n, size, padding, method.pixels, most, 1, threads)
        shapes = [frequencies_shape(1, frequencies, geometry.block * -(-side // SLAB) * SLAB) for side in (c, k)]
        v, d, m = scratch(*shapes, frequencies_shape(threads, frequencies, SLAB * SLAB))
        _correlate_by_outputs(*arrays, geometry, v, d, m, weight_grad.reshape(-1))
    else:
        most = BLOCK_FLOATS // (frequencies * (c + k))
        geometry = tile_geometry(n, size, padding, method.pixels, most, threads, threads)
        shapes = [frequencies_shape(threads, frequencies, geometry.block * side) for side in (c, k)]
        v, d, partial = scratch(*shapes, (threads, frequencies * c * k))
        _correlate_by_tiles(*arrays, geometry, v, d, partial, weight_grad.reshape(-1))
    return weight_grad


@parallel
def _correlate_by_tiles(x, grad, geometry, v, d, partial, weight_grad):
    """Each thread adds up the products of its own tiles."""
    n, _, _, c = x.shape
    k, threads = grad.shape[3], geometry.threads
    frequencies = (geometry.pixels + 2) ** 2
    tiles = n * geometry.down * geometry.across
    blocks = -(-tiles // geometry.block)
    for thread in prange(threads):
        patch, total = np.empty(frequencies * LANES, np.float32), partial[thread]
        total[:] = 0
        columns, rows = row_starts(c, 1), row_starts(c, k)
        for block in range(blocks * thread // threads, blocks * (thread + 1) // threads):
            first, last = block * geometry.block, min((block + 1) * geometry.block, tiles)
            for tile in range(first, last):
                see_tile(x, tile, geometry, patch, v[thread], (tile - first) * c, SLAB)
                _see_grad(grad, tile, geometry, patch, d[thread], (tile - first) * k, SLAB)
            for f in range(frequencies):
                _add_products(v[thread], f * (v.shape[1] // frequencies), c, columns, c,
                              d[thread], f * (d.shape[1] // frequencies), k, k,
                              total, f * c * k, rows, total, f * c * k, rows, last - first)  # fmt: skip
    for channel in prange(c):
        m, g = np.empty(frequencies * LANES, np.float32), np.empty(9 * LANES, np.float32)
        for lane in range(0, k, LANES):
            for f in range(frequencies):
                at = (f * c + channel) * k + lane
                total = load(partial[0], at)
                for thread in range(1, threads):  # in the order of the threads: the same bits on every run
                    total = total + load(partial[thread], at)
                store(m, f * LANES, total)
            _put_weights(m, 0, LANES, geometry, g, weight_grad, c, lane, channel, False)


@parallel
def _correlate_by_outputs(x, grad, geometry, v, d, m, weight_grad):
    """A block of tiles at a time; a thread multiplies 32 x 32 channels of them at all frequencies, and transforms back.

    v and d lie in panels of 32 channels, (panel, tile, channel), in which a product runs through neighbouring memory.
    """
    n, _, _, c = x.shape
    k, threads = grad.shape[3], geometry.threads
    tiles, panel = n * geometry.down * geometry.across, geometry.block * SLAB
    v_panels, d_panels = -(-c // SLAB), -(-k // SLAB)
    for first in range(0, tiles, geometry.block):
        last = min(first + geometry.block, tiles)
        for thread in prange(threads):
            patch = np.empty((geometry.pixels + 2) ** 2 * LANES, np.float32)
            begin, end = (last - first) * thread // threads, (last - first) * (thread + 1) // threads
            for tile in range(first + begin, first + end):
                see_tile(x, tile, geometry, patch, v[0], (tile - first) * SLAB, panel)
                _see_grad(grad, tile, geometry, patch, d[0], (tile - first) * SLAB, panel)
        for thread in prange(threads):
            g, pairs = np.empty(9 * LANES, np.float32), v_panels * d_panels
            for pair in range(pairs * thread // threads, pairs * (thread + 1) // threads):
                channel, output = pair % v_panels * SLAB, pair // v_panels * SLAB
                channels, lanes = min(SLAB, c - channel), min(SLAB, k - output)
                _multiply_panels(v[0], channel * geometry.block, channels, d[0], output * geometry.block, lanes,
                                 m[thread], last - first, geometry)  # fmt: skip
                for row in range(channels):
                    for lane in range(0, lanes, LANES):
                        _put_weights(m[thread], row * SLAB + lane, m.shape[1] // (geometry.pixels + 2) ** 2, geometry,
                                     g, weight_grad, c, output + lane, channel + row, first > 0)  # fmt: skip


@serial
def _multiply_panels(v, v_at, channels, d, d_at, lanes, m, tiles, geometry):
    """m (channels, lanes) = v' (channels, tiles) d (tiles, lanes), at every frequency, for one panel of each."""
    frequencies = (geometry.pixels + 2) ** 2
    columns, rows = row_starts(SLAB, 1), row_starts(SLAB, SLAB)
    nothing, same = np.zeros(SLAB, np.float32), row_starts(SLAB, 0)
    for f in range(frequencies):
        at = f * (m.size // frequencies)
        for tile in range(0, tiles, PASS_TILES):
            v_tile = f * (v.size // frequencies) + v_at + tile * SLAB
            d_tile = f * (d.size // frequencies) + d_at + tile * SLAB
            count = min(PASS_TILES, tiles - tile)
            if tile == 0:
                _add_products(v, v_tile, SLAB, columns, channels, d, d_tile, SLAB, lanes,
                              nothing, 0, same, m, at, rows, count)  # fmt: skip
            else:
                _add_products(v, v_tile, SLAB, columns, channels, d, d_tile, SLAB, lanes,
                              m, at, rows, m, at, rows, count)  # fmt: skip


@serial
def _add_products(
    v, v_at, v_step, columns, channels, d, d_at, d_step, lanes, start, start_at, start_rows, m, at, rows, tiles
):
    """m (channels, lanes) = start + v' (channels, tiles) d (tiles, lanes), for one frequency.

    The tiles of v and d lie v_step and d_step apart.
    """
    for lane in range(0, lanes, 2 * LANES):
        for row in range(0, channels, ROWS):
            if lane + 2 * LANES <= lanes:
                tile_of_32(v, v_at, columns, v_step, 0, d, d_at + lane, d_step, LANES,
                           start, start_at + lane, start_rows, m, at + lane, rows, row, tiles, 1)  # fmt: skip
            else:
                tile_of_16(v, v_at, columns, v_step, 0, d, d_at + lane, d_step, LANES,
                           start, start_at + lane, start_rows, m, at + lane, rows, row, tiles, 1)  # fmt: skip


@serial
def _put_weights(m, at, step, geometry, g, weight_grad, c, output, channel, add):
    """The gradients of 16 output channels' weights for an input channel, from their frequencies."""
    if geometry.pixels == 4:
        f4.frequencies_to_weights(m, at, step, g, 0, LANES)
    else:
        f2.frequencies_to_weights(m, at, step, g, 0, LANES)
    for lane in range(LANES):
        to = ((output + lane) * c + channel) * 9
        for tap in range(9):
            before = weight_grad[to + tap] if add else np.float32(0)
            weight_grad[to + tap] = before + g[tap * LANES + lane]


@serial
def _see_grad(grad, tile, geometry, patch, d, at, panel):
    """The frequencies of a tile's gradients; those outside the image are zeros. They lie in d as the image's in v."""
    _, h, w, k = grad.shape
    image, top, left = place(tile, geometry)
    pixels = geometry.pixels
    flat, step = grad.reshape(-1), d.size // (pixels + 2) ** 2
    whole = top + pixels <= h and left + pixels <= w
    for channel in range(0, k, LANES):
        to = at + channel // SLAB * panel + channel % SLAB
        if whole:
            _grad_to_frequencies(geometry, flat, ((image * h + top) * w + left) * k + channel, w * k, k, d, to, step)
        else:
            cut_out(flat, image, top, left, channel, h, w, k, pixels, patch)
            _grad_to_frequencies(geometry, patch, 0, pixels * LANES, LANES, d, to, step)


@serial
def _grad_to_frequencies(geometry, grad, at, row, column, d, to, step):
    if geometry.pixels == 4:
        f4.grad_to_frequencies(grad, at, row, column, d, to, step)
    else:
        f2.grad_to_frequencies(grad, at, row, column, d, to, step)
