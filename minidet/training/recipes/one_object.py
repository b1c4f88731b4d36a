"""What the systems share whose images show one object each and are looked at in one size."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minidet import Tensor
from minidet.data import transforms
from minidet.data.dataset import Dataset, Sample
from minidet.data.loader import collate


def augmentation(config: dict[str, Any]) -> transforms.Compose:
    """Mirrored and moved, never so far that a part of the object leaves the picture.

    Zoom and colour are left out: eight thousand images vary enough, and nine epochs learn less from harder ones.
    """
    resize = transforms.Resize(config["size"], config["size"])
    if not config["augment"]:
        return transforms.Compose([resize])
    return transforms.Compose([resize, transforms.RandomFlip(), transforms.RandomTranslate(0.15, keep_boxes=True)])


def check_one_object(dataset: Dataset, reason: str) -> None:
    """Raises ValueError, with the file's name and the reason, for an image that does not show one object."""
    for record in dataset.records:
        if len(record.labels) != 1:
            raise ValueError(
                f"{record.path}: expected one object an image, got {len(record.labels)}; {reason}; "
                "`minidet data make --task localization` makes such images"
            )


def check_classes(dataset: Dataset) -> None:
    """Raises ValueError for data of one class: a classifier would be right about every image without looking."""
    if len(dataset.classes) == 2:  # the background is one
        raise ValueError(f"expected two classes or more, got {dataset.classes[1]}; one class: nothing to tell apart")


def as_images(samples: Sequence[Sample], size: int) -> np.ndarray:
    """Samples of any size -> (N, 3, size, size) float32 in [0, 1]."""
    resized = [transforms.resize(replace(sample, masks=None), size, size) for sample in samples]
    return collate(resized, np.arange(len(resized))).images


def batches(model: Any, samples: Sequence[Sample], batch_size: int) -> Iterator[tuple[list[Sample], Tensor]]:
    """Samples, and their images as the model takes them: of its image_size, on its device."""
    for start in range(0, len(samples), batch_size):
        batch = [samples[i] for i in range(start, min(start + batch_size, len(samples)))]
        yield batch, Tensor(as_images(batch, model.image_size)).to(model.device)


def in_pixels_of(sample: Sample, boxes: np.ndarray, size: int) -> np.ndarray:
    """Boxes (R, 4) in the sample resized to size x size -> in its own pixels."""
    height, width = sample.image.shape[:2]
    return boxes * np.float32([width, height, width, height]) / size
