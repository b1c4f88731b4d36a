"""gradcheck itself, against functions whose derivative is known by hand to be right, wrong or missing."""

import numpy as np
import pytest

import minidet
import minidet.functional as F
from minidet import Function, Tensor, gradcheck, gradgradcheck, nn
from minidet.autograd.gradcheck import GradcheckError
from minidet.autograd.gradcheck.causes import likely_cause
from minidet.autograd.gradcheck.numeric import FIRST_STEP, derivative


def function(forward, backward):
    """A Function from two rules: forward(x), backward(grad, x)."""

    def run(self, x):
        self.save(x)
        return forward(x)

    return type("Handmade", (Function,), {"forward": run, "backward": lambda self, grad, x: backward(grad, x)})


def x_of(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 1.5, shape)


def problems(*args, **options):
    return gradcheck(*args, raise_error=False, **options).problems


# ------------------------------------------------------------------------------------------- the numbers


def measured(f, x):
    """The numeric derivative of a function of one number."""
    x = np.array([x])
    return derivative(lambda t: f(x + t), f(x), float(abs(x[0])), FIRST_STEP, 1e-6)


@pytest.mark.parametrize(
    ("f", "x", "expected"),
    [
        (np.sin, 0.3, np.cos(0.3)),
        (np.exp, 3.0, np.exp(3.0)),
        (np.log, 1e-4, 1e4),  # the first step lies beyond the border
        (lambda x: 1 / x, 0.02, -2500.0),
        (np.abs, 0.003, 1.0),  # a kink within the first step
        (lambda x: np.maximum(x, 0) ** 2, 1e-3, 2e-3),
        (lambda x: x**1.5, 1e-4, 0.015),
        (lambda x: np.sin(50 * x), 1.0, 50 * np.cos(50.0)),
        (lambda x: 1e6 * x, 500.0, 1e6),
        (np.tanh, 4.0, 1 / np.cosh(4.0) ** 2),
    ],
)
def test_a_derivative_is_good_to_nine_digits(f, x, expected):
    found = measured(f, x)
    assert found.fault == [""]
    assert abs(found.value[0] / expected - 1) < 1e-9


@pytest.mark.parametrize(
    ("f", "x", "fault", "left", "right"),
    [
        (np.abs, 0.0, "kink", -1.0, 1.0),
        (lambda x: np.maximum(x, 0), 0.0, "kink", 0.0, 1.0),
        (lambda x: np.maximum(x, 0.25 - x), 0.125, "kink", -1.0, 1.0),
        (lambda x: np.where(x > 0, np.sin(x), 0.99 * np.sin(x)), 0.0, "kink", 0.99, 1.0),
        (np.ceil, 1.0, "jump", None, None),
        (np.cbrt, 0.0, "steep", None, None),
        (np.sqrt, 0.0, "border", None, None),
        (lambda x: x**1.5, 0.0, "border", None, None),
    ],
)
def test_where_there_is_no_derivative_the_reason_is_named(f, x, fault, left, right):
    found = measured(f, x)
    assert found.fault == [fault]
    if left is not None:
        np.testing.assert_allclose([found.left[0], found.right[0]], [left, right], atol=1e-6)


def test_a_function_that_is_smooth_though_made_of_pieces_has_no_kink():
    huber = lambda x: np.where(abs(x) < 1, 0.5 * x * x, abs(x) - 0.5)  # noqa: E731
    for x in (1.0, -1.0, 0.0):  # the first derivative is continuous, the second jumps
        found = measured(huber, x)
        assert found.fault != ["kink"]
        assert found.value[0] == pytest.approx(x, abs=1e-5)


# ------------------------------------------------------------------------------- right and wrong gradients


def test_right_gradients_pass_first_and_second_order():
    cube = function(lambda x: x**3, lambda grad, x: grad * 3 * x * x)
    assert gradcheck(cube, x_of(2, 3)).relative_error < 1e-9
    assert gradgradcheck(cube, x_of(2, 3)).relative_error < 1e-8


def test_the_report_of_a_wrong_gradient_names_operation_input_index_numbers_and_the_five_worst():
    def backward(grad, x):
        result = 2 * grad * x
        result[1, 2] *= 1.01
        return result

    x = x_of(2, 3)
    with pytest.raises(GradcheckError) as caught:
        gradcheck(function(lambda x: x * x, backward), x, name="square")
    report, text = caught.value.report, str(caught.value)
    worst = report.worst[0]
    assert (worst.variable, worst.index, worst.output) == ("input 0", (1, 2), "output (1, 2)")
    assert worst.analytic == pytest.approx(2.02 * x[1, 2])
    assert worst.numeric == pytest.approx(2 * x[1, 2])
    assert worst.relative_error == pytest.approx(0.01 / 1.01)
    assert len(report.worst) == 5
    assert len(report.problems) == 1
    for part in ("square", "input 0 at index (1, 2)", f"{2 * x[1, 2]:.9g}", f"{2.02 * x[1, 2]:.9g}", "likely cause"):
        assert part in text
    assert text.count("\n") == 1 + 1 + 5  # the title, one problem, a header, five entries


@pytest.mark.parametrize("element", [(0, 0), (7, 31), (13, 5), (19, 39)])
def test_a_gradient_a_thousandth_wrong_in_one_element_of_many_is_found_and_located(element):
    def backward(grad, x):
        result = grad * np.cos(x)
        result[element] *= 1.001
        return result

    report = gradcheck(function(np.sin, backward), x_of(20, 40), raise_error=False)
    assert next((e.variable, e.index) for e in report.worst if e.index is not None) == ("input 0", element)
    assert f"input 0 at index {element}: wrong gradient" in report.problems[0]


def test_a_small_gradient_beside_large_values_is_measured_by_its_own_size():
    small = function(lambda x: 1 + 1e-5 * np.sin(x), lambda grad, x: 1.001e-5 * grad * np.cos(x))
    report = gradcheck(small, x_of(3), raise_error=False)
    assert report.relative_error == pytest.approx(0.001 / 1.001, rel=1e-3)


def test_of_a_large_output_random_combinations_are_checked():
    right = function(lambda x: np.outer(x, np.ones(300)), lambda grad, x: grad.sum(axis=1))
    wrong = function(lambda x: np.outer(x, np.ones(300)), lambda grad, x: grad[:, 1:].sum(axis=1))
    assert gradcheck(right, x_of(3))
    assert "random cotangent" in problems(wrong, x_of(3))[0]


def test_a_gradient_that_a_cotangent_of_ones_would_accept_is_refused():
    """y[i, j] = x[i] for 200 j: summed over the wrong axis, ones still sum to 200."""
    repeat = lambda x: np.repeat(x[:, None], 200, axis=1)  # noqa: E731
    assert gradcheck(function(repeat, lambda grad, x: grad.sum(axis=1)), x_of(2))
    assert "wrong gradient" in problems(function(repeat, lambda grad, x: grad.reshape(200, 2).sum(axis=0)), x_of(2))[0]


def test_every_input_and_every_parameter_is_checked():
    class Layer(nn.Module):
        def __init__(self, broken):
            super().__init__()
            self.w, self.broken = nn.Parameter(x_of(3)), broken
            self.inner = nn.Linear(3, 2).to(np.float64)

        def forward(self, x):
            w = Tensor(self.w.data) if self.broken else self.w
            return self.inner(x * w)

    assert gradcheck(Layer(broken=False), x_of(2, 3))
    assert gradgradcheck(Layer(broken=False), x_of(2, 3))
    (problem,) = problems(Layer(broken=True), x_of(2, 3))
    assert "parameter w" in problem
    assert "gradient is zero" in problem


def test_parameters_of_a_closure_are_checked_when_given():
    w = minidet.tensor(x_of(3), requires_grad=True)
    closure = lambda x: x * w.detach() if not x.requires_grad else x * w * w / w.detach()  # noqa: E731
    assert "parameter w" in problems(closure, x_of(3), parameters={"w": w})[0]
    assert gradcheck(lambda x: x * w, x_of(3), parameters={"w": w})


def test_networks_with_batch_norm_pass_and_are_left_as_they_were():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))
    network.to(np.float64)
    arrays = [parameter.data for parameter in network.parameters()]
    before = {key: array.copy() for key, array in network.state_dict().items()}
    assert gradcheck(network, x_of(2, 2, 4, 4))
    assert gradgradcheck(network, x_of(2, 2, 4, 4))
    for key, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(parameter.data is array for parameter, array in zip(network.parameters(), arrays, strict=True))


def test_tuples_and_dicts_of_outputs_each_get_their_own_cotangent():
    assert gradcheck(lambda x: {"sum": x.sum(), "rest": (x * 2, [x.exp()])}, x_of(3))
    wrong = function(lambda x: x * x, lambda grad, x: grad * x)
    (problem,) = problems(lambda x: {"right": x * x, "wrong": wrong.apply(x)}, x_of(3))
    assert "'wrong'" in problem


def test_second_derivatives_that_treat_a_saved_value_as_constant_are_refused():
    half = function(lambda x: x**3, lambda grad, x: grad * 3 * (x.data if isinstance(x, Tensor) else x) ** 2)
    assert gradcheck(half, x_of(3))
    report = gradgradcheck(half, x_of(3), raise_error=False)
    assert "d input 0" in report.problems[0]
    assert "gradient is zero" in report.problems[0]


# ---------------------------------------------------------------------------------------- kinks and the like


@pytest.mark.parametrize(
    ("f", "x", "told"),
    [
        (abs, [1.0, 0.0, -2.0], "input 0 at index (1,): a kink: left derivative -1, right derivative 1; move"),
        (F.relu, [1.0, 0.0], "input 0 at index (1,): a kink: left derivative 0, right derivative 1; move"),
        (lambda x: F.max_pool2d(x.reshape(1, 1, 2, 2), 2), [1.0, 2.0, 0.5, 2.0],
         "input 0 at index (1,): a kink: left derivative 0, right derivative 1"),
        (lambda x: F.where(x.data > 0.5, x, x * 2), [1.0, 0.5], "input 0 at index (1,): a jump"),
        (lambda x: x**1.5, [1.0, 0.0], "input 0 at index (1,): the border of where the function is finite"),
        (lambda x: x.sqrt(), [1.0, 0.0], "input 0 at index (1,): the border of where the function is finite"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero)")
def test_a_kink_is_named_and_not_called_a_wrong_gradient(f, x, told):
    found = problems(f, np.array(x))
    assert found[0].startswith(told)
    assert not any("wrong gradient" in problem for problem in found)


def test_x_to_1_5_near_zero_is_right():
    assert gradcheck(lambda x: abs(x) ** 1.5, np.array([1e-4, -1e-3, 2.0])).relative_error < 1e-6


@pytest.mark.parametrize("slope", [1.001, -1.1, 2.0])
def test_a_wrong_gradient_is_not_excused_by_a_kink(slope):
    """At the kink of |x| anything from -1 to 1 is a subgradient: beyond, the gradient is wrong all the same."""
    everywhere = function(np.abs, lambda grad, x: grad * np.where(x >= 0, slope, -slope))
    assert "input 0 at index (0,): wrong gradient" in problems(everywhere, np.array([0.0]))[0]
    both = problems(everywhere, np.array([0.5, 0.0]))
    assert "wrong gradient" in both[0]


def test_a_wrong_gradient_beside_a_kink_is_reported_with_it():
    wrong_above = function(np.abs, lambda grad, x: grad * np.where(x > 1, 1.001, np.sign(x)))
    found = problems(wrong_above, np.array([2.0, 0.0]))
    assert "index (0,): wrong gradient" in found[0]
    assert "index (1,): a kink" in found[1]


# -------------------------------------------------------------------------------------------- consistency


def test_a_function_that_is_random_is_refused():
    rng = np.random.default_rng(0)
    found = problems(lambda x: x * rng.random(), x_of(3))
    assert found == [
        "the function gives another result each time: seed what is random inside it, or check it in eval() mode"
    ]


def test_a_function_that_writes_into_its_input_is_refused():
    def forward(x):
        x *= 1
        x[0] += 1
        return x * 2

    assert problems(function(forward, lambda grad, x: grad * 2), x_of(3))[0].startswith("input 0: the function writes")


def test_a_backward_that_writes_into_what_it_is_given_is_refused():
    def into_gradient(grad, x):
        grad *= x
        return grad

    def into_saved(grad, x):
        x += 1
        return grad * (x - 1)

    assert any("writes into the gradient" in p for p in problems(function(lambda x: x * x / 2, into_gradient), x_of(3)))
    assert any("writes into it" in p for p in problems(function(lambda x: x * x / 2, into_saved), x_of(3)))


def test_a_backward_that_is_not_linear_in_its_cotangent_is_refused():
    wrong = function(lambda x: x * 2, lambda grad, x: grad * 2 + 0.1 * grad * grad * (grad != 1))
    assert any("not linear in the cotangent" in problem for problem in problems(wrong, x_of(3)))


def test_a_backward_that_changes_from_pass_to_pass_is_refused():
    count = iter(range(1000))
    wrong = function(lambda x: x * 2, lambda grad, x: grad * (2 + 1e-9 * next(count)))
    assert any("second backward pass" in problem for problem in problems(wrong, x_of(3)))


def test_a_backward_that_assumes_contiguous_memory_is_refused():
    wrong = function(lambda x: x * 2, lambda grad, x: grad.ravel("K").reshape(grad.shape) * 2)
    assert any("not contiguous" in problem for problem in problems(wrong, x_of(3, 4)))


def test_a_backward_that_misreads_a_broadcast_cotangent_is_refused():
    wrong = function(lambda x: x * 2, lambda grad, x: grad * (2 if grad.strides[0] else 3))
    assert problems(wrong, x_of(3)) == ["input 0: another gradient for a broadcast cotangent than for its copy"]


def test_a_backward_that_ignores_which_inputs_need_a_gradient_is_refused():
    class Product(Function):
        def forward(self, a, b):
            self.save(a, b)
            return a * b

        def backward(self, grad, a, b):
            return grad * b, grad * a if self.needs[0] else None

    (problem,) = problems(Product, [x_of(3), x_of(3)])
    assert problem.startswith("input 1: another gradient when it alone requires grad")


def test_a_backward_that_is_right_only_for_a_leaf_is_refused():
    class Square(Function):
        def forward(self, x):
            self.save(x)
            return x * x

        def backward(self, grad, x):
            return grad * x * (2 if isinstance(self.parents[0], Tensor) else 1)

    (problem,) = problems(Square, x_of(3))
    assert problem == "input 0: another gradient behind another layer than on its own"


def test_a_recorded_backward_that_computes_another_value_is_refused():
    wrong = function(lambda x: x * x, lambda grad, x: grad * x * (2.0001 if isinstance(grad, Tensor) else 2))
    assert gradcheck(wrong, x_of(3))
    assert any("create_graph" in p for p in gradgradcheck(wrong, x_of(3), raise_error=False).problems)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_result_that_is_not_finite_is_refused():
    (problem,) = problems(lambda x: x / 0.0, x_of(2))
    assert "gives inf here" in problem


def test_the_inputs_and_constants_of_the_caller_are_left_alone():
    x, constant = x_of(3), x_of(3)
    tensor = Tensor(x, requires_grad=True)
    copies = x.copy(), constant.copy()
    assert gradcheck(lambda a, b: a * b, [tensor, Tensor(constant)])
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(constant, copies[1])
    assert tensor.grad is None
    x.flags.writeable = False
    assert gradcheck(F.exp, x)


# -------------------------------------------------------------------------------------- what cannot be checked


def test_float32_is_refused_with_the_conversion():
    with pytest.raises(TypeError, match=r"expected float64, got float32 for input 0.*astype\(np.float64\)"):
        gradcheck(F.relu, np.ones(3, np.float32))
    with pytest.raises(TypeError, match=r"parameter weight.*module.to\(np.float64\)"):
        gradcheck(nn.Linear(2, 2), x_of(1, 2))
    with pytest.raises(TypeError, match="expected float64 results of float64 inputs, got float32 for output"):
        gradcheck(lambda x: x.astype(np.float32), x_of(2))


def test_results_without_a_derivative_are_refused():
    with pytest.raises(TypeError, match="integers and booleans have no derivative"):
        gradcheck(lambda x: Tensor(x.data.argmax(keepdims=True)), x_of(3))
    with pytest.raises(TypeError, match="expected a Tensor, or a tuple, list or dict of Tensors, got float"):
        gradcheck(lambda x: float(x.data.sum()), x_of(3))
    with pytest.raises(ValueError, match="nothing to check"):
        gradcheck(F.relu, Tensor(x_of(3)))


def test_a_detached_result_is_a_wrong_gradient():
    (problem,) = problems(lambda x: Tensor(x.data * 2), x_of(3))
    assert "the gradient is zero" in problem


def test_an_error_says_what_gradcheck_was_doing():
    def picky(x):
        if not x.data.flags.c_contiguous:
            raise ValueError("expected contiguous memory")
        return x * 2

    with pytest.raises(ValueError, match="expected contiguous") as caught:
        gradcheck(picky, x_of(2, 3))
    assert "non-contiguous inputs" in caught.value.__notes__[0]


def test_one_seed_gives_one_report():
    wrong = function(np.sin, lambda grad, x: grad * np.cos(x) * 1.001)
    first, second, other = (str(gradcheck(wrong, x_of(20, 20), seed=s, raise_error=False)) for s in (1, 1, 2))
    assert first == second != other


# ---------------------------------------------------------------------------------------------- likely causes


def sums(x):
    return x.sum(axis=0)


@pytest.mark.parametrize(
    ("forward", "backward", "shape", "cause"),
    [
        (np.sin, lambda g, x: -g * np.cos(x), (3,), "the sign is wrong"),
        (np.sin, lambda g, x: g * np.cos(x) * 1.001, (3,), "the factor 1.001"),
        (sums, lambda g, x: np.broadcast_to(g, x.shape) / 4, (4, 3), "is 1/4 of what it should be; 4 is the length"),
        (lambda x: x.mean(0), lambda g, x: np.broadcast_to(g, x.shape) * 1.0, (4, 3), "4 times too large"),
        (lambda x: x @ np.arange(9.0).reshape(3, 3), lambda g, x: (g @ np.arange(9.0).reshape(3, 3).T).T, (3, 3),
         "transposed: right with axes 0 and 1 exchanged"),
        (lambda x: x.T, lambda g, x: g.reshape(x.shape), (2, 3), "transposed, then reshaped"),
        (np.sin, lambda g, x: (g * np.cos(x))[::-1], (4,), "reversed along axis 0"),
        (np.sin, lambda g, x: np.roll(g * np.cos(x), 1, 1), (2, 5), "shifted by 1 along axis 1"),
        (np.sin, lambda g, x: (g * np.cos(x))[[2, 0, 3, 1]], (4,), "right values at wrong places"),
        (np.sin, lambda g, x: g * 0, (3,), "the gradient is zero"),
        (np.sin, lambda g, x: g * np.cos(x) * (np.arange(3) != 1), (3,), "zero for 1 of 3 elements"),
        (lambda x: np.outer([1, 2, 3], x), lambda g, x: g[0], (2,), "what comes from 4 of 6 outputs is lost"),
        (np.sin, lambda g, x: g * np.cos(x) * [1, 2, 1], (3,), "right in"),
        (lambda x: np.outer([1, 2, 3], x), lambda g, x: [1, 2, 3] @ g * [2, 3], (2,), "each element has a factor"),
        (lambda x: x.sum(keepdims=True) * 2, lambda g, x: (g * 2 + 0.5 * g * np.arange(3)), (3,), "right in 1 of 3"),
    ],
)  # fmt: skip
def test_the_likely_cause_is_found(forward, backward, shape, cause):
    wrong = function(forward, lambda g, x: np.asarray(backward(g, x)))
    found = problems(wrong, x_of(*shape))[0].partition("likely cause: ")[2]
    assert cause in found
    assert "and everything has the factor 1:" not in found


def test_a_gradient_where_nothing_depends_on_the_input_is_explained():
    (problem,) = problems(function(lambda x: x * 0 + 1, lambda grad, x: grad), x_of(3))
    assert "the function does not depend on it" in problem


def test_a_missing_constant_term_is_explained():
    numeric = np.array([[1.0, 2.0, 4.0]])
    assert "constant term is missing: 0.3" in likely_cause(numeric - 0.3, numeric, (3,), {})


@pytest.mark.parametrize("hold", [lambda x: [x], lambda x: {"boxes": x}, lambda x: (1, [{"boxes": x}])])
def test_a_tensor_that_hides_in_a_list_is_refused_instead_of_left_unchecked(hold):
    array = np.ones(3)
    with pytest.raises(TypeError, match=r"expected a Tensor or an array for input 1, got a \w+ that holds Tensors"):
        minidet.gradcheck(lambda a, others: a * 2, [array, hold(Tensor(array, requires_grad=True))])
    assert minidet.gradcheck(lambda a, others: a * 2, [array, hold(Tensor(array))])  # constants, as any others
