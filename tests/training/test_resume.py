"""A resumed run ends with the weights of an uninterrupted one, byte for byte."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import toy_system
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_system import toy_run, train_toy

from minidet.array_file import read_arrays, write_arrays
from minidet.training import Interrupted, RunError, open_run
from minidet.training.loop import Trainer

ROOT = Path(__file__).parents[2]
STEPS = 15  # of the toy run: 22 images in batches of 4, the last two left out, 3 epochs
WEIGHTS = ("best.safetensors", "last.safetensors")


class Stop(Exception):
    """Stands for whatever ends a process."""


def train_until(step, run, **options):
    """Trains until `step` steps are taken, then ends without saving anything more."""
    take = Trainer.step

    def stopping_step(trainer, batch):
        if trainer.training.progress.step == step:
            raise Stop
        take(trainer, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", stopping_step)
        with pytest.raises(Stop):
            train_toy(run, **options)


def outcome(folder):
    """The final weights' bytes, and the log without its times."""
    rows = list(csv.DictReader((folder / "log.csv").open()))
    log = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    return [(folder / name).read_bytes() for name in WEIGHTS], log


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train_toy(toy_run(folder))
    return outcome(folder)


@settings(max_examples=8, deadline=None)
@given(
    stops=st.lists(st.integers(0, STEPS - 1), min_size=1, max_size=3),
    checkpoint_seconds=st.sampled_from([0.0, 1e9]),  # after every step, or after every epoch only
)
def test_a_run_stopped_anywhere_ends_with_the_same_weights(tmp_path_factory, uninterrupted, stops, checkpoint_seconds):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = toy_run(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "draw", lambda *args, **options: None)  # the pictures are not what this is about
        for number, stop in enumerate(sorted(stops)):
            train_until(stop, run, resume=number > 0, checkpoint_seconds=checkpoint_seconds)
        train_toy(run, resume=True, checkpoint_seconds=checkpoint_seconds)
    assert outcome(folder) == uninterrupted


def test_a_run_stopped_while_it_evaluates_ends_with_the_same_weights(tmp_path, uninterrupted):
    run = toy_run(tmp_path / "run")

    def broken(*args, **options):
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "draw", broken)  # after the best weights were written, before the checkpoint
        with pytest.raises(Stop):
            train_toy(run)
    train_toy(run, resume=True)
    assert outcome(run.folder) == uninterrupted


def test_ctrl_c_saves_the_state_and_resume_goes_on(tmp_path, uninterrupted, monkeypatch):
    run = toy_run(tmp_path / "run")
    step = Trainer.step
    before = signal.getsignal(signal.SIGINT)  # ignored, when the tests run in the background of a shell

    def interrupting_step(trainer, batch):
        step(trainer, batch)
        if trainer.training.progress.step == 8:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", interrupting_step)
    with pytest.raises(Interrupted, match="after step 8 of 15"):
        train_toy(run, checkpoint_seconds=1e9)
    assert (run.checkpoints / "step-00000008.safetensors").is_file()
    monkeypatch.setattr(Trainer, "step", step)
    train_toy(run, resume=True)
    assert outcome(run.folder) == uninterrupted
    assert signal.getsignal(signal.SIGINT) is before


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(tmp_path, uninterrupted, capsys):
    run = toy_run(tmp_path / "run")
    train_until(7, run)
    newest = run.checkpoints / "step-00000007.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    half_written = run.checkpoints / ".step-00000008.safetensors.a1b2c3d4"
    half_written.write_bytes(b"killed")
    train_toy(run, resume=True, quiet=False)
    assert not half_written.exists()
    told = capsys.readouterr().out
    assert "step-00000007.safetensors: the checksum does not fit" in told
    assert "continuing from" in told
    assert "step-00000006" in told
    assert outcome(run.folder) == uninterrupted


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, saved: saved.clear(),
        lambda arrays, saved: saved.pop("random"),
        lambda arrays, saved: saved["random"]["state"].update(state=-1),
        lambda arrays, saved: saved["progress"].update(unknown=1),
        lambda arrays, saved: arrays.pop("model.hidden.weight"),
        lambda arrays, saved: saved.update(optimizer=[]),
    ],
)
def test_a_newest_checkpoint_of_another_kind_is_named_and_the_one_before_used(tmp_path, uninterrupted, capsys, change):
    run = toy_run(tmp_path / "run")
    train_until(7, run)
    newest = run.checkpoints / "step-00000007.safetensors"
    arrays, saved = read_arrays(newest)
    change(arrays, saved)
    write_arrays(newest, arrays, saved)
    train_toy(run, resume=True, quiet=False)
    told = capsys.readouterr().out
    assert "refused " + str(newest) + ": expected the s" in told
    assert "continuing from" in told
    assert outcome(run.folder) == uninterrupted


def test_without_checkpoints_a_run_starts_from_its_beginning(tmp_path, uninterrupted):
    run = toy_run(tmp_path / "run")
    train_until(7, run)
    shutil.rmtree(run.checkpoints)
    train_toy(run, resume=True)
    assert outcome(run.folder) == uninterrupted


def test_trained_weights_are_not_overwritten_by_a_new_beginning(tmp_path, uninterrupted):
    run = toy_run(tmp_path / "run")
    train_toy(run)
    shutil.rmtree(run.checkpoints)
    run.path("metrics.json").unlink()  # as of a run that was stopped
    with pytest.raises(
        RunError, match="expected a checkpoint to go on from, found none, but trained weights beside it"
    ):
        train_toy(run, resume=True)
    assert outcome(run.folder) == uninterrupted


def test_what_a_run_began_with_is_needed_for_its_beginning_only(tmp_path, monkeypatch):
    """Such as the backbone's weights of `minidet train pose`, which may lie elsewhere by the time it is resumed."""
    path, folders = tmp_path / "weights", [tmp_path / "whole", tmp_path / "resumed", tmp_path / "anew"]

    def start(model, config, dataset):
        model.box.bias.data[...] = float(path.read_text())

    monkeypatch.setattr(toy_system, "SYSTEM", replace(toy_system.SYSTEM, start=start))
    path.write_text("3.0")
    whole, resumed, anew = map(toy_run, folders)
    train_toy(whole)
    train_until(4, resumed)
    train_until(0, anew)
    shutil.rmtree(folders[2] / "checkpoints")
    train_toy(anew, resume=True)  # nothing was kept: from its beginning
    path.unlink()
    train_toy(resumed, resume=True)
    assert outcome(folders[1]) == outcome(folders[2]) == outcome(folders[0])


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"damaged")])
@pytest.mark.parametrize("stop", [7, STEPS])  # within an epoch, and after the last one
def test_a_run_whose_best_weights_are_lost_takes_the_next_ones_and_ends(
    tmp_path, uninterrupted, capsys, monkeypatch, damage, stop
):
    run = toy_run(tmp_path / "run")
    if stop < STEPS:
        train_until(stop, run)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "finish", lambda *args: (_ for _ in ()).throw(Stop))
            with pytest.raises(Stop):
                train_toy(run)
    damage(run.path("best.safetensors"))
    metrics = train_toy(run, resume=True, quiet=False)
    assert f"refused {run.path('best.safetensors')}: " in capsys.readouterr().out
    assert metrics["best_epoch"] == (2 if stop < STEPS else 3)
    assert read_arrays(run.path("best.safetensors"))[1]["epoch"] == metrics["best_epoch"]
    assert run.path("last.safetensors").read_bytes() == uninterrupted[0][1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda config: config["settings"].update(learning_rate=0.5), "settings.learning_rate to be 0.01 as in "),
        (lambda config: config["settings"].update(optimizer="sgd"), "settings.optimizer to be 'adamw' as in "),
        (lambda config: config["settings"].update(new=None), "settings.new to be 'nothing' as in "),
        (lambda config: config.update(seed=6), "seed to be 5 as in the checkpoints, got 6"),
        (lambda config: config["classes"].reverse(), "expected classes to be ['__background__', 'dark', 'bright'] as"),
        (
            lambda config: config.pop("digests"),
            "expected digests to be {'train': 'ab'} as in ",
        ),
    ],
)
def test_a_config_that_was_edited_is_refused_with_the_key(tmp_path, change, named):
    run = toy_run(tmp_path / "run", digests={"train": "ab"})
    train_until(3, run)
    config = json.loads(run.path("config.json").read_text())
    config["data"] = "moved"  # the data may lie elsewhere
    run.write_json("config.json", config)
    train_until(4, open_run(run.folder), resume=True)
    change(config)
    run.write_json("config.json", config)
    with pytest.raises(RunError, match=re.escape(named)):
        train_toy(open_run(run.folder), resume=True)


def test_a_second_process_may_not_train_in_the_same_folder(tmp_path, uninterrupted):
    folder = tmp_path / "run"
    script = (
        "import sys, time; from toy_system import toy_run, train_toy; run = toy_run(sys.argv[1])\n"
        "print('started', flush=True); time.sleep(600)"
    )
    paths = [str(ROOT), str(ROOT / "kernels"), str(Path(toy_system.__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"started\n"
        with pytest.raises(RunError, match="another process trains in"):
            train_toy(open_run(folder), resume=True)
        (folder / "config.json").unlink()  # as if both had looked before either had written
        with pytest.raises(RunError, match="another process trains in"):
            toy_run(folder)
    finally:
        process.kill()  # -9: nothing is tidied up, and yet the folder is free
        process.communicate()
    train_toy(toy_run(folder))
    assert outcome(folder) == uninterrupted


def wait_for_save(process, folder):
    """Until a file begins to be written that is not left over from an earlier kill, or the process ends."""
    before = set(folder.rglob(".*"))
    while process.poll() is None and set(folder.rglob(".*")) <= before:
        pass


def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tmp_path, uninterrupted):
    """kill -9, the start of the process and the writing of files included."""
    folder = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    command = [sys.executable, toy_system.__file__, str(folder)]
    moments = random.Random(3)
    for number in range(6):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        process.stdout.readline()  # its imports are done
        time.sleep(moments.uniform(0.0, 0.3))
        if number % 2:
            wait_for_save(process, folder)
        process.kill()
        process.communicate()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert outcome(folder) == uninterrupted
    assert not list(folder.rglob(".*"))  # what the killed writes left behind is gone
    assert open_run(folder).finished
