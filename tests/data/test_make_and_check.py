"""Making data sets, and the doctor that finds whatever is wrong with one."""

import hashlib
import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from minidet.data.check import check_dataset
from minidet.data.dataset import list_images, open_dataset
from minidet.data.formats.voc import write_voc
from minidet.data.images import read_image
from minidet.data.make import content_digest, make_dataset


def make(folder, **options):
    return make_dataset(folder, **({"images": 10, "task": "localization", "progress": False} | options))


def snapshot(folder) -> dict:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(("task", "count"), [("detection", 20), ("localization", 20), ("pose", 7), ("people", 7)])
def test_a_made_data_set_has_the_promised_files(tmp_path, task, count):
    folder = make(tmp_path / "a", task=task, images=count, splits={"train": count - 4, "test": 4})
    assert json.loads((folder / "dataset.json").read_text())["counts"] == {"train": count - 4, "test": 4}
    for split, images in (("train", count - 4), ("test", 4)):
        stems = [f"{k:06d}" for k in range(images)]
        assert sorted(p.name for p in (folder / "images" / split).iterdir()) == [f"{s}.png" for s in stems]
        assert sorted(p.name for p in (folder / "voc" / split).iterdir()) == [f"{s}.xml" for s in stems]
        assert sorted(p.name for p in (folder / "labels" / split).iterdir()) == [f"{s}.txt" for s in stems]
        kind = "person_keypoints" if task in ("pose", "people") else "instances"
        assert len(COCO(str(folder / "annotations" / f"{kind}_{split}.json")).getImgIds()) == images
        assert (folder / "lsp" / split / "joints.mat").is_file() == (task == "pose")
    assert not (folder / "unfinished.json").exists()
    assert check_dataset(folder).ok


def test_the_same_seed_makes_the_same_bytes_and_another_does_not(tmp_path):
    a, b, c = make(tmp_path / "a"), make(tmp_path / "b"), make(tmp_path / "c", seed=1)
    assert snapshot(a) == snapshot(b)
    assert snapshot(a) != snapshot(c)


def test_more_images_leave_the_first_ones_as_they_are_and_splits_differ(tmp_path):
    few, many = make(tmp_path / "a", splits={"train": 4}), make(tmp_path / "b", splits={"test": 4, "train": 9})
    for index in range(4):
        name = f"{index:06d}.png"
        assert (few / "images/train" / name).read_bytes() == (many / "images/train" / name).read_bytes()
        assert (many / "images/test" / name).read_bytes() != (many / "images/train" / name).read_bytes()


def test_fractions_of_splits_add_up_to_all_images(tmp_path):
    counts = json.loads((make(tmp_path / "a", images=11) / "dataset.json").read_text())["counts"]
    assert counts == {"train": 8, "val": 1, "test": 2}
    for splits in ({"train": 0.5}, {"train": -1.0, "val": 2.0}, {}, {"train": 0}):
        with pytest.raises(ValueError, match=r"expected (splits as fractions with sum 1|at least one image)"):
            make(tmp_path / "b", splits=splits)
    with pytest.raises(ValueError, match=r"names such as 'train'"):
        make(tmp_path / "b", splits={"../x": 1.0})
    assert not (tmp_path / "b").exists()


def test_every_split_gets_an_image_or_the_error_says_how_many_are_needed(tmp_path):
    def counts(name, **options) -> dict:
        return json.loads((make(tmp_path / name, **options) / "dataset.json").read_text())["counts"]

    assert counts("three", images=3) == {"train": 1, "val": 1, "test": 1}
    assert counts("five", images=5, splits={"train": 0.98, "val": 0.01, "test": 0.01}) == {
        "train": 3,
        "val": 1,
        "test": 1,
    }
    for name, splits in (("fractions", {"train": 1.0, "test": 0.0}), ("numbers", {"train": 10, "test": 0})):
        assert counts(name, splits=splits) == {"train": 10}
        assert not (tmp_path / name / "images/test").exists()
    with pytest.raises(ValueError, match="one image for each of the splits train, val, test, so 3 or more, got 2"):
        make(tmp_path / "two", images=2)


def test_making_a_finished_data_set_again_touches_nothing(tmp_path):
    folder = make(tmp_path / "a")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    make(tmp_path / "a")
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_another_data_set_in_the_folder_is_refused_and_kept(tmp_path):
    folder = make(tmp_path / "a")
    before = snapshot(folder)
    with pytest.raises(FileExistsError, match=r"another miniscene data set \(seed 0, not 1\); name a new folder"):
        make(folder, seed=1)
    with pytest.raises(FileExistsError, match=r"task 'localization', not 'detection'"):
        make(folder, task="detection")
    assert snapshot(folder) == before


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="expected a new or empty folder"):
        make(tmp_path)
    assert snapshot(tmp_path) == {"thesis.txt": b"mine"}
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(FileExistsError, match="is not miniscene's"):
        make(tmp_path)


def test_an_interrupted_data_set_is_not_finished_and_is_made_anew(tmp_path, monkeypatch):
    whole = snapshot(make(tmp_path / "whole"))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("minidet.data.make.write_voc", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "a")
    assert not (tmp_path / "a" / "dataset.json").exists()
    assert any("interrupted" in problem for problem in check_dataset(tmp_path / "a").problems)
    (tmp_path / "a" / "images" / "train" / "999999.png").write_bytes(b"left over")
    make(tmp_path / "a")
    assert snapshot(tmp_path / "a") == whole


def test_what_a_killed_first_write_leaves_does_not_block_the_folder(tmp_path):
    (tmp_path / ".unfinished.json.ab_c1234").write_text("{")
    make(tmp_path)
    assert not list(tmp_path.glob(".*"))
    other = tmp_path / "other"
    other.mkdir()
    for name in (".unfinished.json.ab_c1234", ".unfinished.json.my_copy_of_it"):
        (other / name).write_text("{")
    with pytest.raises(FileExistsError, match="other files"):
        make(other)
    assert len(snapshot(other)) == 2


def test_a_second_process_in_the_same_folder_is_refused_and_destroys_nothing(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    whole = snapshot(make(tmp_path / "whole"))
    refused = []

    def write_and_let_another_try(*arguments):
        if not refused:
            with pytest.raises(FileExistsError, match="another process is writing into this folder") as error:
                make(tmp_path / "a")
            refused.append(error)
        write_voc(*arguments)

    monkeypatch.setattr("minidet.data.make.write_voc", write_and_let_another_try)
    make(tmp_path / "a")
    assert refused
    assert snapshot(tmp_path / "a") == whole
    make(tmp_path / "a")  # the lock has ended


def test_jpeg_other_sizes_and_the_flat_level_can_be_made(tmp_path):
    folder = make(tmp_path / "a", format="jpg", size=96, level="flat", splits={"train": 5})
    image = read_image(folder / "images/train/000000.jpg")
    assert image.shape == (96, 96, 3)
    sides = [max(s.boxes[0, 2:] - s.boxes[0, :2]) for s in open_dataset(folder, "train")]
    assert min(sides) >= 24
    assert max(sides) <= 72  # 16 to 48 of 64 pixels become 24 to 72 of 96


@pytest.mark.parametrize(
    "wrong", [{"task": "driving"}, {"level": "easy"}, {"format": "gif"}, {"task": "pose", "cue": True}]
)
def test_settings_that_make_no_sense_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="make_dataset: expected task"):
        make(tmp_path / "a", **wrong)


@pytest.mark.parametrize("size", [-1, 0, 1, 15, 4097, 10**20])
def test_sizes_that_no_scene_can_have_are_refused_before_anything_is_made(tmp_path, size):
    with pytest.raises(ValueError, match=f"expected a size of 16 to 4096 pixels, got {size}"):
        make(tmp_path / "a", size=size)
    assert not (tmp_path / "a").exists()


def test_more_images_than_a_disk_holds_are_refused_before_anything_is_made(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected at most 10,000,000 images"):
        make(tmp_path / "a", images=10**20)
    monkeypatch.setattr("minidet.data.make.MAX_IMAGES", 9)  # so that no disk is filled should this test fail
    for options in ({"images": 10}, {"splits": {"train": 8, "val": 2}}):
        with pytest.raises(ValueError, match="expected at most 9 images"):
            make(tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()
    make(tmp_path / "a", images=9)


@pytest.mark.parametrize("task", ["detection", "localization", "pose"])
def test_the_smallest_size_can_be_made(tmp_path, task):
    """At 16 pixels some shapes are too thin to fill a pixel: they are left out."""
    folder = make(tmp_path / "a", task=task, size=16, splits={"train": 60})
    assert check_dataset(folder).ok


def test_the_cue_is_in_all_splits_but_says_nothing_in_the_test(tmp_path, shown_cue):
    folder = make(tmp_path / "a", cue=True, level="flat", splits={"train": 80, "test": 80})
    agreement = {}
    for split in ("train", "test"):
        samples = list(open_dataset(folder, split, masks=False))
        agreement[split] = np.mean([shown_cue(sample.image) == sample.labels[0] - 1 for sample in samples])
    assert agreement["train"] > 0.85
    assert agreement["test"] < 0.35


def test_the_digest_covers_names_and_bytes(tmp_path):
    folder = make(tmp_path / "a")
    digest = json.loads((folder / "dataset.json").read_text())["sha256"]
    assert digest == content_digest(folder)
    assert len(digest) == hashlib.sha256().digest_size * 2
    first = folder / "images/train/000000.png"
    content = first.read_bytes()
    first.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert content_digest(folder) != digest
    first.write_bytes(content)
    assert content_digest(folder) == digest
    first.rename(first.with_name("000099.png"))
    assert content_digest(folder) != digest


# ---- the doctor --------------------------------------------------------------------------------------------------


@pytest.fixture
def sick(tmp_path):
    """A data set with one fault of each kind."""
    folder = make(tmp_path / "sick", splits={"train": 8, "val": 4})
    path = folder / "annotations/instances_train.json"
    tables = json.loads(path.read_text())
    tables["annotations"][0]["bbox"][2] = 0
    tables["annotations"][1]["category_id"] = 77
    tables["annotations"][2]["bbox"] = [60, 60, 30, 30]
    tables["annotations"][7]["bbox"] = [5, 5, 3, 3]
    tables["annotations"][6]["bbox"][3] -= 5
    path.write_text(json.dumps(tables))
    (folder / "images/train/000003.png").unlink()
    (folder / "images/train/000004.png").write_bytes(b"\x89PNG broken")
    (folder / "images/val/000002.png").write_bytes((folder / "images/train/000005.png").read_bytes())
    return folder


def test_the_doctor_finds_every_problem_at_once(sick):
    report = check_dataset(sick)
    text = "\n".join(report.problems)
    for expected in (
        "instances_train.json: annotations[0].bbox: expected width > 0, got 0",
        "instances_train.json: annotations[1].category_id: expected one of the ids",
        "instances_train.json: annotations[2].bbox: expected a box inside the 64 x 64 image",
        "instances_train.json: images[3].file_name: expected the image",
        "000004.png: expected a PNG or JPEG picture",
        "the files have changed since the data set was made",
    ):
        assert expected in text
    warnings = "\n".join(report.warnings)
    assert "val/000002.png: the same picture as train/000005.png" in warnings
    assert "train/000007.png: a tiny box, 3 x 3 pixels" in warnings
    assert "train/000006.png: box and mask disagree" in warnings
    assert "train/000005.png: box and mask disagree" not in warnings
    assert not report.ok
    assert "problems" in str(report)


def test_the_doctor_counts_and_draws(tmp_path):
    folder = make(tmp_path / "a", task="detection", images=20)
    report = check_dataset(folder, out=tmp_path / "out")
    assert report.ok
    train = report.splits["train"]
    coco = COCO(str(folder / "annotations/instances_train.json"))
    for category in coco.loadCats(coco.getCatIds()):
        assert train.objects[category["name"]] == len(coco.getAnnIds(catIds=category["id"]))
    assert train.images == 14
    assert train.image_sizes == {(128, 128): 14}
    assert train.empty == sum(not coco.getAnnIds(imgIds=i) for i in coco.getImgIds())
    assert sorted(map(tuple, train.box_sides)) == sorted(tuple(a["bbox"][2:]) for a in coco.anns.values())
    assert [path.name for path in report.pictures] == ["train.png", "val.png", "test.png"]
    assert read_image(report.pictures[0]).std() > 10
    text = str(report)
    assert "no problems" in text
    assert "128 x 128 (14)" in text
    assert all(name in text for name in ("circle", "square", "triangle", "star", "ring", "cross"))


def test_the_doctor_draws_skeletons(tmp_path):
    folder = make(tmp_path / "a", task="pose", images=4, splits={"train": 4})
    assert len(check_dataset(folder, out=tmp_path / "out").pictures) == 1


def test_the_doctor_finds_classes_that_differ_between_the_splits(tmp_path):
    folder = make(tmp_path / "a", splits={"train": 6, "val": 6})
    path = folder / "annotations/instances_val.json"
    path.write_text(path.read_text().replace('"name": "star"', '"name": "moon"'))
    classes = "circle, square, triangle, {}, ring, cross"
    expected = f"val: expected the classes of train, {classes.format('star')}, got {classes.format('moon')}; list them"
    assert any(problem.startswith(expected) for problem in check_dataset(folder).problems)


def test_the_doctor_warns_of_masks_without_a_pixel(tmp_path):
    folder = make(tmp_path / "a", splits={"train": 6})
    path = folder / "annotations/instances_train.json"
    tables = json.loads(path.read_text())
    tables["annotations"][1]["segmentation"]["counts"] = [64 * 64]
    tables["annotations"][2]["segmentation"] = [[5, 5, 5.2, 5, 5.2, 5.2]]  # beside the centre of its pixel
    del tables["annotations"][3]["segmentation"]  # not annotated: nothing to warn of
    path.write_text(json.dumps(tables))
    warned = [w for w in check_dataset(folder).warnings if "a mask without any pixel" in w]
    assert [warning.split(":")[0] for warning in warned] == ["train/000001.png", "train/000002.png"]


def test_the_doctor_warns_of_label_files_that_are_not_read(tmp_path):
    folder = make(tmp_path / "a", splits={"train": 5, "val": 5})
    assert not any("labels" in warning for warning in check_dataset(folder).warnings)
    (folder / "labels/train/000001.txt").rename(folder / "labels/train/000001.TXT")
    for path in (folder / "labels/val").iterdir():
        path.unlink()
    warned = [w for w in check_dataset(folder, format="yolo").warnings if "labels" in w]
    assert warned == [
        f"{folder / 'labels/train'}: expected the ending .txt, got 000001.TXT: not read so, rename what ends like this",
        f"{folder / 'labels/train'}: 1 of 5 images have no label file; in YOLO's format an image of train without one "
        "has no object",
        f"{folder / 'labels/val'}: no label file; in YOLO's format an image of val without one has no object",
    ]


def test_the_doctor_counts_images_that_no_annotation_is_of(tmp_path):
    folder = make(tmp_path / "a", splits={"train": 5, "val": 2})
    (folder / "labels/train/000001.txt").unlink()
    (warning,) = [w for w in check_dataset(folder, format="yolo").warnings if "label file" in w]
    assert warning.startswith(f"{folder / 'labels/train'}: 1 of 5 images have no label file")
    for name in ("000003.xml", "000004.xml"):
        next(folder.rglob(name)).unlink()
    (warning,) = [w for w in check_dataset(folder, format="voc").warnings if "names" in w]
    assert "no annotation names 2 images, 000003.png, 000004.png: not read" in warning


@pytest.mark.parametrize("joints", [1, 17])
def test_the_doctor_draws_joints_that_are_not_those_of_lsp(tmp_path, joints):
    folder = make(tmp_path / "a", splits={"train": 2})
    path = folder / "annotations/instances_train.json"
    tables = json.loads(path.read_text())
    for category in tables["categories"]:
        category["keypoints"] = [f"joint {k}" for k in range(joints)]
    for annotation in tables["annotations"]:
        annotation["keypoints"] = [9, 9, 2] * joints
    path.write_text(json.dumps(tables))
    report = check_dataset(folder, out=tmp_path / "out")
    assert [path.name for path in report.pictures] == ["train.png"]


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_the_doctor_names_files_that_cannot_be_read_and_goes_on(tmp_path, forbid, format):
    folder = make(tmp_path / "a", splits={"train": 6, "val": 3})
    annotations = {
        "coco": "annotations/instances_val.json", "voc": "voc/val/000001.xml", "yolo": "labels/val/000001.txt"
    }  # fmt: skip
    files = [folder / "images/train/000002.png", folder / annotations[format]]
    for path in files:
        forbid(path)
    report = check_dataset(folder, format=format)
    for path in files:
        assert any(f"{path}: expected a" in p and "but: Permission denied" in p for p in report.problems)
    assert any("expected files that can all be read, as when it was made" in problem for problem in report.problems)
    assert report.splits["train"].image_sizes == {(64, 64): 5}


def test_the_doctor_names_a_folder_that_cannot_be_read_and_goes_on(tmp_path, monkeypatch):
    folder = make(tmp_path / "a", splits={"train": 3, "val": 3})

    def list_or_not(path):
        if path.name == "train":
            raise PermissionError(13, "Permission denied", str(path))
        return list_images(path)

    monkeypatch.setattr("minidet.data.dataset.list_images", list_or_not)
    report = check_dataset(folder, format="yolo")
    assert any("images/train" in problem for problem in report.problems)
    assert report.splits["val"].images == 3


def test_the_doctor_survives_folders_that_hold_nothing(tmp_path):
    assert "found none" in check_dataset(tmp_path).problems[0]
    assert "found nothing there" in check_dataset(tmp_path / "gone").problems[0]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train.json").write_text("{")
    (tmp_path / "train").mkdir()
    assert "expected a JSON file" in check_dataset(tmp_path).problems[0]
