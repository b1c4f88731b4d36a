"""COCO's metrics against pycocotools.

    500 images    80 classes, 48,000 detections of 3,500 objects, some of them crowds
    50 images     a tenth of them, for which pycocotools needs a second

Detections are objects moved a little, of the right class or another, and boxes anywhere, as a detector that keeps its
hundred best boxes makes them. Both begin with what a detector and a data set give them - minidet with arrays, a
dictionary an image, pycocotools with its own tables, already indexed - and end with the twelve numbers, which must
agree.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import numpy as np

from benchmarks.engines import Row

IMAGES = (50, 500)
CLASSES, DETECTIONS = 80, 96  # of each image
SIDE = 640

Functions = dict[str, Callable[[], object]]


def make_images(images: int) -> tuple[list[dict], list[dict]]:
    """Predictions and targets; boxes are multiples of 1/4 pixel, so that both engines compute with the same numbers."""
    rng = np.random.default_rng(0)
    predictions, targets = [], []
    for _ in range(images):
        count = int(rng.integers(0, 15))
        truth, labels = _random_boxes(rng, count), rng.integers(1, CLASSES + 1, count)
        moved = rng.integers(0, count, DETECTIONS // 3) if count else np.zeros(0, int)
        near = np.sort((truth[moved] + rng.normal(0, 8, (len(moved), 4))).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        near_labels = np.where(rng.random(len(moved)) < 0.8, labels[moved], rng.integers(1, CLASSES + 1, len(moved)))
        others = DETECTIONS - len(moved)
        boxes = np.concatenate([near, _random_boxes(rng, others)])
        predictions.append(
            {
                "boxes": (np.round(4 * boxes) / 4).astype(np.float32),
                "labels": np.concatenate([near_labels, rng.integers(1, CLASSES + 1, others)]),
                "scores": np.concatenate([rng.beta(3, 2, len(moved)), rng.beta(1, 6, others)]).astype(np.float32),
            }
        )
        sides = truth[:, 2:] - truth[:, :2]
        targets.append(
            {
                "boxes": truth.astype(np.float32),
                "labels": labels,
                "iscrowd": rng.random(count) < 0.02,
                "areas": np.round(sides.prod(axis=1) * rng.uniform(0.4, 0.9, count)),
            }
        )
    return predictions, targets


def _random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4), of all three sizes."""
    sides = np.exp(rng.uniform(np.log(10), np.log(300), (count, 2)))
    corners = rng.uniform(0, SIDE - sides)
    return np.round(4 * np.concatenate([corners, corners + sides], axis=1)) / 4


def minidet_functions() -> Functions:
    from minidet.evaluation import evaluate_coco

    def function(images: int) -> Callable[[], object]:
        predictions, targets = make_images(images)
        return lambda: np.array(list(evaluate_coco(predictions, targets, CLASSES).values()))

    return {f"boxes, {images} images": function(images) for images in IMAGES}


def pycocotools_functions() -> Functions:
    from pycocotools.cocoeval import COCOeval

    def function(images: int) -> Callable[[], object]:
        truth, results = _tables(*make_images(images))

        def evaluate() -> np.ndarray:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                evaluation = COCOeval(truth, results, "bbox")
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            return evaluation.stats

        return evaluate

    return {f"boxes, {images} images": function(images) for images in IMAGES}


def _tables(predictions: list[dict], targets: list[dict]) -> tuple[object, object]:
    from pycocotools.coco import COCO

    truth = COCO()
    truth.dataset = {
        "images": [{"id": image} for image in range(1, len(targets) + 1)],
        "categories": [{"id": label} for label in range(1, CLASSES + 1)],
        "annotations": [
            _annotation(image, target, row)
            | {"area": float(target["areas"][row]), "iscrowd": int(target["iscrowd"][row])}
            for image, target in enumerate(targets, start=1)
            for row in range(len(target["labels"]))
        ],
    }
    for number, annotation in enumerate(truth.dataset["annotations"], start=1):
        annotation["id"] = number
    results = [
        _annotation(image, prediction, row) | {"score": float(prediction["scores"][row])}
        for image, prediction in enumerate(predictions, start=1)
        for row in range(len(prediction["labels"]))
    ]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        truth.createIndex()
        return truth, truth.loadRes(results)


def _annotation(image: int, of_image: dict, row: int) -> dict:
    x1, y1, x2, y2 = of_image["boxes"][row].tolist()
    return {"image_id": image, "category_id": int(of_image["labels"][row]), "bbox": [x1, y1, x2 - x1, y2 - y1]}


ROWS = {
    "boxes, 50 images": Row("pycocotools", 20, quick=True),
    "boxes, 500 images": Row("pycocotools", 40, 60),
}
ENGINES = {"minidet": minidet_functions, "pycocotools": pycocotools_functions}
