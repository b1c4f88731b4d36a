"""How the first YOLO is trained, on a small backbone that knows the classes already."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minidet.backbones import TinyBackbone
from minidet.data import transforms
from minidet.data.dataset import Sample
from minidet.models.yolo_v1 import YOLOv1
from minidet.training.recipes import detection

DEFAULTS = detection.DEFAULTS | {
    "epochs": 10,
    "size": 112,  # pixels of the square that each image is resized to
    "stride": 16,  # pixels a cell: 7 x 7 cells, as in the paper and on the lecture's slides
    "predictors": 2,  # boxes of a cell
    "convolutions": 2,  # 3 x 3, behind the backbone
    "channels": 64,  # of these
    "fully_connected": False,  # on: as in the paper; learns slowly
    "hidden": 512,  # units of the first fully connected layer
}


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> YOLOv1:
    """The first YOLO on the backbone that comes with minidet, with the backbone's weights."""
    backbone = TinyBackbone.pretrained(config["stride"])
    options = ("size", "predictors", "convolutions", "channels", "fully_connected", "hidden")
    return YOLOv1(backbone, len(classes), **{key: config[key] for key in options})


def augmentation(config: dict[str, Any]) -> Callable[[Sample, np.random.Generator], Sample] | None:
    """Mirrored, and moved by up to a fifth (section 2.2)."""
    return transforms.Compose([transforms.RandomFlip(), transforms.RandomTranslate(0.2)]) if config["augment"] else None


SYSTEM = detection.detector(
    name="yolo_v1",
    build=build,
    transform=augmentation,
    defaults=DEFAULTS,
)
