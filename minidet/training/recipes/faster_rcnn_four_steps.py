"""How Faster R-CNN is trained in four steps, each a quarter of the epochs."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from minidet.backbones import TinyBackbone
from minidet.data.dataset import Dataset
from minidet.models.four_steps import STEPS, FourStepFasterRCNN
from minidet.training.recipes import detection, faster_rcnn
from minidet.training.schedules import FOUR_COSINES

DEFAULTS = faster_rcnn.DEFAULTS | {
    "epochs": 12,
    "schedule": FOUR_COSINES,  # each step's learning rate falls from the top to 0
    "freeze_first": False,  # on: the backbone stays as it is in step 1, as on the lecture's slide
}


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> FourStepFasterRCNN:
    """The recipe faster_rcnn's model, and the RPN's backbone."""
    if config["epochs"] % STEPS:
        raise ValueError(f"epochs: expected a multiple of {STEPS}, as many for each step, got {config['epochs']}")
    joint = faster_rcnn.build(classes, config, rng)
    own = TinyBackbone.pretrained(joint.backbone.stride)
    frozen = config["freeze_first"]
    return FourStepFasterRCNN(joint.backbone, own, joint.rpn, joint.roi_heads, frozen, **detection.sizes(config))


def begin_epoch(model: FourStepFasterRCNN, epoch: int, config: dict[str, Any]) -> None:
    """Enters the step that the epoch belongs to."""
    model.enter(1 + epoch * STEPS // config["epochs"])


def evaluate(model: FourStepFasterRCNN, dataset: Dataset, batch_size: int = 8) -> tuple[dict[str, float], list[dict]]:
    """As every detector, but the best epoch is looked for in the last step: before it the two networks are not one."""
    metrics, predictions = detection.evaluate(model, dataset, batch_size)
    return metrics | ({"map": math.nan} if int(model.step) < STEPS else {}), predictions


SYSTEM = replace(
    faster_rcnn.SYSTEM,
    name="faster_rcnn_four_steps",
    build=build,
    begin_epoch=begin_epoch,
    evaluate=evaluate,
    doctor=("epochs=800", "learning_rate=0.002"),  # a quarter of them for each step
    defaults=DEFAULTS,
)
