"""The detections and the true objects of many images in one row, those of one class and image beside each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .coco_overlaps import BOXES, KEYPOINTS, MASKS, Shapes, areas_of, packed

Images = Sequence[Mapping[str, Any]]


@dataclass
class Groups:
    """n groups, one for each class and image in which there is a detection or an object, by class, then image.

    Of the D detections, in each group the best score first and no more than are allowed: labels (D,) from 0, scores
    (D,), areas (D,), ranks (D,) in the group, shapes: boxes (D, 4), packed masks or keypoints (D, J, 2 or more);
    by_class (D,): their places class after class and there the best score first, of equal scores the first.
    Of the G objects, in each group as they were given: truth_..., crowd (G,) bool, not_sought (G,) bool: crowds, and
    people of whom no joint is labelled. detection_counts, truth_counts (n,) of the groups.
    """

    classes: int
    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    ranks: np.ndarray
    shapes: Shapes
    by_class: np.ndarray
    truth_labels: np.ndarray
    truth_areas: np.ndarray
    truth_shapes: Shapes
    truth_boxes: np.ndarray | None  # (G, 4), where joints are compared
    crowd: np.ndarray
    not_sought: np.ndarray
    detection_counts: np.ndarray
    truth_counts: np.ndarray

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(P,), (P,): each detection with each object of its group, in the order of `match_detections`."""
        others = np.repeat(self.truth_counts, self.detection_counts)  # of each detection: the objects of its group
        first_other = np.repeat(np.cumsum(self.truth_counts) - self.truth_counts, self.detection_counts)
        first_pair = np.cumsum(others) - others
        detection = np.repeat(np.arange(len(others)), others)
        return detection, np.arange(len(detection)) + (first_other - first_pair)[detection]


def group(predictions: Images, targets: Images, classes: int, kind: str, most: int) -> Groups:
    """Checks and sorts. most: so many detections of each group, the best, are kept. Raises ValueError as
    `coco_curves`."""
    if len(predictions) != len(targets):
        counts = f"{len(predictions)} and {len(targets)}"
        raise ValueError(f"evaluate_coco: expected predictions and targets of the same images, got {counts}")
    found, true = _Columns("predictions", predictions, classes), _Columns("targets", targets, classes)
    scores = found.column("scores")
    found.refuse(np.isnan(scores), "scores", "numbers", scores)
    order, true_order = np.lexsort((-scores, found.images, found.labels)), np.lexsort((true.images, true.labels))
    keys = (found.labels * len(targets) + found.images)[order]
    ranks = np.arange(len(keys)) - np.searchsorted(keys, keys)
    kept = ranks < most
    order, keys, ranks = order[kept], keys[kept], ranks[kept]
    true_keys = (true.labels * len(targets) + true.images)[true_order]
    every_key = np.union1d(keys, true_keys)

    if kind == MASKS:
        _check_masks(found["masks"], true["masks"])
    shapes, true_shapes = _shapes(found, kind), _shapes(true, kind)
    crowd = true.column("iscrowd", dtype=bool, default=np.zeros(len(true.labels), bool))
    not_sought = crowd
    if kind == KEYPOINTS:
        labelled = true.column("num_keypoints", default=(true_shapes[..., 2] > 0).sum(axis=1))
        not_sought = crowd | (labelled == 0)
    boxes = true.boxes() if kind == KEYPOINTS else None
    true_areas = true.column("areas", default=areas_of(true_shapes if boxes is None else boxes))
    labels = found.labels[order]
    return Groups(
        classes=classes,
        labels=labels,
        scores=scores[order],
        areas=areas_of(shapes)[order],
        ranks=ranks,
        shapes=_taken(shapes, order),
        by_class=np.lexsort((-scores[order], labels)),
        truth_labels=true.labels[true_order],
        truth_areas=true_areas[true_order],
        truth_shapes=_taken(true_shapes, true_order),
        truth_boxes=None if boxes is None else boxes[true_order],
        crowd=crowd[true_order],
        not_sought=not_sought[true_order],
        detection_counts=np.bincount(np.searchsorted(every_key, keys), minlength=len(every_key)),
        truth_counts=np.bincount(np.searchsorted(every_key, true_keys), minlength=len(every_key)),
    )


class _Columns:
    """The arrays of all images, one after the other. images (n,): which image each row is of; labels (n,) from 0."""

    def __init__(self, name: str, images: Images, classes: int) -> None:
        self.name, self._images = name, images
        for number, image in enumerate(images):
            if "labels" not in image:
                raise ValueError(f"evaluate_coco: expected 'labels' in {name}[{number}], got {', '.join(image)}")
        self._counts = [len(image["labels"]) for image in images]
        self.images = np.repeat(np.arange(len(images)), self._counts)
        labels = self.column("labels")
        outside = (labels < 1) | (labels > classes) | (labels != np.floor(labels))
        self.refuse(outside, "labels", f"whole numbers from 1 to num_classes = {classes}", labels)
        self.labels = labels.astype(np.int64) - 1

    def __getitem__(self, key: str) -> list[np.ndarray]:
        """One array an image, as they were given. Those of no rows may have any shape."""
        arrays = []
        for number, (image, count) in enumerate(zip(self._images, self._counts, strict=True)):
            if key not in image:
                raise ValueError(f"evaluate_coco: expected {key!r} in {self.name}[{number}], got {', '.join(image)}")
            array = np.asarray(image[key])
            if array.ndim < 1 or len(array) != count:
                raise ValueError(
                    f"evaluate_coco: expected {count} {key} in {self.name}[{number}], as many as labels, got "
                    f"{array.shape}"
                )
            arrays.append(array)
        return arrays

    def column(
        self, key: str, shape: tuple[int, ...] = (), dtype: type = np.float64, default: np.ndarray | None = None
    ) -> np.ndarray:
        """(n, *shape) of all images; `default` where no image has the key."""
        if default is not None and not any(key in image for image in self._images):
            return default
        arrays = self[key]
        for number, array in enumerate(arrays):
            if len(array) and array.shape[1:] != shape:
                expected = (len(array), *shape)
                raise ValueError(
                    f"evaluate_coco: expected {key} {expected} in {self.name}[{number}], got {array.shape}"
                )
        return np.concatenate([np.zeros((0, *shape), dtype), *(array for array in arrays if len(array))]).astype(dtype)

    def boxes(self) -> np.ndarray:
        boxes = self.column("boxes", (4,))
        good = np.isfinite(boxes).all(axis=1) & (boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
        self.refuse(~good, "boxes", "finite x1 y1 x2 y2 with x1 <= x2 and y1 <= y2", boxes)
        return boxes

    def refuse(self, bad: np.ndarray, key: str, expected: str, values: np.ndarray) -> None:
        """Raises ValueError if any row is bad, and says where the first one is."""
        if bad.any():
            row = int(bad.argmax())
            image = int(self.images[row])
            within = row - int(np.searchsorted(self.images, image))
            raise ValueError(
                f"evaluate_coco: expected {key} to be {expected}, got {values[row].tolist()} in "
                f"{self.name}[{image}][{key!r}][{within}]"
            )


def _shapes(columns: _Columns, kind: str) -> Shapes:
    if kind == BOXES:
        return columns.boxes()
    arrays = columns[kind]
    if kind == MASKS:
        return [mask for array in arrays if len(array) for mask in packed(array)]
    numbers = 3 if columns.name == "targets" else 2  # nobody asks for the visibility of detected joints
    joints = next((array.shape[1] for array in arrays if array.ndim == 3), 0)
    for number, array in enumerate(arrays):
        if len(array) and (array.ndim != 3 or array.shape[1] != joints or array.shape[2] < numbers):
            raise ValueError(
                f"evaluate_coco: expected keypoints ({len(array)}, {joints}, {numbers}) in {columns.name}[{number}], "
                f"got {array.shape}"
            )
    given = [array[..., :numbers] for array in arrays if len(array)]
    keypoints = np.concatenate([np.zeros((0, joints, numbers)), *given])
    columns.refuse(~np.isfinite(keypoints).all(axis=(1, 2)), "keypoints", "finite", keypoints)
    return keypoints


def _check_masks(predicted: list[np.ndarray], true: list[np.ndarray]) -> None:
    """Of bool, and of one size in each image."""
    for number, (masks, others) in enumerate(zip(predicted, true, strict=True)):
        for array in (masks, others):
            if len(array) and (array.ndim != 3 or array.dtype != np.bool_):
                raise ValueError(
                    f"evaluate_coco: expected masks (n, H, W) of bool in image {number}, got {array.shape} "
                    f"{array.dtype}; compare probabilities with a threshold first"
                )
        if len(masks) and len(others) and masks.shape[1:] != others.shape[1:]:
            raise ValueError(
                f"evaluate_coco: expected masks as large as their image, got {masks.shape[1:]} in "
                f"predictions[{number}] and {others.shape[1:]} in targets[{number}]"
            )


def _taken(shapes: Shapes, order: np.ndarray) -> Shapes:
    return [shapes[place] for place in order] if isinstance(shapes, list) else shapes[order]
