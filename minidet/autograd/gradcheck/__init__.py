"""gradcheck: is the gradient that a backward rule computes the derivative of what its forward computes?

Start in compare.py, which holds both side by side; numeric.py measures, consistency.py checks what numbers do not show,
causes.py guesses the mistake.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..modes import enable_grad, is_grad_enabled
from ..tensor import Tensor
from .compare import Comparison
from .consistency import check_backward, check_forward, doing, random_like
from .numeric import FIRST_STEP
from .report import Entry, GradcheckError, Report
from .subject import Subject, Variable, pull_back

__all__ = ["Entry", "GradcheckError", "Report", "gradcheck", "gradgradcheck"]


def gradcheck(
    function: Callable,
    inputs: Any,
    *,
    eps: float = FIRST_STEP,
    rtol: float = 1e-6,
    seed: int = 0,
    parameters: Any = None,
    raise_error: bool = True,
    name: str | None = None,
) -> Report:
    """Compares the gradients of function(*inputs) with finite differences, and its backward pass with itself.

    function    takes Tensors, returns a Tensor or a tuple, list or dict of Tensors; a Module (its parameters are
                checked too); or a Function subclass
    inputs      one Tensor or array, or a sequence. Checked are float64 Tensors that require grad and float64 arrays;
                everything else is passed on as a constant. Nothing of the caller's is written to
    eps         the first, largest step of the finite differences; it shrinks where needed
    rtol        the largest relative error of any entry of the Jacobian
    seed        of the random cotangents and directions
    parameters  Tensors that the function uses besides its inputs, a dict or a sequence; default: the Module's own
    name        what the report calls the function

    Raises GradcheckError with the report (unless raise_error=False), TypeError for inputs or results that are not
    float64, ValueError when there is nothing to check.
    """
    subject = Subject(function, inputs, parameters, name)
    with unchanged(function):
        report = _check(subject, 1, eps, rtol, seed)
    return _finish(report, raise_error)


def gradgradcheck(
    function: Callable,
    inputs: Any,
    *,
    eps: float = FIRST_STEP,
    rtol: float = 1e-6,
    seed: int = 0,
    parameters: Any = None,
    raise_error: bool = True,
    name: str | None = None,
) -> Report:
    """gradcheck of the gradient: of the function from inputs, parameters and cotangents to the gradient of
    <outputs, cotangents> with respect to inputs and parameters, as `create_graph=True` makes it.

    Arguments and errors are gradcheck's. In the report, "output i" is the gradient of the i-th variable, and the
    cotangents are the last inputs.
    """
    subject = Subject(function, inputs, parameters, name)
    with unchanged(function):
        report = _check(_gradient_of(subject, seed), 2, eps, rtol, seed)
    return _finish(report, raise_error)


def _gradient_of(subject: Subject, seed: int) -> Subject:
    """The gradient as a function itself, of the subject's arguments and one random cotangent for each output."""
    with subject.graph() as (_, outputs):
        cotangents = random_like(outputs, np.random.default_rng(seed))
    count = len(subject.arguments)
    owned = {v.label.removeprefix("parameter "): v.parameter for v in subject.variables if v.is_parameter}

    def gradient(*arguments: Any) -> dict[str, Tensor]:
        recorded = is_grad_enabled()  # without it the values are those of an ordinary backward pass, on arrays
        inputs = zip(subject.arguments, arguments[:count], strict=True)
        tensors = [x for argument, x in inputs if isinstance(argument, Variable)] + list(owned.values())
        for x in tensors:
            if not x.requires_grad:
                x.requires_grad_()
        with enable_grad():
            found = pull_back(subject.call(tensors), tensors, arguments[count:], create_graph=recorded)
        return {f"d {variable.label}": x for variable, x in zip(subject.variables, found, strict=True)}

    arguments = [x.array if isinstance(x, Variable) else x for x in subject.arguments]
    result = Subject(gradient, [*arguments, *cotangents], owned, subject.name)
    for variable, label in zip(result.arguments[count:], subject.output_labels, strict=True):
        variable.label = f"cotangent of {label}"
    return result


def _check(subject: Subject, order: int, eps: float, rtol: float, seed: int) -> Report:
    report = Report(subject.name, order, rtol)
    rng = np.random.default_rng(seed)
    report.problems += check_forward(subject)
    if report.ok:
        with one_thread():
            with doing(subject, "going backward"):
                comparison = Comparison(subject, eps, rng, report)
            comparison.run()
            report.problems += check_backward(subject, rng)
    return report


@contextmanager
def unchanged(function: Any) -> Iterator[None]:
    """Puts a Module's buffers back: batch norm's running statistics have seen a thousand batches."""
    buffers = [(array, array.copy()) for _, array in getattr(function, "named_buffers", list)()]
    try:
        yield
    finally:
        for array, before in buffers:
            array[...] = before


@contextmanager
def one_thread() -> Iterator[None]:
    """Numba's loops in one thread: for thousands of small arrays, waking the others takes longer than the work. (The
    forward pass has run once: where it uses Numba, that is imported by now.)"""
    numba = sys.modules.get("numba")
    if numba is None:
        yield
        return
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _finish(report: Report, raise_error: bool) -> Report:
    if raise_error and not report.ok:
        raise GradcheckError(report)
    return report
