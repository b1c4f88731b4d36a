"""What a system may add to the training: its own batches, preparation of the data, completion of the best weights.

The system counts the objects of images of any size: from their mean colour, and from the proposals that it is given.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import toy_system
from test_resume import Stop, outcome

from minidet import functional as F
from minidet import nn
from minidet.autograd import is_grad_enabled
from minidet.data import Dataset, collate_list, write_image
from minidet.data.formats.record import Annotations, Record
from minidet.data.transforms import RandomFlip
from minidet.device import to_numpy
from minidet.random import generator
from minidet.training import System, create_run, open_run, train, try_settings
from minidet.training.fit import fit
from minidet.training.loop import Trainer
from minidet.training.step import as_tensors

SHAPES = ((12, 8), (7, 20), (16, 16))  # heights and widths


class Counter(nn.Module):
    """Each image's mean colour -> the number of its objects; and of that an offset that `complete` finds."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(3, 1)
        self.register_buffer("offset", np.zeros(1, np.float32))
        self.seen: list = []

    def forward(self, images, targets=None):
        counts = self.scores(F.stack([image.mean(axis=(1, 2)) for image in images]))
        if targets is None:
            return [{"count": to_numpy(count.data) + self.offset} for count in counts]
        self.seen += zip([image.shape for image in images], targets, strict=True)
        truth = np.array([[len(target["boxes"]) + len(target["proposals"])] for target in targets], np.float32)
        return {"count": F.smooth_l1_loss(counts, truth)}


def evaluate(model, dataset, batch_size):
    samples = [dataset[index] for index in range(len(dataset))]
    assert all(len(sample.proposals) for sample in samples)
    assert not model.training
    predictions = model(as_tensors(collate_list(samples, np.arange(len(samples))).images, model.device))
    errors = [abs(float(p["count"][0]) - len(s.boxes)) for p, s in zip(predictions, samples, strict=True)]
    return {"closeness": -np.mean(errors)}, predictions


def prepare(dataset, config, folder, split):
    """Two proposals an image, one of which leaves it in part."""
    calls.append((split, len(dataset), folder))
    for record in dataset.records:
        height, width = record.size
        record.proposals = np.array([[0, 0, width, height], [1, 2, width - 2, height - 1]], float)


def complete(model, dataset, config, folder):
    """The offset is drawn, so that a second try has to begin with the same random state."""
    calls.append(("complete", len(dataset), folder))
    assert not model.training
    assert not is_grad_enabled()
    assert dataset[0].proposals is not None
    model.offset[...] = generator().normal(size=1) + 100 * (1 + model.offset)


calls: list = []
SYSTEM = System(
    name="counter",
    build=lambda classes, config, rng: Counter(),
    transform=lambda config: RandomFlip(),
    evaluate=evaluate,
    draw=toy_system.draw,
    check=lambda dataset, config: None,
    predict=lambda model, samples, batch_size: evaluate(model.eval(), samples, batch_size)[1],
    collate=collate_list,
    prepare=prepare,
    complete=complete,
    metric="closeness",
    defaults={"epochs": 3, "batch_size": 4, "warmup": 2, "learning_rate": 0.05, "size": 16},
)


def dataset(folder, count, seed) -> Dataset:
    """Images of three shapes with no, one or two objects."""
    rng = np.random.default_rng(seed)
    records = []
    for index in range(count):
        path, shape = folder / f"{seed}-{index}.png", SHAPES[index % 3]
        write_image(path, rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        objects = index % 4 % 3
        boxes, empty = np.array([[1.0, 2, 5, 6]] * objects).reshape(-1, 4), np.zeros(objects, bool)
        labels, areas = np.ones(objects, np.int64), np.full(objects, 16.0)
        records.append(Record(path, path.name, shape, boxes, labels, empty, empty.copy(), areas))
    return Dataset(Annotations(records, ("__background__", "thing")))


@pytest.fixture
def data(tmp_path):
    calls.clear()
    return dataset(tmp_path, 14, 1), dataset(tmp_path, 5, 2), dataset(tmp_path, 4, 3)


def new_run(folder):
    config = {"system": "counter", "data": "data", "seed": 5, "classes": ["__background__", "thing"]}
    return create_run(folder, config | {"settings": SYSTEM.configure()})


def train_counter(run, data, resume=False, system=SYSTEM):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "draw", lambda *args, **options: None)  # the pictures are not what this is about
        return train(system, run, *data, resume=resume, quiet=True, checkpoint_seconds=0.0)


def test_batches_keep_the_shapes_of_their_images_and_bring_their_proposals(data, tmp_path):
    models = []
    system = replace(SYSTEM, build=lambda *args: models.append(Counter()) or models[-1])
    train_counter(new_run(tmp_path / "run"), data, system=system)
    seen = models[0].seen
    assert {shape for shape, _ in seen} == {(3, *shape) for shape in SHAPES}
    assert {len(target["boxes"]) for _, target in seen} == {0, 1, 2}
    flips = set()
    for (_, height, width), target in seen:
        assert target["proposals"].dtype == np.float32
        straight = [1, 2, width - 2, height - 1]
        mirrored = [2, 2, width - 1, height - 1]
        np.testing.assert_array_equal(target["proposals"][0], [0, 0, width, height])
        flips.add([straight, mirrored].index(target["proposals"][1].tolist()))
    assert flips == {0, 1}


def test_every_split_is_prepared_when_a_run_begins_and_when_it_is_resumed(data, tmp_path):
    run = new_run(tmp_path / "run")
    prepared = [("train", 14, run.folder), ("val", 5, run.folder), ("test", 4, run.folder)]

    def stop(*args):
        raise Stop

    with pytest.raises(Stop):
        train_counter(run, data, system=replace(SYSTEM, complete=stop))
    assert calls == prepared
    for split in data:
        for record in split.records:
            record.proposals = None  # another process
    train_counter(run, data, resume=True)
    assert calls == 2 * prepared + [("complete", 14, run.folder)]
    calls.clear()
    train_counter(new_run(tmp_path / "untested"), data[:2])
    assert [name for name, *_ in calls] == ["train", "val", "complete"]


def test_the_best_weights_are_completed_before_they_are_measured_and_the_last_ones_are_not(data, tmp_path):
    run = new_run(tmp_path / "run")
    metrics = train_counter(run, data)
    offset = run.read_weights("best")["offset"][0]
    assert offset > 90
    assert metrics["closeness"] == pytest.approx(-offset, abs=5)
    assert metrics["split"] == "test"
    assert run.read_weights("last")["offset"] == 0
    best = run.read_result("best")[1]
    assert best["epoch"] == metrics["best_epoch"]
    assert best["completed"] is True


@pytest.fixture
def uninterrupted(data, tmp_path):
    run = new_run(tmp_path / "uninterrupted")
    train_counter(run, data)
    calls.clear()
    return outcome(run.folder), json.loads(run.path("metrics.json").read_text())


def same(run, uninterrupted):
    metrics = json.loads(run.path("metrics.json").read_text())
    return outcome(run.folder) == uninterrupted[0] and all(
        metrics[key] == value for key, value in uninterrupted[1].items() if key != "train_seconds"
    )


def test_a_run_stopped_while_it_is_completed_is_completed_when_resumed(data, tmp_path, uninterrupted):
    def stop(model, *args):
        generator().normal(size=3)
        model.offset[...] = 7  # half done
        raise Stop

    run = new_run(tmp_path / "run")
    for resume in (False, True):
        with pytest.raises(Stop):
            train_counter(run, data, resume, replace(SYSTEM, complete=stop))
    assert run.read_weights("best")["offset"] == 0
    assert not run.finished
    train_counter(open_run(run.folder), data, resume=True)
    assert same(run, uninterrupted)


def stop_before_metrics(run, data):
    """All is done but metrics.json."""

    def stop(*args):
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run), "write_json", stop)
        with pytest.raises(Stop):
            train_counter(run, data)


def test_a_run_stopped_after_it_was_completed_is_not_completed_twice(data, tmp_path, uninterrupted):
    run = new_run(tmp_path / "run")
    stop_before_metrics(run, data)
    assert not run.finished
    assert [name for name, *_ in calls].count("complete") == 1
    train_counter(open_run(run.folder), data, resume=True)
    assert [name for name, *_ in calls].count("complete") == 1
    assert same(run, uninterrupted)


def test_best_weights_that_were_lost_after_completion_are_completed_again(data, tmp_path):
    run = new_run(tmp_path / "run")
    stop_before_metrics(run, data)
    run.path("best.safetensors").unlink()
    train_counter(open_run(run.folder), data, resume=True)
    assert run.read_weights("best")["offset"] > 90


def test_settings_are_tried_with_proposals_where_the_system_prepares_them():
    models = []
    system = replace(SYSTEM, build=lambda *args: models.append(Counter()) or models[-1])
    try_settings(system, system.configure())
    (_, target), *_ = models[0].seen
    assert target["proposals"].shape == (4, 4)
    assert (target["proposals"][:, 2:] > target["proposals"][:, :2]).all()
    assert target["proposals"].min() >= 0
    assert target["proposals"].max() <= 16
    with pytest.raises(KeyError, match="proposals"):
        try_settings(replace(system, prepare=None), system.configure())


def test_fit_completes_the_model_in_the_folder_that_it_is_given(data, tmp_path):
    prepare(data[0], {}, tmp_path, "train")
    model = fit(SYSTEM, data[0], {"epochs": 1}, quiet=True, folder=tmp_path)
    assert calls[-1] == ("complete", 14, tmp_path)
    assert model.offset[0] > 90
    fit(SYSTEM, data[0], {"epochs": 1}, quiet=True)
    assert calls[-1][:2] == ("complete", 14)
    assert not calls[-1][2].exists()  # a temporary one
