"""How well the gradients are checked, in figures: python -m benchmarks.gradients

The share of differentiable functions with a case in the registry (tests/autograd/cases.py), the largest relative error
of first and second derivatives against finite differences, in float64, and how many of the backward rules broken on
purpose (tests/autograd/controls.py) gradcheck refused.
"""

import time
from collections.abc import Callable, Iterator

from minidet import gradcheck, gradgradcheck
from tests.autograd.cases import CASES, everything, function_classes, missing
from tests.autograd.controls import first_order_controls, refused, second_order_controls


def worst_error(check: Callable) -> tuple[float, str, int]:
    """The largest relative error of all cases, the case it belongs to, and how many derivatives were compared."""
    reports = [check(case.call, case.inputs(), name=case.name) for case in CASES]
    worst = max(reports, key=lambda report: report.relative_error)
    return worst.relative_error, worst.name, sum(report.checked for report in reports)


def rows() -> Iterator[tuple[str, str]]:
    names = everything()
    classes = len(function_classes())
    covered = len(names) - len(missing(names, CASES))
    yield "differentiable functions", f"{len(names)}, of them {classes} Function classes"
    yield "in the registry", f"{covered / len(names):.0%}, with {len(CASES)} cases"
    for order, check, controls in (
        ("first", gradcheck, first_order_controls),
        ("second", gradgradcheck, second_order_controls),
    ):
        error, name, count = worst_error(check)
        yield f"{order} order: worst relative error", f"{error:.1e} ({name}) of {count} derivatives"
        broken = [refused(check, case, maker) for _, case, maker in controls()]
        yield f"{order} order: broken on purpose, refused", f"{sum(broken)} of {len(broken)}"


def main() -> None:
    start = time.perf_counter()
    for what, figure in rows():
        print(f"{what:<42}{figure}", flush=True)
    print(f"{'seconds':<42}{time.perf_counter() - start:.0f}")


if __name__ == "__main__":
    main()
