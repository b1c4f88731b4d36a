"""How Keypoint R-CNN is trained: as Faster R-CNN, jointly, with people's joints."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minidet.data.dataset import Dataset
from minidet.evaluation.overlaps import BOXES, KEYPOINTS
from minidet.models.faster_rcnn import FasterRCNN
from minidet.models.keypoint_rcnn import small_keypoint_rcnn
from minidet.training.recipes import detection, faster_rcnn, people

DEFAULTS = (
    faster_rcnn.DEFAULTS
    | people.DEFAULTS
    | {
        "epochs": 4,
        "learning_rate": 0.003,
        "anchor_sizes": "32,48",
        "anchor_ratios": "1,2",
        "regions": 32,  # half of them objects; twice as many take a fifth longer
        "hidden": 256,  # with 128 boxes are a little less tight
        # The paper's 14 are for people ten times as large; with them it takes eight convolutions to see a whole person.
        # Four see nearly all of 10 cells, learn joints in half the time, and find more.
        "keypoint_cells": 10,
        "keypoint_channels": 64,  # of the keypoint head's convolutions, 512 in the paper
        "keypoint_convolutions": 4,  # 8 in the paper
        "keypoint_iou": 0.7,  # of the regions that joints are learned in; at 0.5 they do not say who is meant
    }
)


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> FasterRCNN:
    """A Keypoint R-CNN on the backbone that comes with minidet, with the backbone's weights."""
    backbone, anchors, options = faster_rcnn.parts(config)
    head = [config[f"keypoint_{name}"] for name in ("cells", "channels", "convolutions", "iou")]
    return small_keypoint_rcnn(backbone, len(classes), len(people.joints_of(config)[0]), anchors, *head, **options)


def report(dataset: Dataset, predictions: list[dict], classes: tuple[str, ...], folder: Path) -> list[Path]:
    """What detection.report draws of the boxes, and people.report of the joints."""
    paths = detection.report(dataset, predictions, classes, folder)
    return paths + people.report(dataset, predictions, classes, folder)


SYSTEM = detection.detector(
    name="keypoint_rcnn",
    build=build,
    transform=people.augmentation,
    check=people.check,
    evaluate=partial(detection.evaluate, kinds=(BOXES, KEYPOINTS)),
    draw=people.draw,
    report=report,
    task="people",
    joints=True,
    metric="keypoint_map",
    metrics_note=people.METRICS_NOTE,
    defaults=DEFAULTS,
)
