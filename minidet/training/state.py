"""All that changes while a network is trained, and how it is saved and restored to the last bit."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from minidet import optim
from minidet.array_file import CheckpointError
from minidet.data.dataset import Sample
from minidet.data.loader import Loader
from minidet.random import generator, manual_seed
from minidet.training.schedules import find_schedule
from minidet.training.step import take_step
from minidet.training.system import System

# Where the noise of `try_settings` might show something, in fractions of its side: near its object, half on it, around
# it, and beside it, so that there are positives and negatives to learn from.
NOISE_PROPOSALS = ((0.2, 0.25, 0.75, 0.8), (0.25, 0.25, 0.5, 0.75), (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.25, 0.25))


@dataclass
class Progress:
    """How far a run is: numbers only, kept as JSON in every checkpoint."""

    step: int = 0
    seconds: float = 0.0  # of training, all starts of the run together
    epoch_sums: dict[str, float] = field(default_factory=dict)  # of the losses in this epoch
    epoch_steps: int = 0
    window_sums: dict[str, float] = field(default_factory=dict)  # of the losses since the last row of log.csv
    window_steps: int = 0
    best: dict[str, Any] | None = None  # {"epoch", "metrics"} of the best weights
    rows: list[dict[str, Any]] = field(default_factory=list)  # of log.csv

    def add(self, losses: dict[str, float]) -> None:
        """Counts one step."""
        self.step += 1
        self.epoch_steps += 1
        self.window_steps += 1
        for name, value in losses.items():
            self.epoch_sums[name] = self.epoch_sums.get(name, 0.0) + value
            self.window_sums[name] = self.window_sums.get(name, 0.0) + value

    def epoch_means(self) -> dict[str, float]:
        return {name: value / self.epoch_steps for name, value in self.epoch_sums.items()}

    def window_means(self) -> dict[str, float]:
        return {name: value / self.window_steps for name, value in self.window_sums.items()}


class Training:
    """A model with all that its training carries from step to step. device: "cpu" or "cuda", where it computes; weights
    and everything else that is drawn are the same on both. resumed: a checkpoint is to be restored, which has the
    weights: what `system.start` reads may be gone by then."""

    def __init__(
        self,
        system: System,
        settings: dict[str, Any],
        classes: tuple[str, ...],
        dataset: Any,
        seed: int,
        device: str = "cpu",
        resumed: bool = False,
    ) -> None:
        self.system, self.settings = system, settings
        self.model = system.build(classes, settings, manual_seed(seed))
        if system.start is not None and not resumed:
            system.start(self.model, settings, dataset)
        self.model.to(device)
        self.optimizer = make_optimizer(self.model, settings)
        self.loader = Loader(
            dataset,
            settings["batch_size"],
            seed=seed,
            transform=system.transform(settings),
            drop_last=len(dataset) >= settings["batch_size"],  # a last batch of one image has no batch statistics
            collate=system.collate,
        )
        self.schedule = find_schedule(settings["schedule"], settings["warmup"])
        self.total_steps = settings["epochs"] * len(self.loader)
        self.progress = Progress()

    @property
    def finished(self) -> bool:
        return self.loader.epoch >= self.settings["epochs"]

    def begin_epoch(self) -> None:
        """Training behaviour, but not for parts whose parameters are all frozen: a frozen batch norm keeps its
        averages."""
        if self.system.begin_epoch is not None:
            self.system.begin_epoch(self.model, self.loader.epoch, self.settings)
        self.model.train()
        for module in self.model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()

    def step(self, batch: Any) -> dict[str, float]:
        """Trains on one batch; returns its losses. Raises RefusedStepError."""
        factor = self.schedule(self.progress.step, self.total_steps)
        self.optimizer.lr = self.settings["learning_rate"] * factor
        losses = take_step(self.model, self.optimizer, batch, self.settings["clip_norm"])
        self.progress.add(losses)
        return losses

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(arrays, JSON): parameters, buffers, optimiser, random state, place in the data, progress."""
        arrays = {f"model.{name}": array for name, array in self.model.state_dict().items()}
        numbers = {}
        for name, value in self.optimizer.state_dict().items():
            if isinstance(value, int | float):
                numbers[name] = value
            else:
                arrays[f"optimizer.{name}"] = value
        return arrays, {
            "optimizer": numbers,
            "random": generator().bit_generator.state,
            "loader": self.loader.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, arrays: dict[str, Any], saved: dict[str, Any]) -> None:
        """Goes back to what `state` returned, to the last bit.

        Raises CheckpointError for anything else; a part of it may have been taken over then."""
        try:
            self.model.load_state_dict(_under("model.", arrays))
            self.optimizer.load_state_dict(_under("optimizer.", arrays) | saved["optimizer"])
            generator().bit_generator.state = saved["random"]
            self.loader.load_state_dict(saved["loader"])
            self.progress = Progress(**saved["progress"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            told = f"{type(error).__name__}: {error}"
            raise CheckpointError(f"expected the state of such a training, but {told}") from error


def try_settings(system: System, settings: dict[str, Any], device: str = "cpu") -> None:
    """Takes one step of a training on noise, for two classes, and drops it: what these settings make impossible is
    refused before data are made or a folder is. Raises ValueError."""
    size, rng = settings["size"], np.random.default_rng(0)
    box = np.array([[0.25, 0.25, 0.75, 0.75]]) * size
    proposals = None if system.prepare is None else np.array(NOISE_PROPOSALS) * size
    masks = np.ones((1, size, size), bool) if system.masks else None
    count = min(settings["batch_size"], settings["images"], 2)  # one image has no batch statistics, two are like many
    dataset = [
        Sample(
            rng.integers(0, 256, (size, size, 3), np.uint8),
            box.copy(),
            np.ones(1, np.int64),
            masks,
            proposals=proposals,
        )
        for _ in range(count)
    ]
    training = Training(system, settings, ("__background__", "thing"), dataset, seed=0, device=device)
    training.begin_epoch()
    training.step(next(iter(training.loader)))


def _under(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def make_optimizer(model: Any, settings: dict[str, Any]) -> optim.Optimizer:
    """The optimiser that the settings name. It knows all parameters and leaves alone those that are frozen."""
    parameters = list(model.named_parameters())
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    if settings["optimizer"] == "sgd":
        return optim.SGD(parameters, rate, momentum=settings["momentum"], weight_decay=decay)
    kind = optim.Adam if settings["optimizer"] == "adam" else optim.AdamW
    return kind(parameters, rate, weight_decay=decay)
