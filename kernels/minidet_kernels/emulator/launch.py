"""RawModule and RawKernel of the stand-in cupy: the same calls as CuPy's, run by a library that `build` made.

CuPy hands its arguments to the driver as they are: a NumPy float64 where the kernel expects a float, a view that is not
contiguous, one argument too few, all of it is believed. Here everything is compared with the kernel's own signature.
"""

from __future__ import annotations

import ctypes
import math
from contextvars import ContextVar
from typing import Any

import numpy as np

from minidet_kernels.emulator import build, counts

ORDERS = {"forward": 0, "reverse": 1, "random": 2}

# In which order the threads of a block and the blocks of a grid run; the seed is that of "random".
thread_order: ContextVar[tuple[str, int]] = ContextVar("order of the emulated threads", default=("forward", 0))

# What CUDA allows on every GPU that we compile for (CUDA C++ Programming Guide, table "Technical Specifications").
MOST_THREADS = 1024
LARGEST_BLOCK = (1024, 1024, 64)
LARGEST_GRID = (2**31 - 1, 65535, 65535)


class LaunchError(RuntimeError):
    """A launch that CUDA would refuse, or a kernel that did what no kernel may."""


class RawModule:
    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        self._code, self._options = code, tuple(options)

    def get_function(self, name: str) -> RawKernel:
        if name not in build.kernels_in(self._code):
            known = ", ".join(build.kernels_in(self._code))
            raise LaunchError(f'no kernel extern "C" {name} in this file; it has {known}')
        return RawKernel(build.load(self._code, self._options), name)


class RawKernel:
    def __init__(self, library: ctypes.PyDLL, name: str) -> None:
        self.name = name
        signature = library[f"{name}_signature"]
        signature.restype = ctypes.c_char_p
        self._parameters = signature().decode().split()
        self._launch = library[f"{name}_launch"]
        self._launch.restype = ctypes.c_char_p

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        grid, block = _three("grid", grid, LARGEST_GRID), _three("block", block, LARGEST_BLOCK)
        if math.prod(block) > MOST_THREADS:
            raise LaunchError(f"{self.name}: expected at most {MOST_THREADS} threads a block, got {block}")
        addresses, kept_alive = self._addresses(args)
        order, seed = thread_order.get()
        counts.current.launches += 1
        three = ctypes.c_uint * 3
        mistake = self._launch(three(*grid), three(*block), addresses, ORDERS[order], ctypes.c_uint(seed))
        del kept_alive
        if mistake is not None:
            raise LaunchError(f"{self.name}: {mistake.decode()}")

    def _addresses(self, args: tuple[Any, ...]) -> tuple[Any, list[Any]]:
        if len(args) != len(self._parameters):
            expected = ", ".join(self._parameters)
            raise TypeError(f"{self.name}: expected {len(self._parameters)} arguments ({expected}), got {len(args)}")
        addresses, kept_alive = (ctypes.c_void_p * max(len(args), 1))(), []
        for i, (argument, parameter) in enumerate(zip(args, self._parameters, strict=True)):
            where = f"{self.name}, argument {i}"
            check = _pointer if parameter.endswith("*") else _scalar
            value = check(where, argument, parameter)
            kept_alive.append(value)
            addresses[i] = value.ctypes.data
        return addresses, kept_alive


def _pointer(where: str, argument: Any, parameter: str) -> np.ndarray:
    memory = getattr(argument, "_memory", None)  # what a stand-in array has and nothing else
    if memory is None:
        raise TypeError(f"{where}: expected a device array for {parameter}, got {type(argument).__name__}")
    if memory.dtype.name != parameter[:-1]:
        raise TypeError(f"{where}: the kernel takes {parameter}, the array is {memory.dtype}")
    if not memory.flags.c_contiguous:
        raise TypeError(f"{where}: the array is not contiguous; pass it through cupy.ascontiguousarray")
    return np.array(memory.ctypes.data, np.uintp)


def _scalar(where: str, argument: Any, parameter: str) -> np.ndarray:
    if not isinstance(argument, np.generic):
        raise TypeError(f"{where}: expected numpy.{parameter}, got {type(argument).__name__}; wrap it in that type")
    if argument.dtype.name != parameter:
        raise TypeError(f"{where}: the kernel takes {parameter}, got {argument.dtype}; wrap it: numpy.{parameter}(...)")
    return np.array(argument)


def _three(name: str, sizes: tuple[int, ...], largest: tuple[int, ...]) -> tuple[int, ...]:
    sizes = (*sizes, 1, 1)[:3]
    if any(not 1 <= size <= limit for size, limit in zip(sizes, largest, strict=True)):
        raise LaunchError(f"expected a {name} from (1, 1, 1) to {largest}, got {sizes}")
    return sizes
