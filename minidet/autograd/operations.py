"""The elementary operations: arithmetic, reductions, shapes, indexing, and the derivative of each beside it.

Every rule works on arrays and on Tensors alike (see `Function`). Linear operations come in adjoint pairs, each the
other's backward: broadcast_to and sum_to, index and its scatter, concatenate and slices, take and put along an axis.
`methods.py` gives Tensor its operators and methods.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..device import DEVICES, device_of, on_device_of, to_device
from .tensor import Function, Tensor, array_of, constant

Axis = int | tuple[int, ...] | None


# ---------------------------------------------------------------------------------------- element by element


class Elementwise(Function):
    broadcasts = True


class Add(Elementwise):
    def forward(self, a, b):
        return a + b

    def backward(self, grad):
        return grad, grad


class Subtract(Elementwise):
    def forward(self, a, b):
        return a - b

    def backward(self, grad):
        return grad, -grad if self.needs[1] else None


class Multiply(Elementwise):
    def forward(self, a, b):
        self.save(a, b)
        return a * b

    def backward(self, grad, a, b):
        needs_a, needs_b = self.needs
        return grad * b if needs_a else None, grad * a if needs_b else None


class Divide(Elementwise):
    def forward(self, a, b):
        self.save(a, b)
        return a / b

    def backward(self, grad, a, b):
        needs_a, needs_b = self.needs
        return grad / b if needs_a else None, -grad * (a / b) / b if needs_b else None  # b * b may overflow


class Negative(Elementwise):
    def forward(self, a):
        return -a

    def backward(self, grad):
        return -grad


class Power(Elementwise):
    """a ** b for a number b. (A Tensor exponent is exp(b log a): say so in the open.)"""

    def forward(self, a, *, exponent):
        self.exponent = exponent
        self.save(a)
        return a**exponent

    def backward(self, grad, a):
        if self.exponent == 0:
            return grad * 0  # and not 0 * a**-1, which is NaN at a = 0
        # In this order also the gradient of a mean, one number repeated, comes to lie in memory as a does.
        return grad * (self.exponent * a ** (self.exponent - 1))


class Exp(Elementwise):
    def forward(self, a):
        y = np.exp(a)
        self.save(y)
        return y

    def backward(self, grad, y):
        return grad * y


class Log(Elementwise):
    def forward(self, a):
        self.save(a)
        with np.errstate(divide="ignore", invalid="ignore"):  # anomaly mode names them better than a warning
            return np.log(a)

    def backward(self, grad, a):
        return grad / a


class Sqrt(Elementwise):
    def forward(self, a):
        with np.errstate(invalid="ignore"):
            y = np.sqrt(a)
        self.save(y)
        return y

    def backward(self, grad, y):
        return grad / (y * 2)


class Sin(Elementwise):
    def forward(self, a):
        self.save(a)
        return np.sin(a)

    def backward(self, grad, a):
        return grad * cos(a)


class Cos(Elementwise):
    def forward(self, a):
        self.save(a)
        return np.cos(a)

    def backward(self, grad, a):
        return -grad * sin(a)


class Arctan(Elementwise):
    def forward(self, a):
        self.save(a)
        return np.arctan(a)

    def backward(self, grad, a):
        return grad / (1 + a * a)


class Abs(Elementwise):
    """|a|, with slope 0 at a = 0."""

    def forward(self, a):
        self.sign = np.sign(a)
        return np.abs(a)

    def backward(self, grad):
        return grad * self.sign


class Maximum(Elementwise):
    """The larger of two; where they are equal the gradient goes half to each, as in torch."""

    def forward(self, a, b):
        self.first, self.equal = a > b, a == b
        return np.maximum(a, b)

    def backward(self, grad):
        shared = where(self.equal, grad * 0.5, grad)
        return where(self.first | self.equal, shared, 0.0), where(self.first, 0.0, shared)


class Minimum(Maximum):
    """The smaller of two. (Not -maximum(-a, -b): unsigned integers have no negatives.)"""

    def forward(self, a, b):
        self.first, self.equal = a < b, a == b
        return np.minimum(a, b)


class Where(Elementwise):
    """a where the condition holds, b elsewhere. The condition is a constant."""

    def forward(self, a, b, *, condition):
        self.condition = condition = on_device_of(condition, a, b)
        return np.where(condition, a, b)

    def backward(self, grad):
        return where(self.condition, grad, 0.0), where(self.condition, 0.0, grad)


class Clip(Elementwise):
    """min(max(a, low), high); the gradient passes where a lies within, bounds included, as in torch."""

    def forward(self, a, *, low, high):
        inside = np.ones_like(a, dtype=bool) if low is None else a >= low
        self.inside = inside if high is None else inside & (a <= high)
        return np.clip(a, low, high)

    def backward(self, grad):
        return where(self.inside, grad, 0.0)


class Cast(Function):
    """The same values in another dtype; the gradient comes back in the first one."""

    def forward(self, a, *, dtype):
        self.before = a.dtype
        return a.astype(dtype)

    def backward(self, grad):
        return cast(grad, self.before)


class ToDevice(Function):
    """The same values on another device; the gradient comes back to the first one."""

    def forward(self, a, *, device):
        self.before = device_of(a)
        return to_device(a, device)

    def backward(self, grad):
        return to(grad, self.before)


# ------------------------------------------------------------------------------------------------ reductions


class Sum(Function):
    def forward(self, a, *, axis, keepdims):
        self.input_shape = a.shape
        self.kept_shape = _kept_shape(a.shape, axis)
        return a.sum(axis=axis, keepdims=keepdims)

    def backward(self, grad):
        return broadcast_to(grad.reshape(self.kept_shape), self.input_shape)


class BroadcastTo(Function):
    def forward(self, a, *, shape):
        self.input_shape = a.shape
        return np.broadcast_to(a, shape)

    def backward(self, grad):
        return sum_to(grad, self.input_shape)


class TakeAlongAxis(Function):
    """y[i, ...] = a[..., indices[i], ...] along one axis; adjoint of PutAlongAxis."""

    def forward(self, a, *, indices, axis):
        self.indices, self.axis, self.length = on_device_of(indices, a), axis, a.shape[axis]
        return np.take_along_axis(a, self.indices, axis)

    def backward(self, grad):
        return PutAlongAxis.apply(grad, indices=self.indices, axis=self.axis, length=self.length)


class PutAlongAxis(Function):
    """Zeros with each value added at its index along one axis; values that share an index accumulate."""

    def forward(self, a, *, indices, axis, length):
        self.indices, self.axis = indices, axis
        shape = list(a.shape)
        shape[axis] = length
        out = np.zeros_like(a, shape=tuple(shape))
        where = [on_device_of(places, a) for places in np.indices(a.shape, sparse=True)]
        where[axis] = indices
        np.add.at(out, tuple(where), a)
        return out

    def backward(self, grad):
        return TakeAlongAxis.apply(grad, indices=self.indices, axis=self.axis)


# ---------------------------------------------------------------------------------------------------- shapes


class Reshape(Function):
    def forward(self, a, *, shape):
        self.input_shape = a.shape
        return a.reshape(shape)

    def backward(self, grad):
        return grad.reshape(self.input_shape)


class Transpose(Function):
    def forward(self, a, *, axes):
        self.axes = [axis % a.ndim for axis in axes]
        return a.transpose(axes)

    def backward(self, grad):
        return grad.transpose(*(self.axes.index(axis) for axis in range(grad.ndim)))


class Concatenate(Function):
    broadcasts = True  # not shapes, but dtypes: they are promoted

    def forward(self, *arrays, axis):
        joined = np.concatenate(arrays, axis)
        self.axis = axis
        self.ends = np.cumsum([a.shape[axis] for a in arrays]).tolist()
        return joined

    def backward(self, grad):
        before = (slice(None),) * (self.axis % grad.ndim)
        return tuple(grad[(*before, slice(start, end))] for start, end in zip([0, *self.ends], self.ends, strict=False))


class Index(Function):
    """a[key], for integers, slices, None, ..., boolean masks and integer arrays; adjoint of Scatter."""

    def forward(self, a, *, key):
        self.key, self.input_shape = key, a.shape
        return a[key]

    def backward(self, grad):
        return Scatter.apply(grad, key=self.key, shape=self.input_shape)


class Scatter(Function):
    """Zeros of a shape with each value of a added where `key` points."""

    def forward(self, a, *, key, shape):
        self.key = key
        out = np.zeros_like(a, shape=shape)
        if _is_basic(key):
            out[key] = a  # slices name each element once
        else:
            np.add.at(out, key, a)
        return out

    def backward(self, grad):
        return grad[self.key]


class Pad(Function):
    """Zeros around a: `widths` is one (before, after) pair an axis. Its adjoint is a slice."""

    def forward(self, a, *, widths):
        self.inner = tuple(slice(before, before + n) for n, (before, _) in zip(a.shape, widths, strict=True))
        return np.pad(a, widths)

    def backward(self, grad):
        return grad[self.inner]


# --------------------------------------------------------------------------------------------------- product


class MatMul(Function):
    """a @ b over the last two axes; the axes before them broadcast. Y = A B: dA = dY B', dB = A' dY."""

    broadcasts = True

    def forward(self, a, b):
        self.save(a, b)
        try:
            if a.ndim > 1 and b.ndim > 1:
                return a @ b
        except ValueError:
            pass
        raise ValueError(f"matmul: expected (..., M, K) @ (..., K, N), got {a.shape} @ {b.shape}")

    def backward(self, grad, a, b):
        needs_a, needs_b = self.needs
        return grad @ b.swapaxes(-1, -2) if needs_a else None, a.swapaxes(-1, -2) @ grad if needs_b else None


# ------------------------------------------------------------------------------------------ their plain names


def exp(x: Any) -> Any:
    """e^x."""
    return Exp.apply(x)


def log(x: Any) -> Any:
    """The natural logarithm."""
    return Log.apply(x)


def sqrt(x: Any) -> Any:
    """The square root; its slope at 0 is infinite."""
    return Sqrt.apply(x)


def sin(x: Any) -> Any:
    """The sine of an angle in radians."""
    return Sin.apply(x)


def cos(x: Any) -> Any:
    """The cosine of an angle in radians."""
    return Cos.apply(x)


def arctan(x: Any) -> Any:
    """The angle in radians, in (-pi/2, pi/2), whose tangent is x."""
    return Arctan.apply(x)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two, element by element; equal values share the gradient."""
    return Maximum.apply(a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two, element by element; equal values share the gradient."""
    return Minimum.apply(a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where condition holds, b elsewhere; no gradient flows to the condition."""
    condition = array_of(condition)
    return Where.apply(a, b, condition=condition if hasattr(condition, "dtype") else np.asarray(condition))


def clip(x: Any, low: float | None = None, high: float | None = None) -> Any:
    """x limited to [low, high]; no gradient where it was cut."""
    return Clip.apply(x, low=constant(low), high=constant(high))


def cast(x: Any, dtype: Any) -> Any:
    """x in another dtype: float32 or float64 to stay differentiable, a constant in any other."""
    if np.dtype(dtype).kind != "f":
        return Tensor(x.data.astype(dtype)) if isinstance(x, Tensor) else x.astype(dtype)
    return Cast.apply(x, dtype=dtype)


def to(x: Any, target: Any) -> Any:
    """x on a device, "cpu" or "cuda", or in a dtype; x itself if it is so already. A gradient goes the way back."""
    if isinstance(target, str) and target in DEVICES:
        return x if device_of(array_of(x)) == target else ToDevice.apply(x, device=target)
    try:
        dtype = None if target is None else np.dtype(target)  # to NumPy None is float64
    except TypeError:
        dtype = None
    if dtype is None:
        raise ValueError(f"to: expected 'cpu', 'cuda' or a dtype, got {target!r}")
    return x if x.dtype == dtype else cast(x, dtype)


def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    """x repeated to `shape` by NumPy's broadcasting rules; adjoint of sum_to."""
    return BroadcastTo.apply(x, shape=tuple(shape))


def sum_to(x: Any, shape: Sequence[int]) -> Any:
    """x summed over the axes along which `shape` was broadcast to x.shape; adjoint of broadcast_to."""
    shape = tuple(shape)
    if x.shape == shape:
        return x
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and x.shape[lead + i] != 1)
    return x.sum(axis=axes).reshape(shape)


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Any:
    """Tensors joined along an existing axis."""
    return Concatenate.apply(*tensors, axis=axis)


def stack(tensors: Sequence[Any], axis: int = 0) -> Any:
    """Tensors of one shape joined along a new axis."""
    position = normalize_axis_index(axis, tensors[0].ndim + 1)
    return concatenate([x.reshape((*x.shape[:position], 1, *x.shape[position:])) for x in tensors], position)


def pad(x: Any, widths: Sequence[tuple[int, int]]) -> Any:
    """x with zeros around it: one (before, after) pair an axis, as numpy.pad."""
    return Pad.apply(x, widths=tuple(widths))


def take_along_axis(x: Any, indices: Any, axis: int) -> Any:
    """x at one index (or several) along an axis, as numpy.take_along_axis; indices are constants."""
    return TakeAlongAxis.apply(x, indices=indices, axis=axis)


def _kept_shape(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """The shape with every reduced axis left in place as 1."""
    if axis is None:
        return (1,) * len(shape)
    axes = {a % max(len(shape), 1) for a in (axis if isinstance(axis, tuple) else (axis,))}
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def _is_basic(key: Any) -> bool:
    parts = key if isinstance(key, tuple) else (key,)
    return all(part is None or part is Ellipsis or isinstance(part, int | np.integer | slice) for part in parts)
