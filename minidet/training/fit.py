"""Training in memory: for examples and experiments that need no run folder."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minidet.nn import Module
from minidet.training.loop import complete
from minidet.training.state import Training
from minidet.training.system import System


def fit(
    system: System,
    dataset: Any,
    overrides: dict[str, Any] | None = None,
    model: Module | None = None,
    seed: int = 0,
    title: str = "training",
    quiet: bool = False,
    device: str = "cpu",
    folder: Path | str | None = None,
) -> Module:
    """Trains a system on a data set and returns the model; no run folder is written.

    dataset: prepared, where the system has a `prepare`. overrides: settings that differ from the system's defaults.
    model: train this one on, instead of a new one; its frozen parameters stay as they are. device: where the model is
    moved to and computes, "cpu" or "cuda". folder: where the system's `complete` keeps its files; a temporary one by
    default.
    """
    settings = system.configure() | (overrides or {})
    if model is not None:
        system = replace(system, build=lambda *_: model)
    training = Training(system, settings, dataset.classes, dataset, seed, device)
    with tqdm(total=training.total_steps, desc=title, disable=quiet or None, leave=False) as bar:
        while not training.finished:
            training.begin_epoch()
            for batch in training.loader:
                losses = training.step(batch)
                bar.update()
                bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()}, refresh=False)
    with tempfile.TemporaryDirectory() as temporary:
        complete(system, training.model, dataset, settings, Path(folder or temporary))
    return training.model
