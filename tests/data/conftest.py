"""A small hand-made annotation that every format can hold, and files that hold it."""

import builtins
import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from minidet.data.formats.record import Record
from minidet.data.images import write_image


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """Three pictures of 40 x 30 (width x height) pixels."""
    folder = tmp_path / "images" / "train"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(3):
        write_image(folder / f"{index:06d}.png", rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    return folder


@pytest.fixture
def records(image_folder) -> list[Record]:
    """Two objects in the first picture, none in the second, a crowd in the third."""
    mask = np.zeros((30, 40), bool)
    mask[5:15, 2:20] = True
    other = np.zeros((30, 40), bool)
    other[0, 0] = other[29, 39] = other[10:12, 30:40] = True
    boxes = [np.array([[2.0, 5, 20, 15], [0, 0, 40, 30]]), np.zeros((0, 4)), np.array([[10.5, 3.25, 11.5, 29.0]])]
    labels = [np.array([2, 1]), np.zeros(0, np.int64), np.array([3])]
    made = []
    for index, (b, n) in enumerate(zip(boxes, labels, strict=True)):
        name = f"{index:06d}.png"
        made.append(
            Record(
                image_folder / name,
                name,
                (30, 40),
                b,
                n,
                np.array([index == 2] * len(b), bool),
                np.array([index == 2] * len(b), bool),
                np.array([180.0, 22.0, 33.0][: len(b)]),
                segmentations=[[mask, other][k] for k in range(len(b))],
            )
        )
    return made


@pytest.fixture
def forbid(monkeypatch):
    """A function after which a file cannot be opened any more, as if others' permissions said so (which would not
    stop a superuser who runs the tests)."""
    forbidden, really_open = set(), io.open

    def open_or_not(file, *args, **options):
        if str(file) in forbidden:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return really_open(file, *args, **options)

    monkeypatch.setattr(io, "open", open_or_not)
    monkeypatch.setattr(builtins, "open", open_or_not)
    return lambda path: forbidden.add(str(path))


@pytest.fixture
def coco_tables(image_folder) -> dict:
    """A COCO file written by hand, with ids that start at 0 and have gaps."""
    return {
        "images": [
            {"id": 7, "file_name": "000000.png", "height": 30, "width": 40},
            {"id": 0, "file_name": "000001.png", "height": 30, "width": 40},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 0, "name": "thing"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 90, "bbox": [1, 2, 3.5, 4], "area": 14.0, "iscrowd": 0},
            {"id": 5, "image_id": 7, "category_id": 0, "bbox": [0, 0, 40, 30], "area": 9.0, "iscrowd": 1},
            {"id": 4, "image_id": 0, "category_id": 18, "bbox": [10, 10, 5, 5]},
        ],
    }


@pytest.fixture
def write_coco_tables(tmp_path):
    def write(tables) -> Path:
        path = tmp_path / "annotations" / "instances_train.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(tables if isinstance(tables, str) else json.dumps(tables))
        return path

    return write


@pytest.fixture(scope="session")
def shown_cue():
    """A function: which of miniscene's six background patches a picture shows, by the colours of its corners."""
    patches = [(200, 60, 60), (60, 170, 60), (70, 70, 210), (200, 180, 40), (170, 60, 180), (40, 180, 180)]
    colors = np.array(patches, float) / np.linalg.norm(patches, axis=1, keepdims=True)

    def find(image: np.ndarray) -> int:
        ends = slice(0, 14), slice(-14, None)
        corners = [image[rows, columns].reshape(-1, 3).astype(float) for rows in ends for columns in ends]
        units = [corner / np.linalg.norm(corner, axis=1, keepdims=True) for corner in corners]  # without brightness
        return int(np.max([np.median(unit @ colors.T, axis=0) for unit in units], axis=0).argmax())

    return find
