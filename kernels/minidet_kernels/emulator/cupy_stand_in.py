"""A stand-in for cupy on machines without a GPU. `emulator.emulated` puts it in the place of the module `cupy`.

Its arrays hold NumPy's memory, but they are no NumPy arrays: as with CuPy, only `.get()`, `cupy.asnumpy` and the
conversions of a single number bring values to the host, and host arrays are refused where device arrays belong. A host
program that runs here has no hidden copy; the waits it does have are counted (`counts.py`).

Functions go to NumPy of the same name, if the real cupy has that name (`cupy_names.txt`) and takes these arguments
(`cupy_parameters.txt`). New memory is poisoned: NaN in floats, -1 in integers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from minidet_kernels.emulator import counts
from minidet_kernels.emulator.launch import RawModule as RawModule

__version__ = "14.2.0+emulator"


def _lines(name: str) -> list[str]:
    """Of a text file beside this one, without its first line, which says what is in it."""
    return (Path(__file__).parent / name).read_text().splitlines()[1:]


_NAMES = frozenset(_lines("cupy_names.txt"))
_PARAMETERS = {name: parameters for name, *parameters in map(str.split, _lines("cupy_parameters.txt"))}
_UFUNC_OPTIONS = {"out", "dtype", "casting"}
_AT = {"add", "maximum", "minimum"}  # the ufuncs whose method `at` CuPy has for floats; it has no other method for all
_POISON = 0xFF
# The size of their result depends on the values, or it is the host's: the host must wait for them.
_WAITING = {
    "argwhere", "bincount", "dump", "dumps", "extract", "flatnonzero", "nonzero", "tobytes", "tofile", "unique",
}  # fmt: skip


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array "on the device"."""

    __slots__ = ("__weakref__", "_memory")

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        self._memory = empty(shape, dtype)._memory

    # what the host may know without asking the device
    shape = property(lambda self: self._memory.shape)
    strides = property(lambda self: self._memory.strides)
    dtype = property(lambda self: self._memory.dtype)
    ndim = property(lambda self: self._memory.ndim)
    size = property(lambda self: self._memory.size)
    nbytes = property(lambda self: self._memory.nbytes)
    itemsize = property(lambda self: self._memory.itemsize)
    flags = property(lambda self: _flags(self._memory.flags))
    data = property(lambda self: SimpleNamespace(ptr=self._memory.ctypes.data))
    device = property(lambda self: SimpleNamespace(id=0))
    T = property(lambda self: _on_device(self._memory.T))

    def __len__(self) -> int:
        return len(self._memory)

    # copies to the host, for which it waits
    def get(self) -> np.ndarray:
        return self._wait().copy()

    def item(self) -> Any:
        return self._wait().item()

    def tolist(self) -> Any:
        return self._wait().tolist()

    def __bool__(self) -> bool:
        return bool(self._wait())

    def __int__(self) -> int:
        return int(self._wait())

    def __float__(self) -> float:
        return float(self._wait())

    def __repr__(self) -> str:
        return repr(self._wait())

    def __format__(self, specification: str) -> str:
        return format(self._wait(), specification)

    def _wait(self) -> np.ndarray:
        counts.current.waits += 1
        return self._memory

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get() or cupy.asnumpy")

    # computing
    def __getitem__(self, index: Any) -> ndarray:
        _wait_for_mask(index)
        return _on_device(np.asarray(self._memory[_memory_of(index)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        _wait_for_mask(index)
        self._memory[_memory_of(index)] = _memory_of(value)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        name = ufunc.__name__
        if name not in _NAMES or not (method == "__call__" or (method == "at" and name in _AT)):
            return NotImplemented
        if not _UFUNC_OPTIONS.issuperset(options):
            raise TypeError(f"cupy.{name}: expected no more options than {sorted(_UFUNC_OPTIONS)}, got {options}")
        result = _call(getattr(ufunc, method), inputs, options)
        return options["out"][0] if "out" in options else result

    def __array_function__(self, function: Callable, types: Any, args: Any, options: Any) -> Any:
        if function.__module__ != "numpy" or function.__name__ not in _NAMES:
            return NotImplemented
        return _checked(function.__name__, function)(*args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or f"ndarray.{name}" not in _NAMES:
            raise AttributeError(f"cupy.ndarray has no attribute {name!r}")
        return _forward(f"ndarray.{name}", getattr(self._memory, name))


def asarray(a: Any, dtype: Any = None, order: Any = None) -> ndarray:
    if isinstance(a, ndarray):
        return _on_device(np.asarray(a._memory, dtype, order))
    return array(a, dtype, order=order)


def array(a: Any, dtype: Any = None, order: Any = "K") -> ndarray:
    if isinstance(a, ndarray):
        return _on_device(np.array(a._memory, dtype, order=order))
    counts.current.to_device += 1
    return _on_device(np.array(a, dtype, order=order))


def asnumpy(a: Any) -> np.ndarray:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    return asarray(a, dtype, order="C")


def empty(shape: Any, dtype: Any = float) -> ndarray:
    memory = np.empty(shape, dtype)
    memory.reshape(-1).view(np.uint8)[...] = _POISON
    return _on_device(memory)


def empty_like(a: ndarray, dtype: Any = None) -> ndarray:
    return empty(a.shape, dtype or a.dtype)


def get_array_module(*arrays: Any) -> Any:
    return sys.modules[__name__] if any(isinstance(a, ndarray) for a in arrays) else np


def is_available() -> bool:
    return False  # an emulated GPU is none


cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=lambda: 0), is_available=is_available)
lib = SimpleNamespace(
    stride_tricks=SimpleNamespace(
        as_strided=lambda x, shape, strides: _on_device(np.lib.stride_tricks.as_strided(x._memory, shape, strides))
    )
)


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in _NAMES:
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    if not hasattr(np, name):
        raise AttributeError(f"cupy has {name!r}, but NumPy has not: write it into the emulator's stand-in")
    return _forward(name, getattr(np, name))


def _forward(name: str, value: Any) -> Any:
    """A function of NumPy becomes one of device arrays; numbers, types and the like are the same in CuPy."""
    if isinstance(value, type) or not callable(value):
        return _on_device(value) if isinstance(value, np.ndarray) else value
    return _checked(name, value)


def _checked(name: str, function: Callable) -> Callable:
    """NumPy's function, or method, on device arrays, for no more arguments than cupy's takes."""

    def checked(*args: Any, **options: Any) -> Any:
        parameters = _PARAMETERS.get(name)
        if parameters is not None and (len(args) > len(parameters) or not set(options) <= set(parameters)):
            got = ", ".join([*("..." for _ in args), *options])
            raise TypeError(f"cupy.{name}: expected arguments among ({', '.join(parameters)}), got ({got})")
        return _call(function, args, options)

    return checked


def _call(function: Callable, args: Any, options: dict[str, Any]) -> Any:
    if getattr(function, "__name__", "") in _WAITING:
        counts.current.waits += 1
    result = function(*_memory_of(tuple(args)), **{name: _memory_of(value) for name, value in options.items()})
    if isinstance(result, tuple | list):
        return type(result)(_on_device(value) for value in result)
    return _on_device(result)


def _on_device(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        return value
    result = object.__new__(ndarray)
    result._memory = np.asarray(value)
    return result


def _memory_of(value: Any) -> Any:
    """NumPy's view of device arrays, in tuples and lists too. Host arrays are refused, as CuPy does."""
    if isinstance(value, ndarray):
        return value._memory
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: a host array among device arrays; use cupy.asarray")
    if isinstance(value, tuple | list):
        return type(value)(_memory_of(v) for v in value)
    return value


def _flags(flags: Any) -> SimpleNamespace:
    """CuPy's flags, which say nothing of writing and alignment."""
    return SimpleNamespace(
        c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata, fnc=flags.fnc,
        forc=flags.forc,
    )  # fmt: skip


def _wait_for_mask(index: Any) -> None:
    """x[mask]: how large is the result?"""
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, ndarray) and part.dtype == bool:
            counts.current.waits += 1
