"""Tensor's operators and methods, with NumPy's names: importing this module gives them to Tensor."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..device import on_device_of
from .backward import backward
from .operations import (
    Abs,
    Add,
    Axis,
    Divide,
    Index,
    MatMul,
    Multiply,
    Negative,
    Power,
    Reshape,
    Subtract,
    Sum,
    Transpose,
    cast,
    clip,
    exp,
    log,
    sqrt,
    take_along_axis,
    to,
)
from .tensor import Tensor, array_of, constant


def _power(self: Tensor, exponent: float) -> Tensor:
    exponent = constant(exponent)
    if not isinstance(exponent, int | float):
        raise TypeError("**: expected a number as exponent; for a Tensor b write minidet.exp(b * minidet.log(a))")
    return Power.apply(self, exponent=exponent)


def _sum(self: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum over axes (all of them by default)."""
    return Sum.apply(self, axis=axis, keepdims=keepdims)


def _mean(self: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean over axes (all of them by default). The mean of nothing is NaN, as in NumPy."""
    total = _sum(self, axis, keepdims)
    count = self.size // total.size if total.size else 1
    return total * (1 / count if count else float("nan"))


def _var(self: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The variance over axes, divided by the count (NumPy's default, not torch's)."""
    centred = self - _mean(self, axis, keepdims=True)
    return _mean(centred * centred, axis, keepdims)


def _max(self: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The maximum along one axis, or of everything; the gradient goes to the first that attains it."""
    return _best(self, np.argmax, axis, keepdims)


def _min(self: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The minimum along one axis, or of everything; the gradient goes to the first that attains it."""
    return _best(self, np.argmin, axis, keepdims)


def _best(self: Tensor, where: Callable, axis: int | None, keepdims: bool) -> Tensor:
    """The element that `where`, argmax or argmin, points at."""
    if not (axis is None or isinstance(axis, int)):
        raise TypeError(f"max, min: expected one axis or None, got {axis!r}; reshape the axes into one first")
    if axis is None:
        flat = self.reshape(-1)
        return take_along_axis(flat, where(flat.data, keepdims=True), 0).reshape((1,) * self.ndim if keepdims else ())
    best = take_along_axis(self, np.expand_dims(where(self.data, axis), axis), axis)
    return best if keepdims else best.reshape(np.delete(self.shape, axis).tolist())


def _reshape(self: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape; one length may be -1."""
    return Reshape.apply(self, shape=shape[0] if len(shape) == 1 else shape)


def _transpose(self: Tensor, *axes: Any) -> Tensor:
    """Axes in another order, all of them given; reversed when none is."""
    if len(axes) == 1 and not isinstance(axes[0], int):
        axes = tuple(axes[0])
    return Transpose.apply(self, axes=tuple(axes) or tuple(reversed(range(self.ndim))))


def _swapaxes(self: Tensor, first: int, second: int) -> Tensor:
    """Two axes exchanged."""
    axes = list(range(self.ndim))
    axes[first], axes[second] = axes[second], axes[first]
    return Transpose.apply(self, axes=tuple(axes))


def _flatten(self: Tensor, start: int = 0) -> Tensor:
    """All axes from `start` on as one."""
    return _reshape(self, (*self.shape[:start], int(np.prod(self.shape[start:]))))


def _getitem(self: Tensor, key: Any) -> Tensor:
    parts = key if isinstance(key, tuple) else (key,)
    parts = tuple(_listed(part) if isinstance(part, list) else array_of(part) for part in parts)
    if self.data.__class__ is not np.ndarray:
        parts = tuple(on_device_of(part, self.data) if hasattr(part, "dtype") else part for part in parts)
    return Index.apply(self, key=parts if isinstance(key, tuple) else parts[0])


def _listed(indices: list) -> np.ndarray:
    """The list as an array; without elements NumPy would make one of floats."""
    return np.asarray(indices) if indices else np.zeros(0, np.intp)


def _compare(name: str) -> Any:
    def compare(self: Tensor, other: Any) -> Tensor:
        return Tensor(getattr(self.data, name)(array_of(other)))

    return compare


_METHODS = {
    "__add__": lambda self, other: Add.apply(self, other),
    "__radd__": lambda self, other: Add.apply(other, self),
    "__sub__": lambda self, other: Subtract.apply(self, other),
    "__rsub__": lambda self, other: Subtract.apply(other, self),
    "__mul__": lambda self, other: Multiply.apply(self, other),
    "__rmul__": lambda self, other: Multiply.apply(other, self),
    "__truediv__": lambda self, other: Divide.apply(self, other),
    "__rtruediv__": lambda self, other: Divide.apply(other, self),
    "__matmul__": lambda self, other: MatMul.apply(self, other),
    "__rmatmul__": lambda self, other: MatMul.apply(other, self),
    "__neg__": lambda self: Negative.apply(self),
    "__abs__": lambda self: Abs.apply(self),
    "__pow__": _power,
    "__getitem__": _getitem,
    **{name: _compare(name) for name in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__")},
    "__hash__": object.__hash__,  # by identity: the graph keeps leaves as keys
    "sum": _sum,
    "mean": _mean,
    "var": _var,
    "max": _max,
    "min": _min,
    "abs": lambda self: Abs.apply(self),
    "exp": exp,
    "log": log,
    "sqrt": sqrt,
    "clip": clip,
    "astype": cast,
    "to": to,
    "cpu": lambda self: to(self, "cpu"),
    "cuda": lambda self: to(self, "cuda"),
    "reshape": _reshape,
    "transpose": _transpose,
    "permute": _transpose,
    "swapaxes": _swapaxes,
    "flatten": _flatten,
    "clone": lambda self: Add.apply(self, 0),
    "backward": backward,
    "T": property(_transpose),
}
for _name, _method in _METHODS.items():
    setattr(Tensor, _name, _method)
