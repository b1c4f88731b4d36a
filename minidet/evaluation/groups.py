"""The detections and the true objects of many images in one row, those of one class and image beside each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .overlaps import BOXES, KEYPOINTS, MASKS, Shapes, areas_of, packed

Images = Sequence[Mapping[str, Any]]


@dataclass
class Side:
    """n detections, or n true objects, by class, then image.

    rows (n,): the place of each among all that were given, image after image. images, labels (n,) int64, both from 0.
    shapes: boxes (n, 4), packed masks or keypoints (n, J, 2 or more). areas (n,): what makes each small or large.
    """

    rows: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    shapes: Shapes
    areas: np.ndarray


@dataclass
class Groups:
    """n groups, one for each class and image in which there is a detection or an object, by class, then image.

    detections: D of them, in each group the best score first, of equal scores the first, and no more than are allowed.
    scores (D,); ranks (D,) in the group; by_class (D,): their places class after class and there the best score first.
    truths: G of them, in each group as they were given. crowd (G,) bool; not_sought (G,) bool: crowds, and people of
    whom no joint is labelled; boxes (G, 4), where joints are compared. detection_counts, truth_counts (n,).
    """

    classes: int
    detections: Side
    scores: np.ndarray
    ranks: np.ndarray
    by_class: np.ndarray
    truths: Side
    crowd: np.ndarray
    not_sought: np.ndarray
    boxes: np.ndarray | None
    detection_counts: np.ndarray
    truth_counts: np.ndarray

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(P,), (P,): each detection with each object of its group, in the order of `match_detections`."""
        others = np.repeat(self.truth_counts, self.detection_counts)  # of each detection: the objects of its group
        first_other = np.repeat(np.cumsum(self.truth_counts) - self.truth_counts, self.detection_counts)
        first_pair = np.cumsum(others) - others
        detection = np.repeat(np.arange(len(others)), others)
        return detection, np.arange(len(detection)) + (first_other - first_pair)[detection]

    def nearest(self, overlap: np.ndarray, possible: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Of each detection (D,) the object in its group with the largest overlap (P,), the first of several, and that
        overlap; -1 and 0 where there is none. possible (P,) bool: of which pairs."""
        detection, truth = self.pairs()
        if possible is not None:
            detection, truth, overlap = detection[possible], truth[possible], overlap[possible]
        largest_first = np.lexsort((-overlap, detection))
        chosen = largest_first[np.flatnonzero(np.diff(detection[largest_first], prepend=-1))]
        nearest, most = np.full(len(self.scores), -1), np.zeros(len(self.scores))
        nearest[detection[chosen]], most[detection[chosen]] = truth[chosen], overlap[chosen]
        return nearest, most


def group(
    predictions: Images,
    targets: Images,
    classes: int,
    kind: str = BOXES,
    most: float = np.inf,
    score: float = -np.inf,
    by_label: bool = True,
) -> Groups:
    """Checks and sorts. most: so many detections of each group, the best, are kept. score: those with a lower one are
    not. by_label False: the detections and objects of an image are one group, whatever their classes. Raises ValueError
    as `coco_curves`."""
    if len(predictions) != len(targets):
        counts = f"{len(predictions)} and {len(targets)}"
        raise ValueError(f"expected predictions and targets of the same images, got {counts}")
    found, true = Columns("predictions", predictions, classes), Columns("targets", targets, classes)
    scores = found.column("scores")
    found.refuse(np.isnan(scores), "scores", "numbers", scores)
    if kind == MASKS:
        _check_masks(found.arrays("masks"), true.arrays("masks"))
    keys, true_keys = found.keys(by_label), true.keys(by_label)
    order, true_order = np.lexsort((-scores, keys)), np.argsort(true_keys, kind="stable")
    keys, true_keys = keys[order], true_keys[true_order]
    ranks = np.arange(len(keys)) - np.searchsorted(keys, keys)
    kept = (ranks < most) & (scores[order] >= score)
    order, keys, ranks = order[kept], keys[kept], ranks[kept]
    every_key = _distinct(keys, true_keys)
    crowd, not_sought, boxes, truths = _truths(true, kind, true_order)
    detections = _side(found, _shapes(found, kind), order)
    return Groups(
        classes,
        detections,
        scores[order],
        ranks,
        np.lexsort((-scores[order], detections.labels)),
        truths,
        crowd,
        not_sought,
        boxes,
        np.bincount(np.searchsorted(every_key, keys), minlength=len(every_key)),
        np.bincount(np.searchsorted(every_key, true_keys), minlength=len(every_key)),
    )


def _truths(true: "Columns", kind: str, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Side]:
    """crowd, not_sought, boxes and truths, as Groups has them."""
    shapes = _shapes(true, kind)
    crowd = true.column("iscrowd", dtype=bool, default=np.zeros(len(true.labels), bool))
    boxes, not_sought = None, crowd
    if kind == KEYPOINTS:
        boxes = true.boxes()[order]
        labelled = true.column("num_keypoints", default=(shapes[..., 2] > 0).sum(axis=1))
        not_sought = crowd | (labelled == 0)
    side = _side(true, shapes, order)
    side.areas = true.column("areas", default=areas_of(true.boxes() if kind == KEYPOINTS else shapes))[order]
    return crowd[order], not_sought[order], boxes, side


def _side(columns: "Columns", shapes: Shapes, order: np.ndarray) -> Side:
    taken = [shapes[place] for place in order] if isinstance(shapes, list) else shapes[order]
    return Side(order, columns.images[order], columns.labels[order], taken, areas_of(taken))


def _distinct(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The numbers of both, ascending, each once; faster than np.unique where both are sorted."""
    every = np.sort(np.concatenate([keys, others]), kind="stable")
    return every[np.append(True, every[1:] != every[:-1])[: len(every)]]


class Columns:
    """The arrays of all images, one after the other. images (n,): which image each row is of; labels (n,) from 0."""

    def __init__(self, name: str, images: Images, classes: int) -> None:
        self.name, self._images = name, images
        for number, image in enumerate(images):
            if "labels" not in image:
                raise ValueError(f"expected 'labels' in {name}[{number}], got {', '.join(image)}")
        self._counts = [len(image["labels"]) for image in images]
        self.images = np.repeat(np.arange(len(images)), self._counts)
        labels = self.column("labels")
        outside = (labels < 1) | (labels > classes) | (labels != np.floor(labels))
        self.refuse(outside, "labels", f"whole numbers from 1 to num_classes = {classes}", labels)
        self.labels = labels.astype(np.int64) - 1

    def arrays(self, key: str) -> Iterator[np.ndarray]:
        """One array an image, as they were given. Those of no rows may have any shape. One after the other: masks that
        are kept as run lengths have to be painted, and all together would fill the memory."""
        for number, (image, count) in enumerate(zip(self._images, self._counts, strict=True)):
            if key not in image:
                raise ValueError(f"expected {key!r} in {self.name}[{number}], got {', '.join(image)}")
            array = np.asarray(image[key])
            if array.ndim < 1 or len(array) != count:
                raise ValueError(
                    f"expected {count} {key} in {self.name}[{number}], as many as labels, got {array.shape}"
                )
            yield array

    def column(
        self, key: str, shape: tuple[int, ...] = (), dtype: type = np.float64, default: np.ndarray | None = None
    ) -> np.ndarray:
        """(n, *shape) of all images; `default` where no image has the key."""
        if default is not None and not any(key in image for image in self._images):
            return default
        arrays = list(self.arrays(key))
        for number, array in enumerate(arrays):
            if len(array) and array.shape[1:] != shape:
                expected = (len(array), *shape)
                raise ValueError(f"expected {key} {expected} in {self.name}[{number}], got {array.shape}")
        return np.concatenate([np.zeros((0, *shape), dtype), *(array for array in arrays if len(array))]).astype(dtype)

    def keys(self, by_label: bool) -> np.ndarray:
        """(n,): which group each row belongs to."""
        return self.labels * len(self._images) + self.images if by_label else self.images

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
                f"expected {key} to be {expected}, got {values[row].tolist()} in "
                f"{self.name}[{image}][{key!r}][{within}]"
            )


def _shapes(columns: Columns, kind: str) -> Shapes:
    if kind == BOXES:
        return columns.boxes()
    if kind == MASKS:
        return [mask for array in columns.arrays(kind) if len(array) for mask in packed(array)]
    arrays = list(columns.arrays(kind))
    numbers = 3 if columns.name == "targets" else 2  # nobody asks for the visibility of detected joints
    joints = next((array.shape[1] for array in arrays if array.ndim == 3), 0)
    for number, array in enumerate(arrays):
        if len(array) and (array.ndim != 3 or array.shape[1] != joints or array.shape[2] < numbers):
            raise ValueError(
                f"expected keypoints ({len(array)}, {joints}, {numbers}) in {columns.name}[{number}], got {array.shape}"
            )
    given = [array[..., :numbers] for array in arrays if len(array)]
    keypoints = np.concatenate([np.zeros((0, joints, numbers)), *given])
    columns.refuse(~np.isfinite(keypoints).all(axis=(1, 2)), "keypoints", "finite", keypoints)
    return keypoints


def _check_masks(predicted: Iterator[np.ndarray], true: Iterator[np.ndarray]) -> None:
    """Of bool, and of one size in each image."""
    for number, (masks, others) in enumerate(zip(predicted, true, strict=True)):
        for array in (masks, others):
            if len(array) and (array.ndim != 3 or array.dtype != np.bool_):
                raise ValueError(
                    f"expected masks (n, H, W) of bool in image {number}, got {array.shape} "
                    f"{array.dtype}; compare probabilities with a threshold first"
                )
        if len(masks) and len(others) and masks.shape[1:] != others.shape[1:]:
            raise ValueError(
                f"expected masks as large as their image, got {masks.shape[1:]} in "
                f"predictions[{number}] and {others.shape[1:]} in targets[{number}]"
            )
