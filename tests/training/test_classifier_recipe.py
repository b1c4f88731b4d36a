"""The classifier as a system: trained, measured and asked from the command line; its pictures and its errors."""

import json
from contextlib import nullcontext

import numpy as np
import pytest

from minidet.backbones import TinyBackbone
from minidet.cli import main
from minidet.data import Sample, open_dataset
from minidet.data.formats.record import Record
from minidet.training import Training, evaluate, load_system

SYSTEM = load_system("classifier")
SETTINGS = ["size=32", "width=4", "epochs=1", "batch_size=8", "images=16", "val_images=6", "test_images=5"]
SET_OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]
CLASSES = ("__background__", "smooth", "striped")


def samples(count: int, size: int = 16, enlarged: int = 1) -> list[Sample]:
    """Images that are smooth or striped: classes that a network learns in a few steps."""
    result = []
    for number in range(count):
        label = number % 2 + 1
        image = np.random.default_rng(number).integers(90, 110, (size, size, 3))
        if label == 2:
            image[::4] += 100
        image = image.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
        box = np.array([[0.0, 0, *image.shape[1::-1]]])
        result.append(Sample(image.astype(np.uint8), box, np.array([label])))
    return result


def trained_on(images: list[Sample], *overrides: str) -> Training:
    settings = SYSTEM.configure(["size=16", "width=4", "batch_size=8", "epochs=40", "learning_rate=0.01", *overrides])
    training = Training(SYSTEM, settings, CLASSES, images, seed=0)
    training.begin_epoch()
    while not training.finished:
        for batch in training.loader:
            training.step(batch)
    return training


def test_it_learns_two_classes_and_names_them_in_images_of_any_size() -> None:
    model = trained_on(samples(16)).model
    found = SYSTEM.predict(model, samples(5) + samples(4, enlarged=2), 2)
    assert [int(prediction["labels"][0]) for prediction in found] == [1, 2, 1, 2, 1, 1, 2, 1, 2]
    for prediction in found:
        assert prediction["scores"][0] == prediction["class_scores"].max() > 0.5
        assert prediction["class_scores"].sum() == pytest.approx(1, abs=1e-6)
    assert not model.training
    sheet = SYSTEM.draw(samples(5), found[:5], CLASSES)
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3
    unknown = Sample(samples(1)[0].image, np.zeros((0, 4)), np.zeros(0, np.int64))  # as `predict` has it
    assert SYSTEM.draw([unknown], found[:1], CLASSES).shape[2] == 3


def test_the_command_line_trains_measures_and_asks_it(tmp_path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["train", "classifier", "--out", str(run), *SET_OPTIONS]) == 0
    assert "the best weights by val_accuracy, on the " in capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["accuracy"] <= 1
    assert main(["eval", str(run)]) == 0
    measured = json.loads((run / "eval-test" / "metrics.json").read_text())
    assert measured["accuracy"] == metrics["accuracy"]

    image = str(next((run / "data" / "images" / "test").glob("*.png")))
    capsys.readouterr()
    assert main(["predict", str(run), image]) == 0
    (found,) = json.loads((run / "predictions" / "predictions.json").read_text())
    (thing,) = found["objects"]
    assert thing.keys() == {"class", "score"}  # it says what, not where
    assert f"{image}: {thing['class']} {thing['score']:.2f}\n" in capsys.readouterr().out

    dataset = open_dataset(run / "data", "test", masks=False)
    labels = [record.labels[0] for record in dataset.records]
    from minidet.cli.common import load_trained

    system, _, model = load_trained(run, "best")
    metrics_again, predictions = evaluate(system, model, dataset, 3)
    right = np.mean([p["labels"][0] == label for p, label in zip(predictions, labels, strict=True)])
    assert metrics_again["accuracy"] == right == metrics["accuracy"]


def test_its_backbone_is_the_one_that_the_other_systems_start_with() -> None:
    backbone = SYSTEM.build(CLASSES, SYSTEM.configure(), np.random.default_rng(0)).backbone
    shapes = {key: array.shape for key, array in backbone.state_dict().items()}
    assert shapes == {key: array.shape for key, array in TinyBackbone().state_dict().items()}


def test_images_are_mirrored_and_moved_and_no_part_of_the_object_is_lost() -> None:
    """A square, red in its left half and green in its right one, two pixels from the corner of the image."""
    image = np.zeros((40, 40, 3), np.uint8)
    image[2:12, 2:7, 0] = image[2:12, 7:12, 1] = 255
    square = Sample(image, np.array([[2.0, 2, 12, 12]]), np.array([1]))
    transform, mirrored, tops = SYSTEM.transform(SYSTEM.configure(["size=40"])), set(), set()
    for seed in range(60):
        moved = transform(square, np.random.default_rng(seed))
        red, green = (np.argwhere(moved.image[..., channel] > 200) for channel in (0, 1))
        assert len(red) == len(green) == 50
        mirrored.add(bool(red[:, 1].min() > green[:, 1].min()))
        tops.add(int(red[:, 0].min()))
    assert mirrored == {False, True}
    assert (min(tops), max(tops)) == (0, 2 + 6)  # up to the edge; down by up to 15 % of 40 pixels


def test_images_with_no_object_or_two_are_refused(tmp_path) -> None:
    class Two:
        records = (Record(tmp_path / "two.png", "two.png", boxes=np.zeros((2, 4)), labels=np.array([1, 2])),)

    with pytest.raises(ValueError, match=r"two.png: expected one object an image, got 2; the classifier names one"):
        SYSTEM.check(Two, SYSTEM.configure())


@pytest.mark.parametrize(("name", "learns"), [("classifier", False), ("wsol", False), ("localizer", True)])
def test_labels_of_one_class_teach_nothing_but_boxes_do(name, learns) -> None:
    class OneClass:
        classes = CLASSES[:2]
        records = (Record("one.png", "one.png", (10, 10), np.array([[0.0, 0, 9, 9]]), np.array([1])),)

    system = load_system(name)
    with nullcontext() if learns else pytest.raises(ValueError, match="got smooth; one class: nothing to tell apart"):
        system.check(OneClass, system.configure())


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="width: expected 1 or more channels, got 0"):
        SYSTEM.build(CLASSES, SYSTEM.configure(["width=0"]), np.random.default_rng(0))


def test_without_augmentation_images_are_only_resized() -> None:
    (sample,) = samples(1, size=20)
    resized = SYSTEM.transform(SYSTEM.configure(["augment=false", "size=10"]))(sample, np.random.default_rng(0))
    assert resized.image.shape == (10, 10, 3)
    again = SYSTEM.transform(SYSTEM.configure(["augment=false", "size=20"]))(sample, np.random.default_rng(0))
    np.testing.assert_array_equal(again.image, sample.image)
