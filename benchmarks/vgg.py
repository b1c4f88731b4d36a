"""The convolution stack of VGG16, forward, against torch.

13 convolutions of 3 x 3 with bias and ReLU, 5 max poolings, float32, one image of 224 x 224 and of 600 x 800 (Faster
R-CNN's size). torch runs in its channels_last layout, which is the faster one, without autograd, and its ReLU works in
place, as torchvision's VGG does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.engines import Row

SIZES = ((224, 224), (600, 800))
LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")


def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight, bias) of each convolution, scaled so that the values neither grow nor vanish."""
    rng, channels, result = np.random.default_rng(0), 3, []
    for outputs in LAYERS:
        if outputs != "pool":
            weight = rng.standard_normal((outputs, channels, 3, 3), np.float32) * (2 / (9 * channels)) ** 0.5
            result.append((weight.astype(np.float32), rng.standard_normal(outputs, np.float32) * np.float32(0.1)))
            channels = outputs
    return result


def image(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, *size, 3), np.float32).transpose(0, 3, 1, 2)


def flops(size: tuple[int, int]) -> int:
    (height, width), channels, total = size, 3, 0
    for outputs in LAYERS:
        if outputs == "pool":
            height, width = height // 2, width // 2
        else:
            total += 2 * 9 * channels * outputs * height * width
            channels = outputs
    return total


def name_of(size: tuple[int, int]) -> str:
    return f"VGG16's convolutions, {size[0]} x {size[1]}"


def minidet() -> dict[str, Callable]:
    import minidet_kernels as mk

    parameters = weights()

    def stack(x):
        convolutions = iter(parameters)
        for layer in LAYERS:
            x = mk.max_pool2d(x, 2)[0] if layer == "pool" else mk.relu(mk.conv2d(x, *next(convolutions), padding=1))
        return x

    return {name_of(size): partial(stack, image(size)) for size in SIZES}


def torch() -> dict[str, Callable]:
    import torch

    parameters = [
        (torch.from_numpy(weight).contiguous(memory_format=torch.channels_last), torch.from_numpy(bias))
        for weight, bias in weights()
    ]

    def stack(x):
        convolutions = iter(parameters)
        with torch.no_grad():
            for layer in LAYERS:
                if layer == "pool":
                    x = torch.nn.functional.max_pool2d(x, 2)
                else:
                    x = torch.nn.functional.conv2d(x, *next(convolutions), padding=1).relu_()
        return x

    return {name_of(size): partial(stack, torch.from_numpy(image(size))) for size in SIZES}


GATES = ((1.9, 2.5), (2.4, 3.0))
ROWS = {
    name_of(size): Row("torch", gate, stretch, flops(size), quick=size == SIZES[0])
    for size, (gate, stretch) in zip(SIZES, GATES, strict=True)
}
ENGINES = {"minidet": minidet, "torch": torch}
