"""What one operation costs through the tape, forward and backward, beyond NumPy's own work on a tiny array.

    python benchmarks/tape.py

A chain `y = operation(y)` is run forward and backward at two lengths; the difference of the two times, divided by the
difference of the lengths, is the cost of one link, free of what a pass costs once. The same NumPy calls, written out
by hand, are timed in the same rounds and subtracted. PyTorch, where it is installed, is timed whole, in a process of
its own with one thread. Each figure is the least of many rounds: other programs can only make a round slower.
"""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHORT, LONG = 10, 110  # links in the two chains
ROUNDS = 60
TARGET = 2.5  # microseconds beyond NumPy, averaged over the kinds of operations below


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
    """Microseconds for one link of each run, all timed in the same rounds."""
    best = {(i, n): float("inf") for i in range(len(runs)) for n in (SHORT, LONG)}
    for _ in range(ROUNDS):
        for i, n in best:
            start = time.perf_counter()
            runs[i](n)
            best[i, n] = min(best[i, n], time.perf_counter() - start)
    return [(best[i, LONG] - best[i, SHORT]) / (LONG - SHORT) * 1e6 for i in range(len(runs))]


def measure_minidet() -> dict[str, tuple[float, float]]:
    """{kind: (NumPy's work, through the tape)} in microseconds a link."""
    import minidet
    import minidet.functional as F

    figures = {}
    for kind, (numpy_work, link, shape) in KINDS.items():
        ones = np.ones(shape, np.float32)
        a, b = (minidet.tensor(ones, requires_grad=True) for _ in range(2))

        def own(n: int, numpy_work: Callable = numpy_work, ones: Any = ones) -> None:
            numpy_work(ones, ones, np.zeros_like(ones), n)

        figures[kind] = tuple(per_link(own, chain(link, a, b, F.relu, ones)))
    return figures


def measure_torch() -> dict[str, float]:
    """{kind: microseconds a link} of torch eager, on one thread."""
    import torch

    torch.set_num_threads(1)
    figures = {}
    for kind, (_, link, shape) in KINDS.items():
        a, b = (torch.ones(shape, requires_grad=True) for _ in range(2))
        figures[kind] = per_link(chain(link, a, b, torch.relu, torch.ones(shape)))[0]
    return figures


def main() -> None:
    if sys.argv[1:] == ["--torch"]:
        print(json.dumps(measure_torch()))
        return
    torch_figures = {}
    if importlib.util.find_spec("torch") is not None:
        command = [sys.executable, __file__, "--torch"]
        torch_figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    figures = measure_minidet()
    print("one operation forward + backward, microseconds (NumPy's work and the tape in the same rounds)\n")
    print(f"{'operation':10} {'NumPy':>7} {'tape':>7} {'beyond':>7} {'torch':>7}")
    for kind, (own, tape) in figures.items():
        torch_cell = f"{torch_figures[kind]:7.2f}" if kind in torch_figures else f"{'-':>7}"
        print(f"{kind:10} {own:7.2f} {tape:7.2f} {tape - own:7.2f} {torch_cell}")
    beyond = float(np.mean([tape - own for own, tape in figures.values()]))
    print(f"{'mean':10} {'':7} {'':7} {beyond:7.2f}   target <= {TARGET}")


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]
    main()
