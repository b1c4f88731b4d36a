"""What every reader returns for one image, and the checks that all readers share."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np

from minidet.data.files import AnnotationError

# A box may stick out of the image by this much, in pixels: rounding, and VOC's habit of counting from 1. It is
# clipped. Anything more is an error in the annotation.
OVERHANG = 1.0

LARGEST_NUMBER = 1e9  # no coordinate, area or size of a picture is larger; NaN and infinity are not smaller either

# Shorter sides, in pixels, may be none at all in the single precision that networks compute with.
LEAST_SIDE = 0.01

BACKGROUND = "__background__"  # the name of label 0

# What a reader does with each error it meets: raise it, or collect it and leave out the annotation.
OnProblem = Callable[[ValueError], None]


class BoxError(AnnotationError):
    """A box that cannot be. box: x1 y1 x2 y2 as it was read, in pixels. size: the image's (height, width), or None."""

    def __init__(self, message: str, box: tuple[float, float, float, float], size: tuple[int, int] | None) -> None:
        super().__init__(message)
        self.box, self.size = box, size

    @property
    def flat(self) -> bool:
        """It has no area, and is not inside out."""
        x1, y1, x2, y2 = self.box
        return min(x2 - x1, y2 - y1) == 0


class LabelError(AnnotationError):
    """A label that is no class's. label: the number, or the name, as the file has it."""

    def __init__(self, message: str, label: int | str) -> None:
        super().__init__(message)
        self.label = label


def raise_problem(error: ValueError) -> None:
    raise error


@dataclass
class Record:
    """The annotation of one image; the image itself is not read yet.

    size: (height, width), or None where the file does not say. image_id: COCO's id of the image, or None.
    boxes: (R, 4) float64 x1 y1 x2 y2, continuous pixels. labels: (R,) int64 from 1. iscrowd, difficult: (R,) bool.
    keypoints: (R, J, 3) float64 x, y, v or None. head_boxes: (R, 4) float64 as boxes, NaN where a person has none, or
    None where the file knows no heads. proposals: (P, 4) as boxes, of any type, where something might be, or None; no
    file has them, a System's `prepare` puts them here.
    segmentations: for each object (H, W) bool, a list of (n, 2) polygons, a list of run lengths, the Path of a
    picture that is bright there, or None.
    """

    path: Path
    name: str
    size: tuple[int, int] | None = None
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    iscrowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    difficult: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(0))
    keypoints: np.ndarray | None = None
    head_boxes: np.ndarray | None = None
    proposals: np.ndarray | None = None
    segmentations: list | None = None
    image_id: int | str | None = None

    def select(self, kept: np.ndarray) -> "Record":
        """A record of some of the objects. kept: (R,) bool."""
        part = copy.copy(self)
        for name in ("boxes", "labels", "iscrowd", "difficult", "areas", "keypoints", "head_boxes"):
            array = getattr(self, name)
            setattr(part, name, None if array is None else array[kept])
        if self.segmentations is not None:
            part.segmentations = list(compress(self.segmentations, kept))
        return part


@dataclass
class Annotations:
    """A whole annotation file: one record an image, and what the labels mean.

    classes: names by label, classes[0] = "__background__". category_ids: COCO's id of each label from 1 on, or None.
    joint_names: of the keypoints, or None.
    """

    records: list[Record]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...] | None = None
    joint_names: tuple[str, ...] | None = None


def fill(record: Record, objects: list[dict]) -> Record:
    """Put one dictionary an object (box, label, and where known iscrowd, difficult, area) into a record's arrays."""
    record.boxes = np.array([o["box"] for o in objects], np.float64).reshape(-1, 4)
    record.labels = np.array([o["label"] for o in objects], np.int64)
    record.iscrowd = np.array([o.get("iscrowd", False) for o in objects], bool)
    record.difficult = np.array([o.get("difficult", False) for o in objects], bool)
    sides = record.boxes[:, 2:] - record.boxes[:, :2]
    record.areas = np.array([o.get("area", side.prod()) for o, side in zip(objects, sides, strict=True)], np.float64)
    return record


def finite_number(value, where: str) -> float:
    """A number from an annotation file as float; NaN, infinity, text and booleans are refused."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER:
        return float(value)
    raise AnnotationError(f"{where}: expected a finite number, got {value!r:.40}; fix or remove it")


def checked_name(name: str, where: str) -> str:
    """The name of a class: not empty, and not the background's, which has label 0."""
    if not name.strip() or name == BACKGROUND:
        message = f"{where}: expected the name of a class, got {name!r}; give it another or remove it"
        raise LabelError(message, name)
    return name


def checked_box(box: tuple[float, float, float, float], size: tuple[int, int] | None, where: str) -> np.ndarray:
    """(4,) float64: x1 y1 x2 y2 clipped to the image, after making sure that nothing but rounding is clipped.

    Refuses, with a BoxError, boxes that are inside out, have no area (a side below LEAST_SIDE) or leave the image
    (height, width) by more than OVERHANG.
    """
    x1, y1, x2, y2 = box
    for side, extent in (("width", x2 - x1), ("height", y2 - y1)):
        if not extent >= LEAST_SIDE:
            expected = f"at least {LEAST_SIDE} pixels" if extent > 0 else "> 0"
            raise BoxError(f"{where}: expected {side} {expected}, got {extent:g}; fix or remove it", box, size)
    if size is None:
        return np.array(box)
    height, width = size
    if x1 < -OVERHANG or y1 < -OVERHANG or x2 > width + OVERHANG or y2 > height + OVERHANG:
        raise BoxError(
            f"{where}: expected a box inside the {width} x {height} image, got x {x1:g} to {x2:g}, "
            f"y {y1:g} to {y2:g}; fix or remove it",
            box,
            size,
        )
    clipped = np.clip(box, 0, [width, height, width, height])
    if not (clipped[2:] - clipped[:2] >= LEAST_SIDE).all():
        raise BoxError(f"{where}: expected a box inside the {width} x {height} image, got one beside it", box, size)
    return clipped


def checked_proposals(proposals: np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
    """(P, 4) float64, a copy: x1 y1 x2 y2 clipped to the image (height, width), after the checks of checked_box."""
    boxes = np.array(proposals, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise AnnotationError(f"{where}: expected proposals (P, 4), got {boxes.shape}; make them anew")
    height, width = size
    limits = np.array([width, height, width, height])
    inside = (boxes >= -OVERHANG).all(axis=1) & (boxes <= limits + OVERHANG).all(axis=1)  # NaN is not
    boxes = np.clip(boxes, 0, limits)
    (bad,) = np.nonzero(~inside | ~(boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(axis=1))
    if len(bad):
        raise AnnotationError(
            f"{where}: expected proposals x1 < x2, y1 < y2 inside the {width} x {height} image, got "
            f"{np.asarray(proposals)[bad[0]].tolist()} as number {bad[0]}; make them anew"
        )
    return boxes


def set_size(record: Record, size: tuple[int, int]) -> None:
    """Tell a record the (height, width) of its image, which its file does not say: only now its boxes can be checked
    and clipped, as in checked_box."""
    boxes = [checked_box(tuple(box), size, f"{record.path}: box {index}") for index, box in enumerate(record.boxes)]
    record.boxes = np.array(boxes, np.float64).reshape(-1, 4)
    record.areas = (record.boxes[:, 2:] - record.boxes[:, :2]).prod(axis=1)  # no file without sizes gives areas
    record.size = size


def checked_path(folder: Path, name, where: str) -> Path:
    """The image file `name` in or below `folder`; refuses names that lead elsewhere and files that are missing."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise AnnotationError(f"{where}: expected the name of an image file, got {name!r}")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise AnnotationError(f"{where}: expected a file below {folder}, got {name!r}; write a relative name")
    path = folder / name
    try:
        found = path.is_file()
    except (OSError, ValueError) as error:  # too long for the file system, or half of a surrogate pair
        raise AnnotationError(f"{where}: expected the name of an image file, got {name[:40]!r} ({error})") from error
    if not found:
        raise AnnotationError(f"{where}: expected the image {path}, but there is no such file; restore or remove it")
    return path


def refuse_again(key, seen: dict, where: str, expected: str = "every image once") -> None:
    """Refuses the second image with the same key. seen: where each key was met first; it is added to."""
    if key in seen:
        raise AnnotationError(f"{where}: expected {expected}, got {key} again, as in {seen[key]}; remove one")
    seen[key] = where


def checked_size(height: float, width: float, where: str) -> tuple[int, int]:
    """(height, width) of an image as an annotation gives it."""
    if not all(1 <= value <= LARGEST_NUMBER and value == int(value) for value in (height, width)):
        told = f"{str(height)[:20]} and {str(width)[:20]}"
        raise AnnotationError(f"{where}: expected height and width > 0, whole and at most 1e9, got {told}")
    return int(height), int(width)


def refuse_equal_stems(records: Sequence[Record], writer: str) -> None:
    """For formats that name an annotation file after its image, without folder and ending."""
    stems: dict[str, str] = {}
    for record in records:
        other = stems.setdefault(Path(record.name).stem, record.name)
        if other != record.name:
            raise ValueError(
                f"{writer}: expected images whose names differ, got {other} and {record.name}, which would share one "
                "annotation file; rename one, or write COCO"
            )
