"""What a system adds to the commands: prepared data, plots of an evaluation, several or no objects in an image."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from minidet.cli import doctor, main
from minidet.cli.common import class_map
from minidet.cli.predict import as_json
from minidet.data import Dataset, open_dataset
from minidet.data.formats.record import Annotations
from minidet.training.recipes import localizer

MODULE = "minidet.training.recipes.localizer.SYSTEM"


@pytest.fixture
def hooks(monkeypatch):
    """The localizer with hooks; calls: what they were called with."""
    calls = []

    def prepare(dataset, config, folder, split):
        calls.append(("prepare", len(dataset), folder, split))
        for record in dataset.records:
            height, width = record.size
            record.proposals = np.array([[0.0, 0, width, height]])

    def complete(model, dataset, config, folder):
        calls.append(("complete", len(dataset), folder))

    def evaluate(model, dataset, batch_size):
        assert dataset[0].proposals.shape == (1, 4)
        metrics, predictions = localizer.evaluate(model, dataset, batch_size)
        return metrics | {"other": 0.9}, predictions

    def report(samples, predictions, classes, folder):
        calls.append(("report", len(samples), len(predictions), classes[0]))
        (folder / "curve.png").write_bytes(b"a plot")
        return [folder / "curve.png"]

    added = {"prepare": prepare, "complete": complete, "evaluate": evaluate, "report": report}
    system = replace(localizer.SYSTEM, doctor=("epochs=7", "batch_size=4"), doctor_metric="other", **added)
    monkeypatch.setattr(MODULE, system)
    return calls


def test_eval_prepares_the_split_and_says_where_the_plots_are(trained, hooks, tmp_path, capsys):
    assert main(["eval", str(trained), "--out", str(tmp_path)]) == 0
    assert hooks == [("prepare", 5, trained, "test"), ("report", 5, 5, "__background__")]
    told = capsys.readouterr().out
    assert re.search(
        rf"to look at:\n  {tmp_path}/predictions.png\n  {tmp_path}/curve.png\n  {tmp_path}/metrics.js", told
    )
    assert "classes: 1 circle, 2 square, 3 triangle, 4 star, 5 ring, 6 cross\n" in told
    assert (tmp_path / "curve.png").read_bytes() == b"a plot"


def test_the_doctor_prepares_completes_and_learns_with_the_systems_settings(trained, hooks, tmp_path, capsys):
    code = main(["doctor", "--data", str(trained / "data"), "--set", "size=32", "--out", str(tmp_path)])
    assert hooks == [("prepare", 8, tmp_path, "train"), ("complete", 8, tmp_path)]
    told = capsys.readouterr().out
    assert re.search(r"^  steps +14$", told, re.MULTILINE)  # 7 epochs of 2 batches
    assert "the loss fell from" in told
    assert "mean_iou is" not in told
    assert code == 1
    assert "classes: 1 circle, 2 square," in told


def test_the_doctor_goes_by_the_metric_that_the_system_says(capsys):
    system = replace(localizer.SYSTEM, doctor_metric="other")
    assert doctor.verdict(system, [1.0, 0.01], {"mean_iou": 0.1, "other": 0.9}) == 0
    assert doctor.verdict(system, [1.0, 0.01], {"mean_iou": 0.9, "other": 0.1}) == 1
    assert "other is 0.100, expected 0.8 or more" in capsys.readouterr().out


def test_training_prints_the_class_map_and_prepares_every_split(trained, hooks, tmp_path, capsys):
    options = ["--set", "size=32", "--set", "epochs=1", "--set", "batch_size=8"]
    assert main(["train", "localizer", "--data", str(trained / "data"), "--out", str(tmp_path / "run"), *options]) == 0
    assert "classes: 1 circle, 2 square, 3 triangle, 4 star, 5 ring, 6 cross\n" in capsys.readouterr().out
    assert [call[0::3] for call in hooks] == [
        ("prepare", "train"), ("prepare", "val"), ("prepare", "test"), ("complete",)
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- the class map


def test_the_class_map_says_cocos_ids_where_they_are_others_and_breaks_no_name():
    names = ("__background__", *(f"very long name {k}" for k in range(1, 12)))
    ids = (1, 2, 3, 90, *range(100, 107))
    lines = class_map(Dataset(Annotations([], names, ids))).splitlines()
    assert lines[0].startswith(
        "classes: 1 very long name 1, 2 very long name 2, 3 very long name 3, 4 very long name 4 (id 90)"
    )
    assert all(line.startswith("         ") and len(line) < 120 for line in lines[1:])
    assert len(lines) > 1
    told = [item.strip() for item in " ".join(lines).removeprefix("classes: ").split(",")]
    assert told[4] == "5 very long name 5 (id 100)"
    assert class_map(Dataset(Annotations([], ("__background__", "person")))) == "classes: 1 person"


# ----------------------------------------------------------------------------------- several objects, and none


@pytest.mark.parametrize("count", [0, 1, 3])
def test_predictions_become_one_entry_an_object(count):
    found = {
        "boxes": np.arange(4 * count, dtype=np.float32).reshape(count, 4),
        "labels": np.arange(1, count + 1),
        "scores": np.full(count, 0.5, np.float32),
    }
    objects = as_json(found, ("__background__", "a", "b", "c"))
    assert objects == [
        {"class": "abc"[k], "score": 0.5, "box": [4.0 * k, 4.0 * k + 1, 4.0 * k + 2, 4.0 * k + 3]} for k in range(count)
    ]
    assert json.loads(json.dumps(objects)) == objects


def test_predict_lists_several_objects_of_an_image_and_none_of_another(trained, tmp_path, monkeypatch, capsys):
    def predict(model, samples, batch_size):
        count = 2 if samples[0].image.shape[1] > 30 else 0
        boxes = np.array([[1.0, 2, 11, 12], [3, 4, 13, 14]])[:count]
        return [{"boxes": boxes, "labels": np.array([2, 5])[:count], "scores": np.array([0.9, 0.25])[:count]}]

    monkeypatch.setattr(MODULE, replace(localizer.SYSTEM, predict=predict))
    images = [str(tmp_path / "many.png"), str(tmp_path / "none.png")]
    for path, width in zip(images, (40, 20), strict=True):
        Image.fromarray(np.full((20, width, 3), 90, np.uint8)).save(path)
    assert main(["predict", str(trained), *images, "--out", str(tmp_path / "found")]) == 0
    many, none = json.loads((tmp_path / "found/predictions.json").read_text())
    assert [thing["class"] for thing in many["objects"]] == ["square", "ring"]
    assert many["objects"][1] == {"class": "ring", "score": 0.25, "box": [3, 4, 13, 14]}
    assert none["objects"] == []
    told = capsys.readouterr().out
    assert f"{images[0]}: square 0.90 at 1.0, 2.0, 11.0, 12.0" in told
    assert f"{images[1]}: nothing found" in told
    assert (tmp_path / "found/none.png").is_file()


# ------------------------------------------------------------------------------------- data that are wrong


def change(folder, split, make):
    path = folder / f"annotations/instances_{split}.json"
    tables = json.loads(path.read_text())
    make(tables)
    path.write_text(json.dumps(tables))


def as_corners(tables):
    for annotation in tables["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]


def from_zero(tables):
    for annotation in tables["annotations"]:
        annotation["category_id"] -= 1


def outside(tables):
    for annotation in tables["annotations"]:
        annotation["bbox"][0] += 500


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (as_corners, "boxes: expected x, y, width, height in pixels, .* read as x1, y1, x2, y2 in pixels"),
        (from_zero, "labels: expected the numbers 1 to 6 .* have 0, .* shifted by one"),
        (outside, r"boxes: .* inside their images, but 16 of 16 are outside"),
    ],
)
def test_the_doctor_names_the_cause_instead_of_training(spoil, cause, trained, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(trained / "data", data)
    change(data, "train", spoil)
    assert main(["doctor", "--data", str(data), "--out", str(tmp_path / "doctor")]) == 1
    told = capsys.readouterr().out
    assert f"ill: nothing can be learned from {data} as its split train is annotated now" in told
    assert re.search(cause, told)
    assert not (tmp_path / "doctor").exists()
    assert main(["train", "localizer", "--data", str(data), "--out", str(tmp_path / "run")]) == 2
    assert f"`minidet data check {data}` lists what else is wrong" in capsys.readouterr().err


def test_a_single_mistake_is_an_error_for_the_doctor_and_no_cause(trained, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(trained / "data", data)
    change(data, "train", lambda tables: tables["annotations"][3].update(bbox=[0, 0, 0, 5]))
    assert main(["doctor", "--data", str(data), "--out", str(tmp_path / "doctor")]) == 2
    assert "annotations[3].bbox: expected width > 0, got 0" in capsys.readouterr().err


def test_a_training_split_without_any_object_is_refused(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(MODULE, replace(localizer.SYSTEM, check=lambda dataset, config: None))
    data = tmp_path / "data"
    shutil.copytree(trained / "data", data)
    change(data, "train", lambda tables: tables.update(annotations=[]))
    assert len(open_dataset(data, "train")) == 16
    assert main(["train", "localizer", "--data", str(data), "--out", str(tmp_path / "run"), "--set", "size=32"]) == 2
    assert "expected objects to learn in the split train, found none in its 16 images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["doctor", "--data", str(data), "--out", str(tmp_path / "doctor")]) == 2
    assert "expected objects in the first 8 images of train, found none" in capsys.readouterr().err
