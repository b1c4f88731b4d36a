"""How R-CNN is trained: fine-tuned on proposals, then SVMs and box regressors on the best weights' features.

Regions are warped to one size anyway, so images stay as large as they are: the setting `size` is that of images made.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minidet.backbones import TinyBackbone
from minidet.data.dataset import Dataset
from minidet.data.files import write_atomic
from minidet.models.rcnn import RCNN
from minidet.training.recipes import detection, rcnn_stages
from minidet.training.recipes.fast_rcnn import prepare, proposer

DEFAULTS = detection.DEFAULTS | {
    "images": 2000,
    "epochs": 3,
    "proposals": "fast",  # Selective Search's mode: single, fast or quality
    "proposals_per_image": 2000,  # at most
    "region_size": 48,  # pixels of the squares that regions are warped to
    "context": 3,  # of these, on each side, around the box
    "hidden": 256,  # features of a region
    "svm": True,  # off: the softmax that the network was fine-tuned with
    "box_regression": True,  # off: boxes stay where the proposals are
    "stage_images": 1000,  # training images, the first ones, that SVMs and box regressors are fitted on
}

STAGES_FILE = "rcnn_stages.json"  # what the stages after fine-tuning took: bytes, regions, hard negatives, seconds


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> RCNN:
    """An R-CNN on the backbone that comes with minidet, with the backbone's weights."""
    if config["stage_images"] < 1:
        raise ValueError(f"stage_images: expected 1 or more, got {config['stage_images']}")
    return RCNN(
        TinyBackbone.pretrained(stride=8),
        len(classes),
        config["region_size"],
        config["context"],
        config["hidden"],
        proposer(config),
        svm=config["svm"],
        box_regression=config["box_regression"],
    )


def complete(model: RCNN, dataset: Dataset, config: dict[str, Any], folder: Path) -> None:
    """SVMs and box regressors, where they are wanted, on the first stage_images images."""
    if not (config["svm"] or config["box_regression"]):
        return
    start = time.monotonic()
    some = dataset.subset(range(min(len(dataset), config["stage_images"])))
    told = rcnn_stages.complete(model, some, folder)
    told["seconds"] = round(time.monotonic() - start, 3)
    write_atomic(folder / STAGES_FILE, json.dumps(told, indent=2) + "\n")
    tqdm.write(
        f"{told['regions']:,} regions of {len(some):,} images: {told['bytes'] / 1e6:,.0f} MB of features, "
        f"{told['hard_negatives']:,} hard negatives, {told['seconds']:.0f} s; metrics so far were the softmax's"
    )


SYSTEM = detection.detector(
    name="rcnn",
    build=build,
    prepare=prepare,
    complete=complete,
    doctor=("learning_rate=2e-3",),
    defaults=DEFAULTS,
)
