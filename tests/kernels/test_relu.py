"""The rectified linear unit: values by hand, memory order, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels
from minidet_kernels import relu, relu_backward

VERSIONS = ["reference"] + [v for v in ("cpu",) if minidet_kernels.available()[v] is None]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_slopes_by_hand(version: str, dtype: type) -> None:
    x = np.array([-2, -0.0, 0, 1.5, np.inf, -np.inf, np.nan], dtype)
    grad = np.array([1, 2, 3, 4, 5, 6, 7], dtype)
    with minidet_kernels.use(version):
        y = relu(x)
        x_grad = relu_backward(grad, y)
    np.testing.assert_array_equal(y, np.array([0, 0, 0, 1.5, np.inf, 0, np.nan], dtype))
    np.testing.assert_array_equal(x_grad, np.array([0, 0, 0, 4, 5, 0, 0], dtype))
    assert y.dtype == x_grad.dtype == dtype


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3), (40, 1000)])
def test_any_shape(version: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32).reshape(shape)
    with minidet_kernels.use(version):
        assert np.array_equal(relu(x), np.where(x < 0, 0, x))


@pytest.mark.skipif("cpu" not in VERSIONS, reason="Numba is not installed")
def test_the_cpu_version_keeps_the_memory_order() -> None:
    x = np.zeros((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2)
    assert relu(x).strides == x.strides
    assert relu_backward(np.zeros((2, 3, 4, 5), np.float32), relu(x)).strides == x.strides


def test_other_shapes_and_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="float32 or float64"):
        relu(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="one shape"):
        relu_backward(np.zeros(3, np.float32), np.zeros(4, np.float32))
