"""Fast and Faster R-CNN as they are trained: eight images by heart, settings, and no object at all."""

import math
from dataclasses import replace

import numpy as np
import pytest

from minidet.data import Dataset, make_dataset, open_dataset
from minidet.training import Training, load_system, try_settings
from minidet.training.fit import fit
from minidet.training.recipes import detection

BY_HEART = {"epochs": 60, "batch_size": 8, "augment": False, "weight_decay": 0.0, "warmup": 10, "hidden": 64}


@pytest.fixture(scope="module")
def eight(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("scenes")
    make_dataset(folder, task="detection", level="flat", seed=1, size=96, splits={"train": 8})
    dataset = open_dataset(folder, "train", masks=False)
    dataset.verify()
    return dataset


@pytest.mark.parametrize("name", ["fast_rcnn", "faster_rcnn"])
def test_eight_images_are_learned_by_heart(name, eight, tmp_path):
    system = load_system(name)
    settings = BY_HEART | {"size": 96}
    if system.prepare is not None:
        system.prepare(eight, system.configure(), tmp_path, "train")
    model = fit(system, eight, settings, quiet=True)
    metrics, predictions = system.evaluate(model, eight, 8)
    assert metrics["map_50"] >= 0.99
    assert len(predictions) == 8


def test_the_four_steps_are_a_quarter_of_the_epochs_each(eight):
    system = load_system("faster_rcnn_four_steps")
    settings = system.configure(["epochs=8", "size=96", "hidden=8"])
    training = Training(system, settings, eight.classes, eight, seed=0)
    steps = []
    for epoch in range(8):
        training.loader.epoch = epoch
        training.begin_epoch()
        steps.append(int(training.model.step))
        metrics, _ = system.evaluate(training.model, eight.subset([0]), 1)
        assert math.isnan(metrics["map"]) == (epoch < 6)
    assert steps == [1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(ValueError, match="epochs: expected a multiple of 4"):
        system.build(eight.classes, settings | {"epochs": 6}, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["fast_rcnn", "faster_rcnn", "faster_rcnn_four_steps"])
def test_settings_are_tried_before_anything_is_made(name):
    system = load_system(name)
    try_settings(system, system.configure(["size=32", "hidden=8"]))


@pytest.mark.parametrize("text", ["", "a", "8,,16", "0,8", "inf"])
def test_anchors_that_cannot_be_are_refused(text):
    system = load_system("faster_rcnn")
    with pytest.raises(ValueError, match="anchor_sizes: expected numbers above 0 with commas"):
        try_settings(system, system.configure([f"anchor_sizes={text}"]))


def test_data_without_any_object_are_refused(eight):
    empty = eight.subset([])
    with pytest.raises(ValueError, match="expected objects to find, got none in any of 0 images"):
        detection.check(empty, {})
    none = eight.subset([0])
    none.records = [replace(none.records[0], boxes=np.zeros((0, 4)))]
    with pytest.raises(ValueError, match=r"train: expected objects to find, got none in any of 1 images"):
        detection.check(none, {})
    detection.check(eight, {})


def test_the_report_has_pictures_and_cocos_detections(eight, tmp_path):
    predictions = [
        {"boxes": r.boxes.astype(np.float32), "labels": r.labels, "scores": np.full(len(r.labels), 0.9, np.float32)}
        for r in eight.records
    ]
    predictions[0]["labels"] = predictions[0]["labels"] % 6 + 1  # confused
    paths = detection.report(eight, predictions, eight.classes, tmp_path)
    assert all(path.stat().st_size > 0 for path in paths)
    assert {"precision-recall.png", "confusion.png", "errors.png", "detections.json"} <= {p.name for p in paths}
