"""`minidet train pose` from the first picture to the last: made data, a run, its metrics, its predictions."""

import json

import numpy as np
import pytest
from PIL import Image

from minidet.cli import main
from minidet.data import open_dataset

SETTINGS = ["size=64", "crop_size=32", "input_size=32", "refiner_size=8", "epochs=1", "batch_size=4", "images=8"]
SET_OPTIONS = [part for s in [*SETTINGS, "val_images=4", "test_images=3"] for part in ("--set", s)]
METRICS = {"pckh_50", "pdj_20", "pcp_50", "mean_error"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pose") / "run"
    assert main(["train", "pose", "--out", str(folder), *SET_OPTIONS]) == 0
    return folder


def test_a_run_has_the_metrics_of_poses_and_a_picture_with_a_legend(run) -> None:
    assert json.loads((run / "metrics.json").read_text()).keys() >= METRICS
    header = (run / "log.csv").read_text().splitlines()[0].split(",")
    assert {"stage1", "stage2", "val_pckh_50"} <= set(header)
    assert Image.open(run / "predictions.png").size[0] > 300
    assert open_dataset(run / "data", "train").flip_swap is None  # figures wear their sides as colours


def test_eval_and_predict_find_joints_in_the_pictures_pixels(run, tmp_path, capsys) -> None:
    assert main(["eval", str(run), "--out", str(tmp_path / "eval")]) == 0
    assert "mean_error is in pixels of the network's input" in capsys.readouterr().out
    again, before = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "eval", run))
    assert {name: again[name] for name in METRICS} == {name: before[name] for name in METRICS}
    image, other = list((run / "data").rglob("test/*.png"))[:2]
    assert main(["predict", str(run), str(image), str(other), "--out", str(tmp_path / "found")]) == 0
    told = capsys.readouterr().out
    assert told.count("the whole picture is taken as a person's box, so cut it to one person") == 1
    assert f"{image}: person at 0.0, 0.0, 64.0, 64.0\n" in told  # and no score, which DeepPose does not give
    ((person,), (_,)) = [entry["objects"] for entry in json.loads((tmp_path / "found/predictions.json").read_text())]
    assert person.keys() == {"class", "box", "keypoints"}
    assert person["class"] == "person"
    assert person["box"] == [0, 0, 64, 64]  # nobody says where the person is: the whole picture
    assert np.shape(person["keypoints"]) == (14, 3)
    assert (tmp_path / "found" / image.name).is_file()


def test_heat_maps_are_refused_before_anything_is_written(run, tmp_path, capsys) -> None:
    image = next((run / "data").rglob("test/*.png"))
    assert main(["heatmap", str(image), "--weights", str(run), "--out", str(tmp_path / "maps")]) == 2
    assert "expected a run of a network that gives scores of classes, got one of pose" in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()


def test_data_without_joints_are_refused_before_anything_is_trained(tmp_path, capsys) -> None:
    data = str(tmp_path / "scenes")
    assert main(["data", "make", data, "--task", "localization", "--images", "6"]) == 0
    assert main(["train", "pose", "--data", data, "--out", str(tmp_path / "run"), *SET_OPTIONS]) == 2
    assert "expected the 14 joints of lsp" in capsys.readouterr().err
