"""A whole training step against torch: python -m benchmarks.training_step

Four 3 x 3 convolutions with stride 2 and ReLU (3-16-32-64-128 channels), a 1 x 1 convolution to 54 channels, the mean
of the squares as loss, SGD with momentum; four images of 128 x 128, float32. That is the size of network that the demos
train, and small enough that starting operations counts beside computing them.

Every engine runs in a process of its own, because two thread pools in one process fight. The engines take turns; of
each the median of a round's steps counts, and the ratios of the rounds are given with their spread. A ratio above 1
means that minidet is faster. Both engines start from the same weights, and the losses of the first steps must agree.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from benchmarks.kernels_convolution import measure

ENGINES = ("minidet", "torch channels_last", "torch contiguous")
ROUNDS = 4
IMAGES, SIZE, CHANNELS, OUTPUTS = 4, 128, (3, 16, 32, 64, 128), 54
LEARNING_RATE, MOMENTUM = 0.01, 0.9
PARTS = ("forward", "forward + backward", "whole step")


def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((IMAGES, CHANNELS[0], SIZE, SIZE), dtype=np.float32)


def network(nn: Any) -> Any:
    """nn: minidet's or torch's; they have the same names."""
    layers = [layer for c, k in itertools.pairwise(CHANNELS) for layer in (nn.Conv2d(c, k, 3, 2, 1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Conv2d(CHANNELS[-1], OUTPUTS, 1))


def fill(weights: Iterable[np.ndarray]) -> None:
    """The same numbers for both engines: He's normal ones, and biases of 0."""
    rng = np.random.default_rng(1)
    for weight in weights:
        scale = (2 / np.prod(weight.shape[1:])) ** 0.5 if weight.ndim == 4 else 0
        weight[...] = scale * rng.standard_normal(weight.shape, dtype=np.float32)


def parts(net: Any, x: Any, optimizer: Any, no_grad: Callable[[], AbstractContextManager]) -> list[Callable]:
    """The functions that are measured: the same lines for both engines."""

    def forward() -> None:
        with no_grad():
            net(x)

    def gradients() -> float:
        optimizer.zero_grad()
        loss = (net(x) ** 2).mean()
        loss.backward()
        return loss.item()

    def step() -> float:
        loss = gradients()
        optimizer.step()
        return loss

    return [forward, gradients, step]


def minidet_parts() -> list[Callable]:
    import minidet
    from minidet import nn
    from minidet.optim import SGD

    net = network(nn)
    fill(parameter.data for parameter in net.parameters())
    x = np.ascontiguousarray(images().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # channels-last memory
    return parts(net, minidet.Tensor(x), SGD(net.named_parameters(), LEARNING_RATE, MOMENTUM), minidet.no_grad)


def torch_parts(layout: str) -> list[Callable]:
    import torch

    memory = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[layout]
    net = network(torch.nn)
    fill(parameter.detach().numpy() for parameter in net.parameters())
    net, x = net.to(memory_format=memory), torch.from_numpy(images()).contiguous(memory_format=memory)
    return parts(net, x, torch.optim.SGD(net.parameters(), LEARNING_RATE, MOMENTUM), torch.no_grad)


def run_engine(engine: str) -> dict[str, list[float]]:
    """The losses of five steps, and the median milliseconds of each part."""
    name, _, layout = engine.partition(" ")
    functions = minidet_parts() if name == "minidet" else torch_parts(layout)
    losses = [functions[-1]() for _ in range(5)]
    return {"losses": losses, "times": [statistics.median(measure(f) + measure(f)) for f in functions]}


def run_in_a_process(engine: str) -> dict[str, list[float]] | None:
    """None where the engine is not installed."""
    command = [sys.executable, "-m", "benchmarks.training_step", engine]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No module named 'torch'" in done.stderr:
        return None
    if done.returncode:
        raise RuntimeError(f"{engine} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        print(f"The machine is busy (load average {os.getloadavg()[0]:.1f}): expect wrong ratios.")
    rounds = [{engine: run_in_a_process(engine) for engine in ENGINES} for _ in range(ROUNDS)]
    peers = [engine for engine in ENGINES[1:] if rounds[0][engine]]
    for engine in peers:
        ours, theirs = rounds[0]["minidet"]["losses"], rounds[0][engine]["losses"]
        if not np.allclose(ours, theirs, rtol=1e-3):
            raise RuntimeError(f"the losses differ: minidet has {ours}, {engine} {theirs}")
    print(f"| part | minidet ms | {' | '.join(f'{peer} ms | ratio' for peer in peers)} |")
    print("|---|---|" + "---|---|" * len(peers))
    for part, name in enumerate(PARTS):
        ours = [one["minidet"]["times"][part] for one in rounds]
        columns = [f"{statistics.median(ours):.2f}"]
        for peer in peers:
            theirs = [one[peer]["times"][part] for one in rounds]
            ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            columns += [f"{statistics.median(theirs):.2f}", spread]
        print(f"| {name} | {' | '.join(columns)} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run_engine(sys.argv[1])))
    else:
        main()
