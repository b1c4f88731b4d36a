"""CAM of a batch through VGG16, against torch with hooks; and what it costs to make a map sharp.

VGG16's 13 convolutions as in Zhou et al. 2016: without the last pooling, so that the map is 14 x 14, then global
average pooling and one fully connected layer to 1000 classes. 32 images of 224 x 224, float32; maps of the predicted
classes. torch takes the activations with a forward hook, without autograd, in its channels_last layout, which is the
faster one, and with ReLUs in place, as torchvision's VGG has them.

Augmented Grad-CAM makes 100 copies of an image, their maps in batches, and one sharp map of them; the last has rows of
its own in total_variation.py. The peer of the copies and their maps, "passes", is Grad-CAM alone, of 100 images in the
same batches: forward, and backward down to the map. The network is the demos' TinyBackbone; through VGG16 the passes
would take ten times as long, and what is added would not show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.engines import Row
from benchmarks.vgg import LAYERS, flops, weights

IMAGES, SIZE, CLASSES = 32, (224, 224), 1000
STACK = LAYERS[:-1]
NAME = f"CAM through VGG16, {IMAGES} images of {SIZE[0]} x {SIZE[1]}"
COPIES = 100
AUGMENTED = f"{COPIES} copies of {SIZE[0]} x {SIZE[1]} and their Grad-CAMs"
CLASS = 1  # of the small network, whose weights are random: it sees this class on every copy


def images() -> np.ndarray:
    return np.random.default_rng(1).random((IMAGES, *SIZE, 3), np.float32).transpose(0, 3, 1, 2)


def head() -> np.ndarray:
    """The fully connected layer's weights (1000, 512)."""
    return np.random.default_rng(2).standard_normal((CLASSES, 512)).astype(np.float32) / np.float32(512**0.5)


def minidet() -> dict[str, Callable]:
    from minidet import heatmaps, nn
    from minidet.heatmaps.augmented import maps_of_copies, random_augmentations

    parts, channels, parameters = [], 3, iter(weights())
    for layer in STACK:
        if layer == "pool":
            parts.append(nn.MaxPool2d(2))
            continue
        convolution = nn.Conv2d(channels, layer, 3, padding=1)
        convolution.weight.data[...], convolution.bias.data[...] = next(parameters)
        parts += [convolution, nn.ReLU()]
        channels = layer
    network = nn.Sequential(*parts, nn.GlobalAvgPool2d(), nn.Linear(channels, CLASSES))
    network[-1].weight.data[...], network[-1].bias.data[...] = head(), 0
    cam, x = heatmaps.CAM(network, str(len(parts) - 1)), images()
    method, matrices, image = grad_cam(), random_augmentations(COPIES, SIZE), np.ascontiguousarray(x[0])
    return {NAME: lambda: cam(x), AUGMENTED: lambda: maps_of_copies(method, image, matrices, CLASS, IMAGES)}


def grad_cam() -> Any:
    """Of a small network whose map is 14 x 14."""
    from minidet import heatmaps, random
    from minidet.backbones import TinyBackbone
    from minidet.models.classifier import Classifier

    random.manual_seed(0)
    return heatmaps.GradCAM(Classifier(TinyBackbone(), 6, SIZE[0]).eval())


def passes() -> dict[str, Callable]:
    method, x = grad_cam(), np.resize(images(), (COPIES, 3, *SIZE))
    return {AUGMENTED: lambda: [method(x[start : start + IMAGES], CLASS) for start in range(0, COPIES, IMAGES)]}


def torch() -> dict[str, Callable]:
    import torch

    parts, parameters = [], iter(weights())
    for layer in STACK:
        if layer == "pool":
            parts.append(torch.nn.MaxPool2d(2))
            continue
        weight, bias = map(torch.from_numpy, next(parameters))
        convolution = torch.nn.Conv2d(weight.shape[1], layer, 3, padding=1)
        convolution.weight.data, convolution.bias.data = weight, bias
        parts += [convolution, torch.nn.ReLU(inplace=True)]
    fc = torch.nn.Linear(512, CLASSES)
    fc.weight.data, fc.bias.data = torch.from_numpy(head()), torch.zeros(CLASSES)
    network = torch.nn.Sequential(*parts, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), fc).eval()
    network = network.to(memory_format=torch.channels_last)
    x = torch.from_numpy(images())  # channels last, as it was made

    def cam():
        kept = []
        handle = network[len(parts) - 1].register_forward_hook(lambda module, inputs, output: kept.append(output))
        with torch.no_grad():
            classes = network(x).argmax(dim=1)
            maps = torch.einsum("nk,nkij->nij", fc.weight[classes], kept[0])
        handle.remove()
        return maps

    return {NAME: cam}


ROWS = {
    NAME: Row("torch", 1.0, 1.9, IMAGES * flops(SIZE)),
    AUGMENTED: Row("passes", 0.83, agree=False),  # 1.2 times as long at most
}
ENGINES = {"minidet": minidet, "torch": torch, "passes": passes}
