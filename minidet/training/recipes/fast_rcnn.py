"""How Fast R-CNN is trained: on regions that Selective Search proposed once, before the first epoch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minidet.backbones import TinyBackbone
from minidet.data.dataset import Dataset
from minidet.models.fast_rcnn import FastRCNN
from minidet.models.roi_pooling import RoIPooling
from minidet.proposals import MODES, selective_search
from minidet.proposals.cache import proposals_for
from minidet.training.recipes import detection

DEFAULTS = detection.DEFAULTS | {
    "epochs": 4,
    "stride": 4,  # pixels a cell of the feature map; 8 is faster and confuses what is ten pixels large
    "proposals": "fast",  # Selective Search's mode: single, fast or quality
    "proposals_per_image": 2000,  # at most
    "pooling": "pool",  # "pool", RoIPool, or "align", RoIAlign
    "hidden": 128,  # units of the fully connected layers
    "background_iou": 0.1,  # regions that overlap with objects by less teach nothing (section 2.3)
    "box_loss": True,  # off: the class alone is learned
    "freeze_backbone": False,  # on: only the fully connected layers learn, as in SPPnet
}


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> FastRCNN:
    """A Fast R-CNN on the backbone that comes with minidet, with the backbone's weights."""
    backbone = TinyBackbone.pretrained(config["stride"])
    backbone.requires_grad_(not config["freeze_backbone"])
    return FastRCNN(
        backbone,
        len(classes),
        config["hidden"],
        RoIPooling(7, config["pooling"]),
        proposer(config),
        bg_iou=config["background_iou"],
        box_loss=config["box_loss"],
        **detection.sizes(config),
    )


def proposer(config: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Selective Search as the settings want it."""
    mode, limit = config["proposals"], config["proposals_per_image"]
    if mode not in MODES:
        raise ValueError(f"proposals: expected one of {', '.join(MODES)}, got {mode!r}")
    if limit < 1:
        raise ValueError(f"proposals_per_image: expected 1 or more, got {limit}")
    return partial(selective_search, mode=mode, limit=limit)


def prepare(dataset: Dataset, config: dict[str, Any], folder: Path, split: str) -> None:
    """Selective Search proposes regions of every image, once: they are kept in the run's folder."""
    found = proposals_for(dataset, folder, config["proposals"], limit=config["proposals_per_image"])
    for record, boxes in zip(dataset.records, found, strict=True):
        record.proposals = boxes.astype(np.float64)


SYSTEM = detection.detector(
    name="fast_rcnn",
    build=build,
    prepare=prepare,
    defaults=DEFAULTS,
)
