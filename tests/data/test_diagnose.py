"""A good data set is broken in one way in one format, and the cause is named; a few single mistakes are none."""

import json
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest

from minidet.data.check import check_dataset
from minidet.data.dataset import open_dataset
from minidet.data.diagnose import diagnose
from minidet.data.formats.coco import write_coco
from minidet.data.formats.record import Record
from minidet.data.images import write_image
from minidet.data.make import make_dataset
from minidet.data.miniscene import CLASSES

SIZE = 128
FILES = {"coco": "annotations", "voc": "voc", "yolo": "labels"}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    return make_dataset(folder, splits={"train": 24}, seed=3, progress=False)


@pytest.fixture
def folder(healthy, tmp_path):
    """A copy of the images, whose annotations are the test's to change."""
    shutil.copytree(healthy, tmp_path / "scenes")
    return tmp_path / "scenes"


def keep_only(folder, format):
    for other in FILES.keys() - {format}:
        shutil.rmtree(folder / FILES[other])


def change_coco(folder, change):
    path = folder / "annotations/instances_train.json"
    tables = json.loads(path.read_text())
    for annotation in tables["annotations"]:
        change(annotation)
    path.write_text(json.dumps(tables))


def change_voc(folder, change):
    """change(name, [xmin, ymin, xmax, ymax]) -> the same, changed."""
    for path in (folder / "voc/train").glob("*.xml"):
        tree = ElementTree.parse(path)
        for element in tree.iter("object"):
            box = [element.find(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
            name, numbers = change(element.find("name").text, [float(side.text) for side in box])
            element.find("name").text = name
            for side, number in zip(box, numbers, strict=True):
                side.text = str(number)
        tree.write(path)


def change_yolo(folder, change):
    """change(class, [cx, cy, w, h]) -> the same, changed."""
    for path in (folder / "labels/train").glob("*.txt"):
        rows = [line.split() for line in path.read_text().splitlines()]
        changed = [change(int(row[0]), np.array(row[1:], float)) for row in rows]
        path.write_text("".join(f"{label} {' '.join(map(str, numbers))}\n" for label, numbers in changed))


def corners_in_coco(annotation):
    x, y, w, h = annotation["bbox"]
    annotation["bbox"] = [x, y, x + w, y + h]


def in_yolo(make):
    return lambda folder: change_yolo(folder, lambda label, box: (label, make(*box)))


def in_coco_box(make):
    return lambda folder: change_coco(folder, lambda a: a.update(bbox=make(*a["bbox"])))


def in_voc_box(make):
    return lambda folder: change_voc(folder, lambda name, box: (name, make(*box)))


BROKEN_BOXES = {
    "coco, corners": (
        "coco", lambda folder: change_coco(folder, corners_in_coco),
        "expected x, y, width, height in pixels, .* read as x1, y1, x2, y2 in pixels .* write every bbox as x1, y1,",
    ),
    "coco, fractions": (
        "coco", in_coco_box(lambda x, y, w, h: [x / SIZE, y / SIZE, w / SIZE, h / SIZE]),
        "expected x, y, width, height in pixels, .* read as x, y, width, height in fractions of the image",
    ),
    "coco, centres": (
        "coco", in_coco_box(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]),
        "expected x, y, width, height in pixels, .* read as centre x, centre y, width, height in pixels",
    ),
    "voc, width and height": (
        "voc", in_voc_box(lambda x1, y1, x2, y2: [x1, y1, x2 - x1, y2 - y1]),
        "expected x1, y1, x2, y2 in pixels, .* read as x, y, width, height in pixels .* with xmin = x \\+ 1",
    ),
    "yolo, first corner": (
        "yolo", in_yolo(lambda cx, cy, w, h: [cx - w / 2, cy - h / 2, w, h]),
        "expected centre x, .* in fractions of the image, .* read as x, y, width, height in fractions .* centre x / W",
    ),
    "yolo, corners": (
        "yolo", in_yolo(lambda cx, cy, w, h: [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]),
        "read as x1, y1, x2, y2 in fractions of the image",
    ),
    "yolo, pixels": (
        "yolo", in_yolo(lambda *box: [value * SIZE for value in box]),
        "read as centre x, centre y, width, height in pixels",
    ),
    "coco, outside": (
        "coco", in_coco_box(lambda x, y, w, h: [x + SIZE, y + SIZE, w, h]),
        r"expected x, .* their images, but (\d+) of \1 are outside .* reach from x 1[23]\d.* to 25\d.* of up to 128",
    ),
    "voc, outside": (
        "voc", in_voc_box(lambda *box: [value - 200 for value in box]),
        r"inside their images, but (\d+) of \1 are outside .* reach from x -\d",
    ),
    "yolo, outside": (
        "yolo", in_yolo(lambda cx, cy, w, h: [cx + 3, cy, w, h]),
        r"inside their images, but (\d+) of \1 are outside",
    ),
    "coco, of images twice as large": (
        "coco", in_coco_box(lambda *box: [2 * value for value in box]),
        "inside their images, but .* probably those of other images, or of larger copies",
    ),
}  # fmt: skip


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("case", BROKEN_BOXES)
def test_boxes_that_are_written_otherwise_or_lie_outside_have_one_cause(case, alone, folder):
    format, spoil, message = BROKEN_BOXES[case]
    if alone:
        keep_only(folder, format)
    assert check_dataset(folder, format=format).splits["train"].objects.total() > 50
    spoil(folder)
    report = check_dataset(folder, format=format)
    assert not report.ok
    assert re.search("^train: boxes: .*" + message, report.problems[0])
    assert re.search(r", first (instances_train\.json: annotations|0000\d\d\.(xml|txt|png))", report.problems[0])
    assert not any(problem.startswith("train: ") for problem in report.problems[1:])  # one cause, not several


TOO_LOW = dict(zip(CLASSES, ("__background__", *CLASSES), strict=False))
BROKEN_LABELS = {
    "coco, from 0": (
        "coco", lambda folder: change_coco(folder, lambda a: a.update(category_id=a["category_id"] - 1)),
        "the numbers 1 to 6 of the classes, but .* have 0, first .*category_id, and none has 6: .* add 1 to every",
    ),
    "coco, from 2": (
        "coco", lambda folder: change_coco(folder, lambda a: a.update(category_id=a["category_id"] + 1)),
        "the numbers 1 to 6 of the classes, but .* have 7, .*, and none has 1: .* subtract 1 from every number",
    ),
    "yolo, from 1": (
        "yolo", lambda folder: change_yolo(folder, lambda label, box: (label + 1, box)),
        "the numbers 0 to 5 of the classes, but .* have 6, first .*class, and none has 0: .* subtract 1",
    ),
    "yolo, from -1": (
        "yolo", lambda folder: change_yolo(folder, lambda label, box: (label - 1, box)),
        "the numbers 0 to 5 of the classes, but .* have -1, .*, and none has 5: .* add 1",
    ),
    "voc, one too low": (
        "voc", lambda folder: change_voc(folder, lambda name, box: (TOO_LOW[name], box)),
        "are called __background__, first .*name: .* shifted by one .* none that of the last, cross;",
    ),
}  # fmt: skip


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("case", BROKEN_LABELS)
def test_labels_that_are_shifted_by_one_have_one_cause(case, alone, folder):
    format, spoil, message = BROKEN_LABELS[case]
    if alone:
        keep_only(folder, format)
    spoil(folder)
    report = check_dataset(folder, format=format)
    assert re.search("^train: labels: expected .*" + message, report.problems[0])
    assert not any(problem.startswith("train: ") for problem in report.problems[1:])


def turn(name):
    return CLASSES[(CLASSES.index(name) + 1) % 6]


@pytest.mark.parametrize(
    ("format", "spoil"),
    [
        ("coco", lambda folder: change_coco(folder, lambda a: a.update(category_id=a["category_id"] % 6 + 1))),
        ("voc", lambda folder: change_voc(folder, lambda name, box: (turn(name), box))),
        ("yolo", lambda folder: change_yolo(folder, lambda label, box: ((label + 1) % 6, box))),
    ],
)
def test_labels_that_are_turned_round_are_found_where_another_file_knows_better(format, spoil, folder):
    spoil(folder)
    cause, *others = [p for p in check_dataset(folder, format=format).problems if p.startswith("train: ")]
    assert re.search(
        r"labels: expected the same names in .* but (\d+) of \1 objects .*: \w+ is \w+ there \(\d+\)", cause
    )
    assert all(turn(theirs) == ours for ours, theirs in re.findall(r"(\w+) is (\w+) there", cause))
    assert len(others) == 1  # each of the two other formats knows better
    keep_only(folder, format)
    assert not [p for p in check_dataset(folder, format=format).problems if p.startswith("train: ")]  # nobody can know


def test_boxes_that_are_moved_inside_their_images_are_found_where_another_file_knows_better(folder):
    change_coco(folder, lambda a: a.update(bbox=[a["bbox"][0] / 2 + 3, a["bbox"][1] / 2, *a["bbox"][2:]]))
    causes = [p for p in check_dataset(folder).problems if p.startswith("train: ")]
    assert len(causes) == 2  # voc and yolo
    assert re.search(
        r"^train: boxes: expected the same in coco and voc, .* objects of coco have no box like theirs", causes[0]
    )


def test_a_healthy_data_set_and_one_without_objects_have_no_cause(healthy, folder):
    for format in FILES:
        errors: list = []
        dataset = open_dataset(healthy, "train", format, on_problem=errors.append)
        assert diagnose(healthy, "train", dataset, errors) == errors == []
    path = folder / "annotations/instances_train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    assert diagnose(folder, "train", open_dataset(folder, "train"), []) == []


def test_voc_files_that_do_not_say_the_images_size_are_examined_too(folder):
    keep_only(folder, "voc")
    change_voc(folder, lambda name, box: (name, [box[0], box[1], box[2] - box[0], box[3] - box[1]]))
    for path in (folder / "voc/train").glob("*.xml"):
        path.write_text(re.sub("<size>.*</size>", "", path.read_text()))
    assert "read as x, y, width, height in pixels" in check_dataset(folder).problems[0]
    change_voc(folder, lambda name, box: (name, [box[0], box[1], box[0] + box[2] + 999, box[1] + box[3]]))
    assert "are outside or stick out" in check_dataset(folder).problems[0]


def box_data(folder, boxes):
    """A COCO data set of one image an object, 100 x 80 pixels."""
    (folder / "images/train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    records = []
    for index, box in enumerate(boxes):
        path = folder / f"images/train/{index}.png"
        write_image(path, np.zeros((80, 100, 3), np.uint8))
        ones = np.zeros(1, bool)
        records.append(Record(path, path.name, (80, 100), box[None], np.ones(1, np.int64), ones, ones, np.ones(1)))
    write_coco(folder / "annotations/instances_train.json", records, ("__background__", "thing"))
    errors: list = []
    return diagnose(folder, "train", open_dataset(folder, "train", on_problem=errors.append), errors), errors


@pytest.mark.parametrize("mistakes", [1, 3, 6])
def test_single_mistakes_in_good_data_have_no_common_cause(mistakes, tmp_path):
    rng = np.random.default_rng(mistakes)
    low = rng.uniform(0, 60, (60, 2))
    boxes = np.hstack([low, low + rng.uniform(5, 20, (60, 2))])
    assert box_data(tmp_path / "good", boxes) == ([], [])
    boxes[:mistakes, 2] += 70
    causes, errors = box_data(tmp_path / "bad", boxes)
    assert causes == []
    assert len(errors) >= 1


def test_one_wrong_box_of_a_few_is_a_mistake_and_no_cause(tmp_path):
    """Its numbers and those of the others would fit as corners, by chance."""
    causes, errors = box_data(tmp_path, np.array([[5.0, 5, 35, 35], [60.0, 40, 135, 90], [10.0, 10, 40, 50]]))
    assert len(errors) == 1
    assert causes == []


def test_a_data_set_whose_only_box_is_outside_has_that_cause(tmp_path):
    causes, errors = box_data(tmp_path, np.array([[105.0, 5, 135, 35]]))
    assert len(errors) == 1
    assert (
        "1 of 1 are outside or stick out, first instances_train.json: annotations[0].bbox; they reach from x 105"
        in causes[0]
    )


def test_labels_that_are_unknown_but_not_shifted_have_no_common_cause(folder):
    keep_only(folder, "coco")
    change_coco(folder, lambda a: a.update(category_id=9 if a["id"] % 5 == 0 else a["category_id"]))
    report = check_dataset(folder)
    assert not any(problem.startswith("train: ") for problem in report.problems)
    assert "category_id: expected one of the ids" in report.problems[0]
