"""How the localizer is trained from scratch, both heads jointly: the lecture's simplest solution."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidet import no_grad
from minidet.backbones import TinyBackbone
from minidet.data.dataset import Dataset, Sample
from minidet.drawing import draw_boxes, grid
from minidet.evaluation import localization_metrics
from minidet.models.localizer import Localizer, one_object_each
from minidet.training.recipes.one_object import augmentation, batches, check_one_object, in_pixels_of
from minidet.training.system import System

DEFAULTS = {
    "epochs": 9,
    "batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 1e-2,
    "warmup": 100,
    "size": 64,
    "images": 8000,
    "alpha": 0.5,  # the class loss's weight; examples/localization.py compares others by mean IoU
    "box_loss": "giou",  # l1, l2, smooth_l1, iou, giou
    "augment": True,  # off: the network sees each image as it is, and learns it by heart
}


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> Localizer:
    """A localizer for the classes after the background, which single-object images do not have."""
    backbone = TinyBackbone()
    return Localizer(backbone, len(classes) - 1, config["size"], config["alpha"], config["box_loss"])


def check(dataset: Dataset, config: dict[str, Any]) -> None:
    """Every image shows one object, and its box is not lost when the image is resized."""
    check_one_object(dataset, "the localizer finds one")
    for record in dataset.records:
        (x1, y1, x2, y2), (height, width), size = record.boxes[0], record.size, config["size"]
        box_width, box_height = (x2 - x1) * size / width, (y2 - y1) * size / height
        if min(box_width, box_height) < 1:
            raise ValueError(
                f"{record.path}: expected a box of at least one pixel, got {box_width:.2g} x {box_height:.2g} in the "
                f"image resized to {size} x {size}; enlarge size or leave the image out"
            )


def predict(model: Localizer, samples: Sequence[Sample], batch_size: int = 64) -> list[dict]:
    """One prediction a sample, its box in the sample's own pixels. The model is left in evaluation mode."""
    model.eval()
    predictions = []
    for batch, images in batches(model, samples, batch_size):
        with no_grad():
            results = model(images)
        for sample, result in zip(batch, results, strict=True):
            predictions.append(result | {"boxes": in_pixels_of(sample, result["boxes"], model.image_size)})
    return predictions


def evaluate(model: Localizer, dataset: Dataset, batch_size: int = 64) -> tuple[dict[str, float], list[dict]]:
    """Metrics on a data set with one object an image, and the predictions."""
    predictions = predict(model, dataset, batch_size)
    targets = [{"boxes": record.boxes, "labels": record.labels} for record in dataset.records]
    labels, truth = one_object_each(targets, model.classes)
    scores = [prediction["class_scores"] for prediction in predictions]
    boxes = [prediction["boxes"][0] for prediction in predictions]
    return localization_metrics(scores, boxes, labels, truth), predictions


def draw(samples: Sequence[Sample], predictions: list[dict], classes: tuple[str, ...]) -> np.ndarray:
    """Predicted box and class, with the true box dashed beside it."""
    pictures = [
        draw_boxes(s.image, p["boxes"], p["labels"], p["scores"], s.boxes, s.labels, classes)
        for s, p in zip(samples, predictions, strict=True)
    ]
    return grid(pictures)


SYSTEM = System(
    name="localizer",
    build=build,
    transform=augmentation,
    evaluate=evaluate,
    draw=draw,
    check=check,
    predict=predict,
    task="localization",
    metric="mean_iou",
    defaults=DEFAULTS,
)
