"""The run's folder and the settings: what is refused, what is written."""

import csv
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from toy_system import CLASSES, SYSTEM, ToyDataset, ToyModel, toy_run, train_toy

from minidet.array_file import read_arrays
from minidet.training import RunError, load_system, open_run, train, try_settings
from minidet.training.system import TRAINING_DEFAULTS


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = toy_run(tmp_path_factory.mktemp("runs") / "run")
    train_toy(run)
    return run


def test_a_run_leaves_all_its_files(finished):
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {
        "config.json", "environment.json", "log.csv", "losses.png", "predictions.png", "metrics.json",
        "best.safetensors", "last.safetensors", "checkpoints",
    }  # fmt: skip
    assert json.loads((finished.folder / "environment.json").read_text())["packages"]["numpy"] == np.__version__
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert {"accuracy", "train_seconds", "steps", "best_epoch", "split"} <= metrics.keys()
    assert metrics["steps"] == 15


def test_the_log_has_a_row_for_every_epoch_and_every_second_step(finished):
    rows = list(csv.DictReader((finished.folder / "log.csv").open()))
    assert [row["step"] for row in rows if row["event"] == "step"] == ["2", "4", "6", "8", "10", "12", "14"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    assert [row["epoch"] for row in epochs] == ["1", "2", "3"]
    for row in epochs:
        assert 0 <= float(row["val_accuracy"]) <= 1
        assert float(row["class"]) > 0
    rates = {row["step"]: float(row["learning_rate"]) for row in rows}
    assert rates["2"] == 0.01  # the second of two warm-up steps
    assert rates["4"] == pytest.approx(0.01 * (1 + np.cos(np.pi * 1 / 13)) / 2, rel=1e-4)  # 13 steps on the cosine
    assert rates["15"] == pytest.approx(0.01 * (1 + np.cos(np.pi * 12 / 13)) / 2, rel=1e-4)


def test_the_losses_are_a_picture_of_the_promised_size(finished):
    assert Image.open(finished.folder / "losses.png").size == (1100, 420)


def test_the_best_epoch_has_the_highest_metric_of_the_log(finished):
    rows = [row for row in csv.DictReader((finished.folder / "log.csv").open()) if row["event"] == "epoch"]
    values = [float(row["val_accuracy"]) for row in rows]
    best = json.loads((finished.folder / "metrics.json").read_text())["best_epoch"]
    assert best == 1 + values.index(max(values))


def test_a_finished_run_is_not_overwritten(finished):
    with pytest.raises(RunError, match=r"holds a finished run; name a new folder with --out$"):
        toy_run(finished.folder)


def test_an_unfinished_run_is_not_overwritten(tmp_path):
    toy_run(tmp_path)
    with pytest.raises(RunError, match="holds an unfinished run; continue it with --resume"):
        toy_run(tmp_path)


def test_a_folder_with_other_files_is_not_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"holds thesis\.tex; name a new folder"):
        toy_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunError, match="there is a file of that name"):
        toy_run(tmp_path / "thesis.tex")


def test_a_run_may_start_beside_its_data(tmp_path):
    (tmp_path / "data").mkdir()
    assert toy_run(tmp_path).folder == tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected the folder of a run"),
        ("{", "expected JSON"),
        ("[]", "'system' of type str"),
        ('{"system": "toy", "data": "data", "seed": "5"}', "'seed' of type int"),
        ("[" * 100_000, "expected JSON"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=message):
        open_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["settings"].clear(), "epochs: missing (is the run older than this setting?"),
        (lambda c: c["settings"].update(alpha="0.1"), "alpha: expected a value of type float, got '0.1'"),
        (lambda c: c["settings"].update(epochs=True), "epochs: expected a value of type int, got True"),
        (lambda c: c["settings"].update(alpha=np.nan), "alpha: expected a value of type float, got nan"),
        (lambda c: c["settings"].update(batch_size=0), "batch_size: expected 1 or more, got 0"),
        (lambda c: c["settings"].update(optimizer="sdg"), "optimizer: expected sgd, adam, adamw, got 'sdg'"),
        (lambda c: c.update(seed=-1), "seed: expected a whole number from 0 on, got -1"),
        (lambda c: c.update(seed=True), "seed: expected a whole number from 0 on, got True"),
        (lambda c: c.update(classes=[]), "classes: expected the background's name and at least one more, got []"),
        (lambda c: c["classes"].append(3), "classes: expected the background's name and at least one more, got ["),
        (lambda c: c.update(digests=[]), "digests: expected one for each split, got []"),
    ],
)
def test_a_config_with_values_that_no_run_has_is_refused_with_its_key(tmp_path, change, message):
    settings = load_system("localizer").configure(["learning_rate=1"])
    config = {"system": "localizer", "data": "data", "seed": 5, "classes": list(CLASSES), "settings": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_run(tmp_path).config == config
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=re.escape(f"{tmp_path / 'config.json'}: {message}")):
        open_run(tmp_path)


def test_only_leftovers_of_our_own_writes_are_removed(tmp_path):
    run = toy_run(tmp_path / "run")
    ours = [run.path(".log.csv.abcd_123"), run.checkpoints / ".step-00000007.safetensors.x1y2z3w4"]
    theirs = [run.path(".gitignore"), run.path(".notes.csv.original"), run.path("log.csv.backup")]
    for path in ours + theirs:
        path.write_text("")
    run.remove_leftovers()
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in theirs)


def test_settings_are_overridden_in_the_type_of_their_default():
    config = SYSTEM.configure(["epochs=7", "learning_rate=1", "schedule=step"])
    assert config["epochs"] == 7
    assert config["learning_rate"] == 1.0
    assert isinstance(config["learning_rate"], float)
    assert config["schedule"] == "step"
    assert config["batch_size"] == 4  # the system's own default
    assert config["clip_norm"] == TRAINING_DEFAULTS["clip_norm"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=7", "toy has no setting 'epoch'; it has batch_size=4, clip_norm=10.0, epochs="),
        ("epochs", "expected key=value, got 'epochs'"),
        ("epochs=many", "epochs: expected a value of type int, got 'many'"),
        ("epochs=1.5", "epochs: expected a value of type int, got '1.5'"),
        ("schedule=linear", "schedule: expected constant, step, cosine, four_cosines, got 'linear'"),
        ("batch_size=0", "batch_size: expected 1 or more, got 0"),
        ("learning_rate=nan", "learning_rate: expected a finite number"),
        ("learning_rate=-1", "learning_rate: expected 0 or more, got -1.0"),
        ("warmup=-5", "warmup: expected 0 or more, got -5"),
    ],
)
def test_overrides_that_make_no_sense_are_refused(override, message):
    with pytest.raises(ValueError, match=message):
        SYSTEM.configure([override])


def test_an_unknown_system_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"systems localizer, classifier, pose, wsol, .*, got 'localiser'"):
        load_system("localiser")


def test_a_frozen_part_keeps_its_weights_and_its_averages(tmp_path):
    """A frozen batch norm stays in evaluation mode, also in the epochs after an evaluation."""

    def build(classes, config, rng):
        model = ToyModel()
        model.norm.requires_grad_(False)
        return model

    run = toy_run(tmp_path / "run")
    train(replace(SYSTEM, build=build), run, ToyDataset(22, seed=1), ToyDataset(9, seed=2), quiet=True)
    weights, _ = read_arrays(run.path("last.safetensors"))
    np.testing.assert_array_equal(weights["norm.running_mean"], np.zeros(3))
    np.testing.assert_array_equal(weights["norm.weight"], np.ones(3))
    assert np.any(weights["hidden.bias"] != 0)


def test_a_first_metric_that_is_no_number_does_not_stay_the_best(tmp_path):
    values = iter([np.nan, 0.25, np.nan, 0.5, 0.5])

    def evaluate(model, dataset, batch_size):
        return {"accuracy": next(values)}, SYSTEM.evaluate(model, dataset, batch_size)[1]

    run = toy_run(tmp_path / "run", ["epochs=4"])
    train(replace(SYSTEM, evaluate=evaluate), run, ToyDataset(22, seed=1), ToyDataset(9, seed=2), quiet=True)
    assert json.loads(run.path("metrics.json").read_text())["best_epoch"] == 4


def test_what_has_changed_around_a_run_is_told(tmp_path):
    run = toy_run(tmp_path / "run")
    assert run.environment_changes() == []
    environment = json.loads(run.path("environment.json").read_text())
    environment["cores"] = 77
    environment["packages"]["numpy"] = "1.0"
    run.write_json("environment.json", environment)
    assert run.environment_changes() == [
        f"cores was 77 and is {os.cpu_count()}", f"numpy was 1.0 and is {np.__version__}"
    ]  # fmt: skip
    run.path("environment.json").write_text("{")
    assert run.environment_changes() == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("alpha=2", "expected alpha between 0 and 1, got 2"),
        ("box_loss=foo", "expected box_loss among l1, l2"),
        ("size=50", "expected image_size to be a multiple of the backbone's stride 16, got 50"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_by_trying_them(override, message):
    localizer = load_system("localizer")
    try_settings(localizer, localizer.configure())
    with pytest.raises(ValueError, match=message):
        try_settings(localizer, localizer.configure([override]))
