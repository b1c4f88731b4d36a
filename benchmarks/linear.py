"""A fully connected layer against torch: 25088 x 4096, the first behind VGG16's convolutions, 411 MB of weights.

With one row the memory is the limit: forward and the input's gradient read the weight once, the weight's gradient
writes as much.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.engines import Row

INPUTS, OUTPUTS = 25088, 4096
ROW_COUNTS = (1, 8, 32, 128)


def name_of(rows: int) -> str:
    return f"linear, {INPUTS} to {OUTPUTS}, N = {rows}, forward + backward"


def problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((OUTPUTS, INPUTS), np.float32) * np.float32(INPUTS**-0.5)
    return rng.standard_normal((max(ROW_COUNTS), INPUTS), np.float32), weight


def both_ways(F, leaf: Callable, x, weight) -> Callable:
    """The same lines for both engines."""
    x, weight = leaf(x), leaf(weight)

    def run():
        x.grad = weight.grad = None
        y = F.linear(x, weight)
        y.backward(y.detach())
        return y.detach().numpy(), x.grad.numpy()

    return run


def minidet() -> dict[str, Callable]:
    import minidet
    import minidet.functional as F

    def leaf(array: np.ndarray) -> minidet.Tensor:
        return minidet.Tensor(array, requires_grad=True)

    x, weight = problem()
    return {name_of(n): both_ways(F, leaf, x[:n], weight) for n in ROW_COUNTS}


def torch() -> dict[str, Callable]:
    import torch

    x, weight = problem()
    return {
        name_of(n): both_ways(torch.nn.functional, lambda a: torch.from_numpy(a).requires_grad_(), x[:n], weight)
        for n in ROW_COUNTS
    }


WEIGHT = 4.0 * INPUTS * OUTPUTS  # bytes

ROWS = {
    name_of(n): Row(
        "torch", *((2, 2.5) if n == 1 else ()), flops=6.0 * n * INPUTS * OUTPUTS, moved=3 * WEIGHT, quick=n == 1
    )
    for n in ROW_COUNTS
}
ENGINES = {"minidet": minidet, "torch": torch}
