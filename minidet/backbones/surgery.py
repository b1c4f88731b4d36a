"""Surgery: a trained classifier loses its head, and what is left looks at images of any size.

The lecture's use: fully connected layers fix the image's size and forget where things are. Cut before them, VGG16 is a
feature extractor. Cut before its last pooling, too, GAP is "anticipated" to a larger map: 14 x 14 cells for 224 x 224
pixels, not 7 x 7, and class activation maps twice as fine.

    backbone = cut(vgg16(), "features.29")
    model = Classifier(backbone, classes=20)  # GAP and one fully connected layer of its own
"""

from difflib import get_close_matches
from typing import Any

import numpy as np

from .. import nn
from ..autograd import Tensor, enable_grad

# Rows and columns of the image that a cut network is tried on. Their difference, in pixels and in cells of the map,
# gives the stride, whatever the padding; 128 is divided by every power of two that is a stride, and enough pixels for
# all networks here.
PROBE = (128, 256)


class FeatureExtractor(nn.Sequential):
    """images (N, 3, H, W) -> maps (N, out_channels, H', W'): a network's parts up to a layer. Made by `cut`.

    stride: how many pixels further one more cell of the map reaches. H' is H / stride where convolutions are padded, as
    VGG's and ResNet's are, and a little less where they are not, as in AlexNet.
    """

    out_channels: int
    stride: int


def cut(network: nn.Module, layer: str) -> FeatureExtractor:
    """The network's parts up to and with `layer` ("features.29", "layer4", "stages.0"), with out_channels and stride.

    The parts are the network's own, not copies, and have the same names, so that weights of the whole network fit
    (`load_weights(..., strict=False)`). out_channels and stride are found by trying it on noise, and so is whether the
    network does apply these parts one after the other: only then is the result what it computes at that layer.

    Raises ValueError for a layer that is not there (with the names alike), that the parts in
    their order do not lead to, as within a residual block, or that gives no map that grows with the image.
    """
    if not isinstance(layer, str):
        raise TypeError(f"cut: expected a layer's path, as 'features.29', got {type(layer).__name__} {layer!r:.40}")
    modules = {name: module for name, module in network.named_modules() if name}
    if layer not in modules:
        near = get_close_matches(layer, modules, n=5, cutoff=0.5) or [name for name, _ in children(network)]
        raise ValueError(
            f"cut: {type(network).__name__} has no layer {layer!r}; expected one like {', '.join(map(repr, near))}"
        )
    extractor = FeatureExtractor()
    add_parts(extractor, network, layer.split("."))
    image = probe_image(network)
    # With gradients each layer is an operation of its own, watched or not (nn/fusion.py): equal means to the last bit.
    with nn.evaluating(network), enable_grad():
        expected = output_at(network, layer, modules[layer], image)
        extractor.out_channels, extractor.stride = measure(layer, expected.shape)
        if not computes(extractor, image, expected):
            raise ValueError(
                f"cut: {type(network).__name__} does not compute {layer!r} by its parts in their order, so it cannot "
                "be cut there; cut before or after the block that it is in"
            )
    return extractor


def measure(layer: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """(out_channels, stride) of a layer, from the shape of what it makes of the PROBE."""
    difference = PROBE[1] - PROBE[0]
    cells = shape[3] - shape[2] if len(shape) == 4 else 0
    given = f"{layer!r} gives {shape} for an image of {PROBE[0]} x {PROBE[1]}"
    if cells <= 0:
        raise ValueError(
            f"cut: expected a layer whose maps (N, C, H, W) grow with the image, but {given}; cut further up"
        )
    if difference % cells:
        raise ValueError(f"cut: expected a layer whose stride is a power of two, but {given}")
    return shape[1], difference // cells


def children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, Module) of the direct parts."""
    return [(path, part) for path, part in module.named_modules() if path and "." not in path]


def add_parts(extractor: nn.Sequential, module: nn.Module, path: list[str]) -> None:
    """Gives the extractor the module's direct parts up to the one that `path` leads to, and of that what is needed."""
    for name, part in children(module):
        if name == path[0] and path[1:]:
            whole, part = part, nn.Sequential()
            add_parts(part, whole, path[1:])
        setattr(extractor, name, part)
        if name == path[0]:
            return


def probe_image(network: nn.Module) -> Tensor:
    """Noise of the channels that the first convolution takes, in the network's dtype and on its device."""
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"cut: expected a network with a Conv2d, got {type(network).__name__} without one")
    noise = np.random.default_rng(0).random((1, first.in_channels, *PROBE))
    return Tensor(noise.astype(first.weight.dtype)).to(network.device)


class _Reached(Exception):
    """Ends a forward pass with the output that was waited for."""


def output_at(network: nn.Module, layer: str, module: nn.Module, image: Tensor) -> Tensor:
    """What the module gives when the network looks at the image; the rest of the network is not run."""

    def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
        raise _Reached(output)

    try:
        with nn.forward_hooks([(module, stop)]):
            network(image)
    except _Reached as reached:
        return reached.args[0]
    raise ValueError(f"cut: expected a layer that {type(network).__name__} runs, but it never calls {layer!r}")


def computes(extractor: nn.Module, image: Tensor, expected: Tensor) -> bool:
    """Whether the extractor gives exactly the expected output."""
    try:
        found = extractor(image)
    except (TypeError, ValueError):  # parts that do not fit together
        return False
    return found.shape == expected.shape and bool((found.data == expected.data).all())
