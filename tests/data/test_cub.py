"""A small CUB-200-2011, written by hand: what it says is read, and every kind of mistake is refused with its line."""

import numpy as np
import pytest

from minidet.data.check import check_dataset
from minidet.data.dataset import find_splits, open_dataset
from minidet.data.files import AnnotationError
from minidet.data.formats.cub import read_cub
from minidet.data.images import write_image

FILES = {
    "images.txt": "1 001.Crow/crow_1.png\n2 001.Crow/crow_2.png\n3 017.Gull/gull.png\n",
    "image_class_labels.txt": "1 1\n2 1\n3 17\n",
    "bounding_boxes.txt": "1 2.0 5.0 18.0 10.0\n2 0.0 0.0 40.0 30.0\n3 10.5 3.25 29.5 26.5\n",
    "train_test_split.txt": "1 1\n2 0\n3 1\n",
    "classes.txt": "17 017.Gull\n1 001.Crow\n",  # not in their order
}


@pytest.fixture
def birds(tmp_path):
    """The folder; its three pictures have 40 x 30 (width x height) pixels."""
    rng = np.random.default_rng(0)
    for line in FILES["images.txt"].splitlines():
        path = tmp_path / "images" / line.split()[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_both_splits_are_read(birds) -> None:
    assert find_splits(birds) == ["train", "test"]
    train, test = open_dataset(birds, "train"), open_dataset(birds, "test", format="cub")
    assert train.classes == test.classes == ("__background__", "001.Crow", "017.Gull")
    assert [record.name for record in train.records] == ["001.Crow/crow_1.png", "017.Gull/gull.png"]
    assert [sample.labels.tolist() for sample in train] == [[1], [2]]
    assert train[0].boxes.tolist() == [[2, 5, 20, 15]]
    assert test[0].boxes.tolist() == [[0, 0, 40, 30]]
    assert test[0].image.shape == (30, 40, 3)
    assert (train[0].boxes.dtype, train[0].labels.dtype) == (np.float64, np.int64)
    train.verify()
    assert train[1].boxes.tolist() == [[10.5, 3.25, 40, 29.75]]


def test_the_data_doctor_knows_the_format(birds) -> None:
    report = check_dataset(birds)
    assert report.problems == []
    assert {name: split.images for name, split in report.splits.items()} == {"train": 2, "test": 1}


def test_masks_are_where_half_of_the_painters_saw_the_bird(birds) -> None:
    votes = np.zeros((30, 40, 3), np.uint8)
    votes[5:15, 2:10] = 102  # two of five
    votes[5:15, 10:20] = 153  # three of five
    (birds / "segmentations" / "001.Crow").mkdir(parents=True)
    path = birds / "segmentations" / "001.Crow" / "crow_1.png"
    write_image(path, votes)
    train = open_dataset(birds, "train")
    expected = np.zeros((1, 30, 40), bool)
    expected[0, 5:15, 10:20] = True
    np.testing.assert_array_equal(train[0].masks, expected)
    assert train[1].masks is None
    assert open_dataset(birds, "train", masks=False)[0].masks is None
    before = train.digest()
    write_image(path, 255 - votes)
    assert open_dataset(birds, "train").digest() != before
    write_image(path, votes[:, :39])
    with pytest.raises(AnnotationError, match=r"crow_1\.png: expected a mask of 40 x 30 pixels as its image, got 39 x"):
        open_dataset(birds, "train")[0]


BAD = {
    "a line without a number": (
        "images.txt", "x 001.Crow/crow_1.png\n",
        r"images\.txt: line 1: expected a whole number and what belongs to it, got 'x 001",
    ),
    "a line with a number only": ("bounding_boxes.txt", "1\n", r"bounding_boxes\.txt: line 1: expected a whole number"),
    "a number twice": (
        "image_class_labels.txt", "1 1\n2 1\n1 17\n",
        r"image_class_labels\.txt: line 3: expected every number once, got 1 again, as in image_.*\.txt: line 1",
    ),
    "a box of three numbers": (
        "bounding_boxes.txt", "1 2.0 5.0 18.0\n", r"bounding_boxes\.txt: line 1: expected x y width height, got '2\.0",
    ),
    "a box of words": ("bounding_boxes.txt", "1 a b c d\n", r"bounding_boxes\.txt: line 1: expected x y width height"),
    "a box of NaN": ("bounding_boxes.txt", "1 nan 5 18 10\n", r"bounding_boxes\.txt: line 1: expected a finite number"),
    "a box without width": (
        "bounding_boxes.txt", "1 2 5 0 10\n", r"bounding_boxes\.txt: line 1: expected width > 0, got 0",
    ),
    "a third split": (
        "train_test_split.txt", "1 2\n2 0\n3 1\n",
        r"train_test_split\.txt: line 1: expected 1 \(training\) or 0 \(test\), got '2'",
    ),
    "an unknown class": (
        "image_class_labels.txt", "1 1\n2 1\n3 18\n",
        r"image_class_labels\.txt: line 3: expected the number of a class in classes\.txt, got '18'",
    ),
    "a class named like the background": (
        "classes.txt", "1 __background__\n17 017.Gull\n", r"classes\.txt: line 1: expected the name of a class, got '_",
    ),
    "an image without a label": (
        "image_class_labels.txt", "1 1\n2 1\n",
        r"images\.txt: line 3: expected a line for image 3 in image_class_labels\.txt, found none",
    ),
    "a label without an image": (
        "image_class_labels.txt", "1 1\n2 1\n3 17\n4 1\n",
        r"image_class_labels\.txt: line 4: expected the number of an image in images\.txt, got 4",
    ),
    "an image that is missing": (
        "images.txt", "1 001.Crow/gone.png\n2 001.Crow/crow_2.png\n3 017.Gull/gull.png\n",
        r"images\.txt: line 1: expected the image .*gone\.png, but there is no such file",
    ),
    "an image elsewhere": (
        "images.txt", "1 ../../secret.png\n2 001.Crow/crow_2.png\n3 017.Gull/gull.png\n",
        r"images\.txt: line 1: expected a file below .*images, got '\.\./\.\./secret\.png'",
    ),
    "an absolute path": (
        "images.txt", "1 /etc/passwd\n2 001.Crow/crow_2.png\n3 017.Gull/gull.png\n", r"line 1: expected a file below",
    ),
    "an image twice": (
        "images.txt", "1 001.Crow/crow_1.png\n2 001.Crow/crow_2.png\n3 ./001.Crow/crow_1.png\n",
        r"images\.txt: line 3: expected every image once, got .*crow_1\.png again, as in images\.txt: line 1",
    ),
    "an image in both splits": (
        "images.txt", "1 001.Crow/crow_1.png\n2 001.Crow/crow_1.png\n3 017.Gull/gull.png\n",
        r"images\.txt: line 2: expected every image once, got .*crow_1\.png again, as in images\.txt: line 1",
    ),
    "a class twice": (
        "classes.txt", "1 001.Crow\n17 001.Crow\n",
        r"classes\.txt: line 2: expected every class once, got 001\.Crow again, as in classes\.txt: line 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_with_file_and_line(case, birds) -> None:
    name, text, message = BAD[case]
    (birds / name).write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_cub(birds, "train")
    problems = []
    read = read_cub(birds, "train", problems.append)
    assert problems
    assert len(read.records) <= 2
    for record in read.records:
        assert record.path.is_file()
        assert np.isfinite(record.boxes).all()


def test_a_collector_gets_every_problem_and_the_good_images_stay(birds) -> None:
    (birds / "bounding_boxes.txt").write_text("1 2 5 -18 10\n2 0 0 40 30\n3 1 1 5 5\n")
    (birds / "images.txt").write_text(FILES["images.txt"] + "\n4 001.Crow/crow_4.png\n")  # an empty line is none
    problems = []
    read = read_cub(birds, "train", problems.append)
    assert [str(problem).split(": expected")[0] for problem in problems] == [
        "bounding_boxes.txt: line 1",
        "images.txt: line 1",  # its box was refused
        "images.txt: line 5",  # nothing is known about it
    ]
    assert [record.name for record in read.records] == ["017.Gull/gull.png"]


def test_a_box_is_held_against_the_picture_once_it_is_read(birds) -> None:
    (birds / "bounding_boxes.txt").write_text("1 2.0 5.0 38.9 10.0\n2 0 0 40 30\n3 1 1 60 5\n")
    train = open_dataset(birds, "train")
    assert train[0].boxes.tolist() == [[2, 5, 40, 15]]  # rounding
    with pytest.raises(AnnotationError, match=r"gull\.png: box 0: expected a box inside the 40 x 30 .* x 1 to 61"):
        train[1]


def test_missing_and_unreadable_files_are_named(birds) -> None:
    with pytest.raises(ValueError, match="expected split train or test, got 'val'"):
        read_cub(birds, "val")
    with pytest.raises(FileNotFoundError, match=r"split 'val'.*train_test_split\.txt.*Splits found: train, test"):
        open_dataset(birds, "val")
    with pytest.raises(AnnotationError, match=r"expected at most 10 bytes"):
        read_cub(birds, "train", max_bytes=10)
    (birds / "images.txt").write_bytes(b"1 \xff\xfe\n")
    with pytest.raises(AnnotationError, match=r"images\.txt: expected text in UTF-8"):
        read_cub(birds, "train")
    (birds / "images.txt").unlink()
    with pytest.raises(AnnotationError, match=r"images\.txt: expected a file, found nothing"):
        open_dataset(birds, "train")
