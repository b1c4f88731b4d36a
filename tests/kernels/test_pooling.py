"""Pooling: numbers worked out by hand, literal loops, and torch; and the errors of the contract."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import minidet_kernels as mk
from tests.kernels.cases import BY_NAME
from tests.kernels.harness import assert_close, run

IMAGE = np.array([[1.0, 5.0, 2.0], [5.0, 0.0, 5.0], [7.0, 3.0, 7.0]])[None, None]


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def test_the_first_of_equal_maxima_wins() -> None:
    values, indices = mk.max_pool2d(IMAGE, 2, stride=1)
    np.testing.assert_array_equal(values[0, 0], [[5, 5], [7, 7]])
    np.testing.assert_array_equal(indices[0, 0], [[1, 1], [6, 8]])


def test_padding_never_wins_even_over_minus_infinity() -> None:
    values, indices = mk.max_pool2d(np.full((1, 1, 2, 2), -np.inf), 2, stride=2, padding=1)
    assert (values == -np.inf).all()
    np.testing.assert_array_equal(indices[0, 0], [[0, 1], [2, 3]])


def test_the_last_nan_of_a_window_wins() -> None:
    x = np.array([[[[1.0, np.nan, 9.0, np.nan, 10.0]]]])
    values, indices = mk.max_pool2d(x, (1, 5))
    assert np.isnan(values).all()
    assert indices.item() == 3


def test_a_dilated_window_that_misses_the_image_has_index_minus_one() -> None:
    values, indices = mk.max_pool2d(np.ones((1, 1, 2, 1)), (2, 1), padding=(1, 0), dilation=(3, 1))  # rows -1 and 2
    assert values.item() == -np.inf
    assert indices.item() == -1
    assert mk.max_pool2d_gather(np.ones((1, 1, 2, 1)), indices).item() == 0
    assert not mk.max_pool2d_scatter(np.ones_like(values), indices, (2, 1)).any()


def test_ceil_mode_adds_a_last_window_only_if_it_starts_inside() -> None:
    row = np.arange(5.0).reshape(1, 1, 1, 5)
    assert mk.max_pool2d(row, (1, 2), ceil_mode=True)[0].shape[3] == 3
    assert mk.max_pool2d(row, (1, 2), ceil_mode=False)[0].shape[3] == 2
    # 5 + 2*1 pixels, windows of 2 in steps of 3 start at -1, 2, 5: the third in the padding behind, and is left out
    assert mk.max_pool2d(row, (1, 2), stride=3, padding=(0, 1), ceil_mode=True)[0].shape[3] == 2


def test_scatter_adds_up_where_windows_share_their_maximum() -> None:
    grad = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    indices = np.array([[[[1, 1], [6, 8]]]])
    expected = [[0, 3, 0], [0, 0, 0], [3, 0, 4]]
    np.testing.assert_array_equal(mk.max_pool2d_scatter(grad, indices, (3, 3))[0, 0], expected)


def test_averages_by_hand() -> None:
    np.testing.assert_allclose(mk.avg_pool2d(IMAGE, 2, stride=1)[0, 0], [[11 / 4, 12 / 4], [15 / 4, 15 / 4]])
    corner = mk.avg_pool2d(IMAGE, 2, stride=2, padding=1)
    np.testing.assert_allclose(corner[0, 0], [[1 / 4, 7 / 4], [12 / 4, 15 / 4]])
    corner = mk.avg_pool2d(IMAGE, 2, stride=2, padding=1, count_include_pad=False)
    np.testing.assert_allclose(corner[0, 0], [[1, 7 / 2], [12 / 2, 15 / 4]])


def test_global_pooling_is_a_window_as_large_as_the_image() -> None:
    assert mk.max_pool2d(IMAGE, (3, 3))[1].item() == 6
    assert mk.avg_pool2d(IMAGE, (3, 3)).item() == pytest.approx(35 / 9)


def test_literal_loops_find_the_same_maxima() -> None:
    x = np.random.default_rng(0).integers(-3, 4, (2, 3, 7, 6)).astype(float)
    values, indices = mk.max_pool2d(x, (3, 2), (2, 1), padding=(1, 1), dilation=(2, 1))
    for n, c, i, j in np.ndindex(values.shape):
        best, where = -np.inf, -1
        for r in range(3):
            for s in range(2):
                h, w = 2 * i - 1 + 2 * r, j - 1 + s
                if 0 <= h < 7 and 0 <= w < 6 and (where == -1 or x[n, c, h, w] > best):
                    best, where = x[n, c, h, w], h * 6 + w
        assert (values[n, c, i, j], indices[n, c, i, j]) == (best, where)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "avg_pool2d_adjoint"])
def test_torch_agrees(name: str, version) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    functional = torch.nn.functional

    @settings(max_examples=100, deadline=None)
    @given(BY_NAME[name].calls)
    def agrees(call):
        array = torch.from_numpy(np.ascontiguousarray(call.arrays[0]).copy())
        if len(array) == 0:
            return  # torch refuses to pool an empty batch
        results = run(BY_NAME[name], call, version)
        options = dict(call.options)
        if name == "max_pool2d":
            if (results[1] == -1).any():
                return  # torch returns an index outside the image here
            expected = functional.max_pool2d(array, **options, return_indices=True)
        elif name == "avg_pool2d":
            expected = [functional.avg_pool2d(array, **options)]
        else:
            x = torch.zeros(*array.shape[:2], *options.pop("input_size"), dtype=array.dtype, requires_grad=True)
            expected = torch.autograd.grad(functional.avg_pool2d(x, **options), x, array)
        for result, from_torch in zip(results, expected, strict=True):
            assert_close(result, from_torch.numpy(), f"{name} differs from torch")

    agrees()


X, I = np.zeros((2, 3, 8, 8)), np.zeros((2, 3, 4, 4), np.int64)  # noqa: E741


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mk.max_pool2d(X, 2, padding=2), ValueError, "padding <= kernel_size / 2"),
        (lambda: mk.max_pool2d(X, 9), ValueError, "no window"),
        (lambda: mk.max_pool2d(X[0], 2), ValueError, "batch axis is missing"),
        (lambda: mk.max_pool2d(X.astype(int), 2), TypeError, "float32 or float64"),
        (lambda: mk.max_pool2d_gather(X, I + 64), IndexError, r"\[-1, 64\)"),
        (lambda: mk.max_pool2d_gather(X, I - 2), IndexError, "-2"),
        (lambda: mk.max_pool2d_scatter(X[:, :, :4, :4], I + 64, (8, 8)), IndexError, "64"),
        (lambda: mk.max_pool2d_scatter(X[:, :, :4, :4], I.astype(np.int32), (8, 8)), TypeError, "int64"),
        (lambda: mk.max_pool2d_scatter(X, I, (8, 8)), ValueError, "indices"),
        (lambda: mk.avg_pool2d_adjoint(X, (8, 8), 2), ValueError, "Ho, Wo"),
        (lambda: mk.avg_pool2d(X, 2, stride=0), ValueError, "stride"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
