"""What Keypoint R-CNN and OpenPose share: several people an image, their joints measured as COCO does."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minidet.data.dataset import Dataset, Sample
from minidet.data.joints import JOINTS, NOT_LABELLED, VISIBLE
from minidet.drawing import draw_skeleton, grid
from minidet.evaluation.overlaps import KEYPOINTS
from minidet.training.recipes import detection

DEFAULTS = detection.DEFAULTS | {
    "images": 5000,  # in few epochs; 3000 in five found as much
    "joints": "lsp",  # which joints the data have: lsp, mpii or coco
}
METRICS_NOTE = "COCO's average precisions; keypoint_map's overlaps are object keypoint similarities"


def joints_of(config: dict[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Names and limbs of the setting `joints`."""
    if config["joints"] not in JOINTS:
        raise ValueError(f"joints: expected {', '.join(JOINTS)}, got {config['joints']!r}")
    return JOINTS[config["joints"]]


def augmentation(config: dict[str, Any]) -> Callable[[Sample, np.random.Generator], Sample]:
    """As of all detectors."""
    joints, change = len(joints_of(config)[0]), detection.augmentation(config)

    def transform(sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.keypoints is None:  # trying the settings: nothing is labelled
            sample = replace(sample, keypoints=np.zeros((len(sample.boxes), joints, 3)))
        return sample if change is None else change(sample, rng)

    return transform


def check(dataset: Dataset, config: dict[str, Any]) -> None:
    """There are people, and their joints are those that the run is for. A person without a labelled joint is found, and
    nothing is learned of its joints."""
    detection.check(dataset, config)
    expected = joints_of(config)[0]
    for record in dataset.records:
        if record.keypoints is None or dataset.joint_names != expected:
            names = ", ".join(dataset.joint_names or ()) or "no joints"
            raise ValueError(
                f"{record.path}: expected the {len(expected)} joints of {config['joints']} ({', '.join(expected)}), "
                f"got {names}; other joints: --set joints=..., `minidet data make --task people` makes such pictures"
            )
    if not any((record.keypoints[~record.iscrowd, :, 2] > NOT_LABELLED).any() for record in dataset.records):
        raise ValueError(
            f"{dataset.records[0].path.parent}: expected labelled joints, got none in any image; crowds' do not count"
        )


def draw(samples: Sequence[Sample], predictions: list[dict], classes: tuple[str, ...]) -> np.ndarray:
    """Skeletons of people that score more than SCORE_DRAWN, the true ones dashed beside them."""
    pictures = []
    for sample, found in zip(samples, predictions, strict=True):
        people = found["keypoints"][found["scores"] > detection.SCORE_DRAWN].copy()
        people[..., 2] = np.where(people[..., 2] > NOT_LABELLED, VISIBLE, NOT_LABELLED)
        names, limbs = next(pair for pair in JOINTS.values() if len(pair[0]) == people.shape[1])
        pictures.append(draw_skeleton(sample.image, people, sample.keypoints, limbs, names))
    return grid(pictures)


def report(dataset: Dataset, predictions: list[dict], classes: tuple[str, ...], folder: Path) -> list[Path]:
    """Curves of the people's joints; and the joints in COCO's format, for other programs."""
    curves = detection.save_curves(dataset, predictions, classes, folder, KEYPOINTS)
    return [curves, detection.write(dataset, predictions, folder / "keypoints.json", KEYPOINTS)]
