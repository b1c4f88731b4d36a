"""Convolution against torch, on layers of small and large networks, float32: forward, and forward with both gradients.

torch runs in both of its memory layouts. The gate speaks of channels_last, which is nearly always the faster one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.engines import Row, to_gpu

# (images, input channels, output channels, height = width, kernel, stride), gates of forward and forward + backward,
# and what to hope for
LAYERS = [
    # 3 x 3, stride 1: Winograd's method
    ((1, 64, 64, 224, 3, 1), (2.0, 2.0), (3.0, 2.5)),
    ((4, 64, 64, 56, 3, 1), (2.0, 2.0), (3.0, 2.5)),
    ((4, 128, 128, 56, 3, 1), (2.0, 2.0), (3.0, 2.5)),
    ((4, 256, 256, 28, 3, 1), (2.0, 2.0), (3.0, 2.5)),
    ((4, 512, 512, 28, 3, 1), (2.0, 1.5), (3.0, 2.2)),
    ((4, 512, 512, 14, 3, 1), (1.1, 1.1), (2.2, 2.2)),
    ((1, 512, 512, 14, 3, 1), (1.0, 1.0), (1.3, 1.3)),
    ((32, 16, 16, 32, 3, 1), (1.0, 1.0), (1.6, 1.6)),
    ((32, 32, 32, 32, 3, 1), (1.0, 1.0), (1.6, 1.6)),
    ((32, 128, 128, 8, 3, 1), (2.0, 2.0), (3.0, 2.5)),
    # all others: the direct sum
    ((4, 3, 64, 224, 3, 1), (0.95, 0.95), (1.1, 1.1)),
    ((4, 3, 64, 224, 7, 2), (0.95, 0.95), (1.1, 1.1)),
    ((4, 3, 64, 224, 11, 4), (0.95, 0.95), (1.1, 1.1)),
    ((32, 32, 64, 32, 3, 2), (0.95, 0.95), (1.1, 1.1)),
    ((32, 128, 256, 8, 3, 2), (0.95, 0.95), (1.1, 1.1)),
    ((4, 256, 64, 56, 1, 1), (0.95, 0.95), (1.1, 1.1)),
    ((4, 64, 256, 56, 1, 1), (0.95, 0.95), (1.1, 1.1)),
    ((4, 256, 512, 28, 1, 2), (0.95, 0.95), (1.1, 1.1)),
]
QUICK = [(4, 128, 128, 56, 3, 1), (4, 256, 64, 56, 1, 1)]

Layer = tuple[int, int, int, int, int, int]


def name_of(layer: Layer) -> str:
    n, c, k, size, kernel, stride = layer
    return f"{kernel} x {kernel}{', stride ' + str(stride) if stride > 1 else ''}, {c} to {k}, {n} x {size} x {size}"


def _rows() -> dict[str, Row]:
    rows = {}
    for layer, gates, stretches in LAYERS:
        n, c, k, size, kernel, stride = layer
        flops = 2 * n * k * c * kernel**2 * ((size + 2 * (kernel // 2) - kernel) // stride + 1) ** 2
        for what, gate, stretch, times in zip(("", ", + backward"), gates, stretches, (1, 3), strict=True):
            quick = layer in QUICK
            rows[name_of(layer) + what] = Row("torch channels_last", gate, stretch, times * flops, quick=quick)
    return rows


def problem(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and gradients in channels-last memory, as the layer before would hand them over; weights."""
    n, c, k, size, kernel, stride = layer
    rng, output = np.random.default_rng(0), (size + 2 * (kernel // 2) - kernel) // stride + 1
    x = rng.standard_normal((n, size, size, c), np.float32).transpose(0, 3, 1, 2)
    weight = rng.standard_normal((k, c, kernel, kernel), np.float32)
    grad = rng.standard_normal((n, output, output, k), np.float32).transpose(0, 3, 1, 2)
    return x, weight, grad


def minidet(to_device: Callable = np.asarray) -> dict[str, Callable]:
    import minidet_kernels as mk

    functions = {}
    for layer, _, _ in LAYERS:
        *_, size, kernel, stride = layer
        x, weight, grad = map(to_device, problem(layer))

        def forward(x=x, weight=weight, stride=stride, padding=kernel // 2):
            return mk.conv2d(x, weight, None, stride, padding)

        def both(forward=forward, x=x, weight=weight, grad=grad, size=size, stride=stride, kernel=kernel):
            y = forward()
            x_grad = mk.conv2d_input_grad(grad, weight, (size, size), stride, kernel // 2)
            return y, x_grad, mk.conv2d_weight_grad(x, grad, kernel, stride, kernel // 2)

        functions |= {name_of(layer): forward, f"{name_of(layer)}, + backward": both}
    return functions


def torch(layout: str, device: str = "cpu") -> dict[str, Callable]:
    import torch

    torch.backends.cudnn.allow_tf32 = False  # float32, as ours
    memory = getattr(torch, layout)
    functions = {}
    for layer, _, _ in LAYERS:
        *_, kernel, stride = layer
        tensors = (torch.from_numpy(array).to(device) for array in problem(layer))
        x, weight, grad = (tensor.contiguous(memory_format=memory) for tensor in tensors)

        def forward(x=x, weight=weight, stride=stride, padding=kernel // 2):
            return torch.nn.functional.conv2d(x, weight, None, stride, padding)

        def both(forward=forward, x=x, weight=weight, grad=grad, stride=[stride] * 2, padding=[kernel // 2] * 2):
            y = forward()
            x_grad, weight_grad, _ = torch.ops.aten.convolution_backward(
                grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, [True, True, False]
            )
            return y, x_grad, weight_grad

        functions |= {name_of(layer): forward, f"{name_of(layer)}, + backward": both}
    return functions


ROWS = _rows()
ENGINES = {
    "minidet": minidet,
    "torch channels_last": lambda: torch("channels_last"),
    "torch contiguous": lambda: torch("contiguous_format"),
}
ON_GPU = {"minidet": lambda: minidet(to_gpu), "torch": lambda: torch("contiguous_format", "cuda")}
