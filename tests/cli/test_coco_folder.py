"""A folder as COCO hands it out: split names with years, joints in files of their own, more classes than are wanted."""

import json
import shutil

import numpy as np
import pytest

from minidet.cli import main
from minidet.cli.common import open_split, open_splits
from minidet.data import AnnotationError, make_dataset, open_dataset, read_image
from minidet.training import load_system

SETTINGS = ("size=64", "epochs=1", "batch_size=4", "stride=8", "hidden=8", "mask_channels=4", "mask_convolutions=1")
SET_OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """annotations/instances_train2017.json with train2017/, the same for val, and nothing else."""
    made = make_dataset(
        tmp_path_factory.mktemp("made") / "data", 24, "detection", size=64, splits={"train": 16, "val": 8}
    )
    folder = tmp_path_factory.mktemp("coco")
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        shutil.copytree(made / "images" / split, folder / f"{split}2017")
        annotations = f"annotations/instances_{split}"
        shutil.copy(made / f"{annotations}.json", folder / f"{annotations}2017.json")
    return folder


@pytest.fixture(scope="module")
def run(coco, tmp_path_factory):
    """A Mask R-CNN of two of the six classes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    command = ["train", "mask_rcnn", "--data", str(coco), "--classes", "star, circle", "--out", str(folder)]
    assert main([*command, *SET_OPTIONS]) == 0
    return folder


def test_some_of_the_classes_are_learned_in_the_named_order(run):
    assert json.loads((run / "config.json").read_text())["classes"] == ["__background__", "star", "circle"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["split"] == "val"
    assert metrics["mask_map"] >= 0


def test_a_run_is_measured_on_its_own_classes(run, coco, capsys):
    assert main(["eval", str(run), "--split", "val"]) == 0
    told = capsys.readouterr().out
    star, circle = (open_dataset(coco, "val").category_ids[place] for place in (3, 0))
    assert f"classes: 1 star (id {star}), 2 circle (id {circle})\n" in told
    assert "on 8 images" in told  # those without stars and circles, too
    measured = json.loads((run / "eval-val/metrics.json").read_text())
    trained = json.loads((run / "metrics.json").read_text())
    assert {name: measured[name] for name in ("map", "mask_map")} == {
        name: trained[name] for name in ("map", "mask_map")
    }


def test_masks_in_a_file_of_results_are_measured(run, coco, capsys):
    assert main(["eval", str(run)]) == 0
    results = run / "eval-val/masks.json"
    entries = json.loads(results.read_text())
    assert entries
    capsys.readouterr()
    assert main(["eval", str(results), "--data", str(coco), "--kind", "masks"]) == 0
    told = capsys.readouterr().out
    assert "mask_map_50" in told
    for drawn in (run / "eval-val", run / "eval-val/masks-eval-val"):
        assert (drawn / "mask-precision-recall.png").is_file()
    assert str(run / "eval-val/masks-eval-val/mask-precision-recall.png") in told
    assert main(["eval", str(results), "--data", str(coco)]) == 2
    assert "entry 0.bbox: expected this field, got none; are they results of another kind?" in capsys.readouterr().err
    assert main(["eval", str(run), "--kind", "masks"]) == 2
    assert f"--kind: of {run}, a run, all that it detects is measured; leave it out" in capsys.readouterr().err


def test_perfect_masks_have_an_average_precision_of_1(coco, tmp_path):
    dataset = open_dataset(coco, "val")
    truth = json.loads((coco / "annotations/instances_val2017.json").read_text())
    entries = [
        {key: entry[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 0.5}
        for entry in truth["annotations"]
        if not entry["iscrowd"]
    ]
    (tmp_path / "perfect.json").write_text(json.dumps(entries))
    assert len(dataset) == 8
    assert main(["eval", str(tmp_path / "perfect.json"), "--data", str(coco), "--kind", "masks"]) == 0
    assert json.loads((tmp_path / "perfect-eval-val/metrics.json").read_text())["mask_map"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "star,cat"], "the classes circle, square, triangle, star, ring, cross, each once, got ['cat']"),
        (["--classes", "star,star"], "each once, got ['star', 'star']"),
        (["--classes", ""], "each once, got ['']"),
    ],
)
def test_classes_that_are_not_there_are_refused(options, message, coco, tmp_path, capsys):
    command = ["train", "mask_rcnn", "--data", str(coco), "--out", str(tmp_path / "run"), *SET_OPTIONS]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_classes_need_data_and_are_not_changed_by_a_resumed_run(run, tmp_path, capsys):
    assert main(["train", "ssd", "--classes", "star", "--out", str(tmp_path / "run")]) == 2
    assert "--classes: expected --data DIR with it" in capsys.readouterr().err
    assert main(["train", "mask_rcnn", "--out", str(run), "--resume", "--classes", "star"]) == 2
    assert "the run has the classes star,circle, got --classes star; leave it out" in capsys.readouterr().err


def test_a_run_of_all_classes_in_another_order_is_measured_on_its_data(coco, tmp_path):
    """And learns from images with objects alone, as it was asked for classes."""
    names = "cross,ring,star,triangle,square,circle"
    command = ["train", "ssd", "--data", str(coco), "--classes", names, "--out", str(tmp_path), "--set", "size=64"]
    assert main([*command, "--set", "epochs=1", "--set", "batch_size=8"]) == 0
    assert main(["eval", str(tmp_path)]) == 0
    measured = json.loads((tmp_path / "eval-val/metrics.json").read_text())
    assert measured["map"] == json.loads((tmp_path / "metrics.json").read_text())["map"]
    settings = load_system("ssd").configure(["size=64"])
    whole, some = (open_splits(coco, load_system("ssd"), settings, classes) for classes in (None, names.split(",")))
    assert any(len(record.boxes) == 0 for record in whole["train"].records)
    assert all(len(record.boxes) for record in some["train"].records)
    assert len(some["val"]) == len(whole["val"])


def test_results_are_measured_on_the_classes_that_were_looked_for(coco, tmp_path, capsys):
    truth = json.loads((coco / "annotations/instances_val2017.json").read_text())
    star = next(category["id"] for category in truth["categories"] if category["name"] == "star")
    entries = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
        for entry in truth["annotations"]
        if not entry["iscrowd"] and entry["category_id"] == star
    ]
    (tmp_path / "stars.json").write_text(json.dumps(entries))
    command = ["eval", str(tmp_path / "stars.json"), "--data", str(coco)]
    for options, right in (([], False), (["--classes", "star"], True)):
        assert main([*command, *options]) == 0
        assert (json.loads((tmp_path / "stars-eval-val/metrics.json").read_text())["map"] == 1) is right
    assert "-1: there are no such objects" in capsys.readouterr().out
    assert main([*command, "--classes", "ring"]) == 0  # what was not looked for does not count
    assert "there is no detection at all" in capsys.readouterr().out
    (tmp_path / "stars.json").write_text(json.dumps([entries[0] | {"category_id": 12345}]))
    assert main([*command, "--classes", "ring"]) == 2
    assert "expected the id of a class of the data set, got 12345" in capsys.readouterr().err
    assert main([*command, "--weights", "last"]) == 2
    assert "--weights: expected a run with it, results have none; leave it out" in capsys.readouterr().err


def test_masks_and_joints_are_not_measured_where_there_are_none(coco, tmp_path, capsys):
    folder = tmp_path / "coco"
    shutil.copytree(coco, folder)
    path = folder / "annotations/instances_val2017.json"
    tables = json.loads(path.read_text())
    for entry in tables["annotations"]:
        entry.pop("segmentation")
    path.write_text(json.dumps(tables))
    (tmp_path / "none.json").write_text("[]")
    for kind, message in (("masks", "expected a mask for each object"), ("keypoints", "expected people's joints")):
        assert main(["eval", str(tmp_path / "none.json"), "--data", str(folder), "--kind", kind]) == 2
        assert message in capsys.readouterr().err


def test_a_box_without_an_area_among_thousands_is_left_out(coco, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "coco"
    shutil.copytree(coco, folder)
    path = folder / "annotations/instances_val2017.json"
    tables = json.loads(path.read_text())
    tables["annotations"][0]["bbox"][3] = 0.0
    path.write_text(json.dumps(tables))
    before, system = open_dataset(coco, "val"), load_system("ssd")
    with pytest.raises(AnnotationError, match=r"annotations\[0\].bbox: expected height > 0, got 0"):
        open_split(folder, "val", system)
    monkeypatch.setattr("minidet.cli.common.MOST_FLAT", 0.1)
    split = open_split(folder, "val", system)
    assert sum(len(r.boxes) for r in split.records) == sum(len(r.boxes) for r in before.records) - 1
    assert (
        "note: boxes without an area are left out, 1 in val; the first is instances_val2017" in capsys.readouterr().out
    )
    tables["annotations"][0]["bbox"][3] = -1.0
    path.write_text(json.dumps(tables))
    with pytest.raises(AnnotationError, match="expected height > 0, got -1"):
        open_split(folder, "val", system)


def test_a_class_that_a_split_does_not_show_is_named(coco, tmp_path, capsys):
    folder = tmp_path / "coco"
    shutil.copytree(coco, folder)
    for split in ("train", "val"):
        path = folder / f"annotations/instances_{split}2017.json"
        tables = json.loads(path.read_text())
        tables["categories"].append({"id": 77, "name": "unicorn"})
        path.write_text(json.dumps(tables))
    assert main(["train", "ssd", "--data", str(folder), "--classes", "unicorn", "--out", str(tmp_path / "run")]) == 2
    assert "--classes: expected objects of unicorn, found none in the split train" in capsys.readouterr().err


def test_a_detection_far_outside_is_drawn_in_a_picture_of_some_size(coco, tmp_path):
    image = open_dataset(coco, "val").records[0].image_id
    boxes = [0, 0, 1e5, 10], [-1e8, -1e8, 1e9, 1e9]
    entries = [{"image_id": image, "category_id": 1, "score": 0.9, "bbox": box} for box in boxes]
    (tmp_path / "far.json").write_text(json.dumps(entries))
    assert main(["eval", str(tmp_path / "far.json"), "--data", str(coco)]) == 0
    assert read_image(tmp_path / "far-eval-val/worst-detections.png").size < 10_000_000


def test_splits_of_two_years_are_refused(coco, tmp_path, capsys):
    folder = tmp_path / "coco"
    shutil.copytree(coco, folder)
    (folder / "annotations/instances_val2017.json").rename(folder / "annotations/instances_val2014.json")
    (folder / "val2017").rename(folder / "val2014")
    assert main(["train", "ssd", "--data", str(folder), "--out", str(tmp_path / "run")]) == 2
    assert "expected splits of one year, got 2014, 2017, which may have images in common" in capsys.readouterr().err


def test_joints_are_read_where_coco_has_them(tmp_path, capsys):
    made = make_dataset(tmp_path / "made", 8, "people", size=64, splits={"train": 4, "val": 4})
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        shutil.copytree(made / "images" / split, folder / f"{split}2017")
        path = made / f"annotations/person_keypoints_{split}.json"
        shutil.copy(path, folder / f"annotations/person_keypoints_{split}2017.json")
        tables = json.loads(path.read_text())
        tables["categories"] = [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}]
        for entry in tables["annotations"]:
            del entry["keypoints"]
        (folder / f"annotations/instances_{split}2017.json").write_text(json.dumps(tables))
    assert open_dataset(folder, "train").classes[1:] == ("person", "bicycle")
    with_joints = open_dataset(folder, "train", joints=True)
    np.testing.assert_array_equal(with_joints[0].keypoints, open_dataset(made, "train")[0].keypoints)
    settings = [part for setting in ("epochs=1", "channels=4", "size=64", "stages=1") for part in ("--set", setting)]
    assert main(["train", "openpose", "--data", str(folder), "--out", str(tmp_path / "run"), *settings]) == 0
    assert main(["eval", str(tmp_path / "run")]) == 0
    results = str(tmp_path / "run/eval-val/keypoints.json")
    assert main(["eval", results, "--data", str(folder), "--kind", "keypoints"]) == 0
    assert "keypoint_map_50" in capsys.readouterr().out
    assert (tmp_path / "run/eval-val/keypoint-precision-recall.png").is_file()
