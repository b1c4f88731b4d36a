"""The sliding window as a system: it learns images by heart, runs from the command line, and tells what cannot be."""

import json

import numpy as np
import pytest

from minidet.cli import main
from minidet.data import Sample
from minidet.training import Training, evaluate, load_system
from minidet.training.recipes.sliding_window import object_sizes

SYSTEM = load_system("sliding_window")
SETTINGS = ["size=48", "epochs=1", "batch_size=4", "images=8", "val_images=3", "test_images=2", "windows=4"]
SET_OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]
CLASSES = ("__background__", "bright", "dark")


class Scenes(list):
    """Samples in memory, with what evaluation asks a data set for."""

    classes = CLASSES

    @property
    def records(self) -> list[Sample]:
        return self


def scenes(count: int = 8) -> Scenes:
    """Images of 40 x 56 pixels with a bright and a dark square of 11 to 20, apart from each other; the last one has
    none."""
    samples = []
    for number in range(count):
        rng = np.random.default_rng(number)
        image = rng.integers(90, 110, (40, 56, 3))
        sides = rng.integers(11, 21, 2)
        corners = np.column_stack([rng.integers((0, 30), (9, 36)), rng.integers(0, 40 - sides)])  # x, y
        boxes = np.column_stack([corners, corners + sides[:, None]]).astype(float)
        if number == count - 1:
            boxes = boxes[:0]
        for (x1, y1, x2, y2), value in zip(boxes.astype(int), (180, 20), strict=False):
            image[y1:y2, x1:x2] = value
        samples.append(Sample(image.astype(np.uint8), boxes, np.arange(1, len(boxes) + 1), name=str(number)))
    return Scenes(samples)


def test_it_learns_eight_images_by_heart() -> None:
    """Windows that do not move have an IoU of 0.5 with every object, but seldom a high one: map_50 it is."""
    images = scenes()
    overrides = ["size=40", "epochs=30", "batch_size=8", "warmup=5", "weight_decay=0", "augment=false", "levels=3"]
    training = Training(SYSTEM, SYSTEM.configure([*overrides, "largest=22", "windows=16"]), CLASSES, images, seed=0)
    training.begin_epoch()
    losses = []
    while not training.finished:
        losses += [training.step(batch)["loss_classifier"] for batch in training.loader]
    metrics, predictions = evaluate(SYSTEM, training.model, images, 3)
    assert losses[-1] < 0.1 * losses[0]
    assert metrics["map_50"] >= 0.99
    assert len(predictions) == 8
    assert not (predictions[-1]["scores"] > 0.5).any()  # nothing to find, nothing found
    sheet = SYSTEM.draw(images[:3], predictions[:3], CLASSES)
    assert sheet.dtype == np.uint8


def test_the_command_line_trains_measures_and_asks_it(tmp_path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["train", "sliding_window", "--out", str(run), *SET_OPTIONS]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"map", "map_50", "map_75"} <= metrics.keys()
    assert main(["eval", str(run)]) == 0
    assert json.loads((run / "eval-test" / "metrics.json").read_text())["map"] == metrics["map"]
    image = str(next((run / "data" / "images" / "test").glob("*.png")))
    assert main(["predict", str(run), image]) == 0
    (found,) = json.loads((run / "predictions" / "predictions.json").read_text())
    for thing in found["objects"]:
        assert {"class", "score", "box"} <= thing.keys()


def test_sizes_of_objects_by_hand() -> None:
    config = SYSTEM.configure(["smallest=10", "largest=40", "levels=3"])
    np.testing.assert_allclose(object_sizes(config), [(10, 10), (20, 20), (40, 40)])
    config = SYSTEM.configure(["smallest=10", "largest=10", "levels=1", "aspect=4"])
    np.testing.assert_allclose(object_sizes(config), [(20, 5)])


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("smallest=40", "smallest, largest: expected 0 < smallest <= largest, got 40.0 and 36.0"),
        ("smallest=0", "smallest, largest: expected 0 < smallest"),
        ("levels=0", "levels, aspect: expected one level or more and an aspect above 0, got 0 and 1.0"),
        ("aspect=0", "levels, aspect: expected"),
        ("windows=1", "windows: expected 4 or more, of which a quarter may show objects, got 1"),
    ],
)
def test_settings_that_cannot_be_are_told(setting, told) -> None:
    with pytest.raises(ValueError, match=told):
        SYSTEM.build(CLASSES, SYSTEM.configure([setting]), np.random.default_rng(0))
