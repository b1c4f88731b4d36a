"""How a backbone learns to tell classes apart, before it is asked where things are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import ImageDraw

from minidet import no_grad
from minidet.backbones import TinyBackbone
from minidet.data.dataset import Dataset, Sample
from minidet.drawing import grid
from minidet.drawing.canvas import PALETTE, WHITE, draw_tag, enlarge, enlargement
from minidet.models.classifier import Classifier
from minidet.training.recipes.one_object import augmentation, batches, check_classes, check_one_object
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
    "width": 32,  # channels of the stem; the three stages have 2, 4 and 4 times as many
    "augment": True,  # off: the network sees each image as it is, and learns it by heart
}


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> Classifier:
    """A classifier for the classes after the background, which single-object images do not have."""
    width = config["width"]
    if width < 1:
        raise ValueError(f"width: expected 1 or more channels, got {width}")
    backbone = TinyBackbone((width, 2 * width, 4 * width, 4 * width))
    return Classifier(backbone, len(classes) - 1, config["size"])


def check(dataset: Dataset, config: dict[str, Any]) -> None:
    """Every image shows one object, of one class or another."""
    check_one_object(dataset, "the classifier names one")
    check_classes(dataset)


def predict(model: Classifier, samples: Sequence[Sample], batch_size: int = 64) -> list[dict]:
    """labels (1,), scores (1,) and class_scores (K,) of each sample. The model is left in evaluation mode."""
    model.eval()
    predictions = []
    for _, images in batches(model, samples, batch_size):
        with no_grad():
            predictions += model(images)
    return predictions


def evaluate(model: Classifier, dataset: Dataset, batch_size: int = 64) -> tuple[dict[str, float], list[dict]]:
    """The fraction of images whose best class is the true one, and the predictions."""
    predictions = predict(model, dataset, batch_size)
    right = [
        prediction["labels"][0] == record.labels[0]
        for prediction, record in zip(predictions, dataset.records, strict=True)
    ]
    return {"accuracy": float(np.mean(right))}, predictions


def draw(samples: Sequence[Sample], predictions: list[dict], classes: tuple[str, ...]) -> np.ndarray:
    """The predicted class with its probability above, the true one in white below."""
    pictures = []
    for sample, prediction in zip(samples, predictions, strict=True):
        picture = enlarge(sample.image, enlargement(*sample.image.shape[:2]))
        pen = ImageDraw.Draw(picture)
        label = int(prediction["labels"][0])
        told = f"{classes[label]} {float(prediction['scores'][0]):.2f}"
        draw_tag(pen, (0, 0), told, PALETTE[label % len(PALETTE)], size=20)
        if len(sample.labels):
            draw_tag(pen, (0, picture.height), classes[int(sample.labels[0])], WHITE, size=20)
        pictures.append(np.array(picture))
    return grid(pictures)


SYSTEM = System(
    name="classifier",
    build=build,
    transform=augmentation,
    evaluate=evaluate,
    draw=draw,
    check=check,
    predict=predict,
    task="localization",
    metric="accuracy",
    defaults=DEFAULTS,
)
