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
        "epochs": 3,
        "learning_rate": 0.003,
        "anchor_sizes": "32,48",
        "anchor_ratios": "1,2",
        "regions": 32,  # half of them objects; twice as many take a fifth longer
        "hidden": 256,  # with 128 boxes are a little less tight
        "keypoint_channels": 64,  # of the keypoint head's convolutions, 512 in the paper
        "keypoint_convolutions": 8,  # as in the paper; 4 see two thirds of a box
        "keypoint_iou": 0.7,  # of the regions that joints are learned in; at 0.5 they do not say who is meant
    }
)


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> FasterRCNN:
    """A Keypoint R-CNN on the backbone that comes with minidet, with the backbone's weights."""
    backbone, anchors, options = faster_rcnn.parts(config)
    head = [config[f"keypoint_{name}"] for name in ("channels", "convolutions", "iou")]
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
