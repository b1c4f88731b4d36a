"""How Faster R-CNN is trained jointly, on a small backbone that knows the classes already."""

from typing import Any

import numpy as np

from minidet.backbones import TinyBackbone
from minidet.boxes import base_anchors
from minidet.models.faster_rcnn import FasterRCNN, small_faster_rcnn
from minidet.training.recipes import detection

DEFAULTS = detection.DEFAULTS | {
    "epochs": 5,
    "stride": 4,  # pixels a cell of the feature map; 8 takes half the time and confuses what is ten pixels large
    "rpn_stride": 8,  # pixels a cell that the RPN looks at; 4 has four times as many anchors, and finds no more
    "anchor_sizes": "12,20,32",  # pixels, the square root of an anchor's area
    "anchor_ratios": "0.5,1,2",  # height by width
    "regions": 64,  # of each image that the second half is trained on (Fast R-CNN, section 2.3), a quarter with objects
    "hidden": 128,  # units of the fully connected layers; twice as many find as much and take a sixth longer
}


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> FasterRCNN:
    """A Faster R-CNN on the backbone that comes with minidet, with the backbone's weights."""
    backbone, anchors, options = parts(config)
    return small_faster_rcnn(backbone, len(classes), anchors, **options)


def parts(config: dict[str, Any]) -> tuple[TinyBackbone, np.ndarray, dict[str, Any]]:
    """The backbone, the anchors, and small_faster_rcnn's other arguments: of each detector that is made of it."""
    anchors = base_anchors(*(numbers(config, key) for key in ("anchor_sizes", "anchor_ratios")))
    backbone = TinyBackbone.pretrained(config["stride"])
    step, rest = divmod(config["rpn_stride"], backbone.stride)
    if rest or step < 1:
        raise ValueError(f"rpn_stride: expected a multiple of stride, {backbone.stride}, got {config['rpn_stride']}")
    if config["regions"] < 1:
        raise ValueError(f"regions: expected 1 or more, got {config['regions']}")
    options = {key: config[key] for key in ("hidden", "regions")} | detection.sizes(config)
    return backbone, anchors, options | {"rpn_stride": step}


def numbers(config: dict[str, Any], key: str) -> list[float]:
    """A setting that lists sizes in pixels, or ratios of sides."""
    try:
        found = [float(text) for text in config[key].split(",")]
    except ValueError:
        found = []
    if not found or not all(0.01 <= number <= 10_000 for number in found):
        raise ValueError(
            f"{key}: expected numbers from 0.01 to 10000 with commas between them, as 12,20,32, got {config[key]!r}"
        )
    return found


SYSTEM = detection.detector(
    name="faster_rcnn",
    build=build,
    defaults=DEFAULTS,
)
