"""minidet heatmap: pictures and a list, or one line that says why not."""

import json

import numpy as np
import pytest
from PIL import Image

from minidet import nn
from minidet.cli import heatmap, main
from minidet.heatmaps import METHODS, AugmentedCAM, Gradient


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / "photo.png", tmp_path / "other.jpg"]
    rng = np.random.default_rng(0)
    for path, size in zip(paths, ((40, 60, 3), (32, 32, 3)), strict=True):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)
    return paths


def test_every_image_gets_a_picture_and_an_entry(trained, pictures, tmp_path, capsys):
    command = ["heatmap", *map(str, pictures), "--weights", str(trained), "--out", str(tmp_path / "maps")]
    assert main(command) == 0
    told = capsys.readouterr().out
    entries = json.loads((tmp_path / "maps/heatmaps.json").read_text())
    assert [entry["picture"] for entry in entries] == ["photo.png", "other.png"]
    for path, entry in zip(pictures, entries, strict=True):
        assert (entry["layer"], entry["methods"]) == ("backbone", ["gradcam"])
        assert f"{path}: {entry['class']} {entry['score']:.2f}" in told
        with Image.open(tmp_path / "maps" / entry["picture"]) as picture:
            assert min(picture.size) > 200
        assert f"layer backbone, written to {tmp_path / 'maps' / entry['picture']}" in told
    assert f"to look at: {tmp_path / 'maps'}" in told


def test_the_score_is_that_of_predict_and_another_class_may_be_asked_for(trained, pictures, tmp_path, capsys):
    image, out = str(pictures[0]), tmp_path / "maps"
    assert main(["predict", str(trained), image, "--out", str(tmp_path / "found")]) == 0
    (found,) = json.loads((tmp_path / "found/predictions.json").read_text())[0]["objects"]
    assert main(["heatmap", image, "--weights", str(trained), "--out", str(out)]) == 0
    (entry,) = json.loads((out / "heatmaps.json").read_text())
    assert entry["class"] == found["class"]
    assert entry["score"] == pytest.approx(found["score"], rel=1e-5)
    before = (out / "photo.png").read_bytes()
    other = "ring" if found["class"] != "ring" else "star"
    assert "asked for" not in capsys.readouterr().out
    assert main(["heatmap", image, "--weights", str(trained), "--class", other, "--out", str(out)]) == 0
    assert ", the class asked for" in capsys.readouterr().out
    (entry,) = json.loads((out / "heatmaps.json").read_text())
    assert entry["class"] == other
    assert entry["score"] < found["score"]
    assert (out / "photo.png").read_bytes() != before


def test_all_methods_are_compared_and_cam_is_left_out_where_it_has_no_meaning(trained, pictures, tmp_path, capsys):
    out = tmp_path / "maps"
    command = ["heatmap", str(pictures[0]), "--weights", str(trained), "--method", "all", "--out", str(out)]
    assert main([*command, "--layer", "backbone.stages.0"]) == 0
    (entry,) = json.loads((out / "heatmaps.json").read_text())
    assert entry["layer"] == "backbone.stages.0"
    assert entry["methods"] == [name for name in METHODS if name != "cam"]
    assert "expected a network that ends in this layer" in entry["left_out"]["cam"]
    assert "cam left out: CAM of layer" in capsys.readouterr().out


def test_copies_make_another_map_and_leave_maps_of_the_image_alone(trained, pictures, tmp_path):
    command = ["heatmap", str(pictures[0]), "--weights", str(trained)]
    assert main([*command, "--out", str(tmp_path / "coarse")]) == 0
    assert main([*command, "--copies", "3", "--out", str(tmp_path / "sharp")]) == 0
    told = [json.loads((tmp_path / folder / "heatmaps.json").read_text()) for folder in ("coarse", "sharp")]
    assert [entry.get("copies") for (entry,) in told] == [None, 3]
    assert (tmp_path / "coarse/photo.png").read_bytes() != (tmp_path / "sharp/photo.png").read_bytes()
    methods = heatmap.make_methods(nn.Sequential(nn.Conv2d(3, 2, 3)), ("gradcam", "gradient"), None, 3)
    assert (type(methods["gradcam"]), methods["gradcam"].copies) == (AugmentedCAM, 3)
    assert type(methods["gradient"]) is Gradient


def test_a_picture_says_how_its_map_was_made() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(4, 2))
    image = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)
    for copies, ending in ((None, ""), (3, ", sharp from 3 copies")):
        for name, method in heatmap.make_methods(network, heatmap.METHODS, None, copies).items():
            method(image)
            of = "image" if name in heatmap.OF_THE_IMAGE else "1" + ending
            assert heatmap.made_how(name, method) == f"{name} of {of}"


def test_the_default_folder_is_in_the_run(trained, pictures):
    assert main(["heatmap", str(pictures[0]), "--weights", str(trained), "--method", "smoothgrad"]) == 0
    (entry,) = json.loads((trained / "heatmaps/heatmaps.json").read_text())
    assert entry["layer"] == "image"


def test_a_broken_image_is_passed_over(trained, pictures, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    images = [str(tmp_path / "broken.png"), str(pictures[1])]
    assert main(["heatmap", *images, "--weights", str(trained), "--out", str(tmp_path / "maps")]) == 2
    told = capsys.readouterr()
    assert "broken.png: expected a PNG or JPEG" in told.err
    assert [entry["image"] for entry in json.loads((tmp_path / "maps/heatmaps.json").read_text())] == images[1:]
    assert "to look at" in told.out


@pytest.mark.parametrize("command", ["heatmap {} --weights {} --out {}", "predict {1} {0} --out {2}"])
def test_without_a_picture_nothing_is_to_be_looked_at(trained, tmp_path, capsys, command):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert main(command.format(tmp_path / "broken.png", trained, tmp_path / "maps").split()) == 2
    assert capsys.readouterr().out == ""


def test_a_map_of_zeros_is_told(trained, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(METHODS["gradcam"], "finish", lambda self, maps: 0 * maps)
    monkeypatch.setattr(METHODS["gradient"], "__call__", lambda self, images, index: np.zeros((1, 64, 64), np.float32))
    for method, where in (("gradcam", "layer backbone"), ("gradient", "the image")):
        command = ["heatmap", str(pictures[0]), "--weights", str(trained), "--class", "star", "--method", method]
        assert main([*command, "--out", str(tmp_path / "maps")]) == 0
        assert f"  {method}: nothing in {where} speaks for star\n" in capsys.readouterr().out
        (entry,) = json.loads((tmp_path / "maps/heatmaps.json").read_text())
        assert entry["empty"] == [method]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--class", "dog"],
            "--class: expected one of the run's classes, circle, square, triangle, star, ring, cross",
        ),
        (["--layer", "backbone.stage.0"], "Localizer has no layer 'backbone.stage.0'; near it are 'backbone.stages.0'"),
        (["--layer", "class_head"], "expected a layer with a map"),
        (["--layer", "box_head"], "the layer did not run when the scores were computed"),
        (["--method", "cam"], "found that Linear 'class_head.2' reads (1, 256), which are not the means or maxima"),
        (["--method", "gradient", "--layer", "backbone"], "--layer: gradient makes a map of the image itself"),
        (["--copies", "0"], "--copies: expected 1 or more, got 0"),
        (["--method", "guided", "--copies", "5"], "--copies: guided's map is as fine as the image"),
        (["--device", "cuda"], "--device cuda: expected cpu or emulated"),
        (["--out", "."], "--out: expected a folder without the images to look at"),
    ],
)
def test_bad_input_is_told_in_one_line(trained, pictures, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    command = ["heatmap", str(pictures[0]), "--weights", str(trained), "--out", str(tmp_path / "maps"), *options]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
    assert len(told.splitlines()) == 1


def test_a_folder_that_is_no_run_is_refused(pictures, tmp_path, capsys):
    assert main(["heatmap", str(pictures[0]), "--weights", str(tmp_path)]) == 2
    assert "expected the folder of a run" in capsys.readouterr().err
    assert main(["heatmap", str(pictures[0]), "--weights", str(pictures[1])]) == 2
    assert "expected the folder of a run, got a file; name the folder" in capsys.readouterr().err


def test_the_commands_names_are_those_of_the_methods():
    assert tuple(METHODS) == heatmap.METHODS
    assert all(METHODS[name].layer_name == "image" for name in heatmap.OF_THE_IMAGE)
