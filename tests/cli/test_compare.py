"""minidet compare: the four detectors trained on a few small images, and what is refused."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
from PIL import Image

from minidet.cli import compare, main

SETTINGS = ["size=48", "images=8", "val_images=4", "test_images=4", "epochs=1", "batch_size=4"]
SET_OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]
NAMES = ["sliding_window", "rcnn", "fast_rcnn", "faster_rcnn", "yolo", "ssd", "mask_rcnn"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a comparison for which the four were trained."""
    folder = tmp_path_factory.mktemp("compare") / "four"
    assert main(["compare", "--out", str(folder), "--seed", "3", *SET_OPTIONS]) == 0
    return folder


def read(path):
    return json.loads(path.read_text())


def test_the_four_are_trained_on_the_same_images_and_measured(compared):
    result = read(compared / "compare.json")
    assert [row["system"] for row in result["runs"]] == NAMES
    assert [row["name"] for row in result["runs"]] == [
        "sliding window", "R-CNN", "Fast R-CNN", "Faster R-CNN", "YOLO", "SSD", "Mask R-CNN"
    ]  # fmt: skip
    assert (result["split"], result["images"], result["timed_images"]) == ("test", 4, 4)
    assert result["environment"]["device"] == "cpu"
    configs = [read(compared / name / "config.json") for name in NAMES]
    assert len({config["data"] for config in configs}) == 1
    assert {config["seed"] for config in configs} == {3}
    for row, name in zip(result["runs"], NAMES, strict=True):
        parts = [row["seconds"][stage] for stage in ("proposals", "features", "heads", "rest")]
        assert (parts[0] > 0) == (name not in ("yolo", "ssd"))  # one look has no proposals
        assert all(part > 0 for part in parts[1:])
        assert row["seconds"]["all"] == pytest.approx(sum(parts), rel=1e-9)
        own = read(compared / name / "metrics.json")
        assert row["train_seconds"] == own["train_seconds"] > 0
        assert row["metrics"] == {key: own[key] for key in row["metrics"]}
        assert {"map", "map_50", "map_75"} <= row["metrics"].keys()
    with Image.open(compared / "compare.png") as picture:
        assert picture.size[0] > 1000


def test_what_lies_on_disk_is_counted(compared):
    rows = {row["system"]: row for row in read(compared / "compare.json")["runs"]}
    for name, row in rows.items():
        files = list((compared / name).glob("selective-search-*.safetensors"))
        assert len(files) == (3 if name in ("rcnn", "fast_rcnn") else 0)  # train, val, test
        assert row["bytes"]["proposals"] == sum(path.stat().st_size for path in files)
        assert row["search_seconds"] == pytest.approx((8 + 4 + 4) * row["seconds"]["proposals"] if files else 0)
        assert row["bytes"]["weights"] == (compared / name / "best.safetensors").stat().st_size
        assert (row["bytes"]["features"] > 0) == (name == "rcnn")
    stages = read(compared / "rcnn/rcnn_stages.json")
    assert rows["rcnn"]["bytes"]["features"] == stages["bytes"] > stages["regions"] * 256 * 2  # fc7, as float16
    assert stages["regions"] > 8


def test_started_again_it_takes_what_is_finished_and_goes_on_with_the_rest(compared, tmp_path, capsys):
    again = tmp_path / "again"
    shutil.copytree(compared, again)
    (again / "fast_rcnn/metrics.json").unlink()  # written last: without it the run is unfinished
    shutil.rmtree(again / "faster_rcnn")
    kept = {name: (again / name / "best.safetensors").stat().st_mtime_ns for name in NAMES[:2]}
    assert main(["compare", "--out", str(again), *SET_OPTIONS]) == 0
    told = capsys.readouterr().out
    assert f"{again / 'rcnn'} is finished" in told
    assert f"{again / 'fast_rcnn'} is finished" not in told
    assert {name: (again / name / "best.safetensors").stat().st_mtime_ns for name in NAMES[:2]} == kept
    rows = {name: read(folder / "compare.json")["runs"] for name, folder in (("old", compared), ("new", again))}
    for new, old in zip(rows["new"][:3], rows["old"][:3], strict=True):
        assert new["seconds"] != old["seconds"]  # measured anew
    assert [row["metrics"] for row in rows["new"][:3]] == [row["metrics"] for row in rows["old"][:3]]


def test_runs_are_compared_on_the_last_ones_data_and_the_split_that_is_named(compared, tmp_path, capsys):
    runs = [str(compared / "faster_rcnn"), str(compared / "sliding_window"), str(compared / "faster_rcnn")]
    assert main(["compare", *runs, "--split", "val", "--out", str(tmp_path / "out")]) == 0
    result = read(tmp_path / "out/compare.json")
    assert (result["data"], result["split"]) == (str(compared / "data"), "val")
    assert [row["name"] for row in result["runs"]] == [
        f"Faster R-CNN ({runs[0]})", "sliding window", f"Faster R-CNN ({runs[2]})"
    ]  # fmt: skip
    assert result["runs"][0]["metrics"] == result["runs"][2]["metrics"]
    told = capsys.readouterr().out
    assert "4 images of" in told
    assert "classes: 1 circle" in told
    assert "note" not in told
    assert (
        "".join(f"  {tmp_path / 'out' / name}\n" for name in ("compare.png", "speed-accuracy.png", "compare.json"))
        in told
    )


def test_runs_that_saw_other_images_have_a_note():
    runs = [SimpleNamespace(config={"digests": {"train": digest, "val": "v"}}) for digest in "aab"]
    assert compare.notes(runs[:2]) == []
    assert compare.notes(runs) == ["note: these runs were trained on different images"]


def test_the_table():
    def row(name, milliseconds, train_seconds, proposals, features):
        seconds = [value / 1e3 for value in milliseconds]
        return {
            "name": name,
            "seconds": dict(zip(("proposals", "features", "heads", "rest"), seconds, strict=True))
            | {"all": sum(seconds)},
            "train_seconds": train_seconds,
            "search_seconds": 70.4 if proposals else 0.0,
            "bytes": {"proposals": proposals, "features": features, "weights": 3_140_000},
            "metrics": {"map": 0.5, "map_50": 0.81649, "map_75": -1.0},
        }

    rows = [row("R-CNN", (24, 210.04, 8.5, 3), 320.6, 18_000_000, 240_000_000), row("other", (1, 2, 3, 4), None, 0, 0)]
    expected = """
         milliseconds an image                    seconds before      megabytes on disk             found
         proposals  features  heads  rest    all  search  training  proposals  features  weights     AP   AP50    AP75
R-CNN         24.0     210.0    8.5   3.0  245.5      70       321       18.0     240.0      3.1  0.500  0.816  -1.000
other          1.0       2.0    3.0   4.0   10.0       -         -          -         -      3.1  0.500  0.816  -1.000
"""
    told = compare.table(rows)
    assert [line.split() for line in told.splitlines()] == [line.split() for line in expected.strip("\n").splitlines()]
    lines = told.splitlines()
    assert all(len(line) <= 120 for line in lines)
    for head in ("proposals", "all", "training", "weights", "AP75"):  # cells end where their heads do
        end = lines[1].index(head) + len(head)
        assert all(line[end - 1] != " " and line[end : end + 1] in ("", " ") for line in lines[2:])


# ------------------------------------------------------------------------------------------------- what is refused


def refused(arguments, capsys):
    assert main(["compare", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused_before_anything_is_made(compared, tmp_path, capsys):
    told = refused([compared / "rcnn", compared / "data", "--out", tmp_path / "out"], capsys)
    assert f"{compared / 'data'}: expected the folder of a run" in told
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_refused(compared, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(compared / "faster_rcnn", run)
    (run / "metrics.json").unlink()
    told = refused([run, "--out", tmp_path / "out"], capsys)
    assert f"{run}: expected a finished run; continue it with `minidet train faster_rcnn --out {run} --resume`" in told


def test_runs_of_other_classes_are_refused(compared, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(compared / "data", data)
    for path in (data / "annotations").iterdir():
        path.write_text(path.read_text().replace('"star"', '"moon"'))
    told = refused([compared / "faster_rcnn", "--data", data, "--out", tmp_path / "out"], capsys)
    assert f"{data}: expected the classes that {compared / 'faster_rcnn'} was trained on, circle, square" in told
    assert "moon" in told


def test_a_network_that_finds_one_object_is_no_detector(trained, tmp_path, capsys):
    expected = "expected detectors of objects of several classes, got localizer"
    assert f"{trained}: {expected}" in refused([trained, "--out", tmp_path / "out"], capsys)
    assert expected in refused(["--systems", "rcnn,localizer", "--out", tmp_path / "out"], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["RUN", "--set", "epochs=3"], "--set: expected no such option with RUNs"),
        (["RUN", "--seed", "0"], "--seed: expected no such option with RUNs"),
        (["RUN", "--systems", "rcnn"], "--systems: expected no such option with RUNs"),
        (["RUN", "--split", "night"], "night"),
        (["--systems", "rcnn,detr"], "expected one of the systems localizer, .*, got 'detr'"),
        (["--set", "anchor_sizes=3"], "--set: sliding_window has no setting 'anchor_sizes'"),
        (["--systems", "faster_rcnn,faster_rcnn_four_steps", "--set", "epochs=2"], "epochs: expected a multiple of 4"),
    ],
)
def test_options_that_cannot_be_are_refused(options, told, compared, tmp_path, capsys):
    options = [str(compared / "faster_rcnn") if option == "RUN" else option for option in options]
    assert re.search(told, refused([*options, "--out", tmp_path / "out"], capsys))
    assert not (tmp_path / "out").exists()


def test_a_comparison_is_not_continued_with_other_settings_or_data(compared, tmp_path, capsys):
    assert "the run has epochs=1, got 2" in refused(["--out", compared, *SET_OPTIONS, "--set", "epochs=2"], capsys)
    assert "the run has seed 3, got --seed 4" in refused(["--out", compared, *SET_OPTIONS, "--seed", "4"], capsys)
    data = tmp_path / "data"
    shutil.copytree(compared / "data", data)
    picture = next((data / "images/train").iterdir())
    Image.new("RGB", (48, 48)).save(picture)
    assert "as it was when the run began" in refused(["--out", compared, *SET_OPTIONS, "--data", data], capsys)


def test_a_folder_of_somebody_else_is_left_alone(compared, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("important")
    assert "holds thesis.txt" in refused([compared / "faster_rcnn", "--out", tmp_path], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_metrics_that_are_damaged_are_refused(content, compared, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(compared / "faster_rcnn", run)
    (run / "metrics.json").write_text(content)
    told = refused([run, "--data", compared / "data", "--out", tmp_path / "out"], capsys)
    assert f"{run / 'metrics.json'}: expected" in told
    assert "JSON" in told
