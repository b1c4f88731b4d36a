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
    x = contiguous(x.transpose(order))
    y = empty(x.shape, x.dtype)
    _positive(x.reshape(-1), y.reshape(-1))
    return y.transpose(_inverse(order))


def relu_backward(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    order = _memory_order(y)
    grad, y = contiguous(grad.transpose(order)), contiguous(y.transpose(order))
    x_grad = empty(y.shape, y.dtype)
    _where_positive(grad.reshape(-1), y.reshape(-1), x_grad.reshape(-1))
    return x_grad.transpose(_inverse(order))


def _memory_order(x: np.ndarray) -> list[int]:
    """The axes from the one with the longest steps in memory to the one with the shortest."""
    steps = [abs(step) for step in x.strides]
    return sorted(range(x.ndim), key=steps.__getitem__, reverse=True)


def _inverse(order: list[int]) -> list[int]:
    """The order that transposes back."""
    return sorted(range(len(order)), key=order.__getitem__)


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
