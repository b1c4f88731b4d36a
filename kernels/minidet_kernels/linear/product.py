"""A matrix product of blocks that stay in the cache, each made of the tiles of simd.py.

    result (M, L) = a (M, D) b (D, L)

                          b   D |  | 256 |
                                +--+-----+--          A block of the result is 256 x 256 numbers. Its sum over D goes in
            D                         |               steps of 256: then a piece of a, a piece of b and the block itself
      +---+-----+---+           +-----+               are 256 KB each, and stay in the second cache of a core together.
    a |   | 256 |   |  M   -->  |     | 256           The piece of b is copied so that the 32 lanes of a tile lie next
      +---+-----+---+           +-----+               to each other for all steps of the sum.

Blocks are shared among the threads; the sum of a number is taken in one order always.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import parallel, serial
from minidet_kernels.memory import empty
from minidet_kernels.simd import copy_lanes, tile_of_32

ROW_STEP, LANES = 8, 32  # of a tile
BLOCK = 256


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (M, D) times b (D, L), both float32 and contiguous; M a multiple of 8, L of 32. All lengths at least 1."""
    result = empty((a.shape[0], b.shape[1]), np.float32)
    _multiply(a, b, result)
    return result


@parallel
def _multiply(a, b, result):
    rows, columns = result.shape
    row_blocks, column_blocks = -(-rows // BLOCK), -(-columns // BLOCK)
    a, b, result = a.reshape(-1), b.reshape(-1), result.reshape(-1)
    depth = len(b) // columns
    for task in prange(row_blocks * column_blocks):
        # neighbouring tasks share rows of a, or columns of b, whichever are more to read
        row, column = task // column_blocks * BLOCK, task % column_blocks * BLOCK
        block_rows, block_columns = min(BLOCK, rows - row), min(BLOCK, columns - column)
        _multiply_block(a, b, result, row, column, block_rows, block_columns, depth, columns)


@serial
def _multiply_block(a, b, result, row, column, rows, columns, depth, row_length):
    packed = np.empty(BLOCK * BLOCK, np.float32)
    zeros, none = np.zeros(LANES, np.float32), np.zeros(ROW_STEP, np.int64)
    a_rows, result_rows = np.arange(ROW_STEP) * depth, np.arange(ROW_STEP) * row_length
    for first in range(0, depth, BLOCK):
        count = min(BLOCK, depth - first)
        _pack(b, first * row_length + column, row_length, count, columns, packed)
        for lane in range(0, columns, LANES):
            for i in range(0, rows, ROW_STEP):
                a_first, at = (row + i) * depth + first, (row + i) * row_length + column + lane
                panel = lane * count
                if first == 0:
                    tile_of_32(
                        a, a_first, a_rows, 1, 0, packed, panel, LANES, 16,
                        zeros, 0, none, result, at, result_rows, 0, count, 1,
                    )  # fmt: skip
                else:
                    tile_of_32(
                        a, a_first, a_rows, 1, 0, packed, panel, LANES, 16,
                        result, at, result_rows, result, at, result_rows, 0, count, 1,
                    )  # fmt: skip


@serial
def _pack(b, start, row_length, count, columns, packed):
    """The piece (count, columns) of b that begins at `start` -> panels (columns / 32, count, 32)."""
    for d in range(count):
        for lane in range(0, columns, LANES):
            source, target = start + d * row_length + lane, (lane * count + d * LANES)
            copy_lanes(packed, target, b, source)
            copy_lanes(packed, target + 16, b, source + 16)
