"""The command line: every command works, says what it did, and tells errors in one line."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import SET_OPTIONS

import minidet_kernels
from minidet.array_file import read_arrays
from minidet.cli import COMMANDS, demo, doctor, main, predict
from minidet.cli.predict import look_at, picture_names
from minidet.data import make_dataset, open_dataset
from minidet.evaluation import write_results
from minidet.evaluation.results import ids_of
from minidet.training.system import SYSTEMS
from minidet_kernels import emulator

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
MINIDET = [sys.executable, "-m", "minidet"]


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def results_below(folder):
    """Without the empty file that marks a command's folder as its own."""
    marks = {name for name in files_below(folder) if name.startswith(".minidet-")}
    assert len(marks) == 1
    assert (folder / marks.pop()).read_bytes() == b""
    return {name for name in files_below(folder) if not name.startswith(".minidet-")}


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), ["data", "make"], ["data", "check"], []])
def test_the_help_of_every_command_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert re.search(r"^examples?:\n  minidet " + " ".join(command), told, re.MULTILINE)


def test_the_package_runs_as_a_module():
    result = subprocess.run([*MINIDET, "--version"], env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith("minidet ")


def test_the_help_of_train_says_what_each_system_is(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    systems = capsys.readouterr().out.partition("systems:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in systems.splitlines()] == list(SYSTEMS)


def test_help_imports_nothing_slow():
    script = (
        "import sys; from minidet.cli import build_parser\n"
        "build_parser(['train', 'demo', 'eval', 'predict', 'data', 'doctor'])\n"
        "print(sorted({'numba', 'matplotlib', 'scipy', 'PIL', 'tqdm'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


# ------------------------------------------------------------------------------------------------------- train


def test_training_leaves_a_run_with_its_data_and_nothing_else(trained):
    names = files_below(trained)
    assert {"config.json", "environment.json", "log.csv", "losses.png", "predictions.png", "metrics.json"} <= names
    assert {"best.safetensors", "last.safetensors", "data/dataset.json"} <= names
    config = json.loads((trained / "config.json").read_text())
    assert config["data"] == "data"  # inside the run, so relative: the folder can be moved
    assert config["seed"] == 4
    assert config["settings"]["images"] == 16
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {"accuracy", "mean_iou", "train_seconds"} <= metrics.keys()
    assert metrics["split"] == "test"


def test_training_twice_gives_the_same_weights(trained, tmp_path):
    command = ["train", "localizer", "--data", str(trained / "data"), "--out", str(tmp_path / "run"), "--seed", "4"]
    assert main([*command, *SET_OPTIONS]) == 0
    first, _ = read_arrays(trained / "last.safetensors")
    second, _ = read_arrays(tmp_path / "run/last.safetensors")
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_a_finished_run_is_neither_overwritten_nor_resumed(trained, capsys):
    before = (trained / "best.safetensors").read_bytes()
    assert main(["train", "localizer", "--out", str(trained)]) == 2
    assert "holds a finished run" in capsys.readouterr().err
    assert main(["train", "localizer", "--out", str(trained), "--resume"]) == 0
    assert "nothing to resume" in capsys.readouterr().out
    assert (trained / "best.safetensors").read_bytes() == before


def test_ctrl_c_ends_cleanly_and_says_how_to_resume(trained, tmp_path):
    command = ["train", "localizer", "--data", str(trained / "data"), "--out", str(tmp_path / "run"), "--seed", "4"]
    many = [*SET_OPTIONS, "--set", "epochs=500"]
    process = subprocess.Popen(
        [*MINIDET, *command, *many], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not any((tmp_path / "run/checkpoints").glob("step-*2.safetensors")):  # it is in its second epoch at least
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "the state is saved" in told
    assert f"continue with: minidet train localizer --out {tmp_path / 'run'} --resume" in told


# ---------------------------------------------------------------------------------------------- eval, predict


def test_settings_that_fail_in_the_first_step_leave_no_folder(tmp_path, capsys):
    for override in ("batch_size=1", "images=1"):
        command = ["train", "localizer", "--out", str(tmp_path / "run"), "--set", "size=16", "--set", override]
        assert main(command) == 2
        assert "batch_norm: expected more than one value a channel" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_run_in_a_linked_folder_finds_its_data(trained, tmp_path):
    (tmp_path / "deep/er").mkdir(parents=True)
    shutil.copytree(trained / "data", tmp_path / "deep/er/run/data")
    (tmp_path / "link").symlink_to(tmp_path / "deep/er/run")
    link = str(tmp_path / "link")
    assert main(["train", "localizer", "--data", str(tmp_path / "deep/er/run/data"), "--out", link, *SET_OPTIONS]) == 0
    assert json.loads((tmp_path / "link/config.json").read_text())["data"] == "data"
    assert main(["eval", link]) == 0


def test_a_run_goes_on_with_its_data_in_another_place(stopped, tmp_path, capsys):
    resume = ["train", "localizer", "--out", str(stopped), "--resume", "--data"]
    (stopped / "data").rename(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", tmp_path / "other")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "other/images/val/000002.png")
    assert main([*resume, str(tmp_path / "other")]) == 2
    assert f"expected {tmp_path / 'other'} as it was when the run began" in capsys.readouterr().err
    assert main([*resume, str(tmp_path / "moved")]) == 0
    assert main(["eval", str(stopped)]) == 0  # it remembers where they are


def test_a_config_that_was_edited_is_refused_with_the_key(trained, stopped, tmp_path, capsys):
    picture = tmp_path / "photo.png"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(picture)
    config = json.loads((stopped / "config.json").read_text())
    config["classes"][1] = "banana"
    (stopped / "config.json").write_text(json.dumps(config))
    for command in (
        ["predict", str(stopped), str(picture)],
        ["train", "localizer", "--out", str(stopped), "--resume", "--data", str(trained / "data")],
    ):
        assert main(command) == 2
        assert f"{stopped / 'config.json'}: expected classes to be ['__background__', " in capsys.readouterr().err
    config = json.loads((trained / "config.json").read_text())
    config["settings"]["alpha"] = 0.25
    (stopped / "config.json").write_text(json.dumps(config))
    assert main(["predict", str(stopped), str(picture)]) == 2
    assert "expected settings.alpha to be 0.5 as in best.safetensors, got 0.25" in capsys.readouterr().err
    config = json.loads((trained / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps(config | {"seed": 5}))
    assert main(["predict", str(stopped), str(picture)]) == 2
    assert "expected seed to be 4 as in best.safetensors, got 5" in capsys.readouterr().err


def test_a_broken_image_is_named_before_the_training_begins(trained, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(trained / "data", data)
    broken = sorted((data / "images" / "test").iterdir())[-1]
    broken.write_bytes(broken.read_bytes()[:100])
    assert main(["train", "localizer", "--data", str(data), "--out", str(tmp_path / "run"), *SET_OPTIONS]) == 2
    captured = capsys.readouterr()
    assert broken.name in captured.err
    assert "epoch" not in captured.out


def test_an_image_that_cannot_be_learned_is_named_before_the_training_begins(trained, tmp_path, capsys):
    path = trained / "data/annotations/instances_train.json"
    for name, change, message in (
        ("two", lambda tables: tables["annotations"][3].update(image_id=3), "expected one object an image, got "),
        ("tiny", lambda tables: tables["annotations"][3].update(bbox=[5, 5, 0.9, 9]), "got 0.9 x 9 in the image"),
    ):
        data = tmp_path / name
        shutil.copytree(trained / "data", data)
        tables = json.loads(path.read_text())
        change(tables)
        (data / path.relative_to(trained / "data")).write_text(json.dumps(tables))
        assert main(["train", "localizer", "--data", str(data), "--out", str(tmp_path / "run"), *SET_OPTIONS]) == 2
        captured = capsys.readouterr()
        assert re.search(r"00000\d\.png: .*" + message, captured.err)
        assert not (tmp_path / "run").exists()


def test_splits_with_different_classes_are_refused(trained, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(trained / "data", data)
    path = data / "annotations/instances_val.json"
    tables = json.loads(path.read_text())
    tables["categories"].reverse()
    for category, identity in zip(tables["categories"], range(1, 7), strict=True):
        category["id"] = identity
    path.write_text(json.dumps(tables))
    assert main(["train", "localizer", "--data", str(data), "--out", str(tmp_path / "run"), *SET_OPTIONS]) == 2
    assert "expected the same classes in all splits, got circle, square" in capsys.readouterr().err


@pytest.fixture
def stopped(trained, tmp_path):
    """A run that was stopped before its end, with a data set of its own."""
    shutil.copytree(trained, tmp_path / "stopped")
    (tmp_path / "stopped/metrics.json").unlink()  # written last: without it the run is unfinished
    return tmp_path / "stopped"


def test_a_run_is_not_resumed_on_other_data_or_with_other_kernels(stopped, capsys):
    resume = ["train", "localizer", "--out", str(stopped), "--resume"]
    with minidet_kernels.use("cpu"):  # what the option chooses ends here
        assert main([*resume, "--kernels", "reference"]) == 2
    assert "the run computes with the kernels cpu, not reference" in capsys.readouterr().err
    picture = stopped / "data/images/val/000002.png"
    content = picture.read_bytes()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(picture)
    assert main(resume) == 2
    assert "its split val has changed" in capsys.readouterr().err
    picture.write_bytes(content)
    environment = json.loads((stopped / "environment.json").read_text())
    (stopped / "environment.json").write_text(json.dumps(environment | {"cores": 99}))
    assert main(resume) == 0
    assert "note: cores was 99 and is" in capsys.readouterr().out


def test_results_are_not_written_over_files_of_others(trained, tmp_path, monkeypatch, capsys):
    """Not over the user's pictures, not over a run."""
    monkeypatch.chdir(tmp_path)
    picture = tmp_path / "photo.png"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(picture)
    content = picture.read_bytes()
    metrics = (trained / "metrics.json").read_bytes()
    for command in (
        ["predict", str(trained), "photo.png", "--out", "."],
        ["eval", str(trained), "--out", "."],
        ["eval", str(trained), "--out", str(trained)],
        ["data", "check", str(trained / "data"), "--out", "."],
        ["doctor", "--data", str(trained / "data"), "--out", "."],
        ["predict", str(trained), "photo.png", "--out", "photo.png"],
    ):
        assert main(command) == 2
        assert "--out: expected a" in capsys.readouterr().err
    assert files_below(tmp_path) == {"photo.png"}
    assert (picture.read_bytes(), (trained / "metrics.json").read_bytes()) == (content, metrics)
    for _ in range(2):  # over its own results of before it may
        assert main(["predict", str(trained), "photo.png", "--out", "found"]) == 0
        assert main(["eval", str(trained), "--out", "measured"]) == 0
    assert main(["predict", str(trained), "found/photo.png", "--out", "found"]) == 2
    (tmp_path / "mine").mkdir()
    for name in ("predictions.json", "metrics.json", "report.txt", "eight-images.png"):  # of the user, by chance
        (tmp_path / "mine" / name).write_text("mine")
    for command in (
        ["predict", str(trained), "photo.png"],
        ["eval", str(trained)],
        ["data", "check", str(trained / "data")],
        ["doctor", "--data", str(trained / "data"), "--set", "size=32"],
    ):
        assert main([*command, "--out", "mine"]) == 2
    assert {path.read_text() for path in (tmp_path / "mine").iterdir()} == {"mine"}


def test_predict_passes_over_a_broken_image_and_says_so(trained, tmp_path, capsys):
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    images = [str(tmp_path / "bad.png"), str(tmp_path / "good.png")]
    assert main(["predict", str(trained), *images, "--out", str(tmp_path / "found")]) == 2
    assert f"error: {images[0]}: expected a PNG or JPEG" in capsys.readouterr().err
    assert files_below(tmp_path / "found") == {".minidet-predict", "good.png", "predictions.json"}
    found = json.loads((tmp_path / "found/predictions.json").read_text())
    assert [entry["image"] for entry in found] == images[1:]


def test_predict_keeps_what_it_found_in_other_images(trained, tmp_path, capsys):
    images = [str(tmp_path / name) for name in ("first.png", "second.png")]
    for path in images:
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(path)
    command = ["predict", str(trained), "--out", str(tmp_path / "found")]
    for arguments, code, listed in (
        (images[:1], 0, images[:1]),
        (images[1:], 0, images),
        ([str(tmp_path)], 2, images),  # nothing could be looked at
        (images[:1], 0, images[::-1]),  # looked at again, and not listed twice
    ):
        assert main([*command, *arguments]) == code
        found = json.loads((tmp_path / "found/predictions.json").read_text())
        assert [entry["image"] for entry in found] == listed
    capsys.readouterr()
    (tmp_path / "found/predictions.json").write_text("[3]")
    assert main([*command, *images]) == 2
    assert "expected the list of an earlier `minidet predict`, got something else" in capsys.readouterr().err
    assert (tmp_path / "found/predictions.json").read_text() == "[3]"


def test_predict_goes_on_after_whatever_happens_to_an_image(trained, tmp_path, monkeypatch, capsys):
    image = Image.fromarray(np.full((32, 32, 3), 90, np.uint8))
    images = [str(tmp_path / name) for name in ("x" * 245 + ".png", "x" * 240 + ".png", "last.png", "y" * 300)]
    for path in images[:3]:
        image.save(path)
    assert main(["predict", str(trained), *images, "--out", str(tmp_path / "found")]) == 2
    assert re.match(f"error: .*{images[3]}", capsys.readouterr().err)
    found = json.loads((tmp_path / "found/predictions.json").read_text())
    assert [entry["picture"] for entry in found] == ["x" * 50 + ".png", "x" * 50 + "-2.png", "last.png"]
    assert all((tmp_path / "found" / entry["picture"]).is_file() for entry in found)

    def stop_at_the_second(path, *others):
        if path == Path(images[1]):
            raise KeyboardInterrupt
        return look_at(path, *others)

    monkeypatch.setattr(predict, "look_at", stop_at_the_second)
    assert main(["predict", str(trained), *images, "--out", str(tmp_path / "stopped")]) == 130
    assert len(json.loads((tmp_path / "stopped/predictions.json").read_text())) == 1


def test_eval_repeats_the_metrics_of_the_run(trained, tmp_path, capsys):
    assert main(["eval", str(trained), "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    result = json.loads((tmp_path / "metrics.json").read_text())
    reported = json.loads((trained / "metrics.json").read_text())
    assert result["mean_iou"] == reported["mean_iou"]
    assert f"{reported['mean_iou']:.4f}" in told
    assert results_below(tmp_path) == {"metrics.json", "predictions.png"}


def test_eval_measures_another_split_into_the_run(trained):
    assert main(["eval", str(trained), "--split", "val", "--weights", "last"]) == 0
    result = json.loads((trained / "eval-last-val/metrics.json").read_text())
    assert (result["split"], result["images"], result["weights"]) == ("val", 6, "last")


def test_predict_draws_every_image_and_lists_boxes_in_its_pixels(trained, tmp_path):
    Image.fromarray(np.full((50, 200, 3), 90, np.uint8)).save(tmp_path / "wide.png")
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save(tmp_path / "gray.jpg")
    images = [str(tmp_path / "wide.png"), str(tmp_path / "gray.jpg")]
    assert main(["predict", str(trained), *images, "--out", str(tmp_path / "found")]) == 0
    assert files_below(tmp_path / "found") == {".minidet-predict", "wide.png", "gray.png", "predictions.json"}
    found = json.loads((tmp_path / "found/predictions.json").read_text())
    assert [entry["image"] for entry in found] == images
    _, y1, x2, y2 = found[0]["objects"][0]["box"]
    assert x2 > 50  # a network of one epoch boxes about the middle half: beyond 50 only in the image's own pixels
    assert 0 <= y1 <= y2 <= 50


def test_pictures_of_images_with_one_name_do_not_overwrite_each_other():
    names = picture_names([Path("a/x.png"), Path("b/x.jpg"), Path("y.png"), Path("x.png")])
    assert names == ["x.png", "x-2.png", "y.png", "x-3.png"]


# ------------------------------------------------------------------------------------------------ data, doctor


def test_data_made_are_found_healthy(tmp_path, capsys):
    folder = str(tmp_path / "scenes")
    assert main(["data", "make", folder, "--images", "12", "--level", "flat", "--seed", "3"]) == 0
    assert main(["data", "check", folder, "--out", str(tmp_path / "check")]) == 0
    assert "no problems" in capsys.readouterr().out
    assert any((tmp_path / "check").glob("*.png"))


def test_data_that_were_damaged_are_found_ill(tmp_path, capsys):
    assert main(["data", "make", str(tmp_path), "--images", "12", "--level", "flat"]) == 0
    (tmp_path / "images/train/000002.png").write_bytes(b"")
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "000002.png" in capsys.readouterr().out


def test_the_doctor_says_what_is_installed_and_what_cannot_run(capsys):
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert f"numpy        {np.__version__}" in told
    for version, reason in minidet_kernels.available().items():
        line = next(line for line in told.splitlines() if line.split()[:1] == [version] and "can" in line)
        assert reason is None or reason in line
    devices = dict(line.split(maxsplit=1) for line in told.partition("devices:\n")[2].splitlines()[:3])
    reasons = {"cpu": None, "cuda": minidet_kernels.available()["cuda"], "emulated": emulator.why_not()}
    assert {name: told.startswith("can be used") for name, told in devices.items()} == {
        name: reason is None for name, reason in reasons.items()
    }
    assert all(reason is None or reason in devices[name] for name, reason in reasons.items())


def test_the_doctor_finds_that_a_network_learns_healthy_images(trained, tmp_path, capsys):
    code = main(["doctor", "--data", str(trained / "data"), "--set", "size=32", "--out", str(tmp_path)])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "healthy" in told
    assert files_below(tmp_path) == {".minidet-doctor", "eight-images.png"}


def test_the_doctor_finds_that_a_network_which_does_not_learn_is_ill(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "STEPS", 5)
    hopeless = ["--set", "size=32", "--set", "learning_rate=1e-9"]
    assert main(["doctor", "--data", str(trained / "data"), *hopeless, "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "the loss fell from" in told
    assert "mean_iou is" in told


def test_the_doctor_says_how_long_it_trained(trained, tmp_path, capsys):
    settings = ["--set", "size=32", "--set", "epochs=3"]
    assert main(["doctor", "--data", str(trained / "data"), *settings, "--out", str(tmp_path)]) == 1
    assert re.search(r"^  steps +3$", capsys.readouterr().out, re.MULTILINE)


# ---------------------------------------------------------------------------------------------------- the demo


def test_the_demo_trains_evaluates_and_says_where_the_pictures_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "SETTINGS", [part for part in SET_OPTIONS if part != "--set"])
    tmp_path = tmp_path / "with space"
    for name in ("run", "run-2"):  # the second time it trains anew, on the same pictures
        assert main(["demo", "--out", str(tmp_path)]) == 0
        told = capsys.readouterr().out
        assert str(tmp_path / name / "predictions.png") in told
        assert f"next: minidet predict '{tmp_path / name}' YOUR-IMAGE.png" in told  # to be pasted into a shell
        assert (tmp_path / name / "predictions.png").is_file()


def test_a_demo_that_was_stopped_is_continued(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "SETTINGS", [part for part in SET_OPTIONS if part != "--set"])
    assert main(["demo", "--out", str(tmp_path)]) == 0
    (tmp_path / "run/metrics.json").unlink()  # written last: without it the run is unfinished
    capsys.readouterr()
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert "continuing from" in capsys.readouterr().out
    assert not (tmp_path / "run-2").exists()


# -------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train localiser", f"expected one of the systems {', '.join(SYSTEMS)}, got 'localiser'"),
        ("train localizer --set epoch=3", "localizer has no setting 'epoch'; it has alpha=0.5, augment=true, batch_"),
        ("train localizer --set epochs=three", "expected a value of type int, got 'three'"),
        ("train localizer --set optimizer=sdg", "optimizer: expected sgd, adam, adamw, got 'sdg'"),
        ("train localizer --set alpha=2", "expected alpha between 0 and 1, got 2.0"),
        ("train localizer --set epochs=0", "epochs: expected 1 or more, got 0"),
        ("train localizer --data nowhere", "nowhere: there is no such folder"),
        ("train localizer --out {tmp}/notes", "holds notes.txt; name a new folder"),
        ("train localizer --out {tmp}/notes --resume", "expected the folder of a run"),
        ("train localizer --out {run} --resume --seed 5", "the run has seed 4, got --seed 5"),
        ("train localizer --out {run} --resume --set epochs=9", "the run has epochs=1, got 9"),
        ("train localizer --device cuda", "--device cuda: expected cpu or emulated, because no GPU can be used: cupy"),
        ("predict {run} missing.png --device cuda", "--device cuda: expected cpu or emulated, because"),
        ("train localizer --kernels cuda", "--kernels cuda: expected reference or cpu with --device cpu"),
        ("eval {run} --device emulated --kernels cpu", "--kernels cpu: expected cuda with --device emulated"),
        ("eval {tmp}/notes", "expected the folder of a run"),
        ("eval {run} --data nowhere", "nowhere: there is no such folder"),
        ("eval {run} --split training", "no data set with a split 'training'"),
        ("predict {run} {tmp}/notes/notes.txt", "notes.txt: expected a PNG or JPEG"),
        ("predict {run} missing.png", "missing.png"),
        ("data make {tmp}/notes", "other files"),
        ("data make {tmp}/new --task everything", "expected task"),
        ("data make {tmp}/new --images 0", "at least one image"),
        ("doctor --data nowhere", "no data set with a split 'train'"),
    ],
)
def test_bad_input_is_told_in_one_line_with_exit_code_2(trained, tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/notes.txt").write_text("hello")
    assert main(command.format(tmp=tmp_path, run=trained).split()) == 2
    told = capsys.readouterr()
    assert told.err.splitlines()[-1].startswith("error: ")
    assert message in told.err
    assert "Traceback" not in told.err
    assert (tmp_path / "notes/notes.txt").read_text() == "hello"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 7 TiB"), "Unable to allocate 7 TiB"),
        (MemoryError(), "MemoryError"),
        (OverflowError("too large"), "too large"),
    ],
)
def test_what_is_too_large_is_told_in_one_line(monkeypatch, capsys, error, message):
    def fail(args):
        raise error

    monkeypatch.setattr(doctor, "run", fail)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_reader_that_goes_away_ends_a_command_quietly():
    for unbuffered in ("", "1"):  # it is noticed at the end, or at the first line
        environment = ENVIRONMENT | {"PYTHONUNBUFFERED": unbuffered}
        process = subprocess.Popen(
            [*MINIDET, "doctor"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141
        process.stderr.close()


def test_a_name_that_the_terminal_cannot_show_does_not_end_a_command(trained, tmp_path):
    path = tmp_path / "größe-\u732b.png"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(path)
    result = subprocess.run(
        [*MINIDET, "predict", str(trained), str(path), "--out", str(tmp_path / "found")],
        env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii:strict"}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert r"gr\xf6\xdfe-\u732b.png" in result.stdout


@pytest.mark.parametrize("command", [["train"], ["fly"], [], ["train", "localizer", "--seed", "-1"]])
def test_a_wrong_command_line_is_refused_with_exit_code_2(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_damaged_weights_are_refused_by_name(trained, tmp_path, capsys):
    for name in ("config.json", "best.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    content = bytearray((tmp_path / "best.safetensors").read_bytes())
    content[-100] ^= 4
    (tmp_path / "best.safetensors").write_bytes(content)
    assert main(["eval", str(tmp_path), "--data", str(trained / "data")]) == 2
    assert f"{tmp_path / 'best.safetensors'}: the checksum does not fit" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="expected the folder of a run"):
        main(["eval", str(tmp_path), "--debug"])


def empty_split(source, folder, split):
    """A copy of a made data set, one of its splits without images."""
    shutil.copytree(source, folder)
    path = folder / f"annotations/instances_{split}.json"
    tables = json.loads(path.read_text())
    path.write_text(json.dumps(tables | {"images": [], "annotations": []}))
    return folder


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_images_is_refused_before_anything_is_written(trained, tmp_path, capsys, split):
    data = str(empty_split(trained / "data", tmp_path / "data", split))
    assert main(["train", "localizer", "--data", data, "--out", str(tmp_path / "run"), *SET_OPTIONS]) == 2
    assert f"{data}: expected images in every split, found none in {split}" in capsys.readouterr().err
    assert main(["eval", str(trained), "--data", data, "--split", split, "--out", str(tmp_path / "measured")]) == 2
    assert f"{data}: expected images to measure on, found none in the split {split}" in capsys.readouterr().err
    assert main(["data", "check", data]) == 1
    assert f"{split}: expected at least one image, found none" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_eval_names_the_image_that_the_system_cannot_be_measured_on(trained, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(trained / "data", data)
    path = data / "annotations/instances_test.json"
    tables = json.loads(path.read_text())
    tables["annotations"][3]["image_id"] = 3
    path.write_text(json.dumps(tables))
    assert main(["eval", str(trained), "--data", str(data), "--out", str(tmp_path / "measured")]) == 2
    assert "000002.png: expected one object an image, got 2" in capsys.readouterr().err
    assert not (tmp_path / "measured").exists()


def test_eval_of_results_says_what_may_be_wrong_where_nothing_matches(tmp_path, capsys):
    data = make_dataset(tmp_path / "data", 6, "detection", size=48, splits={"train": 2, "val": 2, "test": 2})
    dataset = open_dataset(data, "test", masks=False)
    found = [{"boxes": r.boxes, "labels": r.labels, "scores": np.ones(len(r.labels))} for r in dataset.records]
    command = ["eval", str(tmp_path / "results.json"), "--data", str(data)]
    write_results(tmp_path / "results.json", found, ids_of(dataset), dataset.category_ids)
    assert main(command) == 0
    told, metrics = capsys.readouterr().out, tmp_path / "results-eval-test/metrics.json"
    assert json.loads(metrics.read_text())["map"] == 1
    assert "no detection overlaps" not in told
    write_results(tmp_path / "results.json", found, ids_of(dataset), np.roll(dataset.category_ids, 1))
    assert main(command) == 0
    assert "no detection overlaps with an object of its class by half" in capsys.readouterr().out
    assert json.loads(metrics.read_text())["map"] == 0


def test_an_evaluation_of_something_else_is_not_overwritten(trained, tmp_path, capsys):
    other = make_dataset(tmp_path / "data", 2, "localization", size=48, splits={"test": 2})
    measured = tmp_path / "measured"
    assert main(["eval", str(trained), "--out", str(measured)]) == 0
    before = (measured / "metrics.json").read_bytes()
    for options, told in ((["--data", str(other)], f"of data {trained / 'data'}, which that of {other} would"),
                          (["--split", "val"], "of split test, which that of val would"),
                          (["--weights", "last"], "of weights best, which that of last would")):  # fmt: skip
        assert main(["eval", str(trained), "--out", str(measured), *options]) == 2
        assert f"--out: {measured} holds the evaluation {told} overwrite" in capsys.readouterr().err
    assert (measured / "metrics.json").read_bytes() == before
