"""One step: gradients are clipped as defined; what is not finite is refused and explained."""

import numpy as np
import pytest
import toy_system
from toy_system import SYSTEM, ToyDataset, ToyModel, toy_run, train_toy

from minidet import Tensor, nn, optim
from minidet import functional as F
from minidet.array_file import read_arrays
from minidet.data import Loader
from minidet.random import manual_seed
from minidet.training.checkpoint import list_checkpoints
from minidet.training.state import Training
from minidet.training.step import RefusedStepError, clip_gradients, sum_losses, take_step


def with_gradient(values):
    parameter = nn.Parameter(np.zeros(len(values), np.float32))
    parameter.grad = Tensor(np.array(values, np.float32))
    return parameter


def test_a_long_gradient_is_shortened_over_all_parameters_together():
    parameters = [with_gradient([3.0, 0.0]), with_gradient([0.0, 4.0]), nn.Parameter(np.zeros(2, np.float32))]
    before = parameters[0].grad.data
    assert clip_gradients(parameters, 1.0) == 5.0
    np.testing.assert_allclose(parameters[0].grad.data, [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(parameters[1].grad.data, [0.0, 0.8], rtol=1e-6)
    assert parameters[0].grad.dtype == np.float32
    assert parameters[2].grad is None
    np.testing.assert_array_equal(before, [3.0, 0.0])  # its memory may be another gradient's too


@pytest.mark.parametrize("clip_norm", [0.0, 5.0, 9.0])
def test_a_short_gradient_is_left_alone(clip_norm):
    parameters = [with_gradient([3.0, 4.0])]
    assert clip_gradients(parameters, clip_norm) == 5.0
    np.testing.assert_array_equal(parameters[0].grad.data, [3.0, 4.0])


def test_the_sum_of_all_named_losses_is_minimised():
    losses = {"a": Tensor(np.array(1.5)), "b": Tensor(np.array(-0.25)), "c": Tensor(np.array(2.0))}
    assert float(sum_losses(losses)) == 3.25
    with pytest.raises(TypeError, match="dict of named losses"):
        sum_losses(Tensor(np.array(1.0)))


def batch_and_model(seed=0):
    training = Training(SYSTEM, SYSTEM.configure(), toy_system.CLASSES, ToyDataset(8, seed=1), seed)
    return next(iter(Loader(ToyDataset(8, seed=1), 4, shuffle=False))), training.model


def test_a_loss_that_is_not_finite_is_refused_before_anything_changes():
    batch, model = batch_and_model()
    model.factor = np.inf
    optimizer = optim.SGD(model.named_parameters(), 0.1)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    assert {"norm.running_mean", "norm.running_var"} <= before.keys()  # which the forward pass has already moved
    with pytest.raises(RefusedStepError) as error:
        take_step(model, optimizer, batch, 1.0)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert not any(optimizer.steps.values())
    report = str(error.value)
    assert "class inf" in report
    assert "Multiply (forward) made inf" in report
    assert "F.cross_entropy(logits, labels) * self.factor" in report  # the line that made it
    assert "toy-0.png, toy-1.png, toy-2.png, toy-3.png" in report


class Overflowing(nn.Module):
    """The loss is finite, its gradient is not: the root's slope at 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(np.zeros(3, np.float32))

    def forward(self, images, targets):
        return {"root": F.sqrt(self.weight).sum()}


def test_a_gradient_that_is_not_finite_is_refused_too():
    batch, _ = batch_and_model()
    model = Overflowing()
    with pytest.raises(RefusedStepError, match=r"Sqrt \(backward\) made inf"):
        take_step(model, optim.SGD(model.named_parameters(), 0.1), batch, 1.0)
    np.testing.assert_array_equal(model.weight.data, 0)


class Chancy(nn.Module):
    """Not finite for one draw of the dropout in some: the explanation has to draw the same one again."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(np.ones(64, np.float32))

    def forward(self, images, targets):
        kept = F.dropout(self.weight, 0.5)
        return {"log": F.log(kept[0])}


def test_the_explanation_repeats_the_same_random_numbers():
    batch, _ = batch_and_model()
    reports = []
    for seed in range(20):
        manual_seed(seed)
        model = Chancy()
        try:
            take_step(model, optim.SGD(model.named_parameters(), 0.1), batch, 1.0)
        except RefusedStepError as error:
            reports.append(str(error))
    assert 3 < len(reports) < 17
    assert all("Log (forward) made -inf" in report for report in reports)


def test_a_refused_step_stops_the_run_with_a_report_and_keeps_the_last_good_state(tmp_path, monkeypatch):
    run = toy_run(tmp_path / "run")
    forward = ToyModel.forward

    def broken(model, images, targets=None):
        model.factor = np.nan if model.norm.running_mean.any() and broken.count >= 7 else 1.0
        broken.count += targets is not None
        return forward(model, images, targets)

    broken.count = 0
    monkeypatch.setattr(ToyModel, "forward", broken)
    with pytest.raises(RefusedStepError, match=r"step 8 \(epoch 2\)") as error:
        train_toy(run)
    assert (run.folder / "anomaly.txt").read_text().strip() == str(error.value)
    newest = list_checkpoints(run.checkpoints)[0]
    assert newest.name == "step-00000007.safetensors"
    assert all(np.isfinite(array).all() for array in read_arrays(newest)[0].values())
    assert not run.finished


def displacement(warmup):
    """How far one step of plain gradient descent moves the weights."""
    overrides = ["optimizer=sgd", "momentum=0", "weight_decay=0", "schedule=constant", f"warmup={warmup}"]
    training = Training(SYSTEM, SYSTEM.configure(overrides), toy_system.CLASSES, ToyDataset(8, seed=1), seed=0)
    before = training.model.scores.weight.data.copy()
    training.step(next(iter(training.loader)))
    return training.model.scores.weight.data - before


def test_the_schedule_sets_how_far_a_step_goes():
    np.testing.assert_allclose(displacement(warmup=0), 4 * displacement(warmup=4), rtol=1e-3, atol=1e-6)
    assert np.abs(displacement(warmup=0)).max() > 1e-4
