"""How weakly supervised localization is trained: as a classifier, by labels of whole images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidet import no_grad
from minidet.backbones import TinyBackbone
from minidet.data import transforms
from minidet.data.dataset import Dataset, Sample
from minidet.device import to_numpy
from minidet.drawing import draw_localization, grid
from minidet.drawing.localization import BOX_COLORS
from minidet.evaluation.weak_localization import (
    box_accuracy_metrics,
    box_overlaps,
    weak_localization_metrics,
)
from minidet.models.wsol import WeakLocalizer
from minidet.training.recipes.one_object import batches, check_classes, check_one_object, in_pixels_of
from minidet.training.system import System

DEFAULTS = {
    "epochs": 10,
    "batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "weight_decay": 1e-2,
    "warmup": 100,
    "size": 64,
    "images": 8000,
    "pooling": "gap",  # gap, gmp
    "stride": 4,  # pixels of the image, along each axis, to one of the map: 4, 8, 16
    "threshold": 0.2,  # of the map, where the box begins
    "mode": "fraction_of_max",  # what the threshold means: fraction_of_max, minmax
    "augment": True,
}

# Of the backbone's stem and stages. It is cut where a cell of the map stands for `stride` pixels: at 4, after the first
# stage. A cell then sees 15 pixels, and 23 after the convolution that follows. With two more convolutions, which make
# it 39, the classes are learned in a third of the steps, but a box at 20 % of the maximum is a third too wide: the map
# is high wherever a cell sees a part of the object.
CHANNELS = (32, 96, 128, 128)
STRIDES = (4, 8, 16)
TOP = 5  # classes that ILSVRC's error may choose among


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> WeakLocalizer:
    """A network for the classes after the background, which single-object images do not have."""
    if config["stride"] not in STRIDES:
        raise ValueError(f"stride: expected {', '.join(map(str, STRIDES))}, got {config['stride']}")
    backbone = TinyBackbone(CHANNELS[: int(np.log2(config["stride"]))])
    keys = ("pooling", "threshold", "mode")
    return WeakLocalizer(backbone, len(classes) - 1, config["size"], **{key: config[key] for key in keys})


@dataclass
class ForgetBoxes:
    """Puts the whole picture in place of the box: what comes after it knows what the picture shows, and not where."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = sample.image.shape[:2]
        return replace(sample, boxes=np.array([[0.0, 0.0, width, height]]), masks=None)


def augmentation(config: dict[str, Any]) -> transforms.Compose:
    """Mirrored and moved; without the boxes nobody can say whether a part of the object leaves the picture, so not
    far."""
    steps = [ForgetBoxes(), transforms.Resize(config["size"], config["size"])]
    if config["augment"]:
        steps += [transforms.RandomFlip(), transforms.RandomTranslate(0.1)]
    return transforms.Compose(steps)


def check(dataset: Dataset, config: dict[str, Any]) -> None:
    """Every image shows one object, of one class or another."""
    check_one_object(dataset, "its label is all that is learned from")
    check_classes(dataset)


def true_boxes(batch: Sequence[Sample], size: int) -> np.ndarray:
    """(n, 4), in the pixels of the images resized to size x size."""
    scales = [np.tile((size / s.image.shape[1], size / s.image.shape[0]), 2) for s in batch]
    return np.array([sample.boxes[0] for sample in batch]) * scales


def true_classes(batch: Sequence[Sample]) -> np.ndarray:
    """(n,), from 0."""
    return np.array([sample.labels[0] - 1 for sample in batch])


def first_class(sample: Sample, result: dict, size: int) -> dict:
    """The first class of a prediction for the image resized to size x size, its box in the sample's own pixels."""
    first = {name: result[name][:1] for name in ("labels", "scores", "maps", "boxes")}
    first["boxes"] = in_pixels_of(sample, first["boxes"], size)
    return first | {"class_scores": result["class_scores"]}


def predict(model: WeakLocalizer, samples: Sequence[Sample], batch_size: int = 64) -> list[dict]:
    """One prediction a sample, its box in the sample's own pixels, its map (1, S, S) of the resized image. The model is
    left in evaluation mode."""
    model.eval()
    return [
        first_class(sample, result, model.image_size)
        for batch, images in batches(model, samples, batch_size)
        for sample, result in zip(batch, model(images), strict=True)
    ]


def true_class_maps(
    model: WeakLocalizer, dataset: Sequence[Sample], batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """The maps (N, S, S) of the true classes, and the true boxes (N, 4) in their pixels: what BoxAcc is made of. The
    model is left in evaluation mode."""
    model.eval()
    maps, truth = [], []
    for batch, images in batches(model, dataset, batch_size):
        maps += [result["maps"][0] for result in model.localize(images, true_classes(batch))]
        truth.append(true_boxes(batch, model.image_size))
    return np.array(maps), np.concatenate(truth)


def evaluate(model: WeakLocalizer, dataset: Dataset, batch_size: int = 64) -> tuple[dict[str, float], list[dict]]:
    """Metrics on a data set with one object an image, and the predictions. The model is left in evaluation mode.

    To those of weak_localization_metrics come max_box_acc, max_box_acc_v2, and best_threshold_minmax, the one that
    gives the former. These three choose it on this very data set.
    """
    model.eval()
    predictions, rows, overlaps = [], [], {"largest": [], "all": []}
    for batch, images in batches(model, dataset, batch_size):
        truth, labels = true_boxes(batch, model.image_size), true_classes(batch)
        results = look(model, images, labels)
        predictions += [first_class(*pair, model.image_size) for pair in zip(batch, results, strict=True)]
        rows += [
            (result["class_scores"], result["boxes"][:-1], result["boxes"][-1], label, box)
            for result, label, box in zip(results, labels, truth, strict=True)
        ]
        maps = np.array([result["maps"][-1] for result in results])
        for components, of_batch in box_overlaps(maps, truth).items():
            overlaps[components] += of_batch.tolist()
    metrics = weak_localization_metrics(*map(np.array, zip(*rows, strict=True)))
    overlaps = {components: np.array(of_images) for components, of_images in overlaps.items()}
    return metrics | box_accuracy_metrics(overlaps), predictions


def look(model: WeakLocalizer, images: Any, labels: np.ndarray) -> list[dict]:
    """The model's predictions for the best classes, up to TOP, and then for the true one, labels (n,) from 0."""
    with no_grad():
        features = model.features(images)
        logits = model.scores(features)
    best = np.argsort(-to_numpy(logits.data), axis=1, kind="stable")[:, :TOP]
    return model.predictions(features, logits, np.column_stack([best, labels]), tuple(images.shape[2:]))


def draw(samples: Sequence[Sample], predictions: list[dict], classes: tuple[str, ...]) -> np.ndarray:
    """Each image with the estimated box in red and the true one, where it is known, in green; beside it the map
    that the box comes from."""
    pictures, captions = [], []
    for sample, prediction in zip(samples, predictions, strict=True):
        truth = sample.boxes[0] if len(sample.boxes) else None
        pictures.append(draw_localization(sample.image, prediction["boxes"][0], truth, prediction["maps"][0]))
        captions.append(caption(sample, prediction, classes))
    return grid(pictures, captions=captions, title=BOX_COLORS)


def caption(sample: Sample, prediction: dict, classes: tuple[str, ...]) -> str:
    """The predicted class with its probability, and the true one where it is known."""
    told = f"{classes[prediction['labels'][0]]} {prediction['scores'][0]:.2f}"
    return f"{told}, true {classes[sample.labels[0]]}" if len(sample.labels) else told


SYSTEM = System(
    name="wsol",
    build=build,
    transform=augmentation,
    evaluate=evaluate,
    draw=draw,
    check=check,
    predict=predict,
    task="localization",
    metric="accuracy",  # by boxes it would not be weakly supervised
    defaults=DEFAULTS,
)
