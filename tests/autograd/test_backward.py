"""The backward pass: where gradients go, how they add up, what a freed graph says, and what is kept in memory."""

import gc
import threading
import weakref

import numpy as np
import pytest

import minidet
import minidet.functional as F
from minidet import Tensor, enable_grad, grad, is_grad_enabled, no_grad, tensor


def leaf(values):
    return tensor(values, dtype=np.float64, requires_grad=True)


def test_gradients_of_leaves_add_up_over_calls_until_set_to_none():
    x = leaf([1.0, 2.0])
    (x * 3).sum().backward()
    first = x.grad
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [3 + 2, 3 + 4])
    np.testing.assert_array_equal(first.data, [3, 3])  # the former result is left as it was
    x.grad = None
    (x * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [3, 3])


def test_a_result_used_twice_receives_both_gradients():
    x = leaf([2.0])
    y = x * x  # 4
    (y * y + y).backward()  # d/dx (x^4 + x^2) = 4 x^3 + 2 x
    assert x.grad.item() == 4 * 8 + 4


def test_an_older_branch_waits_for_all_who_use_it():
    x = leaf(3.0)
    early = x * 2  # used first, and again after a long detour
    detour = early
    for _ in range(5):
        detour = detour + 1
    (early * detour).backward()  # 2x (2x + 5)
    assert x.grad.item() == 8 * 3 + 10


@pytest.mark.parametrize("calls", [1, 2])
def test_gradients_are_read_only(calls):
    x = leaf([1.0, 2.0])
    for _ in range(calls):
        (x * 3).sum().backward()
    with pytest.raises(ValueError, match="read-only"):
        x.grad.data[0] = 5
    with pytest.raises(ValueError, match="read-only"):
        x.grad.data *= 2


def test_the_callers_cotangent_stays_writable_and_apart_from_the_gradient():
    x, cotangent = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x + 0).backward(cotangent, create_graph=True)
    cotangent.data[0] = 100
    np.testing.assert_array_equal(x.grad.data, [3, 4])


@pytest.mark.parametrize("kind", [Tensor, np.asarray])
def test_a_gradient_does_not_change_with_the_cotangents_memory(kind):
    x, memory = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    (x + 0).reshape(2, 1).backward(kind(memory.reshape(2, 1)))
    memory[:] = 100
    np.testing.assert_array_equal(x.grad.data, [3, 4])


def test_two_leaves_over_one_array_have_gradients_of_their_own():
    array = np.array([2.0, 3.0])
    a, b = Tensor(array, requires_grad=True), Tensor(array, requires_grad=True)
    (a * b * b).sum().backward()
    np.testing.assert_array_equal(a.grad.data, array**2)
    np.testing.assert_array_equal(b.grad.data, 2 * array**2)
    da = grad((a * b * b).sum(), a, create_graph=True)[0]  # b^2
    np.testing.assert_array_equal(grad(da.sum(), b)[0].data, 2 * array)


def test_a_tensors_own_array_is_a_constant_also_to_the_second_derivative():
    x = leaf([2.0, 3.0])
    dx = grad((x * x.data).sum(), x, create_graph=True)[0]
    np.testing.assert_array_equal(dx.data, x.data)
    assert not dx.requires_grad


def test_a_detached_tensor_is_a_constant_over_the_same_memory():
    x = leaf([2.0, 3.0])
    y = x.detach()
    assert np.shares_memory(x.data, y.data)
    (x * y).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [2, 3])  # not 2x
    assert y.grad is None


def test_backward_needs_a_cotangent_unless_the_output_has_one_element():
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"expected an output of one element, got shape \(2,\); pass gradient="):
        (x * 2).backward()
    (x * 2).backward(np.array([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad.data, [2, 20])
    leaf([[5.0]]).backward()


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((2, 1)), np.ones(2, np.float32), 1.0, tensor([1, 1])])
def test_a_cotangent_of_another_shape_or_dtype_is_refused(wrong):
    with pytest.raises(ValueError, match=r"expected a gradient of \(2,\) float64, got"):
        (leaf([1.0, 2.0]) * 2).backward(wrong)


def test_backward_of_a_constant_is_refused():
    with pytest.raises(RuntimeError, match="expected an output that depends on a leaf with requires_grad=True"):
        tensor([1.0]).sum().backward()


def test_a_leaf_is_its_own_output():
    x = leaf(2.0)
    x.backward()
    assert x.grad.item() == 1
    assert grad(x, x)[0].item() == 1


def test_a_graph_used_twice_says_that_it_was_freed():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(
        RuntimeError, match=r"this graph was freed: Sum has already been differentiated.*retain_graph=True"
    ):
        y.backward()
    with pytest.raises(RuntimeError, match="this graph was freed"):
        grad(y, x)


def test_a_graph_shared_with_a_freed_one_says_so_and_leaves_gradients_alone():
    x = leaf([1.0, 2.0])
    shared = x * x
    shared.sum().backward()
    before = x.grad.data.copy()
    with pytest.raises(RuntimeError, match="this graph was freed: Multiply"):
        (shared * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.data, before)


def test_a_retained_graph_gives_the_same_again():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    first = grad(y, x, retain_graph=True)[0]
    second = grad(y, x, retain_graph=True)[0]
    y.backward()
    np.testing.assert_array_equal(first.data, second.data)
    np.testing.assert_array_equal(first.data, x.grad.data)


def test_grad_with_respect_to_a_result_in_the_middle():
    x = leaf([1.0, 2.0])
    middle = x * 3
    y = (middle * middle).sum()
    by_middle, by_x = grad(y, [middle, x])
    np.testing.assert_array_equal(by_middle.data, [6, 12])
    np.testing.assert_array_equal(by_x.data, [18, 36])
    assert x.grad is None
    assert middle.grad is None


def test_grad_stops_at_what_was_asked_for():
    stepped = []

    class Watched(minidet.Function):
        def forward(self, a):
            return a * 2

        def backward(self, grad):
            stepped.append(self.name)
            return grad * 2

    x = leaf([1.0])
    middle = Watched.apply(x)
    grad((middle * 5).sum(), middle)
    assert stepped == []


def test_grad_of_several_outputs_sums_and_takes_a_cotangent_for_each():
    x = leaf([1.0, 2.0])
    a, b = x * 2, (x * x).sum()
    result = grad([a, b], x, [np.array([1.0, 10.0]), np.array(3.0)])[0]
    np.testing.assert_array_equal(result.data, [2 + 3 * 2, 20 + 3 * 4])
    with pytest.raises(ValueError, match="expected 2 grad_outputs, one an output, got 1"):
        grad([a, b], x, [np.array(1.0)])


def test_an_unused_input_is_an_error_or_none():
    x, unused = leaf([1.0]), leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"do not depend on input 1 \(shape \(2,\)\); allow_unused=True gives None"):
        grad((x * 2).sum(), [x, unused])
    assert grad((x * 2).sum(), [x, unused], allow_unused=True)[1] is None
    with pytest.raises(RuntimeError, match="input 1 does not"):
        grad((x * 2).sum(), [x, tensor([1.0])])


def test_gradients_are_constants_unless_their_graph_is_asked_for():
    x = leaf([3.0])
    assert not grad((x * x).sum(), x)[0].requires_grad
    first = grad((x**3).sum(), x, create_graph=True)[0]
    second = grad(first.sum(), x, create_graph=True)[0]
    third = grad(second.sum(), x)[0]
    assert (first.item(), second.item(), third.item()) == (27, 18, 6)


@pytest.mark.parametrize("function", [F.exp, F.sqrt, F.sigmoid, F.tanh, lambda x: x * x, lambda x: x**3, F.log])
def test_second_derivatives_of_a_tensor_without_axes(function):
    h, x = 1e-5, leaf(0.7)
    first = grad(function(x), x, create_graph=True)[0]
    slopes = [grad(function(at), at)[0].item() for at in (leaf(0.7 - h), leaf(0.7 + h))]
    assert first.shape == ()
    np.testing.assert_allclose(grad(first, x)[0].item(), (slopes[1] - slopes[0]) / (2 * h), rtol=1e-6)


def test_backward_with_create_graph_gives_gradients_that_can_be_differentiated():
    x = leaf([2.0])
    (x**3).sum().backward(create_graph=True)
    first, x.grad = x.grad, None
    first.sum().backward()
    assert x.grad.item() == 12


def test_ten_thousand_operations_are_no_recursion():
    x = leaf([1.0])
    y = x
    for _ in range(10_000):
        y = y * 1.0001
    y.sum().backward()
    np.testing.assert_allclose(x.grad.item(), 1.0001**10_000, rtol=1e-10)
    for _ in range(20_000):
        y = y + 1
    del y  # nor is forgetting them


def test_a_dropped_graph_is_freed_at_once_without_the_garbage_collector():
    x = leaf([1.0, 2.0])
    gc.disable()
    try:
        middle = x * x
        middle.retain_grad()
        output = middle.sum()
        kept = [weakref.ref(middle), weakref.ref(middle.node), weakref.ref(output.node)]
        del middle, output
        assert [reference() for reference in kept] == [None, None, None]
    finally:
        gc.enable()


def test_a_backward_pass_lets_go_of_what_was_saved():
    x = leaf([1.0, 2.0])
    gc.disable()
    try:
        middle = x * 2
        output = middle * middle
        array = weakref.ref(middle.data)
        del middle
        assert array() is not None  # saved for the backward pass
        output.backward(np.ones(2))
        assert array() is None
    finally:
        gc.enable()


def test_results_that_nobody_saved_are_freed_during_the_forward_pass():
    x = leaf([1.0, 2.0])
    middle = x + 1
    array = weakref.ref(middle.data)
    output = (middle + 1).sum()
    del middle
    assert array() is None
    output.backward()


def test_no_grad_leaves_no_graph_and_enable_grad_records_again():
    x = leaf([1.0])
    with no_grad():
        assert not is_grad_enabled()
        y = x * 2
        with enable_grad():
            z = x * 2
        assert not is_grad_enabled()
    assert is_grad_enabled()
    assert (y.requires_grad, y.node) == (False, None)
    assert z.requires_grad


def test_no_grad_and_enable_grad_are_decorators_that_keep_the_name():
    @no_grad()
    def predict(x):
        """Doubles."""
        return x * 2

    @enable_grad()
    def train(x):
        return x * 2

    x = leaf([1.0])
    assert not predict(x).requires_grad
    assert (predict.__name__, predict.__doc__) == ("predict", "Doubles.")
    with no_grad():
        assert train(x).requires_grad


def test_one_switch_may_be_nested_in_itself():
    off, on = no_grad(), enable_grad()
    with off, on, off, on, off:
        assert not is_grad_enabled()
    assert is_grad_enabled()


def test_an_error_inside_no_grad_switches_back():
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0  # noqa: B018
    assert is_grad_enabled()


def test_a_backward_pass_runs_inside_no_grad_and_restores_it():
    x = leaf([2.0])
    y = (x**3).sum()
    with no_grad():
        first = grad(y, x, create_graph=True)[0]
        assert not is_grad_enabled()
    assert grad(first.sum(), x)[0].item() == 12
    assert is_grad_enabled()


def test_an_error_in_a_rule_restores_the_recording():
    class Broken(minidet.Function):
        def forward(self, a):
            return a * 2

        def backward(self, grad):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Broken.apply(leaf([1.0])).sum().backward()
    assert is_grad_enabled()


def test_no_grad_belongs_to_its_thread():
    inside, seen = threading.Event(), []
    done = threading.Event()

    def predict():
        with no_grad():
            inside.set()
            done.wait(10)
            seen.append(is_grad_enabled())

    thread = threading.Thread(target=predict)
    thread.start()
    assert inside.wait(10)
    x = leaf([1.0])
    (x * 2).sum().backward()  # while the other thread predicts
    done.set()
    thread.join()
    assert x.grad.item() == 2
    assert seen == [False]


def test_threads_can_differentiate_at_the_same_time():
    results = {}

    def work(number):
        x = leaf(np.full(10, float(number)))
        for _ in range(30):
            x.grad = None
            (x * x * x).sum().backward()
        results[number] = x.grad.data

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(1, 5):
        np.testing.assert_array_equal(results[number], np.full(10, 3.0 * number**2))


def test_importing_minidet_brings_in_none_of_the_heavy_libraries():
    import subprocess
    import sys

    heavy = ("numba", "scipy", "matplotlib", "PIL", "torch", "cupy")
    program = f"import sys, minidet, minidet.functional; print([name for name in {heavy} if name in sys.modules])"
    path = [p for p in sys.path if p]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {program}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.strip() == "[]"


def test_the_gradient_of_a_mean_of_squares_lies_in_memory_as_the_input_does() -> None:
    """Channels last stay so: the convolution behind it would have to copy what came out otherwise."""
    channels_last = np.ones((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2)
    x = minidet.Tensor(channels_last, requires_grad=True)
    (x**2).mean().backward()
    assert x.grad.data.strides == channels_last.strides
