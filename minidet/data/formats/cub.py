"""Caltech-UCSD Birds-200-2011's text files (Wah et al. 2011): 11,788 photographs, one bird and one box each.

A line an image, or a class, in each; the first word is the number by which the files are joined:

    images.txt               1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg     below images/
    image_class_labels.txt   1 1
    bounding_boxes.txt       1 60.0 27.0 325.0 304.0                                             x y width height
    train_test_split.txt     1 0                                                                 1: training, 0: test
    classes.txt              1 001.Black_footed_Albatross

The masks are an archive of their own, to be unpacked into the same folder, segmentations/, with the images' names as
PNG: of five people who painted each bird, the grey value says how many found it at a pixel.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minidet.data.files import AnnotationError, read_lines
from minidet.data.formats.record import (
    BACKGROUND,
    Annotations,
    OnProblem,
    Record,
    checked_box,
    checked_name,
    checked_path,
    fill,
    finite_number,
    raise_problem,
    refuse_again,
)

MAX_BYTES = 16 << 20  # of one file; the largest, images.txt, has 0.9 MB
SPLITS = {"train": "1", "test": "0"}  # by the word in train_test_split.txt

Rows = dict[str, tuple[Any, str]]  # by the number at the line's beginning: what the line says, and which line it is


def read_cub(
    folder: Path | str, split: str, on_problem: OnProblem = raise_problem, max_bytes: int = MAX_BYTES
) -> Annotations:
    """Read and check one split, "train" or "test", of the folder that holds images.txt.

    Images come in the order of images.txt, classes in the order of their numbers. Sizes are not in the files: boxes are
    checked and clipped when an image is read. Masks, if there are any, are read with the images.
    on_problem: called with every AnnotationError; it raises (the default) or collects, and then the image is left out,
    or the class with its images.
    """
    folder = Path(folder)
    if split not in SPLITS:
        raise ValueError(f"read_cub: expected split {' or '.join(SPLITS)}, got {split!r}")

    def rows(name: str, read: Callable[[str, str], Any]) -> Rows:
        return read_rows(folder / name, read, on_problem, max_bytes)

    names: dict[str, str] = {}

    def different_name(text: str, where: str) -> str:
        refuse_again(checked_name(text, where), names, where, "every class once")
        return text

    classes = dict(sorted(rows("classes.txt", different_name).items(), key=lambda item: int(item[0])))
    labels = {number: label for label, number in enumerate(classes, start=1)}
    images = rows("images.txt", one_word)
    tables = {
        "train_test_split.txt": rows("train_test_split.txt", read_split),
        "image_class_labels.txt": rows("image_class_labels.txt", one_word),
        "bounding_boxes.txt": rows("bounding_boxes.txt", read_box),
    }
    for table in tables.values():
        for number, (_, where) in table.items():
            if number not in images:
                on_problem(AnnotationError(f"{where}: expected the number of an image in images.txt, got {number}"))
    records, seen = [], {}
    for number, (name, where) in images.items():
        try:
            refuse_again(folder / "images" / name, seen, where)  # in both splits, it would be tested as it was learned
            of_split, label, box = (joined(number, where, table, file) for file, table in tables.items())
            if of_split[0] != split:
                continue
            if label[0] not in labels:
                raise AnnotationError(
                    f"{label[1]}: expected the number of a class in classes.txt, got {label[0][:40]!r}"
                )
            path = checked_path(folder / "images", name, where)
            record = fill(Record(path, name), [{"box": box[0], "label": labels[label[0]]}])
            mask = (folder / "segmentations" / name).with_suffix(".png")
            record.segmentations = [mask] if mask.is_file() else None
            records.append(record)
        except AnnotationError as error:
            on_problem(error)
    return Annotations(records, (BACKGROUND, *(name for name, _ in classes.values())))


def read_rows(path: Path, read: Callable[[str, str], Any], on_problem: OnProblem, max_bytes: int) -> Rows:
    """Lines by their number. read(rest of the line, where) -> what it says; raises AnnotationError."""
    found: Rows = {}
    seen: dict[str, str] = {}
    for line_number, line in enumerate(read_lines(path, max_bytes), start=1):
        where = f"{path.name}: line {line_number}"
        try:
            number, *rest = line.split(maxsplit=1) or ("",)
            if not number:
                continue
            if not re.fullmatch("[0-9]{1,9}", number) or not rest:
                raise AnnotationError(f"{where}: expected a whole number and what belongs to it, got {line[:60]!r}")
            refuse_again(number, seen, where, "every number once")
            found[number] = read(rest[0].strip(), where), where
        except AnnotationError as error:
            on_problem(error)
    return found


def one_word(text: str, where: str) -> str:
    return text


def read_split(text: str, where: str) -> str:
    for split, word in SPLITS.items():
        if text == word:
            return split
    raise AnnotationError(f"{where}: expected 1 (training) or 0 (test), got {text[:40]!r}")


def read_box(text: str, where: str) -> np.ndarray:
    """x y width height -> (4,) x1 y1 x2 y2."""
    try:
        x, y, width, height = (finite_number(float(word), where) for word in text.split())
    except AnnotationError:
        raise
    except ValueError as error:  # no number, or not four
        raise AnnotationError(f"{where}: expected x y width height, got {text[:60]!r}") from error
    return checked_box((x, y, x + width, y + height), None, where)


def joined(number: str, where: str, table: Rows, file: str) -> tuple[Any, str]:
    """The line of another file that belongs to an image."""
    if number not in table:
        raise AnnotationError(f"{where}: expected a line for image {number} in {file}, found none; add it")
    return table[number]
