"""What `winograd.py` and `winograd_weights.py` share: how images are cut into tiles, and how a tile's pixels become
frequencies.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import serial
from minidet_kernels.convolution import winograd_f2 as f2
from minidet_kernels.convolution import winograd_f4 as f4
from minidet_kernels.memory import empty
from minidet_kernels.simd import LANES, ROWS
from minidet_kernels.vectors import load, store

# float32 of the frequencies that a thread holds at once: 1 MB, the second-level cache of current servers. Fewer tiles
# at a time read all weights more often, more are pushed out of the cache between the transforms and the products.
BLOCK_FLOATS = 1 << 18
# Channels that a thread works on at once where there are many: two vectors, the width of the tile.
SLAB = 2 * LANES
# Between the frequencies of a tile lie a few floats more than needed: at a distance of exactly a power of two they
# would compete for the same cache lines.
GAP = LANES


class Method(NamedTuple):
    """One of the ways to do it; `choice.py` knows which is fastest for what."""

    pixels: int  # of a side of a tile of results: 2 or 4
    by_outputs: bool  # whether the threads share out the output channels, and not the tiles


class Geometry(NamedTuple):
    """What the compiled loops need to know besides the arrays."""

    pixels: int  # of a side of a tile of results: 2 or 4
    down: int  # tiles of an image, below each other
    across: int
    padding_h: int  # rows of zeros above the image
    padding_w: int
    block: int  # tiles that are worked on at once
    threads: int


def tile_geometry(n: int, size: Pair, padding: Pair, pixels: int, most: int, shares: int, threads: int) -> Geometry:
    """Blocks of about the same number of tiles, at most `most`; their number is a multiple of `shares`."""
    down, across = (-(-side // pixels) for side in size)
    tiles = n * down * across
    blocks = -(-tiles // (max(most, ROWS) * shares)) * shares
    block = -(-tiles // max(blocks, 1) // ROWS) * ROWS
    return Geometry(pixels, down, across, *padding, max(block, ROWS), threads)


def frequencies_shape(copies: int, frequencies: int, size: int) -> Pair:
    """The shape of memory for `copies` of the `frequencies` of something that has `size` numbers at each of them."""
    return copies, frequencies * (size + GAP)


def scratch(*shapes: Pair) -> list[np.ndarray]:
    """Memory of these shapes, in one piece: asking the pool for each takes a sixth of a small convolution."""
    memory = empty((sum(copies * size for copies, size in shapes),), np.float32)
    arrays, end = [], 0
    for copies, size in shapes:
        start, end = end, end + copies * size
        arrays.append(memory[start:end].reshape(copies, size))
    return arrays


@serial
def row_starts(count, step):
    """Where the rows of a matrix begin."""
    return np.arange(0, count) * step


@serial
def place(tile, geometry):
    """Image, and upper left result, of a tile."""
    image, inside = tile // (geometry.down * geometry.across), tile % (geometry.down * geometry.across)
    return image, inside // geometry.across * geometry.pixels, inside % geometry.across * geometry.pixels


@serial
def see_tile(x, tile, geometry, patch, v, at, panel):
    """The frequencies of the pixels that a tile sees; those outside the image are zeros.

    They go to v from `at` on, and from one 32 channels to the next in steps of `panel`.
    """
    _, h, w, c = x.shape
    image, row, column = place(tile, geometry)
    top, left, side = row - geometry.padding_h, column - geometry.padding_w, geometry.pixels + 2
    flat, step = x.reshape(-1), v.size // side**2
    whole = top >= 0 and left >= 0 and top + side <= h and left + side <= w
    for channel in range(0, c, LANES):
        to = at + channel // SLAB * panel + channel % SLAB
        if whole:
            _image_to_frequencies(geometry, flat, ((image * h + top) * w + left) * c + channel, w * c, c, v, to, step)
        else:
            cut_out(flat, image, top, left, channel, h, w, c, side, patch)
            _image_to_frequencies(geometry, patch, 0, side * LANES, LANES, v, to, step)


@serial
def _image_to_frequencies(geometry, x, at, row, column, v, to, step):
    if geometry.pixels == 4:
        f4.image_to_frequencies(x, at, row, column, v, to, step)
    else:
        f2.image_to_frequencies(x, at, row, column, v, to, step)


@serial
def cut_out(flat, image, top, left, channel, h, w, c, side, patch):
    """16 channels of side x side pixels, with zeros where there is no image."""
    patch[: side * side * LANES] = 0
    for i in range(max(0, -top), min(side, h - top)):
        for j in range(max(0, -left), min(side, w - left)):
            source = ((image * h + top + i) * w + left + j) * c + channel
            store(patch, (i * side + j) * LANES, load(flat, source))
