"""YOLO's text files, one an image: a line "class cx cy w h" an object, the class from 0 on, the rest as fractions of
the image's width and height. classes.txt holds one name a line. An image without a text file has no objects."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minidet.data.files import AnnotationError, read_lines
from minidet.data.formats.record import (
    BACKGROUND,
    Annotations,
    BoxError,
    LabelError,
    OnProblem,
    Record,
    checked_box,
    checked_name,
    fill,
    raise_problem,
    refuse_again,
    refuse_equal_stems,
)
from minidet.data.images import ImageError, image_size

MAX_BYTES = 4 << 20  # of one image's file


def read_classes(path: Path | str) -> tuple[str, ...]:
    """Class names, one a line, without the background."""
    names = [line.strip() for line in read_lines(path, MAX_BYTES)]
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names, start=1):  # an empty line would shift the numbers of the classes behind it
        checked_name(name, f"{path}: line {number}")
    if not names or len(set(names)) != len(names):
        raise AnnotationError(f"{path}: expected one different class name a line, got {names[:20]}")
    return tuple(names)


def read_yolo(
    images: Sequence[Path],
    label_folder: Path | str,
    classes: Sequence[str],
    on_problem: OnProblem = raise_problem,
    max_bytes: int = MAX_BYTES,
) -> Annotations:
    """Read and check label_folder/NAME.txt of every image NAME. Sizes come from the images' headers.

    classes: names without the background. on_problem: as in read_coco.
    """
    records = []
    seen: dict[str, str] = {}
    for image in map(Path, images):
        path = Path(label_folder) / f"{image.stem}.txt"
        try:
            refuse_again(path.name, seen, image.name, "a label file for every image")
            record = Record(image, image.name, image_size(image))
            lines = read_lines(path, max_bytes) if path.exists() else []
        except (AnnotationError, ImageError, OSError) as error:  # OSError: a folder that must not be looked into
            on_problem(AnnotationError(f"{path.name}: {error}"))
            continue
        objects = []
        for number, line in enumerate(lines, start=1):
            try:
                if line.strip():
                    objects.append(_read_line(line, record.size, len(classes), f"{path.name}: line {number}"))
            except AnnotationError as error:
                on_problem(error)
        records.append(fill(record, objects))
    return Annotations(records, (BACKGROUND, *classes))


def _read_line(line: str, size: tuple[int, int], classes: int, where: str) -> dict:
    words = line.split()
    if len(words) != 5:
        raise AnnotationError(f"{where}: expected 5 numbers (class cx cy w h), got {len(words)}: {line[:60]!r}")
    message = f"{where}.class: expected a whole number from 0 to {classes - 1}, got {words[0][:40]!r}"
    if not re.fullmatch("-?[0-9]{1,9}", words[0]):
        raise AnnotationError(message)
    if not 0 <= int(words[0]) < classes:
        raise LabelError(message, int(words[0]))
    try:
        cx, cy, w, h = (float(word) for word in words[1:])
    except ValueError as error:
        raise AnnotationError(f"{where}: expected numbers, got {line[:60]!r}") from error
    height, width = size
    box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
    if not all(math.isfinite(value) and -0.5 <= value <= 1.5 for value in (cx, cy, w, h)):
        message = f"{where}: expected fractions of the image between 0 and 1, got {line[:60]!r}"
        raise BoxError(message, box, size) if all(map(math.isfinite, box)) else AnnotationError(message)
    return {"box": checked_box(box, size, where), "label": int(words[0]) + 1}


def write_yolo(folder: Path | str, records: Sequence[Record]) -> None:
    """Write one text file a record into `folder`, named after its image.

    Crowd regions are left out: the format cannot mark them, and as ordinary boxes they would mislead.
    Raises ValueError when two images' names differ in folder or ending only.
    """
    refuse_equal_stems(records, "write_yolo")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        height, width = record.size
        centers = (record.boxes[:, :2] + record.boxes[:, 2:]) / 2 / (width, height)
        sides = (record.boxes[:, 2:] - record.boxes[:, :2]) / (width, height)
        lines = [
            " ".join([str(label - 1), *(f"{value:.10g}" for value in row)])
            for label, row, crowd in zip(record.labels, np.hstack([centers, sides]), record.iscrowd, strict=True)
            if not crowd
        ]
        (folder / f"{Path(record.name).stem}.txt").write_text("".join(f"{line}\n" for line in lines))
