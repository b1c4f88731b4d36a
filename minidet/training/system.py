"""What the training loop and the command line need to know about one of the lecture's systems.

A `System` is a recipe: how to build the model, augment, evaluate and draw, and the settings it is trained with.
Its model is called as in torchvision: in training `model(images, targets)` gives a dict of named losses, whose sum is
minimised; in evaluation `model(images)` gives a list of dicts (boxes, labels, scores, ...).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from minidet.data.dataset import Dataset, Sample
from minidet.data.loader import Batch, collate
from minidet.training.schedules import SCHEDULE_NAMES

# Settings that every system has; a System's own `defaults` override and extend them, `--set key=value` both.
TRAINING_DEFAULTS: dict[str, Any] = {
    "epochs": 20,  # times that each training image is seen
    "batch_size": 32,
    "optimizer": "adamw",  # sgd, adam, adamw
    "learning_rate": 1e-3,  # at the top of the schedule
    "weight_decay": 1e-4,
    "momentum": 0.9,  # sgd only
    "schedule": "cosine",  # constant, step, cosine
    "warmup": 50,  # steps until the full learning rate
    "clip_norm": 10.0,  # the gradient's length is cut to this; 0 leaves it alone
    "log_every": 10,  # steps between two rows of log.csv
    "size": 64,  # height and width of the images, in pixels; detectors: of the shorter side
    "images": 2000,  # training images of the generated data set, where no other is given
    "val_images": 300,  # held out to choose the best epoch
    "test_images": 300,  # held out to report
}

# What is refused before anything is made: words that are not in the list, numbers below 1 or 0.
CHOICES = {"optimizer": ("sgd", "adam", "adamw"), "schedule": SCHEDULE_NAMES}
LEAST = dict.fromkeys(("epochs", "batch_size", "log_every", "size", "images", "val_images", "test_images"), 1)
LEAST |= dict.fromkeys(("hidden", "region_size"), 1)  # of those systems that have them
LEAST |= dict.fromkeys(("stages", "convolutions", "channels", "predictors", "mask_channels", "mask_convolutions"), 1)
LEAST |= dict.fromkeys(("keypoint_cells", "keypoint_channels", "keypoint_convolutions"), 1)
LEAST |= dict.fromkeys(("focal", "learning_rate", "weight_decay", "momentum", "warmup", "clip_norm"), 0)
# Of layers, and of numbers in one: a slip of the keyboard would fill the memory before anything is learned.
MOST = dict.fromkeys(("stages", "convolutions", "mask_convolutions", "keypoint_convolutions"), 100)
MOST |= dict.fromkeys(("channels", "hidden", "mask_channels", "keypoint_channels", "anchors", "predictors"), 10_000)

SYSTEMS: dict[str, str] = {
    "localizer": "minidet.training.recipes.localizer",
    "classifier": "minidet.training.recipes.classifier",
    "pose": "minidet.training.recipes.pose",
    "wsol": "minidet.training.recipes.wsol",
    "sliding_window": "minidet.training.recipes.sliding_window",
    "rcnn": "minidet.training.recipes.rcnn",
    "fast_rcnn": "minidet.training.recipes.fast_rcnn",
    "faster_rcnn": "minidet.training.recipes.faster_rcnn",
    "faster_rcnn_four_steps": "minidet.training.recipes.faster_rcnn_four_steps",
    "yolo": "minidet.training.recipes.yolo",
    "yolo_v1": "minidet.training.recipes.yolo_v1",
    "ssd": "minidet.training.recipes.ssd",
    "mask_rcnn": "minidet.training.recipes.mask_rcnn",
    "keypoint_rcnn": "minidet.training.recipes.keypoint_rcnn",
    "openpose": "minidet.training.recipes.openpose",
}


@dataclass(frozen=True)
class System:
    """name: as typed after `minidet train`. task: the miniscene task it trains on where no data are given.

    build(classes, config, rng) -> Module      a new model; classes[0] is "__background__"
    transform(config) -> f(sample, rng)        the augmentation, or None
    evaluate(model, dataset, batch_size)       -> (metrics by name, one prediction a sample), model in evaluation mode
    predict(model, samples, batch_size)        -> one prediction a sample, of any size, in the sample's own pixels; for
                                               a sample without proposals it makes those that the model needs
    draw(samples, predictions, classes)        -> (H, W, 3) uint8, predictions beside the truth
    check(dataset, config)                     raises ValueError, with the file's name, for a sample that the system
                                               cannot learn; the data set is verified, so every image's size is known
    start(model, config, dataset)              the weights that a training begins with, where they are not build's
                                               random ones, and buffers that depend on what is trained on; trained
                                               models do without
    begin_epoch(model, epoch, config)          before each epoch, counted from 0: trainings in several steps begin one
    collate(samples, indices)                  -> Batch: images stacked, or a list of any sizes (collate_list)
    prepare(dataset, config, folder, split)    attaches to the records what training and evaluation need beside the
                                               annotations: proposals. Called for every split, on verified data, before
                                               anything looks at a sample. What takes long it keeps in files below
                                               `folder`, a run's, which sees other data too: a file has to know its own
    complete(model, dataset, config, folder)   after the last epoch, on the best weights in evaluation mode, without
                                               gradients, with the training split as it is in its files: fills buffers
                                               of the model that are not learned step by step. They count as a part of
                                               the best weights; the last ones go without
    report(samples, predictions, classes, folder)
                                               writes plots of an evaluation into the folder -> their paths
    predict_note: what `minidet predict` says first, where pictures have to be prepared
    masks: whether the model looks at the data set's masks; painting them takes time
    joints: whether it looks at people's joints, which COCO has in files of their own
    score_drawn: what a detection must score to be drawn, and told of by `minidet predict`; metrics and files take all
    metric: the one of evaluate's metrics by which the best weights are chosen; larger is better
    metrics_note: what their names do not say, printed under them
    doctor: settings as after --set, with which the network can learn eight images by heart where it cannot with those
        of `minidet doctor` alone
    doctor_metric: the one of evaluate's metrics that is then high, where it is not `metric`
    """

    name: str
    build: Callable[[tuple[str, ...], dict[str, Any], np.random.Generator], Any]
    transform: Callable[[dict[str, Any]], Callable[[Sample, np.random.Generator], Sample] | None]
    evaluate: Callable[[Any, Any, int], tuple[dict[str, float], list[dict]]]
    draw: Callable[[Sequence[Sample], list[dict], tuple[str, ...]], np.ndarray]
    check: Callable[[Any, dict[str, Any]], None]
    predict: Callable[[Any, Sequence[Sample], int], list[dict]]
    start: Callable[[Any, dict[str, Any], Any], None] | None = None
    begin_epoch: Callable[[Any, int, dict[str, Any]], None] | None = None
    collate: Callable[[list[Sample], np.ndarray], Batch] = collate
    prepare: Callable[[Dataset, dict[str, Any], Path, str], None] | None = None
    complete: Callable[[Any, Dataset, dict[str, Any], Path], None] | None = None
    report: Callable[[Sequence[Sample], list[dict], tuple[str, ...], Path], list[Path]] | None = None
    task: str = "localization"
    predict_note: str = ""
    masks: bool = False
    joints: bool = False
    score_drawn: float = 0.0
    metric: str = "mean_iou"
    metrics_note: str = ""
    doctor: tuple[str, ...] = ()
    doctor_metric: str = ""
    defaults: dict[str, Any] = field(default_factory=dict)

    def configure(self, overrides: Iterable[str] = ()) -> dict[str, Any]:
        """All settings, after `key=value` overrides, each converted to the type of its default.

        Raises ValueError for an unknown key (with the known ones and their defaults) and for a value that cannot be.
        """
        config = TRAINING_DEFAULTS | self.defaults
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals:
                raise ValueError(f"--set: expected key=value, got {override!r}")
            if key not in config:
                defaults = sorted((TRAINING_DEFAULTS | self.defaults).items())
                known = ", ".join(f"{name}={_shown(value)}" for name, value in defaults)
                raise ValueError(f"--set: {self.name} has no setting {key!r}; it has {known}")
            config[key] = _parse(key, text, type(config[key]))
        self.validate(config)
        return config

    def validate(self, config: Mapping[str, Any]) -> None:
        """Raises ValueError, with the key, for a setting that is missing, of another type or beyond its limits."""
        for key, default in (TRAINING_DEFAULTS | self.defaults).items():
            if key not in config:
                raise ValueError(
                    f"{key}: missing (is the run older than this setting? Then add it as it was; now it is usually "
                    f"{_shown(default)})"
                )
            value, kind = config[key], type(default)
            fits = type(value) in (int, float) and abs(value) < math.inf if kind is float else type(value) is kind
            if not fits:
                raise ValueError(f"{key}: expected a value of type {kind.__name__}, got {value!r:.80}")
        for key, choices in CHOICES.items():
            if config[key] not in choices:
                raise ValueError(f"{key}: expected {', '.join(choices)}, got {config[key]!r}")
        for key, least in LEAST.items():
            if key in config and config[key] < least:
                raise ValueError(f"{key}: expected {least} or more, got {config[key]}")
        for key, most in MOST.items():
            if key in config and config[key] > most:
                raise ValueError(f"{key}: expected {most} or fewer, got {config[key]}")


def load_system(name: str) -> System:
    """The system of that name; its module is imported now. Raises ValueError for an unknown name."""
    if name not in SYSTEMS:
        raise ValueError(f"expected one of the systems {', '.join(SYSTEMS)}, got {name!r}")
    return import_module(SYSTEMS[name]).SYSTEM


def _shown(value: Any) -> str:
    """A setting as it is typed after --set."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse(key: str, text: str, kind: type) -> Any:
    """Text from the command line as bool, int, float or str."""
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--set {key}: expected true or false, got {text!r}")
        return text.lower() == "true"
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"--set {key}: expected a value of type {kind.__name__}, got {text!r}") from None
    if kind is float and not np.isfinite(value):
        raise ValueError(f"--set {key}: expected a finite number, got {text!r}")
    return value
