"""Every differentiable function has a case; gradcheck accepts each, and refuses each when it is broken on purpose."""

import gc
from collections.abc import Callable
from typing import Any

import pytest

import minidet
import minidet.functional as F
from minidet import Function, Tensor, gradcheck, gradgradcheck
from tests.autograd.cases import CASES, Case, everything, function_classes, missing
from tests.autograd.controls import first_order_controls, nodes, recorded, refused, second_order_controls

TOLERANCE = 1e-6
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@by_name
def test_its_gradients_are_right(case: Case):
    report = gradcheck(case.call, case.inputs(), rtol=TOLERANCE, name=case.name)
    assert report.relative_error <= TOLERANCE


@by_name
def test_its_second_derivatives_are_right(case: Case):
    report = gradgradcheck(case.call, case.inputs(), rtol=TOLERANCE, name=case.name)
    assert report.relative_error <= TOLERANCE


def test_every_differentiable_function_has_a_case():
    names = everything()
    assert len(names) > 100  # 45 classes, 40 functions and 30 methods, when this was written
    assert missing(names, CASES) == []


def test_every_case_covers_something_that_exists():
    assert {name for case in CASES for name in case.covers} - everything() == set()


def test_a_new_function_without_a_case_is_missed():
    """A Function class, a function and a method, each seen as soon as it exists."""
    assert missing({*everything(), "F.forgotten"}, CASES) == ["F.forgotten"]
    forgotten = type("Forgotten", (Function,), {"__module__": "minidet.somewhere", "forward": lambda self, x: x})
    Tensor.forgotten = lambda self: self
    try:
        assert missing(everything(), CASES) == ["Forgotten", "Tensor.forgotten"]
    finally:
        del Tensor.forgotten, forgotten
        gc.collect()  # classes are known to their base for as long as they live
    assert missing(everything(), CASES) == []


def test_a_removed_case_is_missed():
    assert missing(everything(), [case for case in CASES if "F.softplus" not in case.covers]) == [
        "F.softplus",
        "Softplus",
    ]


@by_name
def test_it_uses_what_it_claims_to_cover(case: Case, monkeypatch: pytest.MonkeyPatch):
    """Function classes are found in the graph; functions and methods are replaced by ones that note their use."""
    used: set[str] = set()

    def noted(name: str, original: Callable) -> Callable:
        def wrapper(*args: Any, **options: Any) -> Any:
            used.add(name)
            return original(*args, **options)

        return wrapper

    for name in case.covers:
        owner, _, attribute = name.rpartition(".")
        if owner == "F":
            monkeypatch.setattr(F, attribute, noted(name, getattr(F, attribute)))
        elif name == "Tensor.T":
            monkeypatch.setattr(Tensor, "T", property(noted(name, Tensor.T.fget)))
        elif owner == "Tensor":
            monkeypatch.setattr(Tensor, attribute, noted(name, getattr(Tensor, attribute)))
    output = recorded(case)
    used |= {type(node).__name__ for node in nodes(output)}
    assert set(case.covers) <= used


def _accepted(check: Callable, controls: list[tuple[str, Case, Callable]]) -> list[str]:
    return [what for what, case, broken in controls if not refused(check, case, broken)]


def test_every_backward_broken_on_purpose_is_refused():
    """Scaled by 1.001, transposed, one term dropped, zeroed: each gradient of each class."""
    controls = list(first_order_controls())
    assert len(controls) >= 4 * len(function_classes())
    assert _accepted(minidet.gradcheck, controls) == []


def test_every_backward_whose_own_derivative_is_broken_is_refused():
    """Scaled by 1.001, the cotangent or the saved values taken for constants."""
    controls = list(second_order_controls())
    assert len(controls) >= 2 * len(function_classes())
    assert _accepted(minidet.gradgradcheck, controls) == []
