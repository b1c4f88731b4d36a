"""What this machine can do at most: multiplications and additions in registers, and traffic with the memory.

Measured with Numba's vectors on all threads, in the run of the benchmarks that quotes them: `python -m benchmarks`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numba
import numpy as np

from minidet_kernels.compiler import parallel, serial
from minidet_kernels.vectors import LANES, load, store

STEPS = 1_000_000
CHAINS = 8  # independent numbers: a fused multiply-add takes 4 cycles, and a core may start two in each
MEGABYTES = 256  # far more than all caches


@serial
def _multiply_and_add(numbers: np.ndarray, steps: int) -> None:
    """CHAINS vectors in registers, and nothing else: without AVX-512 each takes two of the 16 that there are."""
    a = b = c = d = e = f = g = h = load(numbers, 0)
    for _ in range(steps):
        a, b, c, d = a * a + a, b * b + b, c * c + c, d * d + d
        e, f, g, h = e * e + e, f * f + f, g * g + g, h * h + h
    store(numbers, 0, a + b + c + d + e + f + g + h)


@parallel
def _multiply_and_add_in_all_threads(numbers: np.ndarray, steps: int) -> None:
    for thread in numba.prange(len(numbers)):
        _multiply_and_add(numbers[thread], steps)


@parallel
def _read(source: np.ndarray, sums: np.ndarray) -> None:
    for thread in numba.prange(len(source)):
        row = source[thread]
        total = other = load(row, 0)
        for at in range(0, len(row), 2 * LANES):
            total, other = total + load(row, at), other + load(row, at + LANES)
        store(sums[thread], 0, total + other)


@parallel
def _copy(source: np.ndarray, target: np.ndarray) -> None:
    for thread in numba.prange(len(source)):
        for at in range(0, source.shape[1], LANES):
            store(target[thread], at, load(source[thread], at))


def _seconds(function: Callable[..., None], *arguments: object) -> float:
    """The least of several calls: what others do can only make one slower."""
    function(*arguments)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)


def measure_limits() -> dict[str, float]:
    """Of all threads together: additions and multiplications a second; bytes a second, read only, and half of them
    read, half written."""
    threads = numba.get_num_threads()
    numbers = np.zeros((threads, LANES), np.float32)
    flops = 2 * CHAINS * LANES * STEPS * threads / _seconds(_multiply_and_add_in_all_threads, numbers, STEPS)
    source = np.ones((threads, MEGABYTES * 2**18 // threads // (2 * LANES) * 2 * LANES), np.float32)
    target = np.ones_like(source)
    return {
        "threads": threads,
        "flops": flops,
        "read": source.nbytes / _seconds(_read, source, numbers),
        "moved": 2 * source.nbytes / _seconds(_copy, source, target),
    }


if __name__ == "__main__":
    print(json.dumps(measure_limits()))
