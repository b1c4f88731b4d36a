"""What is probably wrong with a whole data set, told from all its annotations together.

The readers refuse each annotation that cannot be, one by one. Where many are refused there is mostly one cause: corners
where width and height are expected, ids that count from another number, boxes of other pictures. A cause shows in that
without it everything would fit, so every other reading is tried.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minidet.data.dataset import Dataset, open_dataset
from minidet.data.files import AnnotationError
from minidet.data.formats.record import BACKGROUND, LARGEST_NUMBER, OVERHANG, BoxError, LabelError
from minidet.data.images import ImageError, image_size

# Below these a few single mistakes are likelier than one cause for all; they are named one by one.
LEAST_REFUSED, LEAST_SHARE = 2, 0.02
FITS = 0.98  # of all boxes fit where they are read as they were written
MOSTLY = 0.5  # of all boxes leave their images, or of the objects in two files disagree: no accident any more
LEAST_SIDE_READ = 1.0  # pixels; fractions that are read as pixels make smaller boxes than anybody draws

UNKNOWN = (LARGEST_NUMBER, LARGEST_NUMBER)  # height and width of an image that cannot be read

LAYOUTS = {"xywh": "x, y, width, height", "xyxy": "x1, y1, x2, y2", "cxcywh": "centre x, centre y, width, height"}
UNITS = ("pixels", "fractions of the image")


@dataclass(frozen=True)
class Convention:
    """How a format writes boxes: the layout, the unit, and how to put right what is not written so."""

    layout: str
    unit: str
    remedy: str


_PIXELS, _FRACTIONS = UNITS
_COCO = Convention("xywh", _PIXELS, "write every bbox as x1, y1, x2 - x1, y2 - y1 in pixels")
CONVENTIONS = {
    "coco": _COCO,
    "coco-keypoints": _COCO,
    "cub": _COCO,
    "voc": Convention(
        "xyxy", _PIXELS,
        "write every bndbox with xmin = x + 1, ymin = y + 1, xmax = x + width, ymax = y + height in pixels",
    ),
    "yolo": Convention("cxcywh", _FRACTIONS, "write every line as class, centre x / W, centre y / H, width / W, "
                       "height / H in an image of W x H pixels"),
}  # fmt: skip


def diagnose(folder: Path, split: str, dataset: Dataset, errors: Sequence[ValueError]) -> list[str]:
    """Causes that explain many errors at once, in words: what was expected, what was found, what to do.

    dataset: what could be read of the folder's split, from open_dataset. errors: what its on_problem was called with.
    An empty list says that nothing is wrong with the annotations as a whole. Files that fit are compared with those of
    other formats, where the folder has some about the same split.
    """
    if dataset.format not in CONVENTIONS:
        return []
    causes = [*_misread_boxes(dataset, errors), *_shifted_labels(dataset, errors)]
    return causes or _compare_formats(folder, split, dataset)


# ---- boxes -----------------------------------------------------------------------------------------------------------


@dataclass
class _Boxes:
    """All boxes of a data set as they were read, refused ones first: (R, 4) x1 y1 x2 y2 in pixels; sizes (R, 2) width
    and height of their images; where each one is."""

    boxes: np.ndarray
    sizes: np.ndarray
    where: list[str] = field(default_factory=list)


def _misread_boxes(dataset: Dataset, errors: Sequence[ValueError]) -> Iterator[str]:
    """At most one cause for boxes that are inside out or leave their images."""
    found = _gather(dataset, errors)
    convention, count = CONVENTIONS[dataset.format], len(found.boxes)
    bad = ~_fit(found.boxes, found.sizes)
    if not bad.any() or (bad.sum() < max(LEAST_REFUSED, LEAST_SHARE * count) and not bad.all()):
        return
    numbers = _written(found, convention)
    fitting = {
        (layout, unit): _fit(_read(numbers, layout, unit, found.sizes), found.sizes).sum()
        for layout in LAYOUTS
        for unit in UNITS
        if (layout, unit) != (convention.layout, convention.unit)
    }
    layout, unit = max(fitting, key=fitting.get)
    first, expected = found.where[bad.argmax()], f"{LAYOUTS[convention.layout]} in {convention.unit}"
    if fitting[layout, unit] >= FITS * count:
        yield (
            f"boxes: expected {expected}, but read so {bad.sum()} of {count} cannot be, first {first}; read as "
            f"{LAYOUTS[layout]} in {unit} {fitting[layout, unit]} fit, so they are probably written like that; "
            f"{convention.remedy}"
        )
        return
    leaving = _leave(found.boxes, found.sizes)
    if leaving.mean() >= MOSTLY:
        low, high = found.boxes.min(axis=0), found.boxes.max(axis=0)
        width, height = found.sizes.max(axis=0)
        yield (
            f"boxes: expected {expected}, inside their images, but {leaving.sum()} of {count} are outside or stick "
            f"out, first {first}; they reach from x {low[0]:g} to {high[2]:g} and from y {low[1]:g} to {high[3]:g} in "
            f"images of up to {width:g} x {height:g} pixels; they are probably those of other images, or of larger "
            "copies of these, or moved; annotate these very files, or scale and move the boxes with them"
        )


def _gather(dataset: Dataset, errors: Sequence[ValueError]) -> _Boxes:
    """Boxes whose image's size nobody knows are taken for good as long as they are not inside out."""
    parts = [(np.zeros((0, 4)), (1, 1), "")]
    for error in errors:
        if isinstance(error, BoxError):
            parts.append((np.array([error.box]), error.size, str(error).partition(": expected")[0]))
    for record in dataset.records:
        parts.append((record.boxes, record.size or _size_of(record.path), record.name))
    boxes = np.concatenate([boxes for boxes, _, _ in parts])
    sizes = [np.tile(np.array(size or UNKNOWN, float)[::-1], (len(boxes), 1)) for boxes, size, _ in parts]
    where = [name for boxes, _, name in parts for _ in boxes]
    return _Boxes(boxes, np.concatenate(sizes), where)


def _size_of(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except ImageError:  # a problem of its own, told elsewhere
        return None


def _written(found: _Boxes, convention: Convention) -> np.ndarray:
    """(R, 4): the numbers of the file, from boxes that were read by the convention."""
    from minidet.boxes import box_convert

    scale = 1 if convention.unit == _PIXELS else np.tile(found.sizes, 2)
    return box_convert(found.boxes / scale, "xyxy", convention.layout)


def _read(numbers: np.ndarray, layout: str, unit: str, sizes: np.ndarray) -> np.ndarray:
    """(R, 4): x1 y1 x2 y2 in pixels, if the numbers were written in this layout and unit."""
    from minidet.boxes import box_convert

    return box_convert(numbers, layout, "xyxy") * (1 if unit == _PIXELS else np.tile(sizes, 2))


def _fit(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(R,) bool: boxes that can be drawn in their images."""
    return (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE_READ).all(axis=1) & ~_leave(boxes, sizes)


def _leave(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(R,) bool: boxes that reach beyond their images, by more than rounding."""
    return ~((boxes[:, :2] >= -OVERHANG) & (boxes[:, 2:] <= sizes + OVERHANG)).all(axis=1)


# ---- labels ----------------------------------------------------------------------------------------------------------


def _shifted_labels(dataset: Dataset, errors: Sequence[ValueError]) -> Iterator[str]:
    """At most one cause for labels that no class has."""
    refused = [error for error in errors if isinstance(error, LabelError)]
    if not refused:
        return
    total = len(refused) + sum(len(record.labels) for record in dataset.records)
    first = str(refused[0]).partition(": expected")[0]
    if dataset.format == "voc":
        named = sum(error.label == BACKGROUND for error in refused)
        if named:
            yield (
                f"labels: expected names of classes, but {named} of {total} objects are called {BACKGROUND}, first "
                f"{first}: the labels are probably shifted by one against the names, so that every object has the name "
                f"of the class before its own, and none that of the last, {dataset.classes[-1]}; write the names anew"
            )
        return
    known = range(len(dataset.classes) - 1) if dataset.category_ids is None else dataset.category_ids
    numbers = {known[label - 1] for record in dataset.records for label in record.labels.tolist()}
    numbers |= {error.label for error in refused if isinstance(error.label, int)}
    for shift, remedy in ((1, "add 1 to every number"), (-1, "subtract 1 from every number")):
        if numbers and all(number + shift in known for number in numbers):
            wrong = ", ".join(str(number) for number in sorted(numbers - set(known)))
            unused = ", ".join(str(number) for number in known if number not in numbers)
            yield (
                f"labels: expected the numbers {known[0]} to {known[-1]} of the classes, but {len(refused)} of {total} "
                f"objects have {wrong}, first {first}, and none has {unused}: the labels are probably shifted by one "
                f"against the names; {remedy}"
                + (
                    f"; or, if another split does have {known[0]}, the last name is missing in classes.txt"
                    if shift == -1 and dataset.category_ids is None
                    else ""
                )
            )
            return


# ---- two files about one split ---------------------------------------------------------------------------------------


def _compare_formats(folder: Path, split: str, dataset: Dataset) -> list[str]:
    """Other formats of the same split that say something else of most objects."""
    causes = []
    for format in ("coco", "voc", "yolo"):
        if format == dataset.format:
            continue
        try:
            other = open_dataset(folder, split, format, masks=False, on_problem=lambda error: None)
        except (AnnotationError, OSError):
            continue  # none there, or none that can be read
        if set(other.classes) == set(dataset.classes):
            causes += _compare(dataset, other)
    return causes


def _compare(dataset: Dataset, other: Dataset) -> Iterator[str]:
    """Objects of the same image whose boxes are equal, up to rounding, have to have the same name."""
    others = {record.path: record for record in other.records}
    renamed: Counter = Counter()
    objects = matched = 0
    for record in dataset.records:
        if record.path not in others or not len(others[record.path].boxes):
            continue
        theirs = others[record.path]
        distances = np.abs(record.boxes[:, None] - theirs.boxes).max(axis=2)  # (R, S)
        for label, row in zip(record.labels, distances, strict=True):
            objects += 1
            if row.min() <= OVERHANG:
                matched += 1
                renamed[dataset.classes[label], other.classes[theirs.labels[row.argmin()]]] += 1
    different = {names: count for names, count in renamed.items() if names[0] != names[1]}
    if objects and matched < MOSTLY * objects:
        yield (
            f"boxes: expected the same in {dataset.format} and {other.format}, which both annotate these images, but "
            f"{objects - matched} of {objects} objects of {dataset.format} have no box like theirs in {other.format}; "
            "compare the two, and remove the wrong one"
        )
    elif objects and sum(different.values()) >= MOSTLY * matched:
        told = ", ".join(f"{ours} is {theirs} there ({count})" for (ours, theirs), count in
                         sorted(different.items(), key=lambda item: -item[1])[:3])  # fmt: skip
        yield (
            f"labels: expected the same names in {dataset.format} and {other.format}, which both annotate these "
            f"images, but {sum(different.values())} of {matched} objects with the same box have another: {told}; the "
            "labels of one are probably shifted by one against the names; compare the two, and remove the wrong one"
        )
