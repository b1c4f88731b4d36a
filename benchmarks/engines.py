"""How engines are compared: every one in a process of its own, in turns, on the same work, with the same result.

A suite is a module of this folder with

    ENGINES = {"minidet": make, "torch": make, ...}      the first is ours, the others are its peers
    ROWS = {"box_iou, 1000 x 1000": Row(...), ...}       what is measured, and what is demanded
    ON_GPU = {"minidet": make, "torch": make}            the same on a GPU, where a suite has it; torch is the peer

where `make()` returns {row: function without arguments}, for the rows that the engine can do. Two thread pools in one
process fight for the cores: hence a process for each engine. The machine's speed drifts: hence the turns, and ratios
within one turn.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SECONDS = 0.2  # of measuring one function in one round
QUICK_SECONDS = 0.03
SLOW = 1.0  # seconds: a function that takes longer is called only once
AGREEMENT = 1e-3  # relative difference of the sums of two engines' results; Winograd's convolution rounds to 1e-5


@dataclass(frozen=True)
class Row:
    """One line of the table.

    peer    the engine that the gate speaks of
    gate    the least ratio, the peer's time by ours, that the project demands; stretch: what it hopes for
    flops   additions and multiplications of the plain algorithm; moved: bytes that must be read or written at least
    agree   whether all engines must come to the same result
    quick   whether `--quick` measures it
    """

    peer: str
    gate: float | None = None
    stretch: float | None = None
    flops: float = 0
    moved: float = 0
    agree: bool = True
    quick: bool = False


@dataclass
class Times:
    """Of one row: the median milliseconds of every round, by engine."""

    milliseconds: dict[str, list[float]] = field(default_factory=dict)

    def ours(self) -> float:
        return statistics.median(self.milliseconds["minidet"])

    def ratios(self, peer: str) -> list[float]:
        """How many times as long as we the peer takes: the median of the rounds, the least, the largest."""
        if peer not in self.milliseconds:
            return []
        pairs = zip(self.milliseconds["minidet"], self.milliseconds[peer], strict=True)
        ratios = sorted(theirs / ours for ours, theirs in pairs)
        return [statistics.median(ratios), ratios[0], ratios[-1]]


class Missing(Exception):
    """What an engine needs is not installed here."""


def compare(suite: str, rounds: int, quick: bool, device: str = "cpu") -> tuple[dict[str, Times], list[str]]:
    """The times of all rows of a suite, and the names of the engines that are not installed.

    Raises RuntimeError if an engine fails, or if two of them computed different things.
    """
    module = importlib.import_module(f"benchmarks.{suite}")
    times, sums, missing = {row: Times() for row in module.ROWS}, {}, []
    for _ in range(rounds):
        for engine in module.ON_GPU if device == "cuda" else _engines(module, quick):
            if engine in missing:
                continue
            answer = _in_a_process(suite, engine, quick, device)
            if answer is None:
                missing.append(engine)
                continue
            for row, (milliseconds, total) in answer.items():
                times[row].milliseconds.setdefault(engine, []).append(milliseconds)
                if module.ROWS[row].agree:
                    _demand_agreement(row, engine, total, sums)
    return {row: found for row, found in times.items() if "minidet" in found.milliseconds}, missing


def _engines(module: Any, quick: bool) -> Iterable[str]:
    """All, or only minidet and the peers that the rows of `--quick` name."""
    if not quick:
        return module.ENGINES
    named = {row.peer for row in module.ROWS.values() if row.quick}
    return [engine for engine in module.ENGINES if engine in named or (engine == "minidet" and named)]


def _in_a_process(suite: str, engine: str, quick: bool, device: str) -> dict[str, tuple[float, float | None]] | None:
    """{row: (milliseconds, sum of the result)}; None where the engine is not installed."""
    command = [sys.executable, "-m", "benchmarks.engines", suite, engine, "quick" if quick else "thorough", device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{suite}, {engine} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _demand_agreement(row: str, engine: str, total: float | None, sums: dict[str, tuple[str, float]]) -> None:
    if total is None:
        return
    other, expected = sums.setdefault(row, (engine, total))
    if not np.isclose(total, expected, rtol=AGREEMENT):
        raise RuntimeError(f"{row}: {other} and {engine} disagree, the sums of their results are {expected}, {total}")


def run_engine(suite: str, engine: str, quick: bool, device: str) -> dict[str, tuple[float, float | None]] | None:
    """In the engine's own process: all its rows."""
    module = importlib.import_module(f"benchmarks.{suite}")
    try:
        functions = (module.ON_GPU if device == "cuda" else module.ENGINES)[engine]()
    except Missing:
        return None
    except ModuleNotFoundError as error:
        if engine == "minidet" or (error.name or "").partition(".")[0] in ("benchmarks", "minidet", "minidet_kernels"):
            raise  # a mistake of ours, and no engine that is not installed
        return None
    unknown = set(functions) - set(module.ROWS)
    if unknown:
        raise KeyError(f"{suite}, {engine}: no such rows: {sorted(unknown)}")
    wanted = {row: function for row, function in functions.items() if not quick or module.ROWS[row].quick}
    seconds, wait = QUICK_SECONDS if quick else SECONDS, WAITS[engine] if device == "cuda" else None
    return {row: measure(function, seconds, wait) for row, function in wanted.items()}


def to_gpu(array: np.ndarray) -> Any:
    """The array as one of CuPy, on the GPU."""
    import cupy

    return cupy.asarray(array)


def _wait_for_cupy() -> None:
    import cupy

    cupy.cuda.get_current_stream().synchronize()


def _wait_for_torch() -> None:
    import torch

    torch.cuda.synchronize()


WAITS = {"minidet": _wait_for_cupy, "torch": _wait_for_torch}


def measure(
    function: Callable[[], Any] | float, seconds: float, wait: Callable[[], None] | None = None
) -> tuple[float, float | None]:
    """The median milliseconds of some calls, after one to warm up, and the sum of the result's absolute values.

    A number instead of a function is milliseconds that the suite has measured itself. `wait` ends when the GPU has done
    what it was given.
    """
    if not callable(function):
        return function, None
    if wait is not None:
        return measure(lambda: (function(), wait())[0], seconds)
    start = time.perf_counter()
    result = function()
    first = time.perf_counter() - start
    if first < SLOW:
        function()  # the first call compiles, and touches its memory for the first time
    times, end = [], time.perf_counter() + seconds
    while not times or (times[0] < 1e3 * SLOW and (len(times) < 5 or time.perf_counter() < end)):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), _sum_of(result)


def _sum_of(result: Any) -> float | None:
    """The sum of the absolute values of an array, a tensor, or several of them."""
    if result is None:
        return None
    parts = result if isinstance(result, tuple | list) else [result]
    arrays = [np.asarray(_on_host(part)) for part in parts]
    return float(sum(np.abs(array.astype(np.float64)).sum() for array in arrays))


def _on_host(part: Any) -> Any:
    if hasattr(part, "detach"):  # torch's
        return part.detach().cpu()
    return part.get() if hasattr(part, "get") else part


def is_busy() -> bool:
    """Whether other programs keep the machine from giving true ratios."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.7


if __name__ == "__main__":
    _suite, _engine, _thoroughness, _device = sys.argv[1:]
    print(json.dumps(run_engine(_suite, _engine, _thoroughness == "quick", _device)))
