"""The rectified linear unit with Numba: one pass over memory, shared among the threads.

An array that is contiguous in some order of its axes is a plain row of numbers, whatever its shape: it is worked on as
that, and its result lies in the same order.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import inlined, parallel
from minidet_kernels.memory import contiguous, empty

# Elements that a thread takes at a stretch: 64 KB of float32. Smaller pieces cost in their number.
PIECE = 1 << 14


def relu(x: np.ndarray) -> np.ndarray:
    order = _memory_order(x)
    row = _as_row(x, order)
    y = empty(row.shape, row.dtype)
    _positive(row, y)
    return _as_shape(y, x.shape, order)


def relu_backward(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    order = _memory_order(y)
    row = _as_row(y, order)
    x_grad = empty(row.shape, row.dtype)
    _where_positive(_as_row(grad, order), row, x_grad)
    return _as_shape(x_grad, y.shape, order)


def _memory_order(x: np.ndarray) -> list[int]:
    """The axes from the one with the longest steps in memory to the one with the shortest."""
    return sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))


def _as_row(x: np.ndarray, order: list[int]) -> np.ndarray:
    """All elements in memory order; a copy only if they do not lie that way, or are read-only (see memory.py)."""
    return contiguous(x.transpose(order)).reshape(-1)


def _as_shape(row: np.ndarray, shape: tuple[int, ...], order: list[int]) -> np.ndarray:
    return row.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


@parallel
def _positive(x, y):
    zero = x.dtype.type(0)
    for piece in prange(-(-x.size // PIECE)):
        source, target = _piece(x, piece), _piece(y, piece)
        for i in range(source.size):
            target[i] = zero if source[i] <= zero else source[i]


@parallel
def _where_positive(grad, y, x_grad):
    zero = y.dtype.type(0)
    for piece in prange(-(-y.size // PIECE)):
        source, result, target = _piece(grad, piece), _piece(y, piece), _piece(x_grad, piece)
        for i in range(source.size):
            target[i] = source[i] if result[i] > zero else zero


@inlined
def _piece(row, piece):
    """An array of its own: indices that cannot be negative let LLVM use vectors, three to eight times as fast."""
    return row[piece * PIECE : min((piece + 1) * PIECE, row.size)]
