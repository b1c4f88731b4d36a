"""Checks of arguments that all operations share. Every message says what was expected, what came, and what to do."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any

import numpy as np

from minidet_kernels.versions import is_on_gpu

Pair = tuple[int, int]

# Pixels of one map, padding included: what int32 counts, as the GPU's kernels and torchvision's argmax do. Without a
# limit, products of sizes could overflow before anybody notices that no memory is that large.
MOST_PIXELS = 2**31 - 1

# What the integers of NumPy and Numba hold: strides and sizes, and the numbers of a whole array.
LARGEST_INTEGER = 2**63 - 1

# What all arrays of a call may be: dtypes as a set, so that a mixture is none of them.
FLOATS = {np.dtype(np.float32)}, {np.dtype(np.float64)}


def as_pair(operation: str, name: str, value: int | tuple[int, int], minimum: int) -> Pair:
    """A geometry argument: 3 means (3, 3), (3, 5) is rows and columns."""
    # The usual cases, without the slow questions.
    if value.__class__ is int and minimum <= value <= LARGEST_INTEGER:
        return value, value
    if value.__class__ is tuple and len(value) == 2:
        rows, columns = value
        if rows.__class__ is columns.__class__ is int and minimum <= min(value) and max(value) <= LARGEST_INTEGER:
            return value
    pair = tuple(value) if np.iterable(value) else (value, value)  # an array without axes is not, but an Iterable
    if len(pair) != 2 or not all(_is_integer(v) and minimum <= v <= LARGEST_INTEGER for v in pair):
        raise ValueError(
            f"{operation}: expected {name} to be an integer >= {minimum} or a pair (rows, columns) of them, of 64 "
            f"bits, got {value!r}"
        )
    return int(pair[0]), int(pair[1])


def as_size(operation: str, name: str, value: int | tuple[int, int]) -> Pair:
    """As `as_pair`, for the size of a map or a kernel: at least 1 x 1, at most MOST_PIXELS."""
    size = as_pair(operation, name, value, minimum=1)
    check_pixels(operation, name, size)
    return size


def _is_integer(value: Any) -> bool:
    return value.__class__ is int or isinstance(value, numbers.Integral)


def check_pixels(operation: str, name: str, size: Pair) -> None:
    """(H, W) whose product int32 can hold. Raises ValueError."""
    if int(size[0]) * int(size[1]) > MOST_PIXELS:
        raise ValueError(
            f"{operation}: expected {name}, rows times columns, of at most {MOST_PIXELS}, got {tuple(size)}"
        )


def is_finite(value: Any) -> bool:
    """Whether this is a real number that a float64 can hold."""
    try:
        return isinstance(value, numbers.Real) and math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def check_number(operation: str, positive: bool = False, **numbers_by_name: float) -> None:
    """Each number finite, and >= 0, or > 0 if `positive`."""
    for name, value in numbers_by_name.items():
        if not is_finite(value) or value < 0 or (positive and value == 0):
            raise ValueError(f"{operation}: expected a finite {name} {'>' if positive else '>='} 0, got {value!r}")


def check_count(operation: str, **counts: int) -> None:
    """Each an integer >= 1, of 64 bits."""
    for name, value in counts.items():
        if value.__class__ is int and 1 <= value <= LARGEST_INTEGER:  # the usual case, without the slow questions
            continue
        if not (isinstance(value, numbers.Integral) and 1 <= value <= LARGEST_INTEGER):
            raise ValueError(f"{operation}: expected an integer {name} >= 1, got {value!r}; 64 bits must hold it")


def check_array(operation: str, name: str, array: Any) -> None:
    """Something with a shape and a dtype, whose numbers are what they seem: raises TypeError.

    The masks of a masked array would be overlooked by some versions and not by others, and what a mask hides is left
    out of minima and maxima, so that no check would find it; a matrix has two axes whatever is taken from it.
    """
    if type(array) is np.ndarray:
        return
    kind = type(array).__name__
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        raise TypeError(f"{operation}: expected {name} to be an array, got {kind}; use numpy.asarray")
    if isinstance(array, np.ma.MaskedArray | np.matrix):
        raise TypeError(
            f"{operation}: expected {name} {array.shape} to be a plain array, got a {kind}; use numpy.asarray, of a "
            "masked one after .filled(value)"
        )


def check_floats(operation: str, **arrays: Any) -> None:
    """All arrays float32, or all float64."""
    for name, array in arrays.items():
        check_array(operation, name, array)
    if {array.dtype for array in arrays.values()} not in FLOATS:
        got = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{operation}: expected float32 or float64, the same for all, got {got}; convert with .astype")


def check_shape(operation: str, name: str, array: Any, letters: str, expected: tuple[int | None, ...]) -> None:
    """`array` has the shape `expected`, where None stands for any size; `letters` names the axes in the message."""
    check_array(operation, name, array)
    if len(array.shape) == len(expected):
        for e, got in zip(expected, array.shape, strict=True):
            if e is not None and e != got:
                break
        else:
            return
    sizes = ", ".join(letter if e is None else str(e) for letter, e in zip(letters.split(), expected, strict=True))
    raise ValueError(
        f"{operation}: expected {name} ({', '.join(letters.split())}) = ({sizes}), "
        f"got {array.shape}{_hint(array, expected)}"
    )


def check_boxes(operation: str, **boxes: Any) -> None:
    """Boxes (R, 4), x1 <= x2 and y1 <= y2, finite, and not so large that areas overflow; all float32 or all float64.

    Of CuPy arrays only shapes and dtypes: to see a value the host would have to wait for the GPU.
    """
    for name, array in boxes.items():
        check_shape(operation, name, array, "R coordinates", (None, 4))
    check_floats(operation, **boxes)
    for name, array in boxes.items():
        if is_on_gpu(array):
            continue
        largest = _largest_coordinate(array.dtype)
        if not np.abs(array).max(initial=0) <= largest:  # NaN is not <= anything
            bad = ~(np.abs(array) <= largest).all(axis=1)
            raise ValueError(
                f"{operation}: expected {name} {array.shape} with finite coordinates up to {largest:.1e}, "
                f"{_first(array, bad)}; look for a division by 0 or an exp that overflows before this call"
            )
        if (array[:, :2] > array[:, 2:]).any():
            bad = (array[:, :2] > array[:, 2:]).any(axis=1)
            raise ValueError(
                f"{operation}: expected {name} {array.shape} as x1 y1 x2 y2 with x1 <= x2 and y1 <= y2, "
                f"{_first(array, bad)}; are they x y width height?"
            )


@functools.cache
def _largest_coordinate(dtype: np.dtype) -> float:
    """With |coordinate| <= L a side is at most 2 L, an area (also of a hull) 4 L^2, the sum of two areas 8 L^2."""
    return float(np.sqrt(np.finfo(dtype).max / 16))


def check_fraction(operation: str, name: str, value: float) -> None:
    """A number from 0 to 1, as a threshold of IoU is."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{operation}: expected {name} to be a number from 0 to 1, got {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"{operation}: expected {name} from 0 to 1, got {value!r}")


def _first(array: Any, bad: Any) -> str:
    """Where the first row is that is marked as bad, and what it holds."""
    at = int(bad.argmax())
    return f"got {array[at].tolist()} in row {at} ({int(bad.sum())} such rows)"


def _hint(array: Any, expected: tuple[int | None, ...]) -> str:
    """The usual mistake is channels last: axis 1 is where the last one should be."""
    shape = tuple(array.shape)
    moved = (shape[0], shape[-1], *shape[1:-1]) if len(shape) == 4 else ()
    if len(shape) == len(expected) - 1:
        return "; a batch axis is missing, use x[None]"
    if moved and expected[1] is not None and all(e is None or e == m for e, m in zip(expected, moved, strict=True)):
        return "; looks channels-last, use .transpose(0, 3, 1, 2)"
    return ""
