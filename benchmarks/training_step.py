"""A whole training step against torch.

Four 3 x 3 convolutions with stride 2 and ReLU (3-16-32-64-128 channels), a 1 x 1 convolution to 54 channels, the mean
of the squares as loss, SGD with momentum; four images of 128 x 128, float32. That is the size of network that the demos
train, and small enough that starting operations counts beside computing them. Both engines start from the same weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from benchmarks.engines import Row

IMAGES, SIZE, CHANNELS, OUTPUTS = 4, 128, (3, 16, 32, 64, 128), 54
LEARNING_RATE, MOMENTUM = 0.01, 0.9


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


def parts(net: Any, x: Any, optimizer: Any, no_grad: Callable[[], AbstractContextManager]) -> dict[str, Callable]:
    """The functions that are measured: the same lines for both engines."""

    def forward() -> Any:
        with no_grad():
            return net(x).detach().numpy()

    def gradients() -> float:
        optimizer.zero_grad()
        loss = (net(x) ** 2).mean()
        loss.backward()
        return loss.item()

    def step() -> float:
        loss = gradients()
        optimizer.step()
        return loss

    return dict(zip(ROWS, (forward, gradients, step), strict=True))


def minidet() -> dict[str, Callable]:
    import minidet
    from minidet import nn
    from minidet.optim import SGD

    net = network(nn)
    fill(parameter.data for parameter in net.parameters())
    x = np.ascontiguousarray(images().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # channels-last memory
    return parts(net, minidet.Tensor(x), SGD(net.named_parameters(), LEARNING_RATE, MOMENTUM), minidet.no_grad)


def torch(layout: str) -> dict[str, Callable]:
    import torch

    memory = getattr(torch, layout)
    net = network(torch.nn)
    fill(parameter.detach().numpy() for parameter in net.parameters())
    net, x = net.to(memory_format=memory), torch.from_numpy(images()).contiguous(memory_format=memory)
    return parts(net, x, torch.optim.SGD(net.parameters(), LEARNING_RATE, MOMENTUM), torch.no_grad)


ROWS = {
    "small network, forward": Row("torch channels_last"),
    "small network, forward + backward": Row("torch channels_last"),
    # two engines have not taken the same number of steps
    "small network, training step": Row("torch channels_last", 1.4, 2, agree=False, quick=True),
}
ENGINES = {
    "minidet": minidet,
    "torch channels_last": lambda: torch("channels_last"),
    "torch contiguous": lambda: torch("contiguous_format"),
}
