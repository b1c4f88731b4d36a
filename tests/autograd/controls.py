"""Negative controls: every backward rule broken on purpose. gradcheck must refuse each, or it proves nothing.

First order, for each gradient that a rule returns: scaled by 1.001, transposed, one term dropped, zeroed. Second order,
where the gradient stays right and only its own derivative is broken: scaled by 1.001, the cotangent taken for a
constant, the saved values taken for constants.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import minidet
from minidet import Function, Tensor
from tests.autograd.cases import CASES, Case, function_classes


def scaled(gradient: np.ndarray) -> np.ndarray:
    return gradient * 1.001


def transposed(gradient: np.ndarray) -> np.ndarray:
    """Two axes of one length exchanged; without such, or where that changes nothing, all elements in reverse order."""
    shape = gradient.shape
    for i in range(len(shape)):
        for j in range(i):
            if shape[i] == shape[j] and (gradient != gradient.swapaxes(i, j)).any():
                return gradient.swapaxes(i, j)
    return gradient.reshape(-1)[::-1].reshape(shape)


def dropped(gradient: np.ndarray) -> np.ndarray:
    """Without its largest entry."""
    result = gradient.copy()
    if result.size:
        result.flat[np.abs(result).argmax()] = 0
    return result


def zeroed(gradient: np.ndarray) -> np.ndarray:
    return np.zeros_like(gradient)


FIRST_ORDER = (scaled, transposed, dropped, zeroed)


def derivative_scaled(rule: Callable, self: Function, grad: Tensor, saved: tuple) -> list:
    """Each gradient has its value, and 1.001 times its derivative."""
    results = as_list(rule(self, grad, *saved))
    return [r + 0.001 * (r - r.detach()) if isinstance(r, Tensor) else r for r in results]


def cotangent_constant(rule: Callable, self: Function, grad: Tensor, saved: tuple) -> list:
    return as_list(rule(self, grad.detach(), *saved))


def saved_constant(rule: Callable, self: Function, grad: Tensor, saved: tuple) -> list:
    return as_list(rule(self, grad, *(x.data if isinstance(x, Tensor) else x for x in saved)))


SECOND_ORDER = (derivative_scaled, cotangent_constant, saved_constant)


def as_list(results: Any) -> list:
    return list(results) if isinstance(results, tuple) else [results]


@contextmanager
def replaced(cls: type[Function], rule: Callable) -> Iterator[None]:
    """cls.backward is `rule` for a while."""
    original = cls.backward
    cls.backward = rule
    try:
        yield
    finally:
        cls.backward = original


def first_order_break(cls: type[Function], how: Callable, position: int) -> Any:
    """While it lasts, the gradient of the input at `position` is broken, in an ordinary backward pass."""
    original = cls.backward

    def backward(self: Function, grad: Any, *saved: Any) -> tuple:
        results = as_list(original(self, grad, *saved))
        if isinstance(results[position], np.ndarray):
            results[position] = how(results[position])
        return tuple(results)

    return replaced(cls, backward)


def second_order_break(cls: type[Function], how: Callable) -> Any:
    """While it lasts, the rule is broken where it is recorded: its gradients are right, their derivatives wrong."""
    original = cls.backward

    def backward(self: Function, grad: Any, *saved: Any) -> Any:
        if isinstance(grad, Tensor):
            return tuple(how(original, self, grad, saved))
        return original(self, grad, *saved)

    return replaced(cls, backward)


def nodes(output: Tensor) -> Iterator[Function]:
    """All Functions behind a Tensor."""
    stack, seen = [output.node], set()
    while stack:
        node = stack.pop()
        if isinstance(node, Function) and node not in seen:
            seen.add(node)
            stack.extend(node.parents)
            yield node


def recorded(case: Case) -> Tensor:
    """The case's output, with its graph."""
    inputs = [x if not isfloat(x) else Tensor(x, requires_grad=True) for x in case.inputs()]
    return case.call(*inputs)


def isfloat(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def first_order_controls() -> Iterator[tuple[str, Case, Callable]]:
    """(what is broken, a case of it, the break as a context manager's maker)."""
    for name, cls in sorted(function_classes().items()):
        case = next(case for case in CASES if name in case.covers)
        node = next(node for node in nodes(recorded(case)) if type(node) is cls)
        for position in np.flatnonzero(node.needs):
            for how in FIRST_ORDER:
                maker = lambda cls=cls, how=how, position=position: first_order_break(cls, how, position)  # noqa: E731
                yield f"{name}, gradient of input {position} {how.__name__}", case, maker


def second_order_controls() -> Iterator[tuple[str, Case, Callable]]:
    for name, cls in sorted(function_classes().items()):
        case = next(case for case in CASES if name in case.covers)
        node = next(node for node in nodes(recorded(case)) if type(node) is cls)
        saves_variables = any(isinstance(x, Tensor) for x in node.saved_in_graph())
        for how in SECOND_ORDER:
            if how is not saved_constant or saves_variables:
                maker = lambda cls=cls, how=how: second_order_break(cls, how)  # noqa: E731
                yield f"{name}, {how.__name__}", case, maker


def refused(check: Callable, case: Case, maker: Callable) -> bool:
    """Whether gradcheck or gradgradcheck finds the break in this case, and by its numbers."""
    with maker():
        report = check(case.call, case.inputs(), raise_error=False)
    return any("wrong gradient" in problem for problem in report.problems)


CHECKS = {"first": (minidet.gradcheck, first_order_controls), "second": (minidet.gradgradcheck, second_order_controls)}
