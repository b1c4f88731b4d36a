"""How OpenPose is trained: all stages at once, on pictures of several people."""

from functools import partial
from typing import Any

import numpy as np

from minidet.backbones import TinyBackbone
from minidet.data.dataset import Dataset
from minidet.evaluation.overlaps import KEYPOINTS
from minidet.models.openpose import LIMB_WIDTH, SIGMA, OpenPose
from minidet.training.recipes import detection, people

DEFAULTS = people.DEFAULTS | {
    "epochs": 2,
    "learning_rate": 0.002,
    "stride": 4,  # pixels a cell of the maps
    "stages": 2,
    "channels": 64,  # of each stage's convolutions
    "convolutions": 3,  # 3 x 3, of each branch of each stage
    "sigma": SIGMA,
    "limb_width": LIMB_WIDTH,
}


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> OpenPose:
    """An OpenPose on the backbone that comes with minidet, with the backbone's weights."""
    names, limbs = people.joints_of(config)
    options = {key: config[key] for key in ("stages", "channels", "convolutions", "sigma", "limb_width")}
    backbone = TinyBackbone.pretrained(config["stride"])
    return OpenPose(backbone, len(names), limbs, **options, **detection.sizes(config))


def check(dataset: Dataset, config: dict[str, Any]) -> None:
    """People, and nothing else, with the joints that the run is for."""
    people.check(dataset, config)
    if len(dataset.classes) != 2:
        raise ValueError(
            f"{dataset.records[0].path.parent}: expected people as the only class, got "
            f"{', '.join(dataset.classes[1:])}; --classes chooses one"
        )


SYSTEM = detection.detector(
    name="openpose",
    build=build,
    transform=people.augmentation,
    check=check,
    evaluate=partial(detection.evaluate, kinds=(KEYPOINTS,)),
    draw=people.draw,
    report=people.report,
    task="people",
    joints=True,
    metric="keypoint_map",
    metrics_note=people.METRICS_NOTE,
    doctor_metric="keypoint_map_50",
    defaults=DEFAULTS,
)
