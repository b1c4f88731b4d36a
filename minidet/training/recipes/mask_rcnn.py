"""How Mask R-CNN is trained: as Faster R-CNN, jointly, with masks."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minidet.data.dataset import Dataset
from minidet.evaluation.overlaps import BOXES, MASKS
from minidet.models.faster_rcnn import FasterRCNN
from minidet.models.mask_rcnn import small_mask_rcnn
from minidet.training.recipes import detection, faster_rcnn

DEFAULTS = faster_rcnn.DEFAULTS | {
    "epochs": 4,
    "learning_rate": 0.002,
    "regions": 32,  # twice as many take a third longer
    "mask_channels": 64,  # of the mask head's convolutions; more draw finer and cost in proportion to their square
    "mask_convolutions": 2,  # 4 in the paper, for objects of hundreds of pixels
    "mlp": False,  # on: two fully connected layers in their place
    "agnostic": False,  # on: one map for all classes
    "competing": False,  # on: a softmax over the classes' maps
    "pooling": "align",  # pool: rounded to cells
}


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> FasterRCNN:
    """A Mask R-CNN on the backbone that comes with minidet, with the backbone's weights."""
    backbone, anchors, options = faster_rcnn.parts(config)
    options |= {key: config[key] for key in ("mlp", "agnostic", "competing", "pooling")}
    head = config["mask_channels"], config["mask_convolutions"]
    return small_mask_rcnn(backbone, len(classes), anchors, *head, **options)


def check(dataset: Dataset, config: dict[str, Any]) -> None:
    """There is something to find, and every object has a mask."""
    detection.check(dataset, config)
    detection.check_kind(dataset, MASKS)


def report(dataset: Dataset, predictions: list[dict], classes: tuple[str, ...], folder: Path) -> list[Path]:
    """What detection.report draws of the boxes; curves of the masks, and the masks in COCO's format."""
    paths = detection.report(dataset, predictions, classes, folder)
    curves = detection.save_curves(dataset, predictions, classes, folder, MASKS)
    return [*paths, curves, detection.write(dataset, predictions, folder / "masks.json", MASKS)]


SYSTEM = detection.detector(
    name="mask_rcnn",
    build=build,
    check=check,
    evaluate=partial(detection.evaluate, kinds=(BOXES, MASKS)),
    report=report,
    masks=True,
    metric="mask_map",
    defaults=DEFAULTS,
)
