"""How SSD is trained, on a small backbone that knows the classes already."""

from typing import Any

import numpy as np

from minidet import nn
from minidet.backbones import TinyBackbone
from minidet.backbones.tiny import ConvBlock
from minidet.data import crops, transforms
from minidet.models.ssd import SSD, DefaultBoxes
from minidet.training.recipes import detection

DEFAULTS = detection.DEFAULTS | {
    "epochs": 7,
    "learning_rate": 0.002,
    "levels": 3,  # maps, of 32 x 32, 16 x 16, ... cells; with one, large objects have no box that is alike
    "bipartite": True,  # off: two objects may share their best default box
    "mining": True,  # off: all background boxes are learned from
    "focal": 0.0,  # above 0: the focal loss with this exponent, in place of mining
    "crops": False,  # on: the paper's crops and canvases; objects of all sizes, and many more epochs to learn them
}
STRIDE = 4  # of the first map
# Parts of the image's side, by level: of 128 pixels default boxes have sides of 9 to 51.
SCALES = (0.1, 0.17, 0.28, 0.45)


class SmallPyramid(nn.Module):
    """images (N, 3, H, W) -> maps of stride 4, 8, 16, each made of the one before."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.body = TinyBackbone.pretrained(STRIDE)
        channels = self.body.out_channels
        self.out_channels = [channels] * levels
        self.extra = nn.ModuleList(ConvBlock(channels, channels, stride=2) for _ in range(levels - 1))

    def forward(self, images: Any) -> list[Any]:
        maps = [self.body(images)]
        for block in self.extra:
            maps.append(block(maps[-1]))
        return maps


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> SSD:
    """An SSD on the backbone that comes with minidet, with the backbone's weights."""
    levels = config["levels"]
    if not 1 <= levels < len(SCALES):
        raise ValueError(f"levels: expected 1 to {len(SCALES) - 1}, got {levels}")
    boxes = DefaultBoxes([STRIDE * 2**level for level in range(levels)], SCALES[: levels + 1], [(2.0,)] * levels)
    options = {"bipartite": config["bipartite"], "mining": config["mining"], "focal": config["focal"] or None}
    return SSD(SmallPyramid(levels), len(classes), config["size"], boxes, **options)


def augmentation(config: dict[str, Any]) -> transforms.Compose | None:
    """As of all detectors, and if wanted canvases, crops and colours (section 2.2)."""
    steps = [transforms.RandomFlip()] if config["augment"] else []
    if config["crops"]:
        steps = [transforms.RandomColor(), crops.RandomExpand(), crops.RandomCrop(), *steps]
    return transforms.Compose(steps) if steps else None


SYSTEM = detection.detector(
    name="ssd",
    build=build,
    transform=augmentation,
    defaults=DEFAULTS,
)
