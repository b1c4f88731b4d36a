"""The definition of batch normalisation against a sum written out, and against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minidet_kernels
from minidet_kernels import batch_norm, batch_norm_backward

VERSIONS = ["reference"] + [v for v in ("cpu",) if minidet_kernels.available()[v] is None]


@pytest.mark.parametrize("version", VERSIONS)
def test_two_channels_by_hand(version: str) -> None:
    x = np.array([[[[1.0, 3.0]], [[5.0, 5.0]]]])  # channel 0: mean 2, variance 1; channel 1: constant
    with minidet_kernels.use(version):
        y, mean, variance = batch_norm(x, np.array([2.0, 3.0]), np.array([10.0, 20.0]), eps=3.0)
    assert mean.tolist() == [2, 5]
    assert variance.tolist() == [1, 0]
    assert y.tolist() == [[[[9.0, 11.0]], [[20.0, 20.0]]]]  # std = sqrt(1 + 3) = 2


@pytest.mark.parametrize("version", VERSIONS)
def test_the_gradient_is_the_derivative_by_central_differences(version: str) -> None:
    rng = np.random.default_rng(0)
    x, cotangent = rng.standard_normal((2, 2, 3, 2, 2))
    weight, bias = rng.standard_normal((2, 3))[:, :2]
    x, cotangent, eps, step = x[:, :2], cotangent[:, :2], 1e-3, 1e-5

    def loss(x: np.ndarray) -> float:
        return float((batch_norm(x, weight, bias, eps)[0] * cotangent).sum())

    with minidet_kernels.use(version):
        _, mean, variance = batch_norm(x, weight, bias, eps)
        x_grad, weight_grad, bias_grad = batch_norm_backward(cotangent, x, weight, mean, np.sqrt(variance + eps))
        for at in np.ndindex(x.shape):
            moved = np.zeros_like(x)
            moved[at] = step
            expected = (loss(x + moved) - loss(x - moved)) / (2 * step)
            assert math.isclose(x_grad[at], expected, rel_tol=1e-6, abs_tol=1e-8)
    for c in range(2):
        z = (x[:, c] - mean[c]) / math.sqrt(variance[c] + eps)
        assert math.isclose(weight_grad[c], sum((cotangent[:, c] * z).ravel().tolist()), rel_tol=1e-9)
        assert math.isclose(bias_grad[c], sum(cotangent[:, c].ravel().tolist()), rel_tol=1e-9)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_large_mean_does_not_eat_the_variance(version: str) -> None:
    x = 1000 + np.arange(4096, dtype=np.float32).reshape(1, 1, 64, 64) % 2
    with minidet_kernels.use(version):
        _, mean, variance = batch_norm(x, np.ones(1, np.float32), np.zeros(1, np.float32))
    assert mean[0] == 1000.5
    assert variance[0] == 0.25


@pytest.mark.parametrize("version", VERSIONS)
def test_images_without_channels_have_nothing_to_normalise(version: str) -> None:
    x, none = np.ones((2, 0, 3, 4), np.float32), np.ones(0, np.float32)
    with minidet_kernels.use(version):
        assert [part.shape for part in batch_norm(x, none, none)] == [x.shape, (0,), (0,)]
        assert [part.shape for part in batch_norm_backward(x, x, none, none, none)] == [x.shape, (0,), (0,)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 3, 4), np.float32)}, "x"),
        ({"weight": np.zeros(4, np.float32)}, "weight"),
        ({"bias": np.zeros(3, np.float64)}, "float"),
        ({"x": np.zeros((0, 3, 4, 4), np.float32)}, "at least one value"),
        ({"eps": -1.0}, "eps >= 0"),
    ],
)
def test_wrong_arguments_are_refused(change: dict, message: str) -> None:
    good = {"x": np.zeros((2, 3, 4, 4), np.float32), "weight": np.ones(3, np.float32), "bias": np.ones(3, np.float32)}
    with pytest.raises((ValueError, TypeError), match=message):
        batch_norm(**(good | change))
