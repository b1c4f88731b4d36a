"""What all detectors share: images of any sizes with any number of objects, mirrored, measured as COCO does."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minidet import no_grad
from minidet.data import transforms
from minidet.data.dataset import Dataset, Sample
from minidet.data.loader import collate_list
from minidet.data.masks import RunLengths
from minidet.drawing import (
    draw_boxes,
    draw_confusion,
    draw_error_counts,
    draw_masks,
    draw_precision_recall,
    draw_worst_errors,
    grid,
    save_png,
    with_crowds,
)
from minidet.evaluation import (
    coco_curves,
    confusion_matrix,
    detection_errors,
    evaluate_coco,
    worst_errors,
    write_results,
)
from minidet.evaluation.overlaps import BOXES, KEYPOINTS, MASKS
from minidet.evaluation.results import ids_of
from minidet.training.step import as_tensors
from minidet.training.system import System

DEFAULTS = {
    "batch_size": 8,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "size": 128,  # pixels of the images' shorter side
    "images": 4000,
    "augment": True,  # off: the network sees each image as it is, and learns it by heart
}
LONGEST = 5 / 3  # of the images' longer side, in shorter ones: torchvision's 800 and 1333
SCORE_DRAWN = 0.5  # of the detections in pictures; metrics take all
METRICS_NOTE = "COCO's average precisions and recall; -1: there are no such objects"
METRICS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_100")


def sizes(config: dict[str, Any]) -> dict[str, int]:
    """A detector's min_size and max_size."""
    return {"min_size": config["size"], "max_size": round(config["size"] * LONGEST)}


def augmentation(config: dict[str, Any]) -> Callable[[Sample, np.random.Generator], Sample] | None:
    """Mirrored: the one change that leaves an image as likely as it was (Girshick 2015, section 2.3)."""
    return transforms.RandomFlip() if config["augment"] else None


def check(dataset: Dataset, config: dict[str, Any]) -> None:
    """There is something to find. Images without objects are welcome."""
    if all(record.iscrowd.all() for record in dataset.records):
        where = dataset.records[0].path.parent if len(dataset) else "the data set"
        raise ValueError(
            f"{where}: expected objects to find, got none, or crowds alone, in any of {len(dataset)} images; `minidet "
            "data check` shows what the annotations say"
        )


def predict(model: Any, samples: Sequence[Sample], batch_size: int = 8) -> list[dict]:
    """boxes (D, 4) in the sample's pixels, labels (D,) and scores (D,), best first, of each sample, and masks as
    RunLengths from a model that draws them. The model is given the images, and their proposals where there are any; it
    is left in evaluation mode."""
    model.eval()
    predictions = []
    for start in range(0, len(samples), batch_size):
        indices = range(start, min(start + batch_size, len(samples)))
        these = [samples[i] for i in indices]
        images = collate_list(these, np.array(indices)).images
        proposals = [{} if sample.proposals is None else {"proposals": sample.proposals} for sample in these]
        with no_grad():
            found = model(as_tensors(images, model.device), proposals)
        predictions += [one | {"masks": RunLengths(one["masks"])} if "masks" in one else one for one in found]
    return predictions


def metrics_of(predictions: list[dict], dataset: Dataset, kind: str = BOXES) -> dict[str, float]:
    """COCO's metrics of predictions for a data set, -1 where there is nothing to measure. Those of masks and keypoints
    say so in their names, and are fewer."""
    measured = evaluate_coco(predictions, targets_of(dataset, kind), len(dataset.classes) - 1, kind)
    if kind == BOXES:
        return {name: measured[name] for name in METRICS}
    return {f"{kind.removesuffix('s')}_{name}": measured[name] for name in ("map", "map_50", "map_75")}


def targets_of(dataset: Dataset, kind: str = BOXES) -> list[dict]:
    """The truth as evaluate_coco wants it."""
    targets = [
        {"boxes": record.boxes, "labels": record.labels, "iscrowd": record.iscrowd, "areas": record.areas}
        for record in dataset.records
    ]
    for index, target in enumerate(targets):
        if kind == MASKS:
            target["masks"] = RunLengths(dataset[index].masks)
        elif kind == KEYPOINTS:
            target["keypoints"] = dataset.records[index].keypoints
    return targets


def check_kind(dataset: Dataset, kind: str) -> None:
    """Every object has what is to be measured. Raises ValueError with the image's file."""
    for record in dataset.records:
        if kind == MASKS:
            drawn = np.array([s is not None for s in record.segmentations or [None] * len(record.boxes)], bool)
            good = drawn | (record.iscrowd & drawn.any())  # a crowd may lack its mask beside something that has one
            if not good.all():
                raise ValueError(
                    f"{record.path}: expected a mask for each object, got none of object {good.argmin()}; COCO's "
                    "annotations have them as \"segmentation\", VOC's and YOLO's boxes do not; faster_rcnn needs none"
                )
        if kind == KEYPOINTS and record.keypoints is None:
            raise ValueError(
                f"{record.path}: expected people's joints, got none in its data set; COCO's have them in "
                "annotations/person_keypoints_SPLIT.json"
            )


def evaluate(
    model: Any, dataset: Dataset, batch_size: int = 8, kinds: Sequence[str] = (BOXES,)
) -> tuple[dict[str, float], list[dict]]:
    """COCO's metrics of boxes, masks or keypoints, or of several of them, and the predictions."""
    predictions, metrics = predict(model, dataset, batch_size), {}
    for kind in kinds:
        metrics |= metrics_of(predictions, dataset, kind)
    return metrics, predictions


def draw(samples: Sequence[Sample], predictions: list[dict], classes: tuple[str, ...]) -> np.ndarray:
    """Detections that score more than SCORE_DRAWN, with class and score, and masks where there are any, the true boxes
    dashed beside them; a box around many objects, which need not be found one by one, is called a crowd."""
    pictures = []
    for sample, found in zip(samples, predictions, strict=True):
        shown = found["scores"] > SCORE_DRAWN
        boxes, labels, scores = (found[key][shown] for key in ("boxes", "labels", "scores"))
        truth, names = with_crowds(sample.labels, sample.iscrowd, classes)
        image = draw_masks(sample.image, found["masks"][shown], labels) if "masks" in found else sample.image
        pictures.append(draw_boxes(image, boxes, labels, scores, sample.boxes, truth, names))
    return grid(pictures)


def report(dataset: Dataset, predictions: list[dict], classes: tuple[str, ...], folder: Path) -> list[Path]:
    """What the metrics do not say: curves, confused classes, kinds of errors and the worst of them; and the detections
    in COCO's format, for other programs."""
    judged = predictions, targets_of(dataset), len(classes) - 1
    wrong, missed = worst_errors(*judged, score=SCORE_DRAWN)
    pictures = {
        "precision-recall.png": draw_precision_recall(coco_curves(*judged), classes),
        "confusion.png": draw_confusion(
            confusion_matrix(*judged, score=SCORE_DRAWN), classes, f"confused classes, of scores above {SCORE_DRAWN}"
        ),
        "errors.png": draw_error_counts(detection_errors(*judged, score=SCORE_DRAWN), score=SCORE_DRAWN),
    }
    for name, errors in (("worst-detections.png", wrong), ("missed-objects.png", missed)):
        (folder / name).unlink(missing_ok=True)  # of an evaluation before
        if errors:
            images = {error.image: dataset[error.image].image for error in errors}
            pictures[name] = draw_worst_errors(images, errors, classes)
    for name, picture in pictures.items():
        save_png(folder / name, picture)
    write(dataset, predictions, folder / "detections.json")
    return [folder / name for name in (*pictures, "detections.json")]


def save_curves(dataset: Dataset, predictions: list[dict], classes: tuple[str, ...], folder: Path, kind: str) -> Path:
    """Precision against recall of masks or keypoints, of each class."""
    curves = coco_curves(predictions, targets_of(dataset, kind), len(classes) - 1, kind)
    measure = "OKS" if kind == KEYPOINTS else "IoU"
    path = folder / f"{kind.removesuffix('s')}-precision-recall.png"
    save_png(path, draw_precision_recall(curves, classes, title=kind, measure=measure))
    return path


def write(dataset: Dataset, predictions: list[dict], path: Path, kind: str = BOXES) -> Path:
    """What was detected, of one kind, in COCO's format for results -> path."""
    write_results(path, predictions, ids_of(dataset), dataset.category_ids or range(1, len(dataset.classes)), kind)
    return path


# A System with all of that; a recipe adds its name, its model and its settings.
detector = partial(
    System,
    transform=augmentation,
    evaluate=evaluate,
    draw=draw,
    check=check,
    predict=predict,
    report=report,
    collate=collate_list,
    task="detection",
    metric="map",
    metrics_note=METRICS_NOTE,
    score_drawn=SCORE_DRAWN,
    doctor=("epochs=300", "learning_rate=0.002"),
    # The last tenths of a high IoU take longer than a health check, or cannot be had: windows are not moved to fit, and
    # R-CNN's ridge regression does not learn by heart.
    doctor_metric="map_50",
)
