"""Every elementary operation against torch: values, gradients, and gradients of gradients, in both precisions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidet.functional as F
from tests.functional.oracle import DTYPES, check

torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")

A, B = (2, 3, 4), (3, 1)
INDICES = np.random.default_rng(9).integers(0, 3, (2, 2, 4))
CONDITION = np.random.default_rng(8).random(A) > 0.5

# name: (ours, theirs, shapes, lowest value). Inputs are uniform in [low, low + 2]
CASES = {
    "add": (lambda a, b: a + b, lambda a, b: a + b, (A, B), -1),
    "add number": (lambda a: 2 + a + 1.5, lambda a: 2 + a + 1.5, (A,), -1),
    "subtract": (lambda a, b: a - b, lambda a, b: a - b, (B, A), -1),
    "number minus": (lambda a: 2 - a, lambda a: 2 - a, (A,), -1),
    "multiply": (lambda a, b: a * b, lambda a, b: a * b, (A, B), -1),
    "divide": (lambda a, b: a / b, lambda a, b: a / b, (A, B), 0.5),
    "number over": (lambda a: 2 / a, lambda a: 2 / a, (A,), 0.5),
    "negative": (lambda a: -a, lambda a: -a, (A,), -1),
    "square": (lambda a: a**2, lambda a: a**2, (A,), -1),
    "cube": (lambda a: a**3, lambda a: a**3, (A,), -1),
    "root by power": (lambda a: a**0.5, lambda a: a**0.5, (A,), 0.5),
    "inverse by power": (lambda a: a**-1, lambda a: a**-1, (A,), 0.5),
    "exp": (F.exp, lambda a: a.exp(), (A,), -1),
    "log": (F.log, lambda a: a.log(), (A,), 0.5),
    "sqrt": (F.sqrt, lambda a: a.sqrt(), (A,), 0.5),
    "sin": (F.sin, lambda a: a.sin(), (A,), -1),
    "cos": (F.cos, lambda a: a.cos(), (A,), -1),
    "arctan": (F.arctan, lambda a: a.arctan(), (A,), -1),
    "abs": (abs, lambda a: a.abs(), (A,), -1),
    "maximum": (F.maximum, torch.maximum, (A, (3, 4)), -1),
    "minimum": (F.minimum, torch.minimum, (A, (3, 4)), -1),
    "where": (
        lambda a, b: F.where(CONDITION, a, b),
        lambda a, b: torch.where(torch.tensor(CONDITION), a, b),
        (A, B),
        -1,
    ),
    "clip": (lambda a: F.clip(a, -0.5, 0.5), lambda a: a.clamp(-0.5, 0.5), (A,), -1),
    "clip below": (lambda a: a.clip(low=0.1), lambda a: a.clamp(min=0.1), (A,), -1),
    "sum": (lambda a: a.sum(), lambda a: a.sum(), (A,), -1),
    "sum of axes": (lambda a: a.sum(axis=(0, -1)), lambda a: a.sum((0, -1)), (A,), -1),
    "mean": (lambda a: a.mean(axis=1, keepdims=True), lambda a: a.mean(1, keepdim=True), (A,), -1),
    "var": (lambda a: a.var(axis=(1, 2)), lambda a: a.var((1, 2), unbiased=False), (A,), -1),
    "max": (lambda a: a.max(axis=1), lambda a: a.max(1).values, (A,), -1),
    "max of all": (lambda a: a.max(), lambda a: a.max(), (A,), -1),
    "min": (lambda a: a.min(axis=-1, keepdims=True), lambda a: a.min(-1, keepdim=True).values, (A,), -1),
    "reshape": (lambda a: a.reshape(6, -1), lambda a: a.reshape(6, -1), (A,), -1),
    "flatten": (lambda a: a.flatten(1), lambda a: a.flatten(1), (A,), -1),
    "transpose": (lambda a: a.transpose(2, 0, 1), lambda a: a.permute(2, 0, 1), (A,), -1),
    "swapaxes": (lambda a: a.swapaxes(0, -1), lambda a: a.swapaxes(0, -1), (A,), -1),
    "index": (lambda a: a[1, ..., 1:], lambda a: a[1, ..., 1:], (A,), -1),
    "gather": (lambda a: a[:, [0, 2, 0]], lambda a: a[:, [0, 2, 0]], (A,), -1),
    "mask": (lambda a: a[CONDITION], lambda a: a[torch.tensor(CONDITION)], (A,), -1),
    "take along axis": (
        lambda a: F.take_along_axis(a, INDICES, 1),
        lambda a: torch.take_along_dim(a, torch.tensor(INDICES), 1),
        (A,),
        -1,
    ),
    "concatenate": (lambda a, b: F.concatenate([a, b], -1), lambda a, b: torch.cat([a, b], -1), (A, (2, 3, 1)), -1),
    "stack": (lambda a, b: F.stack([a, b], -2), lambda a, b: torch.stack([a, b], -2), (A, A), -1),
    "pad": (
        lambda a: F.pad(a, [(0, 0), (1, 0), (2, 1)]),
        lambda a: torch.nn.functional.pad(a, (2, 1, 1, 0)),
        (A,),
        -1,
    ),
    "matmul": (lambda a, b: a @ b, lambda a, b: a @ b, (A, (4, 2)), -1),
    "matmul of batches": (lambda a, b: a @ b, lambda a, b: a @ b, ((5, 1, 2, 3), (4, 3, 2)), -1),
    "clone": (lambda a: a.clone(), lambda a: a.clone(), (A,), -1),
}


def uniform(shapes, low, dtype, seed):
    rng = np.random.default_rng(seed)
    return [(low + 2 * rng.random(shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_derivatives_of_two_orders_equal_torchs(case, dtype):
    ours, theirs, shapes, low = case
    check(ours, theirs, *uniform(shapes, low, dtype, seed=0), seed=1)


# Compositions, in which second derivatives go through several rules at once: f(a, b) in two notations.
COMPOSITIONS = {
    "a ratio of products": (lambda a, b: (a * b + 1) / (b * b + a * a), None),
    "a distance": (lambda a, b: ((a - b) ** 2).sum() ** 0.5, None),
    "a used everywhere": (lambda a, b: a * a[0] * a.sum() + b * a.mean(), None),
    "a matrix product of itself": (lambda a, b: (a @ a.swapaxes(-1, -2)) * b.sum(), None),
    "a softmax by hand": (
        lambda a, b: (F.exp(a) / F.exp(a).sum(axis=-1, keepdims=True)) * b,
        lambda a, b: (a.exp() / a.exp().sum(-1, keepdim=True)) * b,
    ),
    "a network": (
        lambda a, b: F.sin(a @ b.swapaxes(-1, -2)).reshape(2, -1)[:, 1:].mean(axis=0) * F.exp(-b.var()),
        lambda a, b: (a @ b.swapaxes(-1, -2)).sin().reshape(2, -1)[:, 1:].mean(0) * (-b.var(unbiased=False)).exp(),
    ),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(DTYPES))
def test_derivatives_of_compositions_equal_torchs(name, seed, dtype):
    ours, theirs = COMPOSITIONS[name]
    check(ours, theirs or ours, *uniform((A, A), 0.5, dtype, seed), seed=seed)


@st.composite
def broadcast_shapes(draw):
    full = draw(st.lists(st.integers(0, 3), min_size=0, max_size=3))
    shapes = []
    for _ in range(2):
        start = draw(st.integers(0, len(full)))
        shapes.append(tuple(1 if draw(st.booleans()) else n for n in full[start:]))
    return shapes


@settings(max_examples=40, deadline=None)
@given(shapes=broadcast_shapes(), seed=st.integers(0, 1000))
def test_broadcasting_of_any_two_shapes_equals_torchs(shapes, seed):
    def both(a, b):
        return (a * b + a / b - b) * a

    check(both, both, *uniform(shapes, 0.5, "float64", seed), seed=seed)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_indexing_with_any_key_equals_torchs(data, seed):
    # torch has no negative steps; those are tested by hand in test_tensor.py
    index = st.one_of(
        st.integers(-3, 2),
        st.builds(slice, st.integers(-3, 3), st.one_of(st.none(), st.integers(-3, 3)), st.integers(1, 2)),
        st.lists(st.integers(-3, 2), min_size=1, max_size=4),
        st.none(),
    )
    key = tuple(data.draw(st.lists(index, min_size=1, max_size=2)))
    if len({len(part) for part in key if isinstance(part, list)}) > 1:
        key = key[:1]  # two lists of different lengths do not broadcast
    check(lambda a: a[key], lambda a: a[key], *uniform([(3, 3, 3)], -1, "float64", seed), seed=seed)
