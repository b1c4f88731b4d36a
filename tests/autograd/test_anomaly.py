"""Anomaly mode: the first value that is not finite, with its operation, its place, and the line that made it."""

import inspect
import threading
from pathlib import Path

import numpy as np
import pytest

import minidet
import minidet.functional as F
from minidet import AnomalyError, Function, detect_anomaly, grad, tensor

HERE = str(Path(__file__))


def leaf(values):
    return tensor(values, dtype=np.float64, requires_grad=True)


def line_of(function, text):
    """`file:number in function: source`, for the only line of the function that contains the text."""
    lines, start = inspect.getsourcelines(function)
    found = [(start + i, line.strip()) for i, line in enumerate(lines) if text in line]
    assert len(found) == 1
    number, source = found[0]
    return f"{HERE}:{number} in {function.__name__}: {source}"


def test_a_forward_anomaly_names_operation_index_and_the_callers_line():
    def model(x):
        y = x * 2
        z = F.log(y - 4)  # log of 0 at (1, 0)
        return z.sum()

    with detect_anomaly(), pytest.raises(AnomalyError) as caught:
        model(leaf([[3.0, 5.0], [2.0, 7.0]]))
    error = caught.value
    assert (error.operation, error.phase, error.index) == ("Log", "forward", (1, 0))
    assert error.line == line_of(model, "F.log(")
    assert str(error).startswith("Log (forward) made -inf at index (1, 0) of its result of shape (2, 2)")
    assert error.line in str(error)
    assert "its inputs: (2, 2) between 0 and 10" in str(error)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_line_inside_a_function_of_functional_is_not_the_callers():
    def model(x):
        return F.cross_entropy(x, np.array([0]))  # several operations deep in minidet

    with detect_anomaly(), pytest.raises(AnomalyError) as caught:
        model(leaf([[np.inf, 1.0]]))
    assert caught.value.line == line_of(model, "F.cross_entropy(")
    assert caught.value.operation == "LogSoftmax"


def test_a_line_inside_a_layer_is_not_the_callers():
    from minidet import nn

    def model(layer, x):
        return layer(x)

    layer = nn.Linear(2, 1)
    layer.weight.data[...] = np.nan
    with detect_anomaly(), pytest.raises(AnomalyError) as caught:
        model(layer, tensor([[1.0, 2.0]]))
    assert caught.value.line == line_of(model, "return layer(x)")


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_backward_anomaly_names_the_line_of_the_forward_pass(create_graph):
    def model(x):
        root = F.sqrt(x)  # its slope at 0 is infinite
        return root.sum()

    with detect_anomaly():
        loss = model(leaf([4.0, 0.0, 1.0]))
        with pytest.raises(AnomalyError) as caught:
            loss.backward(create_graph=create_graph)
    error = caught.value
    assert (error.operation, error.phase, error.index) == ("Sqrt", "backward", (1,))
    assert error.line == line_of(model, "F.sqrt(")
    assert error.line in str(error)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_graph_made_outside_says_that_its_line_is_unknown():
    loss = F.sqrt(leaf([0.0])).sum()
    with detect_anomaly(), pytest.raises(AnomalyError, match="run the forward pass inside detect_anomaly too"):
        loss.backward()


def test_a_rule_of_ones_own_is_named_with_the_input():
    class Odd(Function):
        def forward(self, a, b):
            return a + b

        def backward(self, grad):
            return grad, grad * np.nan

    with detect_anomaly():
        y = Odd.apply(leaf([1.0]), leaf([2.0])).sum()
        with pytest.raises(
            AnomalyError, match=r"Odd \(backward\) made nan at index \(0,\) of the gradient of its input 1"
        ):
            y.backward()


def test_an_anomaly_inside_a_second_derivative_is_found():
    def model(x):
        return (x**1.5).sum()  # second derivative 0.75 / sqrt(x)

    x = leaf([0.0])
    with detect_anomaly(), np.errstate(divide="ignore"):
        first = grad(model(x), x, create_graph=True)[0]
        with pytest.raises(AnomalyError) as caught:
            grad(first.sum(), x)
    assert (caught.value.operation, caught.value.phase) == ("Power", "backward")


def test_finite_passes_go_through_and_integers_are_no_matter():
    x = leaf([1.0, 2.0])
    with detect_anomaly():
        (x * x[tensor([0, 1])] + tensor([1, 2])).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [2, 4])


def test_nothing_is_checked_outside():
    y = F.log(leaf([0.0]))
    assert np.isneginf(y.data[0])


def test_it_is_a_decorator_too():
    @detect_anomaly()
    def model(x):
        return F.log(x)

    with pytest.raises(AnomalyError):
        model(leaf([0.0]))


def test_it_belongs_to_its_thread():
    results = []
    with detect_anomaly():
        thread = threading.Thread(target=lambda: results.append(F.log(leaf([0.0]))))
        thread.start()
        thread.join()
    assert len(results) == 1


def test_an_anomaly_is_a_floating_point_error():
    assert issubclass(minidet.AnomalyError, FloatingPointError)
