"""The fully connected layer: values by hand, the CPU's own products against NumPy's, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk

HAS_CPU = mk.available()["cpu"] is None
VERSIONS = ["reference"] + ["cpu"] * HAS_CPU


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_by_hand(version: str, dtype: type) -> None:
    x, weight = np.array([[1, 2, 3]], dtype), np.array([[1, 0, -1], [2, 1, 0]], dtype)
    bias, grad = np.array([10, 20], dtype), np.array([[1, 100]], dtype)
    with mk.use(version):
        y, x_grad = mk.linear(x, weight, bias), mk.linear_input_grad(grad, weight)
        weight_grad = mk.linear_weight_grad(x, grad)
    np.testing.assert_array_equal(y, [[8, 24]])
    np.testing.assert_array_equal(x_grad, [[201, 100, -1]])
    np.testing.assert_array_equal(weight_grad, [[1, 2, 3], [100, 200, 300]])
    assert y.dtype == x_grad.dtype == weight_grad.dtype == dtype


@pytest.mark.skipif(not HAS_CPU, reason="Numba is not installed")
@pytest.mark.parametrize("rows", [1, 2, 8, 9, 64, 65, 300])
@pytest.mark.parametrize(
    ("outputs", "channels"), [(512, 512), (520, 576), (8, 64 * 577), (4096, 64), (1000, 303), (256, 1088)]
)
def test_all_ways_to_multiply_agree_with_numpy(rows: int, outputs: int, channels: int) -> None:
    """Around the number of rows where loops give way to tiles; blocks that are full, that are not, and no multiples."""
    rng = np.random.default_rng(rows)
    x, weight, grad = (rng.standard_normal(s) for s in ((rows, channels), (outputs, channels), (rows, outputs)))
    single = {name: array.astype(np.float32) for name, array in (("x", x), ("weight", weight), ("grad", grad))}
    with mk.use("cpu"):
        results = [
            mk.linear(single["x"], single["weight"]),
            mk.linear_input_grad(single["grad"], single["weight"]),
            mk.linear_weight_grad(single["x"], single["grad"]),
        ]
    for result, expected in zip(results, [x @ weight.T, grad @ weight, grad.T @ x], strict=True):
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.skipif(not HAS_CPU, reason="Numba is not installed")
@pytest.mark.parametrize("rows", [1, 40])
def test_nan_and_infinity_go_where_they_belong(rows: int) -> None:
    x, weight = np.ones((rows, 512), np.float32), np.ones((512, 512), np.float32)
    weight[3, 511], weight[4, 0] = np.nan, np.inf
    with mk.use("cpu"):
        y = mk.linear(x, weight)
        x_grad = mk.linear_input_grad(x, weight)
    for result, spoiled in ((y, [3, 4]), (x_grad, [511, 0])):
        assert np.isnan(result[:, spoiled[0]]).all()
        assert np.isposinf(result[:, spoiled[1]]).all()
        np.testing.assert_array_equal(np.delete(result, spoiled, axis=1), 512)


@pytest.mark.skipif(not HAS_CPU, reason="Numba is not installed")
@pytest.mark.parametrize("rows", [1, 100])
def test_the_bits_do_not_depend_on_the_number_of_threads(rows: int) -> None:
    numba = pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    x, weight, grad = (rng.standard_normal(s, dtype=np.float32) for s in ((rows, 4160), (512, 4160), (rows, 512)))
    before, bits = numba.get_num_threads(), []
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            with mk.use("cpu"):
                results = mk.linear(x, weight), mk.linear_input_grad(grad, weight), mk.linear_weight_grad(x, grad)
            bits.append([result.tobytes() for result in results])
    finally:
        numba.set_num_threads(before)
    assert bits[0] == bits[1]


def test_other_shapes_and_dtypes_are_refused() -> None:
    x, weight, grad = np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32), np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match=r"linear: expected x \(N, C\) = \(N, 3\), got \(2, 4\)"):
        mk.linear(grad, weight)
    with pytest.raises(ValueError, match=r"linear: expected bias \(K\) = \(4\), got \(3,\)"):
        mk.linear(x, weight, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"linear_input_grad: expected grad \(N, K\) = \(N, 4\), got \(2, 3\)"):
        mk.linear_input_grad(x, weight)
    with pytest.raises(ValueError, match=r"linear_weight_grad: expected grad \(N, K\) = \(2, K\), got \(4, 3\)"):
        mk.linear_weight_grad(x, weight)
    with pytest.raises(TypeError, match="linear: expected float32 or float64, the same for all, got"):
        mk.linear(x, weight.astype(np.float64))
