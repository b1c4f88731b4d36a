"""How the CPU versions are compiled: Numba's decorators with the options that all of them share.

Only the `cpu.py` modules import this one, because importing Numba takes half a second.
"""

from __future__ import annotations

import sys
import warnings

import llvmlite.binding as llvm
import numba
import threadpoolctl
from numba.core import event

# `contract` lets LLVM turn a multiplication and an addition into one fused instruction, which rounds once
# instead of twice. No other liberty is given: NaN and infinity stay what they are, and sums are taken in the
# order in which they are written.
_MATHEMATICS = {"contract"}

# A function that runs in one thread, called by the parallel ones.
serial = numba.njit(fastmath=_MATHEMATICS, nogil=True, cache=True, error_model="numpy")

# A short one whose results stay in registers: copied into its callers.
inlined = numba.njit(fastmath=_MATHEMATICS, nogil=True, cache=True, error_model="numpy", forceinline=True)

# A function whose `prange` loops are shared among the threads. Compiled code is cached beside the source.
parallel = numba.njit(parallel=True, fastmath=_MATHEMATICS, nogil=True, cache=True, error_model="numpy")

# The geometry of boxes: every operation is rounded by itself, nothing fused, exactly as NumPy does it. So a question
# such as "IoU > threshold" has the same answer in every version, also where the two sides are equal.
strict_serial = numba.njit(nogil=True, cache=True, error_model="numpy")
strict_inlined = numba.njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
strict_parallel = numba.njit(parallel=True, nogil=True, cache=True, error_model="numpy")


def _prefer_openmp() -> None:
    """Numba's own pool ("workqueue") needs 120 us to start a loop, OpenMP 2 us; two threads may use only OpenMP's."""
    if numba.config.THREADING_LAYER != "default":
        return  # the user decided, by NUMBA_THREADING_LAYER or in code
    try:
        from numba.np.ufunc import omppool  # noqa: F401
    except ImportError as error:
        warnings.warn(
            f"Numba cannot use OpenMP here ({error}): kernels start more slowly and must not be called from two "
            "threads at once. Installing the OpenMP runtime (libgomp on Linux, libomp on macOS) helps.",
            RuntimeWarning,
            stacklevel=2,
        )
    else:
        numba.config.THREADING_LAYER = "omp"


def _leave_the_cores_to_numba() -> None:
    """Numba's idle threads wait by spinning; a second pool, NumPy's BLAS, would fight them for the cores and a small
    matrix product between two kernels would take ten times as long. One BLAS thread, from the first kernel on."""
    threadpoolctl.threadpool_limits(1, user_api="blas")


class _Announcer(event.Listener):
    """Tells a user at a terminal why a first call takes seconds. Code that comes from the cache makes no such event."""

    def __init__(self) -> None:
        self._announced: set[str] = set()

    def on_start(self, compilation: event.Event) -> None:
        package, _, operation = compilation.data["dispatcher"].__module__.rpartition(".")[0].rpartition(".")
        if package == "minidet_kernels" and operation not in self._announced and sys.stderr.isatty():
            self._announced.add(operation)
            print(f"minidet: compiling {operation} for this machine (once) ...", file=sys.stderr)

    def on_end(self, compilation: event.Event) -> None:
        """Nothing to say: the result comes next."""


_prefer_openmp()
_leave_the_cores_to_numba()
event.register("numba:compile", _Announcer())


@parallel
def _start_threads(n: int) -> int:
    total = 0
    for i in numba.prange(n):
        total += i
    return total


def describe() -> dict[str, object]:
    """What the doctor reports: the threading layer, the number of threads, how many float32 a vector register holds."""
    _start_threads(2)  # the layer is known only once a parallel loop has run
    return {
        "numba": numba.__version__,
        "threading_layer": numba.threading_layer(),
        "threads": numba.get_num_threads(),
        "processor": llvm.get_host_cpu_name(),
        "float32_lanes": _float32_lanes(),
    }


def _float32_lanes() -> int:
    features = llvm.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("avx") else 4
