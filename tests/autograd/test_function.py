"""Functions of the user's own: what they may do, and what they are told when they do something else."""

import numpy as np
import pytest

from minidet import Function, Tensor, detect_anomaly, grad, tensor


def leaf(values, dtype=np.float64):
    return tensor(values, dtype=dtype, requires_grad=True)


class Cube(Function):
    def forward(self, x):
        self.save(x)
        return x**3

    def backward(self, grad, x):
        return 3 * x**2 * grad


def test_the_example_of_the_docstring_has_derivatives_of_every_order():
    x = leaf([2.0, 3.0])
    first = grad(Cube.apply(x).sum(), x, create_graph=True)[0]
    second = grad(first.sum(), x, create_graph=True)[0]
    third = grad(second.sum(), x)[0]
    np.testing.assert_array_equal(first.data, [12, 27])
    np.testing.assert_array_equal(second.data, [12, 18])
    np.testing.assert_array_equal(third.data, [6, 6])


def test_given_arrays_a_function_is_an_array_function():
    result = Cube.apply(np.array([2.0]))
    assert type(result) is np.ndarray
    assert result[0] == 8


def test_options_and_constants_reach_forward_and_needs_tells_what_wants_a_gradient():
    seen = {}

    class Scale(Function):
        def forward(self, x, factor, table, *, power):
            self.save(factor)
            seen.update(factor=factor, table=table, power=power)
            return x * factor**power

        def backward(self, grad, factor):
            seen["needs"] = self.needs
            return grad * factor**2, None, None

    x = leaf([1.0])
    y = Scale.apply(x, 3.0, np.array([5]), power=2)
    y.backward()
    assert (seen["factor"], seen["power"], seen["needs"]) == (3.0, 2, [True, False, False])
    assert type(seen["table"]) is np.ndarray
    assert x.grad.item() == 9


def rule(backward, forward=lambda self, x: x * 2, inputs=1):
    """A Function named Odd with a rule of one's own, applied to leaves (2,)."""
    kind = type("Odd", (Function,), {"forward": forward, "backward": backward})
    return kind.apply(*(leaf([1.0, 2.0]) for _ in range(inputs))).sum()


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda g: g[:1], ValueError, r"Odd.backward: expected the gradient of input 0 .* \(2,\) float64, got \(1,\)"),
        (lambda g: g.sum(), ValueError, r"Odd.backward: .* \(2,\) float64, got \(\) float64"),
        (lambda g: g.astype(np.float32), ValueError, r"Odd.backward: .* float64, got \(2,\) float32"),
        (lambda g: (g, g), ValueError, r"Odd.backward: expected 1 gradients, one an input, got 2"),
        (lambda g: (), ValueError, r"Odd.backward: expected 1 gradients, one an input, got 0"),
        (lambda g: 3.0, TypeError, r"Odd.backward: expected arrays or None, got float: 3.0"),
        (lambda g: [g], TypeError, r"Odd.backward: expected arrays or None, got list"),
    ],
)
def test_a_wrong_gradient_is_refused_by_the_name_of_the_operation(wrong, error, message, create_graph):
    with pytest.raises(error, match=message):
        rule(lambda self, g: wrong(g)).backward(create_graph=create_graph)
    with detect_anomaly(), pytest.raises(error, match=message):
        rule(lambda self, g: wrong(g)).backward(create_graph=create_graph)


def test_a_missing_gradient_is_refused_with_the_count():
    with pytest.raises(ValueError, match=r"Odd.backward: expected 2 gradients, one an input, got 1; return None"):
        rule(lambda self, g: g, lambda self, x, y: x + y, inputs=2).backward()


def test_the_position_of_a_wrong_gradient_is_told():
    with pytest.raises(ValueError, match="expected the gradient of input 1"):
        rule(lambda self, g: (g, g[:1]), lambda self, x, y: x + y, inputs=2).backward()


def test_none_cuts_the_path():
    x, y = leaf([1.0]), leaf([1.0])

    class First(Function):
        def forward(self, a, b):
            return a + b

        def backward(self, grad):
            return grad, None

    First.apply(x, y * 2).backward()
    assert x.grad.item() == 1
    assert y.grad is None


@pytest.mark.parametrize("result", [3, [1.0, 2.0], None, (np.ones(2), np.ones(2)), tensor([1.0])])
def test_a_forward_that_does_not_return_one_array_is_refused(result):
    with pytest.raises(TypeError, match=r"Odd.forward: expected one array, got \w+; compute on arrays and return one"):
        rule(lambda self, g: g, lambda self, x: result)


def test_a_missing_forward_or_backward_is_named():
    with pytest.raises(TypeError, match=r"Empty: a Function must define forward\(self, \*inputs, \*\*options\)"):
        type("Empty", (Function,), {}).apply(leaf([1.0]))
    half = type("Half", (Function,), {"forward": lambda self, x: x * 2})
    with pytest.raises(TypeError, match="Half: a Function must define backward"):
        half.apply(leaf([1.0])).backward()


class Reversed(Function):
    """Returns its very input; its rule turns the gradient round and stretches it by x."""

    def forward(self, x):
        self.save(x)
        return x

    def backward(self, grad, x):
        return -grad * x


def test_a_function_that_returns_its_input_keeps_input_and_output_apart():
    x = leaf([2.0, 3.0])
    y = Reversed.apply(x)
    assert y.data is not x.data
    first = grad(y.sum(), x, create_graph=True)[0]  # -x, by the rule
    np.testing.assert_array_equal(first.data, [-2, -3])
    np.testing.assert_array_equal(grad(first.sum(), x)[0].data, [-1, -1])


def test_a_product_of_an_input_and_itself_returned_has_the_second_derivative_of_the_rule():
    x = leaf([2.0, 3.0])
    z = (Reversed.apply(x) * x).sum()
    # y = x in value, dy/dx = -x by the rule: dz/dx = y + x dy/dx = y - x^2, and once more: dy/dx - 2x = -3x
    first = grad(z, x, create_graph=True)[0]
    np.testing.assert_array_equal(first.data, [2 - 4, 3 - 9])
    np.testing.assert_array_equal(grad(first.sum(), x)[0].data, [-6, -9])


def test_one_tensor_as_both_inputs_receives_both_gradients_also_the_second_time():
    x = leaf([2.0, 3.0])
    first = grad((x * x * x).sum(), x, create_graph=True)[0]
    np.testing.assert_array_equal(grad(first.sum(), x)[0].data, [12, 18])


def test_a_saved_output_is_differentiated_through():
    class Half(Function):  # y = exp(x), saved as the output
        def forward(self, x):
            y = np.exp(x)
            self.save(y)
            return y

        def backward(self, grad, y):
            return grad * y

    for values in (0.5, [0.5, 1.0]):
        x = leaf(values)
        first = grad(Half.apply(x).sum(), x, create_graph=True)[0]
        second = grad(first.sum(), x, create_graph=True)[0]
        np.testing.assert_allclose(grad(second.sum(), x)[0].data, np.exp(values))


def test_what_is_computed_in_between_is_a_constant_as_documented():
    class Wrong(Function):  # saves 2x instead of x
        def forward(self, x):
            self.save(2 * x)
            return x * x

        def backward(self, grad, twice):
            return grad * twice

    x = leaf([3.0])
    first = grad(Wrong.apply(x).sum(), x, create_graph=True)[0]
    assert first.item() == 6
    assert not first.requires_grad  # d(2x)/dx is lost


def test_a_function_without_gradients_leaves_no_graph():
    y = Cube.apply(tensor([2.0]))
    assert isinstance(y, Tensor)
    assert (y.requires_grad, y.node) == (False, None)
