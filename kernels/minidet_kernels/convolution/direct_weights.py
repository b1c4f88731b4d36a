"""The weight gradient of `direct.py`: what each weight met, summed over the pixels of all images.

    weight_grad[k, c, r, s]  =  sum over images n and output pixels (i, j) of
        x_padded[n, c, i*stride + r, j*stride + s] * grad[n, k, i, j]

The rows of a tile (`simd.py`) are 8 weights (r, s, c), its lanes 32 output channels k, its steps pixels. Each image, or
band of its rows, is copied into scratch memory with zeros around it. There 16 channels lie together, then the next 16:

    one block:     row 0  [ pixel 0: 16 channels | pixel 1: 16 channels | ... ]  row 1  [ ...
    next block:    row 0  [ pixel 0: 16 channels | pixel 1: 16 channels | ... ]  row 1  [ ...

so that the pixels that pass by a tile are neighbours: in an image of 256 channels they lie 1 KB apart and compete for
the same few places of the first-level cache. A 1 x 1 kernel meets each number once, which does not pay for a copy: it
reads the images as they lie. Small images share a scratch memory, because a tile is put down and taken up again after
its pixels, and a single image of 4 x 4 has only 16.

The threads share out the images or bands. Every thread adds up its own partial result; they are summed in a fixed
order, so that the bits depend on the number of threads only.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import parallel, serial
from minidet_kernels.convolution.direct import band_rows, copy_numbers, group_count
from minidet_kernels.memory import empty, to_channels_last
from minidet_kernels.simd import LANES, ROWS, copy_lanes, listed_tile_of_16, listed_tile_of_32

# Pixels that a tile sums over before it puts its result down: their 32 channels are 16 KB, half the first-level cache,
# and the 16 channels that they meet, 8 KB.
CHUNK_PIXELS = 128


class Work(NamedTuple):
    """How the sum is cut into tasks, and how an image lies in the scratch memory."""

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    padding_h: int
    padding_w: int
    step_h: int  # in scratch memory, from output pixel to output pixel: rows that no tap meets are left out
    step_w: int
    groups: int  # of images, as equal as can be
    images: int  # of the largest group
    band: int  # output rows of a task; all of them if it has several images
    rows: int  # of an image, or band, in scratch memory
    columns: int
    channels: int  # of a block: 16, or all if they are fewer
    blocks: int
    pixel_floats: int  # from pixel to pixel where they are read
    block_floats: int  # from block to block
    copies: bool  # whether images are copied to scratch memory; else they are read as they lie
    threads: int


def conv2d_weight_grad(x: np.ndarray, grad: np.ndarray, kernel_size: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    k, c = grad.shape[1], x.shape[1]
    work = plan(x.shape[0], c, grad.shape[2:], kernel_size, stride, padding, numba.get_num_threads())
    weight_grad = empty((k, c * kernel_size[0] * kernel_size[1]), np.float32)
    weights = work.blocks * work.kernel_h * work.kernel_w * work.channels
    weights = -(-weights // ROWS) * ROWS  # of one output channel, rounded up to whole tiles
    partial = empty((work.threads, weights * -(-k // LANES) * LANES), np.float32)
    _correlate_images(to_channels_last(x), to_channels_last(grad), work, partial, weight_grad)
    return weight_grad.reshape(k, c, *kernel_size)


@functools.lru_cache(maxsize=1024)
def plan(n: int, c: int, size: Pair, kernel: Pair, stride: Pair, padding: Pair, threads: int) -> Work:
    """Tasks that fit into the scratch memory, and equally many for each thread if it can be."""
    step = min(stride[0], kernel[0]), min(stride[1], kernel[1])
    channels = min(c, LANES)
    blocks = -(-c // channels)
    columns = (size[1] - 1) * step[1] + kernel[1]
    row_floats = columns * channels * blocks
    bands = -(-size[0] // band_rows(n, size[0], row_floats, step[0], kernel[0], threads))
    band = -(-size[0] // bands)
    rows = (band - 1) * step[0] + kernel[0]
    groups = group_count(n, rows * row_floats, threads) if bands == 1 else n
    images = -(-n // max(groups, 1))
    # In place a block must not be cut off where a pixel ends.
    copies = (kernel, stride, padding) != ((1, 1), (1, 1), (0, 0)) or c % channels != 0
    pixel_floats, block_floats = (channels, images * rows * row_floats) if copies else (c, channels)
    return Work(*kernel, *stride, *padding, *step, groups, images, band, rows, columns, channels, blocks, pixel_floats,
                block_floats, copies, threads)  # fmt: skip


@parallel
def _correlate_images(x, grad, work, partial, weight_grad):
    n, ho, wo, k_size = grad.shape
    lanes = -(-k_size // LANES) * LANES
    weights = partial.shape[1] // lanes
    bands = -(-ho // work.band)
    tasks = work.groups * bands
    flat_grad, flat_x = grad.reshape(-1), x.reshape(-1)
    for thread in prange(work.threads):
        scratch = np.empty(work.blocks * work.block_floats if work.copies else 0, np.float32)
        copy = np.empty(CHUNK_PIXELS * 2 * LANES, np.float32)
        sources, results = _place_weights(work, lanes, weights)
        partial[thread] = 0
        steps, columns = _place_pixels(work, wo), _place_columns(work, x.shape[2])
        for task in range(tasks * thread // work.threads, tasks * (thread + 1) // work.threads):
            group, first = task // bands, task % bands * work.band
            image = n * group // work.groups
            images, rows = n * (group + 1) // work.groups - image, min(work.band, ho - first)
            pixel = (image * ho + first) * wo
            seen, at = flat_x, pixel * work.pixel_floats
            if work.copies:
                _copy_images(x, image, images, first * work.stride_h - work.padding_h, columns, work, scratch)
                seen, at = scratch, 0
            _add_pixels(seen, at, steps, flat_grad, pixel, images * rows * wo, sources, results, lanes, k_size, copy,
                        partial[thread])  # fmt: skip
    for block in prange(lanes // LANES * work.blocks):
        _add_partials(partial, block // work.blocks * LANES, block % work.blocks, lanes, work.channels,
                      work.kernel_h * work.kernel_w, weight_grad)  # fmt: skip


@serial
def _place_weights(work, lanes, weights):
    """Where the first pixel lies that each weight (block, r, s, c) meets, and where its gradient goes."""
    taps = work.kernel_h * work.kernel_w
    sources, results = np.zeros(weights, np.int64), np.arange(weights) * lanes
    for weight in range(work.blocks * taps * work.channels):  # beyond, to fill the last tile: dropped at the end
        block, tap, c = weight // (taps * work.channels), weight // work.channels % taps, weight % work.channels
        r, s = tap // work.kernel_w, tap % work.kernel_w
        sources[weight] = block * work.block_floats + (r * work.columns + s) * work.pixel_floats + c
    return sources, results


@serial
def _place_pixels(work, wo):
    """Where the pixels that output pixel (image, i, j) sees begin, counted from the task's first."""
    steps = np.empty(work.images * work.band * wo, np.int64)
    for pixel in range(steps.size):
        image, i, j = pixel // (work.band * wo), pixel // wo % work.band, pixel % wo
        row = image * work.rows + i * work.step_h
        steps[pixel] = (row * work.columns + j * work.step_w) * work.pixel_floats
    return steps


@serial
def _copy_images(x, image, images, top, columns, work, scratch):
    """Copies the rows from `top` on of some images, channels in blocks, zeros around."""
    _, height, _, c_size = x.shape
    row_floats = work.columns * work.channels
    for row in range(images * work.rows):
        h = top + _source(row % work.rows, work.stride_h, work.step_h)
        at = row * row_floats
        if h < 0 or h >= height:
            for block in range(work.blocks):
                scratch[at + block * work.block_floats : at + block * work.block_floats + row_floats] = 0
        elif work.channels == c_size and work.step_w == work.stride_w:
            _copy_whole_row(x[image + row // work.rows, h].reshape(-1), work, scratch[at : at + row_floats])
        else:
            _copy_row(x[image + row // work.rows, h].reshape(-1), c_size, columns, work, scratch, at)


@serial
def _source(number, stride, step):
    """The padded row (or column) that scratch row `number` is a copy of."""
    return number // step * stride + number % step


@serial
def _place_columns(work, width):
    """Which column of the image each column of the scratch memory is a copy of; -1 for zeros."""
    columns = np.empty(work.columns, np.int64)
    for column in range(work.columns):
        w = _source(column, work.stride_w, work.step_w) - work.padding_w
        columns[column] = w if w < width else -1
    return columns


@serial
def _copy_whole_row(row, work, target):
    """A row of pixels as it lies, zeros before and behind it."""
    left = min(work.padding_w * work.channels, target.size)
    right = min(left + row.size, target.size)
    target[:left] = 0
    copy_numbers(target, left, row, 0, right - left)
    target[right:] = 0


@serial
def _copy_row(row, c_size, columns, work, scratch, at):
    """A row, pixel after pixel, each in blocks of channels; zeros for columns and channels that there are not."""
    for column in range(work.columns):
        source = columns[column] * c_size
        for block in range(work.blocks):
            target = at + block * work.block_floats + column * work.channels
            available = min(work.channels, c_size - block * work.channels) if source >= 0 else 0
            if available == LANES:
                copy_lanes(scratch, target, row, source + block * LANES)
            else:
                for c in range(work.channels):
                    scratch[target + c] = row[source + block * work.channels + c] if c < available else np.float32(0)


@serial
def _add_pixels(seen, at, steps, grad, pixel, pixels, sources, results, lanes, k_size, copy, partial):
    """partial (weights, lanes) += products of the task's pixels with grad; a chunk of them, 32 channels at a time."""
    chunks = -(-pixels // CHUNK_PIXELS)
    for chunk in range(chunks):
        first, last = pixels * chunk // chunks, pixels * (chunk + 1) // chunks
        for lane in range(0, lanes, 2 * LANES):
            width = min(2 * LANES, lanes - lane)
            _copy_channels(grad, pixel + first, last - first, k_size, lane, width, copy)
            for row in range(0, sources.size, ROWS):
                if width == 2 * LANES:
                    listed_tile_of_32(seen, at, sources, steps, copy, 0, 2 * LANES, LANES, partial, lane, results,
                                      partial, lane, results, row, first, last - first)  # fmt: skip
                else:
                    listed_tile_of_16(seen, at, sources, steps, copy, 0, LANES, LANES, partial, lane, results,
                                      partial, lane, results, row, first, last - first)  # fmt: skip


@serial
def _copy_channels(grad, pixel, pixels, k_size, lane, lanes, copy):
    """Some channels of neighbouring pixels, side by side: lying apart, they would compete for the same cache lines."""
    for block in range(0, lanes, LANES):
        available = min(LANES, k_size - lane - block)
        for p in range(pixels):
            source, target = (pixel + p) * k_size + lane + block, p * lanes + block
            if available == LANES:
                copy_lanes(copy, target, grad, source)
            else:
                for k in range(LANES):
                    copy[target + k] = grad[source + k] if k < available else 0


@serial
def _add_partials(partial, k, block, lanes, channels, taps, weight_grad):
    """weight_grad (K, C * taps) of 16 output channels from k on and a block of input channels: what the threads found.

    It is summed as it lies, (weights, 16), into a small matrix, whose columns are then written as rows.
    """
    k_size, c_size = weight_grad.shape[0], weight_grad.shape[1] // taps
    available = min(channels, c_size - block * channels)
    sums = np.empty((available * taps, LANES), np.float32)
    for tap in range(taps):
        for c in range(available):
            at, row = ((block * taps + tap) * channels + c) * lanes + k, sums[c * taps + tap]
            for lane in range(LANES):
                row[lane] = partial[0, at + lane]
            for thread in range(1, len(partial)):
                for lane in range(LANES):
                    row[lane] += partial[thread, at + lane]
    first = block * channels * taps
    for lane in range(min(LANES, k_size - k)):
        row = weight_grad[k + lane]
        for weight in range(available * taps):
            row[first + weight] = sums[weight, lane]
