"""Hooks on Tensors: they see the whole gradient, may replace it, and can be removed."""

import numpy as np
import pytest

from minidet import grad, tensor


def leaf(values):
    return tensor(values, dtype=np.float64, requires_grad=True)


def test_a_hook_on_a_leaf_sees_the_sum_over_all_paths_once():
    x, seen = leaf([1.0, 2.0]), []
    x.register_hook(lambda g: seen.append(g.data.tolist()))
    (x * 2 + x * 3).sum().backward()
    assert seen == [[5, 5]]


def test_a_hook_on_a_result_in_the_middle_sees_its_gradient():
    x, seen = leaf([1.0, 2.0]), []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.data.tolist()))
    (y * y + y).sum().backward()
    assert seen == [[2 * 2 + 1, 2 * 4 + 1]]


@pytest.mark.parametrize("create_graph", [False, True])
def test_what_a_hook_returns_replaces_the_gradient(create_graph):
    x = leaf([1.0, 2.0])
    y = x * 2
    y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: g + 1)  # hooks run in the order of registration
    y.sum().backward(create_graph=create_graph)
    np.testing.assert_array_equal(x.grad.data, [22, 22])
    x.register_hook(lambda g: -g)
    assert grad((x * 3).sum(), x, create_graph=create_graph)[0].data.tolist() == [-3, -3]


def test_a_replaced_gradient_can_be_differentiated():
    x = leaf([3.0])
    y = x * x
    remove = y.register_hook(lambda g: g * y)  # the gradient becomes 2x * x^2 = 2 x^3
    first = grad(y.sum(), x, create_graph=True)[0]
    remove()  # or it would act on the second pass too, which goes through y again
    assert first.item() == 54
    assert grad(first.sum(), x)[0].item() == 6 * 9


def test_a_hook_on_a_leaf_is_recorded_also_inside_no_grad():
    from minidet import no_grad

    x = leaf([3.0])
    x.register_hook(lambda g: g * x)
    y = (x * x).sum()
    with no_grad():
        first = grad(y, x, create_graph=True)[0]  # 2x * x
    assert first.item() == 18
    x.hooks.clear()
    assert grad(first.sum(), x)[0].item() == 12


def test_a_removed_hook_is_silent():
    x, seen = leaf([1.0]), []
    remove = x.register_hook(lambda g: seen.append("first"))
    x.register_hook(lambda g: seen.append("second"))
    remove()
    (x * 2).sum().backward()
    assert seen == ["second"]


@pytest.mark.parametrize("wrong", [tensor([1.0, 2.0]), tensor([[1.0]]), np.ones(1), 3.0])
def test_a_hook_that_returns_something_else_is_refused(wrong):
    x = leaf([1.0])
    x.register_hook(lambda g: wrong)
    with pytest.raises(ValueError, match=r"hook: expected None or a Tensor of \(1,\) float64, got"):
        (x * 2).sum().backward()


def test_a_hook_that_changes_the_dtype_is_refused():
    x = leaf([1.0])
    x.register_hook(lambda g: g.astype(np.float32))
    with pytest.raises(ValueError, match=r"got \(1,\) float32"):
        (x * 2).sum().backward()


def test_a_hook_on_a_constant_is_refused():
    with pytest.raises(RuntimeError, match="expected a Tensor that requires grad"):
        tensor([1.0]).register_hook(print)


def test_retain_grad_keeps_the_gradient_of_a_result():
    x = leaf([1.0, 2.0])
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward()
    np.testing.assert_array_equal(y.grad.data, [4, 8])
    x.retain_grad()  # a leaf keeps its own anyway
    np.testing.assert_array_equal(x.grad.data, [8, 16])


def test_without_retain_grad_a_result_keeps_none():
    x = leaf([1.0])
    y = x * 2
    y.sum().backward()
    assert y.grad is None


def test_hooks_off_the_way_to_what_grad_asks_for_are_silent():
    """They would see a part of the gradient only: what comes through x is followed, what comes through h * h is not."""
    x, u = leaf([2.0]), leaf([3.0])
    h, seen = u * 2, []
    h.retain_grad()
    for off_the_way in (u, h):
        off_the_way.register_hook(lambda g: seen.append(g.data.tolist()))
    assert grad((x * h * u + h * h + u * u).sum(), x)[0].item() == 6 * 3
    assert seen == []
    assert h.grad is None


def test_hooks_on_the_way_and_on_what_grad_asks_for_see_the_whole_gradient():
    x, seen = leaf([2.0]), []
    h = x * 3
    h.register_hook(lambda g: seen.append(("h", g.item())))
    x.register_hook(lambda g: seen.append(("x", g.item())))
    output = (h * h + h).sum()
    grad(output, h, retain_graph=True)
    grad(output, x)
    assert seen == [("h", 13), ("h", 13), ("x", 39)]
