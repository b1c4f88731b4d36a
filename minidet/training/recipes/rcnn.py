"""How R-CNN is trained: fine-tuned on proposals, then SVMs and box regressors on the best weights' features."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minidet import no_grad
from minidet.backbones import TinyBackbone
from minidet.data.dataset import Dataset, Sample
from minidet.data.loader import collate_list
from minidet.models.rcnn import RCNN
from minidet.training.recipes import detection, rcnn_stages
from minidet.training.step import as_tensors
from minidet.training.system import System

DEFAULTS = detection.DEFAULTS | {
    "epochs": 6,
    "region_size": 48,  # pixels of the squares that regions are warped to
    "context": 3,  # of these, on each side, around the box
    "hidden": 256,  # features of a region
    "svm": True,  # off: the softmax that the network was fine-tuned with
    "box_regression": True,  # off: boxes stay where the proposals are
    "stage_images": 1000,  # training images, the first ones, that SVMs and box regressors are fitted on
}


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> RCNN:
    """An R-CNN on the backbone that comes with minidet, with the backbone's weights."""
    return RCNN(
        TinyBackbone.pretrained(stride=8),
        len(classes),
        config["region_size"],
        config["context"],
        config["hidden"],
        config["svm"],
        config["box_regression"],
    )


def predict(model: RCNN, samples: Sequence[Sample], batch_size: int = 8) -> list[dict]:
    """boxes (D, 4) in the sample's pixels, labels (D,) and scores (D,), best first, of each sample. The model is left
    in evaluation mode."""
    model.eval()
    predictions = []
    for i in range(len(samples)):
        batch = collate_list([samples[i]], np.arange(1))
        with no_grad():
            predictions += model(as_tensors(batch.images, model.device), batch.targets)
    return predictions


def evaluate(model: RCNN, dataset: Dataset, batch_size: int = 8) -> tuple[dict[str, float], list[dict]]:
    """COCO's metrics and the predictions."""
    predictions = predict(model, dataset, batch_size)
    return detection.metrics_of(predictions, dataset), predictions


def complete(model: RCNN, dataset: Dataset, config: dict[str, Any], folder: Path) -> None:
    """SVMs and box regressors, where they are wanted, on the first stage_images images."""
    if not (config["svm"] or config["box_regression"]):
        return
    start = time.monotonic()
    some = dataset.subset(range(min(len(dataset), config["stage_images"])))
    told = rcnn_stages.complete(model, some, folder)
    tqdm.write(
        f"{told['regions']:,} regions of {len(some):,} images: {told['bytes'] / 1e6:,.0f} MB of features, "
        f"{told['hard_negatives']:,} hard negatives, {time.monotonic() - start:.0f} s"
    )


SYSTEM = System(
    name="rcnn",
    build=build,
    transform=detection.augmentation,
    evaluate=evaluate,
    draw=detection.draw,
    check=detection.check,
    predict=predict,
    collate=collate_list,
    complete=complete,
    task="detection",
    metric="map",
    defaults=DEFAULTS,
)
