"""How weakly supervised localization is trained: without boxes, and measured by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

import minidet
from minidet.backbones import TinyBackbone
from minidet.cli import main
from minidet.data import make_dataset, open_dataset
from minidet.data.dataset import Sample
from minidet.data.loader import Loader
from minidet.evaluation import box_accuracy
from minidet.models.wsol import WeakLocalizer
from minidet.training import Training, load_system, try_settings
from minidet.training.recipes import wsol
from minidet.training.recipes.wsol import SYSTEM, evaluate, predict, true_class_maps

SETTINGS = ["size=32", "epochs=1", "batch_size=4", "images=8", "val_images=4", "test_images=4"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    counts = {"train": 12, "val": 4, "test": 4}
    folder = make_dataset(tmp_path_factory.mktemp("wsol") / "data", 20, "localization", size=32, splits=counts)
    return open_dataset(folder, "train", masks=False)


def small_model(size: int = 32) -> WeakLocalizer:
    minidet.manual_seed(0)
    model = WeakLocalizer(TinyBackbone((4, 8)), 6, size, cam_channels=8)
    model.fc.weight.data[...] = np.random.default_rng(0).normal(size=(6, 8))
    return model


def test_by_default_images_of_64_pixels_have_maps_of_16() -> None:
    model = SYSTEM.build(("background", "circle", "square"), SYSTEM.configure(), minidet.manual_seed(0))
    images = np.zeros((1, 3, model.image_size, model.image_size), np.float32)
    assert images.shape[2:] == (64, 64)
    assert model.features(minidet.Tensor(images)).shape[2:] == (16, 16)


class Boxes:
    """A data set whose boxes are something else."""

    def __init__(self, dataset, boxes) -> None:
        self.dataset, self.boxes, self.classes = dataset, boxes, dataset.classes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        sample.boxes = np.array(self.boxes, float)
        return sample


def test_training_never_reads_a_box(dataset) -> None:
    """With boxes of NaN in the data set, three steps with augmentation give the very same weights."""
    weights = []
    for data in (dataset, Boxes(dataset, [[np.nan] * 4]), Boxes(dataset, [[0.0, 0, 1, 1]])):
        training = Training(SYSTEM, SYSTEM.configure(SETTINGS), dataset.classes, data, seed=0)
        training.begin_epoch()
        for batch in training.loader:
            training.step(batch)
        weights.append(training.model.state_dict())
    for other in weights[1:]:
        for name, array in weights[0].items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)


def test_the_batch_knows_no_more_than_the_whole_picture(dataset) -> None:
    loader = Loader(dataset, 4, seed=0, transform=SYSTEM.transform(SYSTEM.configure(["size=32", "augment=false"])))
    for batch in loader:
        assert all(target["boxes"].tolist() == [[0, 0, 32, 32]] for target in batch.targets)


def test_images_are_mirrored_and_moved_by_up_to_a_tenth() -> None:
    """A disc, red to the left of its middle and green to the right: where it is and how it is turned round."""
    rows, columns = np.mgrid[:60, :60]
    image = np.zeros((60, 60, 3), np.uint8)
    disc = (columns - 29.5) ** 2 + (rows - 29.5) ** 2 <= 100
    image[disc & (columns < 30), 0] = image[disc & (columns >= 30), 1] = 255
    one = Sample(image, np.array([[19.0, 19, 40, 40]]), np.array([1]))
    transform, mirrored, places = SYSTEM.transform(SYSTEM.configure(["size=60"])), set(), []
    for seed in range(60):
        moved = transform(one, np.random.default_rng(seed)).image
        red, green = (np.argwhere(moved[..., channel] > 200).mean(axis=0) for channel in (0, 1))
        mirrored.add(bool(red[1] > green[1]))
        places.append((red + green) / 2 - 29.5)
    assert mirrored == {False, True}
    assert (np.abs(places).max(axis=0) <= 6.01).all()
    assert (np.abs(places).max(axis=0) > 4).all()


def test_every_image_keeps_its_label_however_it_is_moved(dataset) -> None:
    loader = Loader(dataset, 4, seed=0, transform=SYSTEM.transform(SYSTEM.configure(["size=32"])))
    for _ in range(5):
        for batch in loader:
            assert [len(target["labels"]) for target in batch.targets] == [1] * 4


def test_the_metrics_are_those_of_the_maps_of_the_true_classes(dataset) -> None:
    model = small_model()
    metrics, predictions = evaluate(model, dataset, batch_size=5)
    maps, truth = true_class_maps(model, dataset, batch_size=7)
    assert maps.shape == (12, 32, 32)
    np.testing.assert_array_equal(truth, [record.boxes[0] for record in dataset.records])
    curve = box_accuracy(maps, truth)[0]
    assert metrics["max_box_acc"] == curve.max()
    assert curve[round(metrics["best_threshold_minmax"] * 100)] == curve.max()
    assert metrics["gt_known_loc"] == box_accuracy(maps, truth, [0.2], mode="fraction_of_max")[0, 0]
    assert metrics["gt_known_error"] == pytest.approx(1 - metrics["gt_known_loc"])
    labels = [record.labels[0] for record in dataset.records]
    right = [p["labels"][0] == label for p, label in zip(predictions, labels, strict=True)]
    assert metrics["accuracy"] == np.mean(right)
    iou = minidet.boxes.paired_iou(np.concatenate([p["boxes"] for p in predictions]).astype(float), truth)
    assert metrics["top1_error"] == pytest.approx(1 - np.mean(np.array(right) & (iou >= 0.5)))
    assert metrics["top1_error"] >= metrics["top5_error"] >= metrics["gt_known_error"] - 1e-12
    assert all(type(value) is float for value in metrics.values())


def test_where_every_box_is_right_the_errors_are_those_of_the_classes(dataset) -> None:
    model = small_model()
    model.fc.weight.data[...] = np.abs(model.fc.weight.data)  # maps above 0 nearly everywhere
    model.threshold = 0.0
    metrics, predictions = evaluate(model, Boxes(dataset, [[0.0, 0, 32, 32]]))
    assert metrics["gt_known_loc"] == 1
    labels = [record.labels[0] for record in dataset.records]
    order = [np.argsort(-p["class_scores"]).tolist() for p in predictions]
    ranks = np.array([best.index(label - 1) for best, label in zip(order, labels, strict=True)])
    assert set(ranks) > {0, 5}  # some are right, some are last, some between
    assert metrics["accuracy"] == np.mean(ranks == 0)
    assert metrics["top1_error"] == pytest.approx(np.mean(ranks > 0))
    assert metrics["top5_error"] == pytest.approx(np.mean(ranks > 4))


def test_boxes_are_in_the_pixels_of_the_picture_that_was_given(dataset) -> None:
    model = small_model()
    model.fc.weight.data[...] = np.abs(model.fc.weight.data)  # maps above 0, and so boxes
    sample = dataset[0]
    wide = Sample(sample.image.repeat(2, axis=1).repeat(3, axis=0), sample.boxes * [2, 3, 2, 3], sample.labels)
    (small,), (large,) = predict(model, [sample]), predict(model, [wide])
    np.testing.assert_allclose(large["boxes"][0] / [2, 3, 2, 3], small["boxes"][0], atol=3)
    assert large["boxes"].shape == (1, 4)
    assert np.ptp(small["boxes"]) > 5
    assert not model.training
    (_, truth), (_, again) = true_class_maps(model, [sample]), true_class_maps(model, [wide])
    np.testing.assert_allclose(again, truth)
    np.testing.assert_array_equal(truth, sample.boxes)


def test_the_picture_has_a_place_for_each_sample(dataset) -> None:
    samples = [dataset[i] for i in range(3)]
    picture = SYSTEM.draw(samples, predict(small_model(), samples), dataset.classes)
    assert picture.dtype == np.uint8
    assert picture.shape[1] > 3 * 2 * 160  # image and map of each, side by side


def test_a_caption_names_what_is_told_and_what_is_true(dataset) -> None:
    prediction = {"labels": np.array([1]), "scores": np.array([0.75])}
    of_two = replace(dataset[0], labels=np.array([2]))
    assert wsol.caption(of_two, prediction, ("__background__", "disc", "ring")) == "disc 0.75, true ring"
    unknown = replace(of_two, labels=np.zeros(0, int))
    assert wsol.caption(unknown, prediction, ("__background__", "disc", "ring")) == "disc 0.75"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pooling=mean", "pooling among gap, gmp, got 'mean'"),
        ("mode=zhou", "mode among fraction_of_max, minmax, got 'zhou'"),
        ("threshold=1.5", "a threshold of at least 0 and below 1, got 1.5"),
        ("stride=3", "stride: expected 4, 8, 16, got 3"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_by_trying_them(override, message) -> None:
    with pytest.raises(ValueError, match=message):
        try_settings(SYSTEM, SYSTEM.configure([override]))


def test_images_with_several_objects_are_refused(dataset) -> None:
    SYSTEM.check(dataset, {})
    record = dataset.records[0]
    two = type("Two", (), {"path": record.path, "labels": np.array([1, 2])})
    with pytest.raises(ValueError, match=r"expected one object an image, got 2; its label"):
        SYSTEM.check(type("D", (), {"records": [record, two]}), {})


def test_the_command_line_trains_measures_and_predicts(tmp_path) -> None:
    assert load_system("wsol") is wsol.SYSTEM
    out = tmp_path / "run"
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    assert main(["train", "wsol", "--out", str(out), *options]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"accuracy", "gt_known_loc", "max_box_acc", "max_box_acc_v2", "top1_error", "top5_error"} <= set(metrics)
    assert (out / "predictions.png").is_file()
    assert main(["eval", str(out)]) == 0
    image = str(next((out / "data").rglob("test/*.png")))
    assert main(["predict", str(out), image, "--out", str(tmp_path / "found")]) == 0
    (picture,) = json.loads((tmp_path / "found" / "predictions.json").read_text())
    assert len(picture["objects"][0]["box"]) == 4
