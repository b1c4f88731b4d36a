"""The convolution stack of VGG16, forward, against torch: python -m benchmarks.vgg_convolutions

13 convolutions of 3 x 3 with bias and ReLU, 5 max poolings, float32, one image of 224 x 224 and of 600 x 800 (Faster
R-CNN's size). Every engine runs in a process of its own, in turn; the median of all calls counts. torch runs in its
channels_last layout, which is the faster one, without autograd, and its ReLU works in place, as torchvision's VGG does.
A ratio above 1 means that minidet is faster.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

SIZES = ((224, 224), (600, 800))
LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")
ENGINES = ("minidet", "torch")
ROUNDS = 2  # of every engine
SECONDS = 1.5  # of measuring one size in one round


def weights() -> list:
    """(weight, bias) of each convolution, scaled so that the values neither grow nor vanish."""
    import numpy as np

    rng, channels, result = np.random.default_rng(0), 3, []
    for outputs in LAYERS:
        if outputs != "pool":
            weight = rng.standard_normal((outputs, channels, 3, 3), dtype=np.float32) * (2 / (9 * channels)) ** 0.5
            result.append((weight, rng.standard_normal(outputs, dtype=np.float32) * np.float32(0.1)))
            channels = outputs
    return result


def image(size: tuple[int, int]):
    import numpy as np

    return np.random.default_rng(1).standard_normal((1, *size, 3), dtype=np.float32).transpose(0, 3, 1, 2)


def minidet_stack() -> Callable:
    import minidet_kernels as mk

    parameters = weights()

    def stack(x):
        convolutions = iter(parameters)
        for layer in LAYERS:
            x = mk.max_pool2d(x, 2)[0] if layer == "pool" else mk.relu(mk.conv2d(x, *next(convolutions), padding=1))
        return x

    return stack


def torch_stack() -> Callable:
    import torch

    parameters = [
        (torch.from_numpy(weight).contiguous(memory_format=torch.channels_last), torch.from_numpy(bias))
        for weight, bias in weights()
    ]

    def stack(x):
        x, convolutions = torch.from_numpy(x), iter(parameters)
        with torch.no_grad():
            for layer in LAYERS:
                if layer == "pool":
                    x = torch.nn.functional.max_pool2d(x, 2)
                else:
                    x = torch.nn.functional.conv2d(x, *next(convolutions), padding=1).relu_()
        return x.numpy()

    return stack


def run_engine(engine: str) -> dict[str, list]:
    """Milliseconds of each call for each size, and what came out for the small one."""
    stack = {"minidet": minidet_stack, "torch": torch_stack}[engine]()
    times = []
    for size in SIZES:
        x = image(size)
        stack(x), stack(x)
        of_size, end = [], time.perf_counter() + SECONDS
        while len(of_size) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            stack(x)
            of_size.append(1e3 * (time.perf_counter() - start))
        times.append(of_size)
    return {"times": times, "result": stack(image(SIZES[0])).ravel().tolist()}


def main() -> None:
    rounds: dict[str, list] = {engine: [] for engine in ENGINES}
    for _ in range(ROUNDS):
        for engine in ENGINES:
            command = [sys.executable, "-m", "benchmarks.vgg_convolutions", engine]
            rounds[engine].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    ours, theirs = rounds["minidet"][0]["result"], rounds["torch"][0]["result"]
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / max(map(abs, theirs))
    print("| image | minidet ms | torch channels_last ms | ratio |")
    print("|---|---|---|---|")
    for number, size in enumerate(SIZES):
        a, b = (statistics.median(t for r in rounds[engine] for t in r["times"][number]) for engine in ENGINES)
        print(f"| {size[0]} x {size[1]} | {a:.1f} | {b:.1f} | {b / a:.2f} |")
    print(f"largest difference of the results: {difference:.1e} of the largest value")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run_engine(sys.argv[1])))
    else:
        main()
