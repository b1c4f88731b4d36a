"""SSD300 on VGG16 (Liu et al. 2016, section 3), with torchvision's keys and constants.

VGG16's two fully connected layers become convolutions, fc6 one that skips five of six cells, and four blocks more make
the map smaller, down to a single cell:

    conv4_3 38 x 38    fc7 19 x 19    extra 10 x 10, 5 x 5, 3 x 3, 1 x 1    of 300 x 300 pixels: 8732 default boxes

conv4_3's numbers are larger than those of the others: each cell is scaled to a length that is learned, 20 at first.
Weights of torchvision's model, converted as `backbones/weights.py` says, give its detections:

    model = ssd300_vgg16().eval()
    load_weights(model, "ssd300_vgg16.safetensors")
"""

from typing import Any

import numpy as np

from .. import nn
from ..autograd import Tensor
from ..backbones.vgg import BLOCKS, VGG, convolutions
from ..device import on_device_of
from .ssd import SSD, DefaultBoxes

# Section 3.1: conv4_3's boxes are a tenth of the image's side in the paper; 0.07 is torchvision's, of the authors' code
# for COCO. The scales between grow evenly.
BOXES = DefaultBoxes(
    steps=(8, 16, 32, 64, 100, 300),
    scales=(0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
    ratios=((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,)),
)
SIZE = 300
FIRST_LENGTH = 20.0  # of conv4_3's cells (section 3.1); learned
MEAN = (0.48235, 0.45882, 0.40784)  # of the images that VGG16 was trained on by its authors, who did not divide
CONV4_3 = 23  # layers of VGG16's features up to and with its ReLU
VGG16_LAYERS = 31
POOL3 = 16  # the pooling that makes 38 cells of 75, and not 37: it rounds up


class SSDFeaturesVGG(nn.Module):
    """images (N, 3, 300, 300) -> six maps. layers: VGG16's convolutions, which become this network's."""

    out_channels = (512, 1024, 512, 256, 256, 256)

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        layers = list(layers)
        if len(layers) != VGG16_LAYERS or not isinstance(layers[POOL3], nn.MaxPool2d):
            raise ValueError(f"SSDFeaturesVGG: expected the {VGG16_LAYERS} layers of a VGG16, got {len(layers)} others")
        layers[POOL3] = nn.MaxPool2d(2, ceil_mode=True)
        self.scale_weight = nn.Parameter(np.full(512, FIRST_LENGTH, np.float32))
        self.features = nn.Sequential(*layers[:CONV4_3])
        fully_connected = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),  # in place of pool5, whose map would be half as fine
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
            nn.ReLU(),
            nn.Conv2d(1024, 1024, 1),
            nn.ReLU(),
        )
        self.extra = nn.ModuleList(
            [
                nn.Sequential(*layers[CONV4_3:-1], fully_connected),
                shrinking(1024, 256, 512, stride=2, padding=1),
                shrinking(512, 128, 256, stride=2, padding=1),
                shrinking(256, 128, 256),
                shrinking(256, 128, 256),
            ]
        )
        for block in (fully_connected, *self.extra[1:]):
            for module in block.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)

    def forward(self, images: Any) -> list[Any]:
        x = self.features(images)
        maps = [unit_length(x) * self.scale_weight.reshape(1, -1, 1, 1)]
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return maps


def shrinking(before: int, between: int, after: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """1 x 1 and 3 x 3 convolutions; without padding the map loses its border."""
    return nn.Sequential(
        nn.Conv2d(before, between, 1), nn.ReLU(), nn.Conv2d(between, after, 3, stride, padding), nn.ReLU()
    )


def unit_length(x: Any) -> Any:
    """Maps (N, C, H, W) whose cells are scaled to a length of 1 over the channels; zeros stay (Liu et al. 2015,
    "ParseNet")."""
    return x / ((x**2).sum(axis=1, keepdims=True) + 1e-24) ** 0.5


def as_vgg_saw_them(images: Any) -> Any:
    """Images (..., 3, H, W) in [0, 1] -> less MEAN, in 0 to 255."""
    mean = np.reshape(np.float32(MEAN), (3, 1, 1))
    return (images - (on_device_of(mean, images.data) if isinstance(images, Tensor) else mean)) * 255


def random_layers() -> nn.Sequential:
    """VGG16's convolutions with torchvision's random weights, without the fully connected layers."""
    layers = convolutions(BLOCKS[16], batch_norm=False)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            nn.init.zeros_(layer.bias)
    return layers


def ssd300_vgg16(num_classes: int = 91, vgg: VGG | None = None, **options: Any) -> SSD:
    """torchvision's function of this name: 35.6 million weights, from random ones.

    num_classes   with the background, class 0; COCO's 80 classes have numbers up to 90
    vgg           a VGG16, whose convolutions become this model's; by default a new one with random weights
    options       as SSD's; the defaults are torchvision's
    """
    backbone = SSDFeaturesVGG(random_layers() if vgg is None else vgg.features)
    return SSD(backbone, num_classes, SIZE, BOXES, **{"bipartite": False, "normalize": as_vgg_saw_them} | options)
