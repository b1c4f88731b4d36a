"""Which way of convolution is fastest for which shape: python -m benchmarks.convolution_choice

3 x 3 kernels, stride 1, padding 1, as many input as output channels, float32. For a grid of shapes, milliseconds of the
direct sum and of Winograd's method with tiles of 2 x 2 and 4 x 4 results, with the threads sharing out tiles ("tiles")
or output channels ("outputs"); the fastest in bold. The last column says what `convolution/choice.py` takes, and how
much slower than the fastest that is. Where your machine disagrees, change the constants there.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np

from minidet_kernels.convolution import choice, direct, direct_weights, winograd, winograd_weights
from minidet_kernels.convolution.winograd_tiles import Method

CHANNELS = (16, 32, 64, 128, 256, 512)
IMAGES = ((1, 7), (4, 7), (1, 14), (4, 14), (1, 28), (4, 28), (1, 56), (4, 56))  # how many, and height = width
LARGEST = 1 << 32  # multiplications of the direct sum: beyond, the many tiles decide, and one call takes long
SECONDS = 0.02  # of measuring one way
WAYS = {
    "direct": None,
    "2 x 2, tiles": Method(2, False),
    "2 x 2, outputs": Method(2, True),
    "4 x 4, tiles": Method(4, False),
    "4 x 4, outputs": Method(4, True),
}


def measure(function: Callable[[], object]) -> float:
    """Milliseconds: the median of some calls, after two to warm up."""
    function(), function()
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def functions(x: np.ndarray, weight: np.ndarray, method: Method | None) -> dict[str, Callable[[], object]]:
    """The input gradient costs what the forward costs."""
    if method is None:
        return {
            "forward": lambda: direct.conv2d(x, weight, None, (1, 1), (1, 1)),
            "weight gradient": lambda: direct_weights.conv2d_weight_grad(x, x, (3, 3), (1, 1), (1, 1)),
        }
    return {
        "forward": lambda: winograd.conv2d(x, weight, None, (1, 1), method),
        "weight gradient": lambda: winograd_weights.conv2d_weight_grad(x, x, (1, 1), method),
    }


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"| N, C = K, size | function | {' | '.join(WAYS)} | chosen, slower than the best by |")
    print("|---" * (len(WAYS) + 3) + "|")
    for channels, (n, size) in itertools.product(CHANNELS, IMAGES):
        if n * size**2 * 9 * channels**2 > LARGEST:
            continue
        x = rng.standard_normal((n, size, size, channels), dtype=np.float32).transpose(0, 3, 1, 2)
        weight = rng.standard_normal((channels, channels, 3, 3), dtype=np.float32)
        chosen = {
            "forward": choice.forward(n, channels, channels, (size, size)),
            "weight gradient": choice.weight_grad(n, channels, channels, (size, size)),
        }
        for function, method in chosen.items():
            times = {way: measure(functions(x, weight, WAYS[way])[function]) for way in WAYS}
            best = min(times, key=times.get)
            cells = [f"**{times[way]:.2f}**" if way == best else f"{times[way]:.2f}" for way in WAYS]
            name = next(way for way in WAYS if WAYS[way] == method)
            loss = times[name] / times[best] - 1
            print(f"| {n}, {channels}, {size} | {function} | {' | '.join(cells)} | {name}, {loss:.0%} |", flush=True)


if __name__ == "__main__":
    main()
