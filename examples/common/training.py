"""Data, and trained detectors with a line of the story each."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from minidet import Tensor
from minidet.data import Dataset, make_dataset, open_dataset
from minidet.data.dataset import Sample
from minidet.training.fit import fit
from minidet.training.system import System

TITLES = {
    "map": "AP",
    "map_50": "AP50",
    "map_75": "AP75",
    "mask_map": "masks' AP",
    "mask_map_50": "masks' AP50",
    "keypoint_map": "joints' AP",
    "keypoint_map_50": "joints' AP50",
}


def make_and_open(system: System, folder: Path, quick: bool, seed: int) -> tuple[Dataset, Dataset]:
    """The generated scenes that a system trains on, and 300 to measure on; in a quick run a handful."""
    counts = {"train": 60, "test": 20} if quick else {"train": system.defaults["images"], "test": 300}
    make_dataset(folder, task=system.task, seed=seed, splits=counts)
    train, test = (open_dataset(folder, split, masks=system.masks) for split in counts)
    return train, test


def train_and_tell(
    name: str, system: System, train: Dataset, test: Dataset, settings: dict[str, Any], seed: int
) -> tuple[Any, dict[str, dict[str, float]]]:
    """A trained model, and what it finds on `test`, which is printed. A quick run's settings: QUICK."""
    start = time.monotonic()
    model = fit(system, train, settings, seed=seed, title=name)
    seconds = time.monotonic() - start
    metrics, _ = system.evaluate(model, test, 8)
    told = "  ".join(f"{title} {metrics[key]:.3f}" for key, title in TITLES.items() if key in metrics)
    print(f"  {name:24s} {told}  trained in {seconds:.0f} s", flush=True)
    return model, {name: metrics | {"seconds": seconds}}


def as_tensor(sample: Sample) -> Tensor:
    """An image (3, H, W) float32 in [0, 1], as detectors are given them."""
    return Tensor(sample.image.transpose(2, 0, 1).astype(np.float32) / 255)


QUICK = {"epochs": 1, "warmup": 2}
