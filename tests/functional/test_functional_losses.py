"""Activations and losses against torch: values, gradients, gradients of gradients, reductions, empty batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidet.functional as F
from tests.functional.oracle import DTYPES, check

torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
T = torch.nn.functional

EXAMPLES = settings(max_examples=15, deadline=None)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
seeds = st.integers(0, 2**32 - 1)


def normal(shape, dtype, seed, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


ACTIVATIONS = {
    "relu": (F.relu, T.relu),
    "leaky_relu": (F.leaky_relu, T.leaky_relu),
    "leaky_relu of YOLO": (lambda x: F.leaky_relu(x, 0.1), lambda x: T.leaky_relu(x, 0.1)),
    "sigmoid": (F.sigmoid, torch.sigmoid),
    "tanh": (F.tanh, torch.tanh),
    # torch approximates softplus above a threshold; this is the same function without it
    "softplus": (F.softplus, lambda x: -T.logsigmoid(-x)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@every_dtype
@EXAMPLES
@given(shape=shapes, seed=seeds, scale=st.sampled_from([1.0, 30.0]))
def test_activations_equal_torchs(name, dtype, shape, seed, scale):
    ours, theirs = ACTIVATIONS[name]
    check(ours, theirs, normal(shape, dtype, seed, scale), seed=seed)


@every_dtype
@EXAMPLES
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), seed=seeds, data=st.data())
def test_softmax_and_its_logarithm_equal_torchs(dtype, shape, seed, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = normal(shape, dtype, seed, 3)
    check(lambda a: F.softmax(a, axis), lambda a: T.softmax(a, axis), x, seed=seed)
    check(lambda a: F.log_softmax(a, axis), lambda a: T.log_softmax(a, axis), x, seed=seed)


def test_softmax_of_an_empty_batch_is_empty():
    x = np.zeros((0, 3), np.float32)
    check(lambda a: F.softmax(a, 1), lambda a: T.softmax(a, 1), x)
    check(lambda a: F.log_softmax(a, -1), lambda a: T.log_softmax(a, -1), x)


def reduced(loss, reduction, shape):
    """torch's loss with minidet's rule that the mean of nothing is 0 (torch: NaN)."""
    if reduction == "mean" and 0 in shape:
        return loss("sum")
    return loss(reduction)


REGRESSIONS = {
    "mse_loss": (F.mse_loss, T.mse_loss),
    "l1_loss": (F.l1_loss, T.l1_loss),
    "smooth_l1_loss": (F.smooth_l1_loss, T.smooth_l1_loss),
    "smooth_l1_loss of the RPN": (
        lambda x, t, reduction: F.smooth_l1_loss(x, t, reduction, beta=1 / 9),
        lambda x, t, reduction: T.smooth_l1_loss(x, t, reduction=reduction, beta=1 / 9),
    ),
    "smooth_l1_loss of beta 0": (
        lambda x, t, reduction: F.smooth_l1_loss(x, t, reduction, beta=0),
        lambda x, t, reduction: T.smooth_l1_loss(x, t, reduction=reduction, beta=0),
    ),
    "hinge_loss": (
        lambda x, t, reduction: F.hinge_loss(x, t, reduction=reduction),
        lambda x, t, reduction: {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction](
            T.relu(1 - x * t)
        ),
    ),
}


@pytest.mark.parametrize("name", REGRESSIONS)
@every_dtype
@every_reduction
@EXAMPLES
@given(shape=shapes, seed=seeds)
def test_losses_of_two_arrays_equal_torchs(name, dtype, reduction, shape, seed):
    ours, theirs = REGRESSIONS[name]
    check(
        lambda x, t: ours(x, t, reduction=reduction),
        lambda x, t: reduced(lambda how: theirs(x, t, reduction=how), reduction, shape),
        normal(shape, dtype, seed),
        normal(shape, dtype, seed + 1),
        seed=seed,
    )


@every_dtype
@every_reduction
@EXAMPLES
@given(shape=shapes, seed=seeds, weighted=st.booleans(), scale=st.sampled_from([1.0, 40.0]))
def test_binary_cross_entropy_with_logits_equals_torchs(dtype, reduction, shape, seed, weighted, scale):
    rng = np.random.default_rng(seed + 1)
    target, weight = rng.random(shape).astype(dtype), rng.random(shape).astype(dtype) if weighted else None
    check(
        lambda x: F.binary_cross_entropy_with_logits(x, target, weight, reduction),
        lambda x: reduced(
            lambda how: T.binary_cross_entropy_with_logits(
                x, torch.tensor(target), None if weight is None else torch.tensor(weight), reduction=how
            ),
            reduction,
            shape,
        ),
        normal(shape, dtype, seed, scale),
        seed=seed,
    )


@every_dtype
@every_reduction
@EXAMPLES
@given(
    batch=st.integers(0, 4),
    classes=st.integers(1, 5),
    place=st.lists(st.integers(1, 3), max_size=2),
    weighted=st.booleans(),
    ignore_index=st.sampled_from([-100, 0, 255]),
    seed=seeds,
)
def test_cross_entropy_equals_torchs(dtype, reduction, batch, classes, place, weighted, ignore_index, seed):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, (batch, *place))
    if target.size:
        target.flat[rng.random(target.size) < 0.3] = ignore_index
    weight = (rng.random(classes) + 0.1).astype(dtype) if weighted else None

    def theirs(x):
        def loss(how):
            weights = None if weight is None else torch.tensor(weight)
            return T.cross_entropy(x, torch.tensor(target), weights, ignore_index=ignore_index, reduction=how)

        return loss("sum") if reduction == "mean" and (target == ignore_index).all() else loss(reduction)

    check(
        lambda x: F.cross_entropy(x, target, weight, ignore_index, reduction),
        theirs,
        normal((batch, classes, *place), dtype, seed + 1, 3),
        seed=seed,
    )


@every_dtype
@every_reduction
@EXAMPLES
@given(batch=st.integers(0, 4), classes=st.integers(1, 5), margin=st.sampled_from([0.5, 1.0]), seed=seeds)
def test_multi_margin_loss_equals_torchs(dtype, reduction, batch, classes, margin, seed):
    target = np.random.default_rng(seed).integers(0, classes, batch)

    def theirs(x):
        loss = lambda how: T.multi_margin_loss(x, torch.tensor(target), margin=margin, reduction=how)  # noqa: E731
        return reduced(loss, reduction, (batch,)) if batch else x.sum() if reduction != "none" else x.sum(1)

    check(
        lambda x: F.multi_margin_loss(x, target, margin=margin, reduction=reduction),
        theirs,
        normal((batch, classes), dtype, seed + 1),
        seed=seed,
        second=False,  # it is linear in pieces
    )
