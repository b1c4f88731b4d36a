"""Which layer is looked at: by its path, by itself, or found."""

from difflib import get_close_matches
from itertools import takewhile
from typing import Any

from .. import nn
from ..autograd import Tensor, no_grad


def find_layer(model: nn.Module, layer: nn.Module | str) -> tuple[str, nn.Module]:
    """(path, Module) of a part of the model, given as either. Raises ValueError if it is not a part of the model."""
    paths = dict(model.named_modules())
    if isinstance(layer, str):
        if layer not in paths:
            near = get_close_matches(layer, paths, n=5, cutoff=0.4)
            parts = [path for path in paths if path and "." not in path]
            advice = f"{'near it are' if near else 'its parts are'} {', '.join(map(repr, near or parts))}"
            raise ValueError(f"layer: {type(model).__name__} has no layer {layer!r}; {advice}")
        return layer, paths[layer]
    for path, module in paths.items():
        if module is layer:
            return path, module
    kind = layer.title if isinstance(layer, nn.Module) else type(layer).__name__
    raise ValueError(f"layer: expected a part of the {type(model).__name__} or its path, got {kind}, which is none")


def last_map(model: nn.Module, score: Any, image: Tensor) -> tuple[str, nn.Module]:
    """(path, Module) of the layer that heat maps are made of by default: from the last convolution on, the last one
    before the size of the map changes. In VGG16 that is features.29, the ReLU before the last pooling; in a ResNet
    layer4.

    Convolutions of maps of 1 x 1 are not counted: they are fully connected layers. score(images) -> logits runs the
    model; image (1, 3, H, W). Raises ValueError if there is no map larger than 1 x 1.
    """
    finished: list[tuple[str, nn.Module, tuple[int, int]]] = []

    def keep(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                finished.append((path, module, output.shape[2:]))

        return hook

    with nn.forward_hooks((module, keep(path)) for path, module in model.named_modules()), no_grad():
        score(image)
    maps = [entry for entry in finished if max(entry[2]) > 1]
    convolutions = [i for i, (_, module, _) in enumerate(maps) if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    if not convolutions:
        seen = ", ".join(f"{path} {size[0]} x {size[1]}" for path, _, size in finished[-3:]) or "no layer with a map"
        raise ValueError(
            f"layer: expected a convolution whose map is larger than 1 x 1, found {seen} in {type(model).__name__}; "
            "heat maps need a convolutional network and an image that is large enough for it"
        )
    from_there = maps[convolutions[-1] :]
    *_, (path, module, _) = takewhile(lambda entry: entry[2] == from_there[0][2], from_there)
    return path, module
