"""Tensors as values: shapes, dtypes, indexing, errors. Gradients here are worked out by hand; torch comes later."""

import numpy as np
import pytest

import minidet
import minidet.functional as F
from minidet import Tensor, tensor


def leaf(values, dtype=np.float64):
    return tensor(values, dtype=dtype, requires_grad=True)


def gradient(y, x, cotangent=None):
    return minidet.grad(y, x, cotangent)[0].data


def test_python_floats_become_float32_and_arrays_keep_their_dtype():
    assert tensor([1.0, 2.0]).dtype == np.float32
    assert tensor([1, 2]).dtype == np.int64
    assert tensor([True]).dtype == bool
    assert tensor(np.ones(2)).dtype == np.float64
    assert tensor([1.0], dtype=np.float64).dtype == np.float64


def test_tensor_copies_and_the_constructor_shares():
    array = np.zeros(2)
    copied, shared = tensor(array), Tensor(array)
    array[0] = 5
    assert copied.data[0] == 0
    assert shared.data[0] == 5


@pytest.mark.parametrize("number", [2, 2.0, True, np.float64(2), np.float32(2), np.int64(2), np.float16(2)])
def test_float32_stays_float32_with_python_and_numpy_scalars(number):
    x = leaf([1.0, 4.0], np.float32)
    for y in (x + number, number + x, x - number, number - x, x * number, number * x, x / number, number / x):
        assert isinstance(y, Tensor)
        assert y.dtype == np.float32
        y.sum().backward()
    assert (x**number).dtype == np.float32
    assert F.clip(x, number, number).dtype == np.float32
    assert F.maximum(x, number).dtype == np.float32
    assert F.where(x > 2, x, number).dtype == np.float32
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_reductions_and_functions_keep_float32(shape):
    x = leaf(np.ones(shape), np.float32)
    for y in (x.sum(), x.mean(), x.var(), x.max(), x.min(), F.exp(x), F.log(x), F.sqrt(x), abs(x), -x, x.clone()):
        assert y.dtype == np.float32
        assert type(y.data) is np.ndarray
        assert gradient(y.sum(), x).dtype == np.float32


def test_a_float32_tensor_with_a_float64_tensor_gives_float64_and_gradients_in_their_own_dtypes():
    a, b = leaf([1.0, 2.0], np.float32), leaf([3.0, 4.0], np.float64)
    y = a * b
    assert y.dtype == np.float64
    y.sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(a.grad.data, [3, 4])


@pytest.mark.parametrize("join", [lambda a, b: a @ b, lambda a, b: F.concatenate([a, b])])
def test_mixed_dtypes_in_products_and_joins_come_back_in_their_own(join):
    a, b = leaf(np.ones((2, 2)), np.float32), leaf(np.ones((2, 2)), np.float64)
    join(a, b).sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)


def test_an_integer_tensor_cannot_require_a_gradient():
    with pytest.raises(TypeError, match=r"expected float32 or float64, got int64; convert with x.astype"):
        tensor([1, 2], requires_grad=True)


def test_a_cast_to_integers_is_a_constant():
    x = leaf([1.7, 2.2])
    assert not x.astype(np.int64).requires_grad
    assert x.astype(np.float32).requires_grad
    np.testing.assert_array_equal((x * x.astype(np.int64)).data, [1.7, 4.4])


def test_broadcast_gradients_are_summed_to_each_input():
    a, b = leaf([[1.0], [2.0]]), leaf([10.0, 20.0, 30.0])  # (2, 1) and (3,)
    cotangent = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    da, db = minidet.grad(a * b, [a, b], cotangent)
    np.testing.assert_array_equal(da.data, [[1 * 10 + 2 * 20 + 3 * 30], [4 * 10 + 5 * 20 + 6 * 30]])
    np.testing.assert_array_equal(db.data, [1 * 1 + 4 * 2, 2 * 1 + 5 * 2, 3 * 1 + 6 * 2])


def test_an_array_on_the_left_asks_the_tensor():
    y = np.array([1.0, 2.0]) * leaf([3.0, 4.0])
    assert isinstance(y, Tensor)
    np.testing.assert_array_equal(y.data, [3, 8])
    assert isinstance(np.ones((2, 2)) @ leaf(np.eye(2)), Tensor)


MATRIX = np.arange(12.0).reshape(3, 4)
KEYS = {
    "an integer": 1,
    "a negative integer": -1,
    "two integers": (1, -2),
    "a slice": slice(0, 2),
    "a step backwards": (slice(None), slice(None, None, -2)),
    "None and ...": (None, ..., 0),
    "only ...": ...,
    "a mask": MATRIX > 5,
    "a mask of rows": np.array([True, False, True]),
    "integers with duplicates": np.array([0, 2, 0, 0]),
    "negative integers": np.array([-1, 0]),
    "pairs with duplicates": (np.array([0, 1, 0]), np.array([3, 3, 3])),
    "a list": [2, 2],
    "a slice and integers": (slice(1, None), np.array([1, 1, 0])),
    "a grid": (np.array([[0], [2]]), np.array([1, 1])),
    "nothing": np.zeros(0, np.int64),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_indexing_reads_what_numpy_reads_and_adds_gradients_back_one_by_one(key):
    x = leaf(MATRIX)
    y = x[key]
    expected = MATRIX[key]
    np.testing.assert_array_equal(y.data, expected)
    cotangent = np.random.default_rng(0).normal(size=expected.shape)

    # the positions that were read, each as its number in the flattened matrix
    positions = np.arange(12).reshape(3, 4)[key]
    wanted = np.zeros(12)
    for position, value in zip(np.ravel(positions), np.ravel(cotangent), strict=True):
        wanted[position] += value
    np.testing.assert_allclose(gradient(y, x, cotangent), wanted.reshape(3, 4))


def test_an_empty_list_picks_nothing():
    x = leaf(MATRIX)
    assert x[[]].shape == (0, 4)
    assert x[:, []].shape == (3, 0)
    np.testing.assert_array_equal(gradient(x[[]].sum(), x), np.zeros((3, 4)))


def test_a_tensor_can_be_an_index():
    x = leaf(MATRIX)
    np.testing.assert_array_equal(x[tensor([2, 0])].data, MATRIX[[2, 0]])
    np.testing.assert_array_equal(x[x > 5].data, MATRIX[MATRIX > 5])


def test_a_tensor_can_be_iterated_over_and_has_a_length():
    rows = list(leaf(MATRIX))
    assert len(rows) == len(leaf(MATRIX)) == 3
    np.testing.assert_array_equal(rows[1].data, MATRIX[1])


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (-1, 0), (0, 1, 2), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sums_and_means_over_axes(axis, keepdims):
    values = np.random.default_rng(1).normal(size=(2, 3, 4))
    x = leaf(values)
    for name in ("sum", "mean", "var"):
        y = getattr(x, name)(axis=axis, keepdims=keepdims)
        np.testing.assert_allclose(y.data, getattr(values, name)(axis=axis, keepdims=keepdims), rtol=1e-13, atol=1e-15)
    total = x.sum(axis=axis, keepdims=keepdims)
    cotangent = np.random.default_rng(2).normal(size=total.shape)
    kept = cotangent.reshape(values.sum(axis=axis, keepdims=True).shape)
    np.testing.assert_array_equal(gradient(total, x, cotangent), np.broadcast_to(kept, values.shape))


def test_an_array_without_axes_may_be_summed_over_axis_0_as_in_numpy():
    x = leaf(3.0)
    for total in (x.sum(axis=0), x.sum(axis=-1, keepdims=True), x.mean(axis=0)):
        assert total.shape == ()
        assert gradient(total, x) == 1
    with pytest.raises(ValueError, match="out of bounds"):
        x.sum(axis=1)


@pytest.mark.parametrize(("a", "b"), [(1e30, 1e20), (1e-25, 1e-22)])
def test_the_gradient_of_a_quotient_is_right_where_the_square_of_the_divisor_is_not(a, b):
    a, b = np.float32(a), tensor(np.float32(b), requires_grad=True)
    expected = -float(a) / float(b.data) ** 2
    np.testing.assert_allclose(gradient(a / b, b), expected, rtol=1e-6)


def test_the_gradient_of_a_maximum_goes_to_the_first_that_attains_it():
    x = leaf([[3.0, 7.0, 7.0], [5.0, 5.0, 1.0]])
    np.testing.assert_array_equal(x.max(axis=1).data, [7, 5])
    np.testing.assert_array_equal(gradient(x.max(axis=1), x, np.array([2.0, 3.0])), [[0, 2, 0], [3, 0, 0]])
    np.testing.assert_array_equal(gradient(x.max(), x), [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(gradient(x.min(axis=0), x, np.array([2.0, 3.0, 4.0])), [[2, 0, 0], [0, 3, 4]])
    assert x.max(keepdims=True).shape == (1, 1)
    assert x.max(axis=-1, keepdims=True).shape == (2, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, bool])
def test_the_least_of_numbers_without_a_negative(dtype):
    x = tensor(np.array([[0, 1], [-128, 1]]).astype(dtype))
    np.testing.assert_array_equal(x.min(axis=0).data, x.data.min(axis=0))
    assert x.min().item() == x.data.min()
    np.testing.assert_array_equal(F.minimum(x, x.T).data, np.minimum(x.data, x.data.T))


def test_equal_values_share_the_gradient_of_a_minimum_or_maximum():
    for function in (F.minimum, F.maximum):
        x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
        dx, dy = minidet.grad(function(x, y), [x, y], np.array([2.0, 4.0]))
        np.testing.assert_array_equal(dx.data, [1, 2])
        np.testing.assert_array_equal(dy.data, [1, 2])


def test_shapes_are_changed_and_gradients_changed_back():
    x = leaf(MATRIX)
    cotangent = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_array_equal(gradient(x.T, x, cotangent), cotangent.T)
    np.testing.assert_array_equal(gradient(x.transpose(1, 0), x, cotangent), cotangent.T)
    np.testing.assert_array_equal(gradient(x.permute((-1, -2)), x, cotangent), cotangent.T)
    np.testing.assert_array_equal(gradient(x.swapaxes(0, -1), x, cotangent), cotangent.T)
    np.testing.assert_array_equal(gradient(x.reshape(4, 3), x, cotangent), cotangent.reshape(3, 4))
    np.testing.assert_array_equal(gradient(x.reshape((2, -1)), x, cotangent.reshape(2, 6)), cotangent.reshape(3, 4))
    assert leaf(np.zeros((2, 3, 4))).flatten(1).shape == (2, 12)
    assert leaf(np.zeros((0, 3, 4))).flatten(1).shape == (0, 12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.transpose(2, 1),
        lambda x: x.transpose(0, 0),
        lambda x: x.transpose(0),
        lambda x: F.stack([x, x], 4),
        lambda x: F.stack([x, x.T]),
        lambda x: F.stack([x, x.reshape(-1)], 1),
        lambda x: x.sum(axis=2),
        lambda x: x.reshape(5, 2),
        lambda x: F.concatenate([x, x], 2),
    ],
)
def test_an_axis_or_a_shape_that_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError):  # noqa: PT011 (the messages are NumPy's)
        wrong(leaf(MATRIX))


def test_views_of_one_array_get_their_own_gradients():
    x = leaf(MATRIX)
    y = x[0] * x.T[:, 1] + x.reshape(-1)[8:]  # row 0 * row 1 + row 2
    np.testing.assert_array_equal(gradient(y.sum(), x), [MATRIX[1], MATRIX[0], np.ones(4)])


def test_matrix_products_broadcast_the_axes_before_the_last_two():
    rng = np.random.default_rng(0)
    a, b = leaf(rng.normal(size=(5, 1, 2, 3))), leaf(rng.normal(size=(4, 3, 2)))
    cotangent = rng.normal(size=(5, 4, 2, 2))
    y = a @ b
    np.testing.assert_allclose(y.data, a.data @ b.data)
    da, db = minidet.grad(y, [a, b], cotangent)
    np.testing.assert_allclose(da.data, np.einsum("abij,bkj->aik", cotangent, b.data)[:, None])
    np.testing.assert_allclose(db.data, np.einsum("abij,aik->bkj", cotangent, a.data[:, 0]))


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((3,), (3, 2)), ((2, 3), (3,))])
def test_a_product_of_unfitting_matrices_is_refused_with_both_shapes(shapes):
    a, b = leaf(np.ones(shapes[0])), leaf(np.ones(shapes[1]))
    with pytest.raises(ValueError, match=r"matmul: expected \(\.\.\., M, K\) @ \(\.\.\., K, N\), got"):
        a @ b


def test_comparisons_give_boolean_tensors_outside_the_graph():
    x = leaf([1.0, 2.0])
    assert (x > 1).data.tolist() == [False, True]
    assert (x == tensor([1.0, 3.0])).data.tolist() == [True, False]
    assert not (x <= x).requires_grad
    assert tensor(1.0) != tensor(2.0)


def test_zero_to_the_power_of_zero_has_no_slope():
    x = leaf([0.0, 2.0])
    np.testing.assert_array_equal(gradient((x**0).sum(), x), [0, 0])
    np.testing.assert_array_equal(gradient((x**1).sum(), x), [1, 1])
    np.testing.assert_array_equal(gradient((x**2).sum(), x), [0, 4])


def test_a_tensor_as_exponent_is_refused_with_advice():
    with pytest.raises(TypeError, match=r"minidet.exp\(b \* minidet.log\(a\)\)"):
        leaf([2.0]) ** leaf([2.0])


def test_where_takes_a_plain_bool_and_a_list():
    x = leaf([1.0, 2.0])
    np.testing.assert_array_equal(gradient(F.where(True, x, 0.0).sum(), x), [1, 1])
    np.testing.assert_array_equal(gradient(F.where([True, False], x, 5.0).sum(), x), [1, 0])


def test_writing_into_a_tensor_is_refused_with_advice():
    with pytest.raises(TypeError, match="build the result with where, concatenate or stack"):
        leaf([1.0])[0] = 2


def test_a_tensor_of_a_tensor_is_refused():
    with pytest.raises(TypeError, match=r"use x.detach\(\) or x.clone\(\)"):
        Tensor(tensor([1.0]))


def test_ragged_lists_are_refused():
    with pytest.raises((TypeError, ValueError)):
        tensor([[1.0], [1.0, 2.0]])


def test_numpy_takes_a_constant_tensor_and_refuses_one_in_the_graph():
    np.testing.assert_array_equal(np.asarray(tensor([1.0, 2.0])), [1, 2])
    assert np.asarray(tensor([1.0]), dtype=np.float64).dtype == np.float64
    x = leaf([1.0])
    for wrong in (lambda: np.asarray(x), lambda: np.array([x, x]), lambda: tensor(x * 2)):
        with pytest.raises(TypeError, match=r"take its values out of the graph with x.data"):
            wrong()
    with pytest.raises(TypeError):
        np.exp(x)


def test_numbers_come_out_of_tensors_of_one_element():
    x = tensor(2.5)
    assert (float(x), int(x), x.item(), bool(x)) == (2.5, 2, 2.5, True)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(tensor([1.0, 2.0]))


def test_repr_tells_values_shape_dtype_and_the_operation():
    assert repr(tensor([1.0], requires_grad=True)) == "tensor([1.], shape=(1,), dtype=float32, requires_grad=True)"
    assert repr(leaf([1.0]) * 2) == "tensor([2.], shape=(1,), dtype=float64, node=Multiply)"
