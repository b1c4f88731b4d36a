"""What one operation costs through the tape, forward and backward, on a tiny array.

A chain `y = operation(y)` is run forward and backward at two lengths; the difference of the two times, divided by the
difference of the lengths, is the cost of one link, free of what a pass costs once. The same NumPy calls, written out
by hand, are timed in the same rounds: the last row is what the tape costs beyond them. PyTorch runs in one thread, and
is timed whole. Each figure is the least of many repetitions: other programs can only make one slower.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.engines import Row

SHORT, LONG = 10, 110  # links in the two chains
REPETITIONS = 60


# NumPy's own work: (forward) y -> y, (backward) gradient, y before the link -> gradient, and a sum where b has one.


def numpy_multiply(y: Any, b: Any, total: Any, n: int) -> None:
    values = [y]
    for _ in range(n):
        values.append(values[-1] * b)
    grad = np.ones_like(y)
    for y in reversed(values[:-1]):
        total = total + grad * y
        grad = grad * b


def numpy_add(y: Any, b: Any, total: Any, n: int) -> None:
    for _ in range(n):
        y = y + b
    grad = np.ones_like(y)
    for _ in range(n):
        total = total + grad


def numpy_scale(y: Any, b: Any, total: Any, n: int) -> None:
    for _ in range(n):
        y = y * 0.5
    grad = np.ones_like(y)
    for _ in range(n):
        grad = grad * 0.5


def numpy_relu(y: Any, b: Any, total: Any, n: int) -> None:
    passed = []
    for _ in range(n):
        y = np.maximum(y, 0)
        passed.append(y > 0)
    grad = np.ones_like(y)
    for passes in reversed(passed):
        grad = grad * passes


def numpy_matmul(y: Any, b: Any, total: Any, n: int) -> None:
    values = [y]
    for _ in range(n):
        values.append(values[-1] @ b)
    grad = np.ones_like(y)
    for y in reversed(values[:-1]):
        total = total + y.swapaxes(-1, -2) @ grad
        grad = grad @ b.swapaxes(-1, -2)


# The kinds: NumPy's work, the link as written with Tensors (relu is minidet's or torch's), the shape of y and b.
KINDS: dict[str, tuple[Callable, Callable, tuple[int, ...]]] = {
    "y * b": (numpy_multiply, lambda y, b, relu: y * b, (4,)),
    "y + b": (numpy_add, lambda y, b, relu: y + b, (4,)),
    "y * 0.5": (numpy_scale, lambda y, b, relu: y * 0.5, (4,)),
    "relu(y)": (numpy_relu, lambda y, b, relu: relu(y), (4,)),
    "y @ b": (numpy_matmul, lambda y, b, relu: y @ b, (2, 2)),
}


def chain(link: Callable, a: Any, b: Any, relu: Callable, seed: Any) -> Callable[[int], None]:
    """A function that runs a chain of n links forward and backward."""

    def run(n: int) -> None:
        a.grad = b.grad = None
        y = a
        for _ in range(n):
            y = link(y, b, relu)
        y.backward(seed)

    return run


def per_link(*runs: Callable[[int], None]) -> list[float]:
    """Milliseconds for one link of each run, all timed in turns."""
    best = {(i, n): float("inf") for i in range(len(runs)) for n in (SHORT, LONG)}
    for _ in range(REPETITIONS):
        for i, n in best:
            start = time.perf_counter()
            runs[i](n)
            best[i, n] = min(best[i, n], time.perf_counter() - start)
    return [(best[i, LONG] - best[i, SHORT]) / (LONG - SHORT) * 1e3 for i in range(len(runs))]


def minidet() -> dict[str, float]:
    import minidet
    import minidet.functional as F

    figures, beyond = {}, []
    for kind, (numpy_work, link, shape) in KINDS.items():
        ones = np.ones(shape, np.float32)
        a, b = (minidet.tensor(ones, requires_grad=True) for _ in range(2))

        def own(n: int, numpy_work: Callable = numpy_work, ones: Any = ones) -> None:
            numpy_work(ones, ones, np.zeros_like(ones), n)

        numpy, tape = per_link(own, chain(link, a, b, F.relu, ones))
        figures[f"tape, {kind}"] = tape
        beyond.append(tape - numpy)
    return figures | {BEYOND: float(np.mean(beyond))}


def torch() -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    figures = {}
    for kind, (_, link, shape) in KINDS.items():
        a, b = (torch.ones(shape, requires_grad=True) for _ in range(2))
        figures[f"tape, {kind}"] = per_link(chain(link, a, b, torch.relu, torch.ones(shape)))[0]
    return figures | {BEYOND: float(np.mean(list(figures.values())))}


BEYOND = "tape, mean of the five, beyond NumPy's own work"

# demanded are 2.5 microseconds, hoped for 1.5, where torch takes 4.8
ROWS = {f"tape, {kind}": Row("torch") for kind in KINDS} | {BEYOND: Row("torch", 1.9, 3.2, quick=True)}
ENGINES = {"minidet": minidet, "torch": torch}
