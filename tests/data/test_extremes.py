"""Data sets at the edges of what there is: no objects, hundreds, boxes along the border, long and tiny images."""

import json

import numpy as np
import pytest

from minidet.data import Loader, collate_list, open_dataset, write_image
from minidet.data import transforms as T
from minidet.data.check import check_dataset
from minidet.data.files import AnnotationError
from minidet.data.formats.coco import write_coco
from minidet.data.formats.record import Record
from minidet.data.formats.voc import write_voc
from minidet.data.formats.yolo import write_yolo

CLASSES = ("__background__", "thing")
MANY = 200
FORMATS = ("coco", "voc", "yolo")


def record(folder, name, height, width, boxes) -> Record:
    path = folder / "images/train" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    boxes = np.array(boxes, float).reshape(-1, 4)
    count, areas = len(boxes), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return Record(path, name, (height, width), boxes, np.ones(count, np.int64), np.zeros(count, bool),
                  np.zeros(count, bool), areas)  # fmt: skip


def write_all(folder, records) -> None:
    (folder / "annotations").mkdir()
    (folder / "classes.txt").write_text("thing\n")
    write_coco(folder / "annotations/instances_train.json", records, CLASSES)
    write_voc(folder / "voc/train", records, CLASSES)
    write_yolo(folder / "labels/train", records)


@pytest.fixture(scope="module")
def extremes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "extremes"
    corners = np.random.default_rng(1).uniform(0, 85, (MANY, 2))
    write_all(folder, [
        record(folder, "pixel.png", 1, 1, [[0, 0, 1, 1]]),
        record(folder, "long.png", 3, 1500, [[0, 0, 1500, 3], [1400, 1, 1500, 2]]),
        record(folder, "tall.png", 1200, 2, []),
        record(folder, "empty.png", 64, 48, []),
        record(folder, "crowded.png", 100, 100, np.hstack([corners, corners + 5 + corners[::-1] / 10])),
        record(folder, "border.png", 40, 50, [[0, 0, 50, 40], [0, 0, 5, 5], [45, 35, 50, 40], [0, 39, 50, 40]]),
    ])  # fmt: skip
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_extreme_images_are_read_checked_drawn_and_put_into_batches(format, extremes, tmp_path):
    report = check_dataset(extremes, out=tmp_path, format=format)
    assert report.ok, str(report)
    assert report.splits["train"].objects == {"thing": 1 + 2 + MANY + 4}
    assert report.splits["train"].empty == 2
    assert len(report.pictures) == 1
    dataset = open_dataset(extremes, "train", format)
    dataset.verify()
    objects = {dataset.records[i].name: dataset[i].boxes for i in range(6)}
    np.testing.assert_allclose(
        objects["border.png"], [[0, 0, 50, 40], [0, 0, 5, 5], [45, 35, 50, 40], [0, 39, 50, 40]], atol=1e-6
    )
    augment = T.Compose([T.RandomFlip(), T.RandomTranslate(), T.RandomScale(), T.RandomColor()])
    for batch in Loader(dataset, 4, transform=augment, collate=collate_list):
        for image, target, index in zip(batch.images, batch.targets, batch.indices, strict=True):
            height, width = dataset.records[index].size
            assert image.shape == (3, height, width)
            boxes = target["boxes"]
            assert np.isfinite(image).all()
            assert (boxes[:, 2:] - boxes[:, :2] >= 0.99).all()
            assert (boxes >= 0).all()
            assert (boxes <= [width, height, width, height]).all()


def test_many_tiny_boxes_of_an_image_are_one_warning(extremes, tmp_path):
    warnings = check_dataset(extremes).warnings
    assert "train/long.png: 2 tiny boxes, the smallest 100 x 1 pixels" in warnings
    assert "train/pixel.png: a tiny box, 1 x 1 pixels" in warnings


@pytest.mark.parametrize("format", FORMATS)
def test_a_data_set_without_any_object_is_read_and_told_of(format, tmp_path):
    folder = tmp_path / "empty"
    write_all(folder, [record(folder, f"{index}.png", 20, 30 + index, []) for index in range(3)])
    report = check_dataset(folder, out=tmp_path / "out", format=format)
    assert report.ok
    assert report.splits["train"].empty == 3
    assert ("train: no object of the class 'thing'" in report.warnings) or format == "voc"
    (batch,) = Loader(open_dataset(folder, "train", format), 3, collate=collate_list)
    assert [target["boxes"].shape for target in batch.targets] == [(0, 4)] * 3
    assert {target["labels"].dtype for target in batch.targets} == {np.dtype(np.int64)}


# What has no area, or none any more in single precision: at x = 40 its steps are 4e-6 wide.
LINES = {
    "coco": [[5, 5, 0, 5], [5, 5, 5, 0], [40, 5, 1e-7, 5], [49.995, 5, 1, 5], [0, 0, 1e-320, 5]],
    "voc": [[6, 6, 5, 10], [6, 6, 10, 5], [41, 6, 40.0000001, 10], [50.995, 6, 52, 10]],
    "yolo": [[0.5, 0.5, 0, 0.2], [0.5, 0.5, 0.2, 0], [0.8, 0.5, 1e-9, 0.2], [0.5, 0.5, 0.2, 1e-300]],
}
FIELDS = {
    "coco": "instances_train.json: annotations[0].bbox",
    "voc": "a.xml: object[0].bndbox",
    "yolo": "a.txt: line 1",
}


@pytest.mark.parametrize(("format", "numbers"), [(format, line) for format in LINES for line in LINES[format]])
def test_a_box_without_area_is_refused_with_file_and_field(format, numbers, tmp_path):
    write_all(tmp_path, [record(tmp_path, "a.png", 40, 50, [[10, 10, 20, 20]])])
    if format == "coco":
        path = tmp_path / "annotations/instances_train.json"
        tables = json.loads(path.read_text())
        tables["annotations"][0]["bbox"] = numbers
        path.write_text(json.dumps(tables))
    elif format == "voc":
        path = tmp_path / "voc/train/a.xml"
        sides = "".join(f"<{s}>{n}</{s}>" for s, n in zip(("xmin", "ymin", "xmax", "ymax"), numbers, strict=True))
        before, _, after = path.read_text().partition("<bndbox>")
        path.write_text(f"{before}<bndbox>{sides}</bndbox>{after.partition('</bndbox>')[2]}")
    else:
        (tmp_path / "labels/train/a.txt").write_text(f"0 {' '.join(map(str, numbers))}\n")
    with pytest.raises(AnnotationError) as error:
        open_dataset(tmp_path, "train", format)
    assert str(error.value).startswith(f"{FIELDS[format]}: expected ")


def test_the_smallest_box_that_is_taken_keeps_its_area_in_single_precision(tmp_path):
    write_all(tmp_path, [record(tmp_path, "a.png", 40, 50, [[30, 30, 30.0100001, 30.0100001]])])
    dataset = open_dataset(tmp_path, "train")
    (batch,) = Loader(dataset, 1, transform=lambda sample, rng: T.flip(sample))
    box = batch.targets[0]["boxes"][0]
    assert box[2] > box[0]
    assert box[3] > box[1]
