"""The training loop: steps, checkpoints, evaluation after every epoch, and the run's files.

The order within an epoch is what makes a resumed run equal to an uninterrupted one. A checkpoint is written between
two steps, or after the epoch's evaluation, never between the last step and the evaluation; what follows a checkpoint
is computed again, from the same state and so with the same result.
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from minidet.array_file import CheckpointError, write_arrays
from minidet.autograd import no_grad
from minidet.data.files import write_atomic
from minidet.nn import evaluating
from minidet.training.checkpoint import load_newest, save_checkpoint
from minidet.training.report import Report
from minidet.training.run import Run, RunError
from minidet.training.state import Training
from minidet.training.step import RefusedStepError
from minidet.training.system import System

CHECKPOINT_SECONDS = 30.0  # between checkpoints within an epoch: at most so much work is lost in a crash
PICTURE_SECONDS = 10.0  # between redrawings of losses.png, because Matplotlib takes a good part of a second
SAMPLES_DRAWN = 18  # images of the validation split in predictions.png: always the first ones, to compare epochs


class Interrupted(Exception):
    """Training was asked to stop (Ctrl-C) and did, after saving its state."""


def train(
    system: System,
    run: Run,
    dataset: Any,
    validation: Any,
    test: Any = None,
    resume: bool = False,
    quiet: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    device: str = "cpu",
) -> dict[str, Any]:
    """Trains the system in the run's folder, with the run's settings, and returns what metrics.json says.

    dataset, validation, test: the splits; weights are chosen on validation and reported on test, where there is one.
    resume: go on from the newest good checkpoint; the final weights are then those of a run without a break.
    checkpoint_seconds: between checkpoints within an epoch; 0 writes one after every step.
    device: where the network computes, "cpu" or "cuda"; a run may be resumed on the other.
    The system's `prepare` sees the splits first, `complete` the best weights last.
    Raises RefusedStepError, with a report, when a loss or gradient is not finite; Interrupted after Ctrl-C; RunError
    when another process trains in the folder, or when config.json is no longer what the run began with.
    """
    run.lock()
    if system.prepare is not None:
        for split, name in ((dataset, "train"), (validation, "val"), (test, "test")):
            if split is not None:
                system.prepare(split, run.config["settings"], run.folder, name)
    trainer = Trainer(system, run, dataset, validation, quiet, checkpoint_seconds, device, resume)
    if resume:
        trainer.resume()
    try:
        with stop_on_interrupt(quiet) as stop_asked:
            trainer.train(stop_asked)
        return trainer.finish(test)
    finally:
        trainer.report.close()


class Trainer:
    """One start of a run: the training state, and where everything goes that is written and shown."""

    def __init__(
        self,
        system: System,
        run: Run,
        dataset: Any,
        validation: Any,
        quiet: bool,
        checkpoint_seconds: float,
        device: str,
        resumed: bool,
    ) -> None:
        self.system, self.run, self.dataset, self.validation = system, run, dataset, validation
        self.checkpoint_seconds = checkpoint_seconds
        self.settings, self.classes = run.config["settings"], tuple(run.config["classes"])
        self.training = Training(system, self.settings, self.classes, dataset, run.config["seed"], device, resumed)
        self.report = Report(self.training.total_steps, quiet)
        self.counted_until = self.saved_at = time.monotonic()
        self.drawn_at = -math.inf

    def resume(self) -> None:
        """Takes over the newest good checkpoint; without any, the run starts from its beginning."""
        self.run.remove_leftovers()
        found = load_newest(self.run.checkpoints, self.report.line, self.restore)
        if found is None:
            if self.run.path("last.safetensors").is_file():
                raise RunError(
                    f"{self.run.checkpoints}: expected a checkpoint to go on from, found none, but trained weights "
                    "beside it, which a new start would overwrite; train in another folder"
                )
            self.report.line(f"no checkpoint in {self.run.checkpoints} yet: from the beginning")
            if self.system.start is not None:
                self.system.start(self.training.model, self.settings, self.dataset)
            return
        arrays, saved, path = found
        self.report.line(f"continuing from {path}")
        if self.training.progress.best is not None:
            refused = self.try_best()
            self.restore(arrays, saved)  # in place of the weights that were tried
            if refused is not None:
                self.report.line(f"refused {refused}; the next weights that are measured count as the best")
                self.training.progress.best = None

    def restore(self, arrays: dict[str, Any], saved: dict[str, Any]) -> None:
        """Takes over one checkpoint. Raises CheckpointError if it is of another kind, RunError if of another run."""
        if not isinstance(saved.get("config"), dict):
            raise CheckpointError("expected the settings of its run, found none; it is no checkpoint of a run")
        self.run.compare(saved["config"], "the checkpoints")
        self.training.restore(arrays, saved)

    def try_best(self) -> ValueError | None:
        """Loads the best weights so far, as at the end of the run. Returns the reason if they are lost, else None."""
        try:
            self.training.model.load_state_dict(self.run.read_weights("best"))
        except ValueError as error:
            return error
        return None

    def train(self, stop_asked: threading.Event) -> None:
        """All remaining epochs."""
        training = self.training
        self.report.start(training.progress.step)
        if training.progress.step == 0:
            self.save()  # so that there is something to go back to, whatever happens
        compiled = False
        while not training.finished:
            training.begin_epoch()
            for batch in training.loader:
                # The first step compiles the kernels it needs, which can take half a minute on a new machine.
                with nullcontext() if compiled else self.report.waiting("first step: compiling the kernels"):
                    self.step(batch)
                compiled = True
                if training.loader.position == 0:
                    break  # the epoch's last batch: evaluate before anything is saved
                if stop_asked.is_set() or time.monotonic() - self.saved_at >= self.checkpoint_seconds:
                    self.save()
                if stop_asked.is_set():
                    self.stop()
            self.end_epoch()
            if stop_asked.is_set() and not training.finished:
                self.stop()

    def step(self, batch: Any) -> None:
        """One batch: train, show, log."""
        progress, epoch = self.training.progress, self.epoch_number()
        try:
            self.training.step(batch)
        except RefusedStepError as error:
            raise self.refused(error, epoch) from None
        self.report.step(f"epoch {epoch}/{self.settings['epochs']}", progress.epoch_means())
        if progress.window_steps >= self.settings["log_every"]:
            progress.rows.append(self.row("step", epoch) | progress.window_means())
            progress.window_sums, progress.window_steps = {}, 0

    def epoch_number(self) -> int:
        """Of the step that was taken last, counted from 1."""
        loader = self.training.loader
        return loader.epoch + (loader.position > 0)

    def row(self, event: str, epoch: int) -> dict[str, Any]:
        """The first columns of a row of log.csv."""
        self.count_time()
        progress, rate = self.training.progress, self.training.optimizer.lr
        return {
            "event": event, "epoch": epoch, "step": progress.step, "seconds": progress.seconds, "learning_rate": rate
        }  # fmt: skip

    def end_epoch(self) -> None:
        """Evaluates, keeps the best weights, draws, and saves the state."""
        progress, epoch = self.training.progress, self.epoch_number()
        self.report.doing(f"epoch {epoch}/{self.settings['epochs']}, evaluating")
        metrics, predictions = evaluate(self.system, self.training.model, self.validation, self.settings["batch_size"])
        losses = progress.epoch_means()
        progress.rows.append(
            self.row("epoch", epoch) | losses | {f"val_{name}": value for name, value in metrics.items()}
        )
        progress.epoch_sums, progress.epoch_steps = {}, 0
        if progress.best is None or _is_better(metrics, progress.best["metrics"], self.system.metric):
            self.keep_as_best(metrics)
        self.report.line(f"epoch {epoch:>3}: {_told(losses)}; validation {_told(metrics)}")
        self.draw(predictions)
        self.save()

    def keep_as_best(self, metrics: dict[str, float]) -> None:
        self.training.progress.best = {"epoch": self.epoch_number(), "metrics": metrics}
        self.write_weights("best.safetensors", self.training.progress.best)

    def draw(self, predictions: list[dict], always: bool = False) -> None:
        """predictions.png and, not too often, losses.png."""
        from minidet.drawing.curves import draw_training

        samples = self.validation.subset(range(min(SAMPLES_DRAWN, len(self.validation))))
        self.run.write_picture("predictions.png", self.system.draw(samples, predictions[: len(samples)], self.classes))
        if always or time.monotonic() - self.drawn_at >= PICTURE_SECONDS:
            self.run.write_picture("losses.png", draw_training(self.training.progress.rows))
            self.drawn_at = time.monotonic()

    def count_time(self) -> None:
        """Adds the time since the last call to the run's seconds."""
        now = time.monotonic()
        self.training.progress.seconds += now - self.counted_until
        self.counted_until = now

    def save(self) -> None:
        """A checkpoint, and the log up to it."""
        self.count_time()
        progress = self.training.progress
        arrays, saved = self.training.state()
        save_checkpoint(self.run.checkpoints, progress.step, arrays, saved | {"config": self.run.config})
        self.run.write_log(progress.rows)
        self.saved_at = time.monotonic()

    def write_weights(self, name: str, result: dict[str, Any]) -> None:
        """The weights, with what is needed to build the model and the metrics that they reached."""
        config = {key: self.run.config[key] for key in ("system", "seed", "classes", "settings")}
        write_arrays(self.run.path(name), self.training.model.state_dict(), config | result)

    def stop(self) -> None:
        raise Interrupted(
            f"stopped after step {self.training.progress.step} of {self.training.total_steps}, the state is saved"
        )

    def refused(self, error: RefusedStepError, epoch: int) -> RefusedStepError:
        """The report on a step that was not taken, also left in the run's folder."""
        told = (
            f"step {self.training.progress.step + 1} (epoch {epoch}): {error}\n"
            f"the last good state is in {self.run.checkpoints}; "
            f"look at these images (`minidet data check`) or train anew with a smaller --set learning_rate=..."
        )
        write_atomic(self.run.path("anomaly.txt"), told + "\n")
        return RefusedStepError(told)

    def finish(self, test: Any) -> dict[str, Any]:
        """Last weights, then the best ones completed and evaluated; metrics.json makes the run finished."""
        training, progress = self.training, self.training.progress
        self.count_time()
        self.report.doing("measuring the best weights")
        self.write_weights("last.safetensors", {"epoch": training.loader.epoch})
        if progress.best is None:  # lost after the last epoch's evaluation
            metrics, _ = evaluate(self.system, training.model, self.validation, self.settings["batch_size"])
            self.keep_as_best(metrics)
        self.load_completed()
        metrics, predictions = evaluate(self.system, training.model, self.validation, self.settings["batch_size"])
        self.draw(predictions, always=True)
        if test is not None:
            metrics, _ = evaluate(self.system, training.model, test, self.settings["batch_size"])
        result = metrics | {
            "split": "val" if test is None else "test",
            "best_epoch": progress.best["epoch"],
            "epochs": training.loader.epoch,
            "steps": progress.step,
            "train_seconds": round(progress.seconds, 3),
        }
        self.run.write_json("metrics.json", result)
        return result

    def load_completed(self) -> None:
        """The best weights with what the system's `complete` adds to them. A run that is stopped before their file has
        it does it again when it is resumed, from the same weights and the same random state."""
        model, best = self.training.model, self.training.progress.best
        weights, saved = self.run.read_result("best")
        model.load_state_dict(weights)
        if self.system.complete is None or saved.get("completed"):
            return
        self.report.doing("completing the best weights")
        complete(self.system, model, self.dataset, self.settings, self.run.folder)
        self.count_time()
        self.write_weights("best.safetensors", best | {"completed": True})
        self.report.doing("measuring the best weights")


def complete(system: System, model: Any, dataset: Any, settings: dict[str, Any], folder: Path) -> None:
    """Calls the system's `complete`, where it has one, on a trained model; the model's mode comes back."""
    if system.complete is not None:
        with evaluating(model), no_grad():
            system.complete(model, dataset, settings, folder)


def evaluate(system: System, model: Any, dataset: Any, batch_size: int) -> tuple[dict[str, float], list[dict]]:
    """The system's metrics and its predictions on a data set, in evaluation mode; training mode comes back."""
    with evaluating(model), no_grad():
        metrics, predictions = system.evaluate(model, dataset, batch_size)
    return {name: float(value) for name, value in metrics.items()}, predictions


@contextmanager
def stop_on_interrupt(quiet: bool = False) -> Iterator[threading.Event]:
    """An event that Ctrl-C (or SIGTERM) sets instead of stopping in the middle of a step; a second one stops hard."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        if not quiet:
            sys.stderr.write("\nstopping after this step; press Ctrl-C again to stop at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_better(metrics: dict[str, float], best: dict[str, float], metric: str) -> bool:
    """Larger; and any number is better than none, so that a NaN of the first epoch does not stay the best for ever."""
    return metrics[metric] > best[metric] or math.isnan(best[metric])


def _told(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items() if not math.isnan(value))
