"""Which version of a kernel runs: the reference (NumPy), the CPU's (Numba) or CUDA's (CuPy).

Every operation is a folder with one module a version: `reference.py`, `cpu.py`, `cuda.py`. The folder's
public functions check their arguments and then ask `choose` for the module to run:

- CuPy arrays always go to "cuda": their memory is on the GPU.
- NumPy arrays go to the version that `use` chose, by default "cpu" where Numba is installed, else
  "reference".

The choice is a context variable: it belongs to the thread (or asyncio task) that made it, so that a thread
which steps through the reference does not slow down the others. A new thread starts from the default; to hand
a choice on, start the thread's work with `contextvars.copy_context().run`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from contextvars import ContextVar
from types import ModuleType, TracebackType

import numpy as np

VERSIONS = ("reference", "cpu", "cuda")

_chosen: ContextVar[str | None] = ContextVar("minidet_kernels version", default=None)


class use:
    """Choose the version that runs from now on: `use("reference")`.

    In a `with` statement the former choice comes back at the end:

        with minidet_kernels.use("reference"):
            y = minidet_kernels.conv2d(x, weight)

    Raises ValueError for an unknown name, RuntimeError for a version that cannot run here; both say what can.
    """

    def __init__(self, version: str) -> None:
        self._former = _chosen.get()
        if version not in VERSIONS:
            raise ValueError(f"use: expected one of {', '.join(VERSIONS)}, got {version!r}")
        reason = _why_not(version)
        if reason is not None:
            runnable = [name for name in VERSIONS if _why_not(name) is None]
            raise RuntimeError(f"use({version!r}) cannot run: {reason}; available here: {', '.join(runnable)}")
        _chosen.set(version)

    def __enter__(self) -> use:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        _chosen.set(self._former)


def current() -> str:
    """The version that NumPy arrays go to, in this thread."""
    return _chosen.get() or ("cpu" if _is_installed("numba") else "reference")


def available() -> dict[str, str | None]:
    """For each version None if it can run here, else a sentence that says why not. Never raises."""
    return {version: _why_not(version) for version in VERSIONS}


def choose(package: str, *arrays: np.ndarray) -> ModuleType:
    """The module of the folder `package` that runs on these arrays; imported on first use, so Numba and CuPy are too.

    Raises TypeError when the arrays are neither NumPy's nor CuPy's, or a mixture; RuntimeError when the
    operation has no such version.
    """
    version = current()
    if version == "cuda" or set(map(type, arrays)) != {np.ndarray}:  # else the usual case, without the slow questions
        version = _version_for(package, arrays, version)
    name = f"{package}.{version}"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        raise RuntimeError(f"{package} has no {version} version; move its arrays to the CPU with cupy.asnumpy")
    return importlib.import_module(name)  # waits where another thread is just importing it; sys.modules does not


def _version_for(package: str, arrays: tuple[object, ...], chosen: str) -> str:
    on_gpu = [is_on_gpu(array) for array in arrays]
    if any(on_gpu):
        if not all(on_gpu):
            raise TypeError(
                f"{package}: expected all arrays on one device, got {_kinds(arrays)}; move them with cupy.asarray"
            )
        return "cuda"
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise TypeError(f"{package}: expected NumPy or CuPy arrays, got {_kinds(arrays)}; use numpy.asarray")
    if chosen == "cuda":
        raise TypeError(f'{package}: use("cuda") runs on CuPy arrays, got NumPy; move them with cupy.asarray')
    return chosen


def is_on_gpu(array: object) -> bool:
    """Whether this is an array of CuPy."""
    return type(array).__module__.partition(".")[0] == "cupy"  # by name: cupy itself need not be imported


def to_host(array: np.ndarray) -> np.ndarray:
    """As an array of NumPy; from the GPU by a copy, for which the host waits."""
    return array.get() if is_on_gpu(array) else array


def array_module(array: np.ndarray) -> ModuleType:
    """numpy or cupy, whichever the array is of."""
    return sys.modules["cupy"] if is_on_gpu(array) else np


def _kinds(arrays: tuple[object, ...]) -> str:
    return ", ".join(f"{type(array).__module__}.{type(array).__name__}" for array in arrays)


@functools.cache
def _is_installed(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


@functools.cache
def _why_not(version: str) -> str | None:
    """None if the version can run here, else why not. Importing CuPy takes a second, so only "cuda" is asked to."""
    if version == "cpu" and not _is_installed("numba"):
        return "numba is not installed: pip install numba"
    if version == "cuda":
        return _why_no_cuda()
    return None


def _why_no_cuda() -> str | None:
    if not _is_installed("cupy"):
        return "cupy is not installed: pip install 'minidet[cuda12]' or 'minidet[cuda13]', as your driver asks"
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() == 0:
            return "cupy finds no GPU"
    except Exception as error:  # a broken driver shows up as almost anything; the doctor must go on
        return f"cupy cannot use a GPU: {type(error).__name__}: {error}"
    return None
