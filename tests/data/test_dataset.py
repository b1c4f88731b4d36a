"""Opening data sets in the layouts that users have, and reading their samples."""

import copy
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidet.data.check import check_dataset
from minidet.data.dataset import Dataset, find_split, find_splits, open_dataset
from minidet.data.files import AnnotationError
from minidet.data.formats.voc import write_voc
from minidet.data.formats.yolo import write_yolo
from minidet.data.images import ImageError, read_image, write_image
from minidet.data.joints import LSP_SWAP
from minidet.data.make import make_dataset
from minidet.data.miniscene import CLASSES


@pytest.fixture(scope="module")
def detection(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "scenes", images=30, seed=3, progress=False)


@pytest.fixture(scope="module")
def pose(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "people", images=12, task="pose", seed=3, progress=False)


def test_every_format_of_a_made_data_set_gives_the_same_samples(detection):
    coco = open_dataset(detection, "train")
    assert coco.classes == ("__background__", *CLASSES)
    assert len(coco) == 21
    for format in ("voc", "yolo"):
        other = open_dataset(detection, "train", format=format)
        assert other.classes == coco.classes
        assert len(other) == len(coco)
        for index in range(len(coco)):
            a, b = coco[index], other[index]
            np.testing.assert_array_equal(a.image, b.image)
            keep = ~a.iscrowd if format == "yolo" else slice(None)  # YOLO cannot mark crowds and leaves them out
            np.testing.assert_allclose(b.boxes, a.boxes[keep], atol=1e-6)
            np.testing.assert_array_equal(b.labels, a.labels[keep])
            assert a.name == b.name == f"{index:06d}.png"
            assert b.masks is None


def test_people_come_with_joints_from_coco_and_lsp_alike(pose):
    coco, lsp = open_dataset(pose, "train"), open_dataset(pose, "train", format="lsp")
    assert coco.classes == lsp.classes == ("__background__", "person")
    assert coco.joint_names == lsp.joint_names
    for index in range(len(coco)):
        np.testing.assert_allclose(coco[index].keypoints, lsp[index].keypoints, atol=1e-12)
        assert coco[index].keypoints.shape == (1, 14, 3)
        assert coco[index].masks.shape == (1, 128, 128)


def test_mirroring_swaps_joints_except_where_colours_tell_the_sides(pose, tmp_path):
    assert open_dataset(pose, "train").flip_swap is None
    photographs = tmp_path / "photographs"
    shutil.copytree(pose, photographs)
    (photographs / "dataset.json").unlink()
    assert open_dataset(photographs, "train").flip_swap == LSP_SWAP


def test_a_sample_has_shapes_and_types_as_promised(detection):
    sample = open_dataset(detection, "train")[0]
    count = len(sample.boxes)
    assert sample.image.shape == (128, 128, 3)
    assert (sample.image.dtype, sample.boxes.dtype, sample.labels.dtype) == (np.uint8, np.float64, np.int64)
    assert (sample.boxes.shape, sample.masks.shape) == ((count, 4), (count, 128, 128))
    assert sample.masks.dtype == sample.iscrowd.dtype == sample.difficult.dtype == bool
    np.testing.assert_array_equal(sample.masks.sum(axis=(1, 2)), sample.areas)
    assert open_dataset(detection, "train", masks=False)[0].masks is None


def test_an_empty_image_has_arrays_of_no_objects(detection):
    dataset = open_dataset(detection, "train")
    sample = next(s for s in dataset if len(s.boxes) == 0)
    assert sample.boxes.shape == (0, 4)
    assert sample.masks.shape == (0, 128, 128)
    assert sample.labels.shape == sample.iscrowd.shape == sample.areas.shape == (0,)


def test_images_are_read_when_asked_for_and_once(detection, monkeypatch):
    reads = []
    monkeypatch.setattr("minidet.data.dataset.read_image", lambda *a: reads.append(a[0]) or read_image(*a))
    dataset = open_dataset(detection, "train")
    assert reads == []
    first, again = dataset[4], dataset[-17]
    assert len(reads) == 1
    assert first.image is again.image
    assert not first.image.flags.writeable
    assert len(first.boxes)
    first.boxes[:] = 0  # the caller's own copy
    assert dataset[4].boxes.max() > 0
    small = open_dataset(detection, "train", cache_bytes=2 * 128 * 128 * 3)
    for _ in range(2):
        for index in range(5):
            small[index]
    assert len(reads) == 1 + 5 + 3  # two of five fit
    with pytest.raises(IndexError, match="below the data set's 21 samples, got 21"):
        dataset[21]


def test_the_layout_of_coco_2017_opens(tmp_path, coco_tables):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images" / "train").rename(tmp_path / "train2017")
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(coco_tables))
    dataset = open_dataset(tmp_path, "train2017")
    assert dataset.category_ids == (0, 18, 90)
    assert dataset[1].labels.tolist() == [3, 2]
    assert find_splits(tmp_path) == ["train2017"]
    assert open_dataset(tmp_path, "train").records[0].path == tmp_path / "train2017" / "000000.png"
    (tmp_path / "annotations" / "instances_train2014.json").write_text(json.dumps(coco_tables))
    (tmp_path / "annotations" / "instances_train2018.json").write_text(json.dumps(coco_tables))  # without its images
    (tmp_path / "annotations" / "instances_train20177.json").write_text(json.dumps(coco_tables))
    assert find_split(tmp_path, "train") == "train2017"
    assert find_split(tmp_path, "train2014") == "train2014"
    assert find_split(tmp_path, "val") is None
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(coco_tables))
    assert find_split(tmp_path, "train") == "train"


def test_the_layout_of_voc_opens(tmp_path, records):
    names = ("__background__", "cat", "dog", "car")
    (tmp_path / "images" / "train").rename(tmp_path / "JPEGImages")
    write_voc(tmp_path / "Annotations", records, names)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("000000\n000002\n")
    (tmp_path / "ImageSets" / "Main" / "cat_trainval.txt").write_text("000000 1\n")
    dataset = open_dataset(tmp_path, "trainval")
    assert [record.name for record in dataset.records] == ["000000.png", "000002.png"]
    assert [dataset.classes[label] for label in dataset[0].labels] == ["dog", "cat"]
    assert find_splits(tmp_path) == ["trainval"]
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("../../000000\n")
    with pytest.raises(AnnotationError, match=r"expected names of images, one a line, got '\.\./"):
        open_dataset(tmp_path, "trainval")
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("000000\n\n000002\n000000 1\n")
    with pytest.raises(AnnotationError, match=r"line 4: expected every image once, got 000000 again, as in .* line 1"):
        open_dataset(tmp_path, "trainval")
    assert len(open_dataset(tmp_path, "trainval", on_problem=[].append)) == 2
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("000000\n", encoding="utf-8-sig")
    assert len(open_dataset(tmp_path, "trainval")) == 1
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_bytes(b"000000\n\xff\xfe")
    with pytest.raises(AnnotationError, match=r"trainval\.txt: expected text in UTF-8"):
        open_dataset(tmp_path, "trainval")


def test_a_yolo_folder_opens_and_its_orphans_are_named(tmp_path, records):
    write_yolo(tmp_path / "labels" / "train", records)
    (tmp_path / "classes.txt").write_text("cat\ndog\ncar\n")
    assert open_dataset(tmp_path, "train")[0].labels.tolist() == [2, 1]
    (tmp_path / "labels" / "train" / "ghost.txt").write_text("")
    with pytest.raises(AnnotationError, match=r"ghost\.txt: expected an image ghost"):
        open_dataset(tmp_path, "train")


def test_when_nothing_fits_the_error_says_what_was_looked_for(tmp_path, detection):
    with pytest.raises(FileNotFoundError, match=r"instances_train\.json.*voc/train/.*labels/train/.*joints\.mat.*none"):
        open_dataset(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"split 'dev'.*Splits found: train, val, test"):
        open_dataset(detection, "dev")
    with pytest.raises(ValueError, match=r"expected format coco, .* got 'pickle'"):
        open_dataset(detection, "train", format="pickle")
    with pytest.raises(ValueError, match=r"name of a split such as 'train', got '\.\./x'"):
        open_dataset(detection, "../x")


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path, coco_tables, write_coco_tables):
    coco_tables["images"][0] |= {"width": 41}
    write_coco_tables(coco_tables)
    with pytest.raises(
        AnnotationError, match=r"000000\.png: expected 41 x 30 pixels as the annotation says, got 40 x 30"
    ):
        open_dataset(tmp_path, "train")[0]


def test_a_rotated_photograph_must_be_annotated_upright(tmp_path, coco_tables, write_coco_tables):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "images" / "train" / "000000.png"
    Image.open(path).save(path, exif=exif)
    write_coco_tables(coco_tables)
    with pytest.raises(AnnotationError, match="got 30 x 40"):
        open_dataset(tmp_path, "train")[0]


def test_a_broken_image_is_named(tmp_path, coco_tables, write_coco_tables):
    path = tmp_path / "images" / "train" / "000001.png"
    path.write_bytes(path.read_bytes()[:300])
    write_coco_tables(coco_tables)
    dataset = open_dataset(tmp_path, "train")
    assert isinstance(dataset, Dataset)
    with pytest.raises(ImageError, match=r"000001\.png"):
        dataset[1]


def test_verifying_finds_broken_images_before_an_epoch_does(tmp_path, coco_tables, write_coco_tables):
    path = tmp_path / "images" / "train" / "000001.png"
    path.write_bytes(path.read_bytes()[:300])
    write_coco_tables(coco_tables)
    dataset = open_dataset(tmp_path, "train")
    with pytest.raises(ImageError, match=r"000001\.png"):
        dataset.verify()
    problems = []
    dataset.verify(on_problem=problems.append)
    assert len(problems) == len(dataset) == 1
    assert dataset[0].name == "000000.png"


def test_the_pixel_limit_reaches_the_reader(tmp_path, coco_tables, write_coco_tables):
    write_coco_tables(coco_tables)
    write_image(tmp_path / "images" / "train" / "000000.png", np.zeros((30, 40, 3), np.uint8))
    with pytest.raises(ImageError, match="at most 1,000 pixels"):
        open_dataset(tmp_path, "train", max_pixels=1000)[0]


def test_a_subset_holds_the_chosen_samples_in_their_order(tmp_path, coco_tables, write_coco_tables):
    write_coco_tables(coco_tables)
    dataset = open_dataset(tmp_path, "train")
    part = dataset.subset([1, 0])
    assert [part[0].name, part[1].name] == [dataset[1].name, dataset[0].name]
    assert len(dataset.subset(np.array([1]))) == 1
    assert part.classes == dataset.classes


def test_some_classes_have_new_labels_and_all_that_is_said_of_their_objects(tmp_path, coco_tables, write_coco_tables):
    coco_tables["annotations"][2]["segmentation"] = [[10, 10, 15, 10, 15, 15]]
    write_coco_tables(coco_tables)
    whole = open_dataset(tmp_path, "train")  # 1 thing, 2 dog, 3 toothbrush; a crowd of things; a toothbrush and a dog
    part = whole.of_classes(["dog", "thing"])
    assert part.classes == ("__background__", "dog", "thing")
    assert part.category_ids == (18, 0)
    crowd, dog = part[0], part[1]
    assert crowd.labels.tolist() == [2]
    assert crowd.iscrowd.tolist() == [True]
    assert crowd.areas.tolist() == [9]
    assert dog.labels.tolist() == [1]
    assert dog.boxes.tolist() == [[10, 10, 15, 15]]
    assert dog.masks.sum() == whole[1].masks[1].sum() > 0
    assert whole[1].labels.tolist() == [3, 2]  # as before
    brushes = whole.of_classes(["toothbrush"])
    assert [len(sample.boxes) for sample in brushes] == [0, 1]
    assert brushes[1].masks is None
    assert [sample.name for sample in whole.of_classes(["toothbrush"], empty=False)] == ["000001.png"]


@pytest.mark.parametrize("names", [[], ["dog", "dog"], ["cat"], ["__background__"]])
def test_classes_that_cannot_be_chosen_are_refused(names, tmp_path, coco_tables, write_coco_tables):
    write_coco_tables(coco_tables)
    with pytest.raises(ValueError, match="expected some of the classes thing, dog, toothbrush, each once, got"):
        open_dataset(tmp_path, "train").of_classes(names)


def test_chosen_classes_have_the_labels_of_the_whole_as_ids_where_there_are_no_others(detection):
    """So that results of some classes are read as those of the same classes."""
    whole = open_dataset(detection, "train", format="yolo")
    assert whole.category_ids is None
    assert whole.of_classes(["ring", "star"]).category_ids == (5, 4)


def test_people_that_are_chosen_keep_their_joints(pose):
    whole = open_dataset(pose, "train")
    part = whole.of_classes(["person"])
    np.testing.assert_array_equal(part[0].keypoints, whole[0].keypoints)


def test_a_subset_shares_the_room_of_its_data_sets_cache(detection, monkeypatch):
    reads = []
    monkeypatch.setattr("minidet.data.dataset.read_image", lambda *a: reads.append(a[0]) or read_image(*a))
    whole = open_dataset(detection, "train", cache_bytes=2 * 128 * 128 * 3)
    part = whole.subset([0, 1, 2])
    for index in (0, 1, 2):
        part[index]
    for index in (0, 1, 2, 3):
        whole[index]
    assert len(reads) == 3 + 2  # two fit, for both together


def test_verifying_fills_in_the_sizes_that_the_annotations_do_not_tell(tmp_path, records):
    write_voc(tmp_path / "voc" / "train", records, ("__background__", "a", "b", "c"))
    for path in (tmp_path / "voc" / "train").iterdir():
        path.write_text(re.sub("<size>.*</size>", "", path.read_text()))
    dataset = open_dataset(tmp_path, "train", "voc")
    assert [record.size for record in dataset.records] == [None] * 3
    dataset.verify()
    assert [record.size for record in dataset.records] == [(30, 40)] * 3


@pytest.mark.parametrize("ask", [Dataset.verify, lambda dataset: dataset[0]])
def test_boxes_of_annotations_that_tell_no_size_are_checked_once_the_image_is_read(tmp_path, records, ask):
    records[0].boxes = np.array([[2.0, 5, 20, 15], [0, 0, 40.75, 30]])
    write_voc(tmp_path / "voc" / "train", records[:1], ("__background__", "a", "b", "c"))
    path = tmp_path / "voc" / "train" / "000000.xml"
    path.write_text(re.sub("<size>.*</size>", "", path.read_text()))
    dataset = open_dataset(tmp_path, "train", "voc")
    ask(dataset)
    assert dataset[0].boxes.tolist() == [[2, 5, 20, 15], [0, 0, 40, 30]]
    assert dataset[0].areas.tolist() == [180, 1200]
    path.write_text(path.read_text().replace("<xmax>40.75", "<xmax>42"))
    dataset = open_dataset(tmp_path, "train", "voc")
    for _ in range(2):  # a box once refused is not accepted with the image's second look
        with pytest.raises(AnnotationError, match=r"000000\.png: box 1: expected a box inside the 40 x 30 .* 0 to 42"):
            ask(dataset)
    assert any("inside the 40 x 30 image" in problem for problem in check_dataset(tmp_path, format="voc").problems)


def test_the_digest_is_of_the_images_and_of_every_part_of_the_annotations(tmp_path, coco_tables, write_coco_tables):
    def digest(tables=coco_tables) -> str:
        write_coco_tables(tables)
        return open_dataset(tmp_path, "train").digest()

    first = digest()
    assert digest() == first
    seen = {first}
    for change in (
        lambda t: t["annotations"][0].update(bbox=[1, 2, 3.5, 4.5]),
        lambda t: t["annotations"][0].update(category_id=18),
        lambda t: t["annotations"][1].update(iscrowd=0),
        lambda t: t["annotations"][0].update(area=15.0),
        lambda t: t["annotations"][0].update(segmentation=[[1, 1, 5, 1, 5, 4]]),
        lambda t: t["annotations"][0].update(segmentation=[[1, 1, 5, 1, 5, 4.5]]),
        lambda t: t["categories"][0].update(name="comb"),
        lambda t: t["images"].reverse(),
    ):
        changed = copy.deepcopy(coco_tables)
        change(changed)
        seen.add(digest(changed))
    picture = tmp_path / "images" / "train" / "000000.png"
    write_image(picture, 255 - read_image(picture))
    seen.add(digest())
    assert len(seen) == 1 + 8 + 1


def test_classes_of_ones_own_are_numbered_alike_in_all_splits_of_a_voc_folder(tmp_path, records):
    """Without classes.txt a split knows only the names that it shows."""
    names = ("__background__", "apple", "bread", "cheese")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "images" / "train").rename(tmp_path / "JPEGImages")
    write_voc(tmp_path / "Annotations", records, names)
    for split, record in (("train", records[0]), ("val", records[2])):
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{Path(record.name).stem}\n")
    assert open_dataset(tmp_path, "train").classes == ("__background__", "apple", "bread")
    assert open_dataset(tmp_path, "val").classes == ("__background__", "cheese")
    (tmp_path / "classes.txt").write_text("apple\nbread\ncheese\n")
    for split, labels in (("train", [2, 1]), ("val", [3])):
        dataset = open_dataset(tmp_path, split)
        assert dataset.classes == names
        assert dataset[0].labels.tolist() == labels


def test_proposals_come_with_the_sample_and_do_not_change_the_digest(detection):
    dataset = open_dataset(detection, "val")
    before = dataset.digest()
    assert dataset[0].proposals is None
    dataset.records[0].proposals = np.array([[0, 0, 128, 128], [-0.5, 3, 10, 129]], np.float32)
    sample = dataset.subset([0])[0]
    assert sample.proposals.tolist() == [[0, 0, 128, 128], [0, 3, 10, 128]]
    assert sample.proposals.dtype == np.float64
    sample.proposals[:] = 7  # the caller's to change
    assert dataset[0].proposals[0].tolist() == [0, 0, 128, 128]
    assert dataset[1].proposals is None
    assert dataset.digest() == before


@pytest.mark.parametrize(
    ("proposals", "message"),
    [
        ([1, 2, 3, 4], r"\(P, 4\), got \(4,\)"),
        ([[0, 0, 5, 5, 1]], r"\(P, 4\), got \(1, 5\)"),
        ([[0, 0, 5, 5], [3, 4, 3, 9]], r"x1 < x2, y1 < y2 inside the 128 x 128 image, got \[3, 4, 3, 9\] as number 1"),
        ([[0, 0, 5, 130]], r"inside the 128 x 128 image, got \[0, 0, 5, 130\] as number 0; make them anew"),
        ([[0, 0, 5, np.nan]], "number 0"),
        ([[128.5, 0, 129, 5]], "number 0"),
    ],
)
def test_proposals_that_are_none_are_refused_with_the_image(detection, proposals, message):
    dataset = open_dataset(detection, "val")
    dataset.records[1].proposals = np.array(proposals)
    with pytest.raises(
        AnnotationError, match=r"000001\.png: proposals: expected .*" + message.removeprefix("expected ")
    ):
        dataset[1]
    dataset.records[1].proposals = np.zeros((0, 4))
    assert dataset[1].proposals.shape == (0, 4)
