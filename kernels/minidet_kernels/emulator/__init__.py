"""Runs the CUDA versions of the kernels on a machine without a GPU: the host code and the .cu files, unchanged.

    from minidet_kernels.emulator import emulated

    with emulated():
        import cupy                                    # the stand-in
        y = minidet_kernels.relu(cupy.asarray(x))      # relu/cuda.py, relu/relu.cu, compiled by g++
        print(y.get())

README.md tells how it works, what it finds and what it cannot find, and how to step through a kernel with gdb.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import minidet_kernels
from minidet_kernels.emulator.build import why_not
from minidet_kernels.emulator.counts import Counts, counted
from minidet_kernels.emulator.launch import ORDERS, LaunchError, thread_order

__all__ = ["ORDERS", "Counts", "LaunchError", "counted", "emulated", "why_not"]


@contextmanager
def emulated(order: str = "forward", seed: int = 0) -> Iterator[None]:
    """Within it `import cupy` gives the stand-in, whose arrays go to the CUDA versions like CuPy's.

    `order`, "forward", "reverse" or "random" with `seed`, is the order in which threads and blocks run. The stand-in
    takes the place of `cupy` for the whole process, the order is that of this thread.

    Raises ValueError for another order, RuntimeError where no .cu file can be compiled.
    """
    if order not in ORDERS:
        raise ValueError(f"emulated: expected order {', '.join(ORDERS)}, got {order!r}")
    if why_not() is not None:
        raise RuntimeError(f"emulated: {why_not()}")
    minidet_kernels.available()  # looks once whether there is a GPU: now, while `cupy` is the real one
    former_order = thread_order.set((order, seed))
    former = _replace_modules({"cupy": _stand_in(), **_host_code})
    try:
        yield
    finally:
        _host_code.update(_replace_modules(former))
        del _host_code["cupy"]
        thread_order.reset(former_order)


# The cuda.py modules that were imported while the stand-in was in place: they know only its arrays.
_host_code: dict[str, ModuleType] = {}


def _replace_modules(new: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """Puts cupy and the cuda.py modules that belong to it into sys.modules; returns those that were there."""
    names = [name for name in sys.modules if name == "cupy" or _is_host_code(name)]
    former = {name: sys.modules.pop(name) for name in names}
    sys.modules.update(new)
    return former


def _is_host_code(name: str) -> bool:
    return name.startswith("minidet_kernels.") and name.endswith(".cuda")


@functools.cache
def _stand_in() -> ModuleType:
    """The module `cupy_stand_in`, under the name `cupy`: its arrays must look like CuPy's to minidet_kernels."""
    spec = importlib.util.spec_from_file_location("cupy", Path(__file__).parent / "cupy_stand_in.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
