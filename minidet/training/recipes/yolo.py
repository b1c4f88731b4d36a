"""How YOLO with anchors is trained, on a small backbone that knows the classes already."""

from typing import Any

import numpy as np

from minidet.backbones import TinyBackbone
from minidet.boxes import kmeans_anchors
from minidet.device import on_device_of
from minidet.models.image_batch import resized
from minidet.models.yolo import YOLO
from minidet.random import generator
from minidet.training.recipes import detection

MOST_SIZES = 50_000  # boxes that anchors are made of, drawn by chance from more: COCO's 860,000 would take minutes

DEFAULTS = detection.DEFAULTS | {
    "epochs": 6,
    "stride": 4,  # pixels a cell; with 8 there are a quarter as many, small objects are one cell and share it
    "anchors": 5,  # of a cell; more fit better and cost in proportion
    "channels": 128,  # of the head's 3 x 3 convolutions
    "multi_scale": False,  # on: every batch gets a size of its own, from three quarters to five quarters of `size`
}


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> YOLO:
    """A YOLO on the backbone that comes with minidet, with the backbone's weights. The anchors wait for `start`."""
    if config["anchors"] < 1:
        raise ValueError(f"anchors: expected 1 or more, got {config['anchors']}")
    backbone = TinyBackbone.pretrained(config["stride"])
    size, step = config["size"], backbone.stride
    if config["multi_scale"] and size < 4 * step:  # a quarter of it is less than a cell
        raise ValueError(f"size: expected {4 * step} or more, of which there are larger and smaller ones, got {size}")
    sizes = range(step * round(0.75 * size / step), size + size // 4 + 1, step) if config["multi_scale"] else ()
    waiting = np.full((config["anchors"], 2), size / 4, np.float32)
    return YOLO(backbone, len(classes), waiting, config["channels"], sizes, **detection.sizes(config))


def start(model: YOLO, config: dict[str, Any], dataset: Any) -> None:
    """Anchors: clusters of the sizes that the training's boxes have in resized images."""
    sizes = [np.zeros((0, 2), np.float32)]
    for record in getattr(dataset, "records", dataset):
        ratio = 1.0  # unverified data may not know their images' sizes
        if record.size is not None:
            ratio = np.divide(resized(record.size, model.min_size, model.max_size), record.size)[::-1]
        boxes = record.boxes[~record.iscrowd]
        sizes.append(((boxes[:, 2:] - boxes[:, :2]) * ratio).astype(np.float32))
    sizes = np.concatenate(sizes)
    if len(sizes) > MOST_SIZES:
        sizes = generator().choice(sizes, MOST_SIZES, replace=False)
    count = min(len(model.anchors), len(np.unique(sizes, axis=0)))
    if count:  # too few different sizes: some anchors come twice, and the second is never chosen
        found = kmeans_anchors(sizes, count, generator())
        model.anchors[...] = on_device_of(np.resize(found, model.anchors.shape), model.anchors)


SYSTEM = detection.detector(
    name="yolo",
    build=build,
    start=start,
    defaults=DEFAULTS,
)
