"""How the CUDA versions compile their .cu file and launch its kernels, through CuPy.

    SOURCE = CudaSource(Path(__file__).with_name("relu.cu"))                        # compiles nothing
    SOURCE.launch_for_each("relu", x.dtype, x.size, x, y)                           # compiles once, then only launches

A .cu file is written for `Real`, which is float or double, and compiled once for each, when a kernel of that dtype is
first launched. CuPy keeps the result on disk.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

PACKAGE = Path(__file__).parent
REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}

# Threads of a block where they need nothing from each other: a multiple of the 32 of a warp, and small enough that
# several blocks fit on a multiprocessor; between 128 and 512 the speed hardly depends on it.
THREADS = 256

# Kernels count elements in an int. The last block may reach past the end, by less than the 1024 threads that a block
# can have, and must still count correctly.
MOST_ELEMENTS = 2**31 - 1024


class CudaSource:
    """The kernels of one .cu file.

    They round like the CPU: a * b + c rounds twice. (But numbers below the normal ones, 1e-38 in float, become 0: CuPy
    always asks for that.) `fused` allows the GPU's fused multiply-add, which rounds once and is twice as fast; for sums
    of products, where nobody compares the result with a threshold.
    `macros` are constants that the host and the kernels share: the size of a block, of a tile.
    """

    def __init__(self, path: Path, fused: bool = False, **macros: int) -> None:
        self.path = path
        constants = (f"-D{name}={value}" for name, value in macros.items())
        self.options = ("--std=c++17", f"--fmad={str(fused).lower()}", *constants)

    def launch_for_each(self, kernel: str, dtype: np.dtype, count: int, *arguments: Any) -> None:
        """One thread for each of `count` elements. The kernel gets `count` as its last argument."""
        self.launch(kernel, dtype, (-(-count // THREADS),), (THREADS,), *arguments, count)

    def launch(
        self, kernel: str, dtype: np.dtype, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any
    ) -> None:
        """grid x block threads of `kernel`. An empty grid launches nothing, which CUDA would refuse.

        Python's integers become int32, which is `int` in the kernel; other numbers must be NumPy's, of the type that
        the kernel takes. Raises ValueError for an array too large to be counted in an int.
        """
        arguments = tuple(_checked(kernel, argument) for argument in arguments)
        if 0 in grid:
            return
        import cupy

        _function(cupy, self.path, self.options_for(dtype), kernel)(grid, block, arguments)

    def options_for(self, dtype: np.dtype) -> tuple[str, ...]:
        """NVRTC's options for the kernels of that dtype."""
        return (*self.options, f"-DReal={REAL[np.dtype(dtype)]}")


def source_text(path: Path) -> str:
    """The .cu file, told where it lies: so that errors and debuggers name it.

    The compiler gets this text and sees no files, so a line `#include "box_iou/overlap.cuh"`, a path within this
    package, is replaced by that file here.
    """
    name = path.as_posix()
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        included = re.fullmatch(r'#include "(.+)"', line)
        lines += [source_text(PACKAGE / included[1]), f'#line {number + 1} "{name}"'] if included else [line]
    return "\n".join([*lines, ""])


@functools.cache
def _function(cupy: ModuleType, path: Path, options: tuple[str, ...], kernel: str) -> Any:
    return _module(cupy, path, options).get_function(kernel)


@functools.cache
def _module(cupy: ModuleType, path: Path, options: tuple[str, ...]) -> Any:
    return cupy.RawModule(code=source_text(path), options=options)


def _checked(kernel: str, argument: Any) -> Any:
    if isinstance(argument, int):
        return np.int32(argument)
    if not isinstance(argument, np.generic) and argument.size > MOST_ELEMENTS:
        raise ValueError(
            f"{kernel}: expected at most {MOST_ELEMENTS} elements in an array on the GPU, got {argument.shape}; "
            "split the batch"
        )
    return argument
