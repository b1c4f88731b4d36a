"""Convolution against torch, on layers of small and large networks: python -m benchmarks.kernels_convolution

Forward, and forward with both gradients, float32. Every engine runs in a process of its own, because two thread pools
in one process fight; the engines take turns, and the median of all their calls counts. torch runs in both of its memory
layouts. A ratio above 1 means that minidet is faster.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

ENGINES = ("minidet", "torch channels_last", "torch contiguous")
ROUNDS = 2  # of every engine
SECONDS = 0.1  # of measuring one function in one round

# (images, input channels, output channels, height = width, kernel, stride)
LAYERS = [
    # 3 x 3, stride 1: Winograd's method
    (1, 64, 64, 224, 3, 1),
    (4, 64, 64, 56, 3, 1),
    (4, 128, 128, 56, 3, 1),
    (4, 256, 256, 28, 3, 1),
    (4, 512, 512, 28, 3, 1),
    (4, 512, 512, 14, 3, 1),
    (1, 512, 512, 14, 3, 1),
    (32, 16, 16, 32, 3, 1),
    (32, 32, 32, 32, 3, 1),
    (32, 128, 128, 8, 3, 1),
    # all others: the direct sum
    (4, 3, 64, 224, 3, 1),
    (4, 3, 64, 224, 7, 2),
    (4, 3, 64, 224, 11, 4),
    (32, 32, 64, 32, 3, 2),
    (32, 128, 256, 8, 3, 2),
    (4, 256, 64, 56, 1, 1),
    (4, 64, 256, 56, 1, 1),
    (4, 256, 512, 28, 1, 2),
]


def measure(function: Callable[[], object]) -> list[float]:
    """Milliseconds of each call, after two to warm up."""
    function(), function()
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def minidet_functions(layer: tuple[int, ...]) -> list[Callable[[], object]]:
    import numpy as np

    import minidet_kernels as mk

    n, c, k, size, kernel, stride = layer
    rng, padding = np.random.default_rng(0), kernel // 2
    x = rng.standard_normal((n, size, size, c), dtype=np.float32).transpose(0, 3, 1, 2)
    weight = rng.standard_normal((k, c, kernel, kernel), dtype=np.float32)
    y = mk.conv2d(x, weight, None, stride, padding)
    return [
        lambda: mk.conv2d(x, weight, None, stride, padding),
        lambda: mk.conv2d_input_grad(y, weight, (size, size), stride, padding),
        lambda: mk.conv2d_weight_grad(x, y, kernel, stride, padding),
    ]


def torch_functions(layer: tuple[int, ...], layout: str) -> list[Callable[[], object]]:
    import torch

    n, c, k, size, kernel, stride = layer
    padding, memory = kernel // 2, {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[layout]
    x = torch.randn(n, c, size, size).contiguous(memory_format=memory)
    weight = torch.randn(k, c, kernel, kernel).contiguous(memory_format=memory)
    y = torch.nn.functional.conv2d(x, weight, None, stride, padding)

    def backward(*wanted: bool) -> object:
        return torch.ops.aten.convolution_backward(
            y, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [*wanted, False]
        )

    return [
        lambda: torch.nn.functional.conv2d(x, weight, None, stride, padding),
        lambda: backward(True, False),
        lambda: backward(False, True),
    ]


def run_engine(engine: str) -> list[list[list[float]]]:
    """[layer][function] -> times."""
    name, _, layout = engine.partition(" ")
    functions = minidet_functions if name == "minidet" else lambda layer: torch_functions(layer, layout)
    return [[measure(function) for function in functions(layer)] for layer in LAYERS]


def run_in_a_process(engine: str) -> list[list[list[float]]] | None:
    """None where the engine is not installed."""
    command = [sys.executable, "-m", "benchmarks.kernels_convolution", engine]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        if "No module named 'torch'" in done.stderr:
            return None
        raise RuntimeError(f"{engine} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        print(f"The machine is busy (load average {os.getloadavg()[0]:.1f}): expect wrong ratios.")
    rounds: dict[str, list] = {engine: [] for engine in ENGINES}
    for _ in range(ROUNDS):
        for engine in ENGINES:
            result = run_in_a_process(engine)
            if result is not None:
                rounds[engine].append(result)
    if not rounds["torch channels_last"]:
        print("torch not installed: pip install '.[oracle]' to compare; times of minidet only")
    print("| layer (N, C, K, size, kernel, stride) | function | minidet ms | vs channels_last | vs contiguous |")
    print("|---|---|---|---|---|")
    for number, layer in enumerate(LAYERS):
        medians = {
            engine: [statistics.median(time for result in results for time in result[number][f]) for f in range(3)]
            for engine, results in rounds.items()
            if results
        }
        for name, functions in (("forward", slice(0, 1)), ("forward + backward", slice(0, 3))):
            total = {engine: sum(times[functions]) for engine, times in medians.items()}
            ours = total["minidet"]
            ratios = [f"{total[engine] / ours:.2f}" if engine in total else "-" for engine in ENGINES[1:]]
            print(f"| {layer} | {name} | {ours:.2f} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run_engine(sys.argv[1])))
    else:
        main()
