"""The numbers: the analytic Jacobian of each variable against finite differences, entry by entry where it is small."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from .causes import likely_cause
from .consistency import random_like
from .numeric import Derivative, derivative
from .report import Entry, Report
from .subject import Subject, Variable, pull_back, split

# Up to this many elements every one of them is moved (or, of outputs, gets its own backward pass), so that no entry of
# the Jacobian can hide behind larger ones: 256 elements are 1536 forward passes, below a second for one layer. Beyond
# it, random combinations are checked, which a wrong entry cannot escape but may hide in, below rtol.
JACOBIAN_LIMIT = 256
RANDOM_ELEMENTS = 48  # of a large variable: enough to show the pattern of a mistake
RANDOM_DIRECTIONS = 8  # through all elements of a large variable: each sees every element
RANDOM_COTANGENTS = 8  # for a large output: each combines every element

Index = tuple[int, ...] | None  # of an element; None: a direction through all elements


class Comparison:
    """Compares all variables of a subject and collects the result in a report."""

    def __init__(self, subject: Subject, first_step: float, rng: np.random.Generator, report: Report) -> None:
        self.subject, self.first_step, self.rng, self.report = subject, first_step, rng, report
        self.entries: list[Entry] = []
        self.combinations = None  # (k, m) random combinations of the m outputs; None: every output by itself, k = m
        with subject.graph() as (tensors, outputs):
            self.output_shapes = [output.shape for output in outputs]
            count = sum(output.size for output in outputs)
            if count > JACOBIAN_LIMIT:
                drawn = [random_like(outputs, rng) for _ in range(RANDOM_COTANGENTS)]
                self.combinations = np.stack([np.concatenate([c.ravel() for c in one]) for one in drawn])
            rows = np.eye(count) if self.combinations is None else self.combinations
            pulled = [[x.data.ravel() for x in pull_back(outputs, tensors, split(row, outputs))] for row in rows]
            # The analytic Jacobians, one (k, n) a variable.
            columns = [[gradients[i] for gradients in pulled] for i in range(len(tensors))]
            self.jacobians = [np.array(c).reshape(len(rows), x.size) for c, x in zip(columns, tensors, strict=True)]
        self.here = self._values()

    def run(self) -> None:
        for variable, jacobian in zip(self.subject.variables, self.jacobians, strict=True):
            if jacobian.size:
                self._check(variable, jacobian)
        self.entries.sort(key=_severity)
        self.report.worst = self.entries[:5]

    def _check(self, variable: Variable, jacobian: np.ndarray) -> None:
        """One variable: (k, n) analytic against numeric."""
        size = variable.array.size
        is_large = size > JACOBIAN_LIMIT
        elements = np.sort(self.rng.choice(size, RANDOM_ELEMENTS, replace=False)) if is_large else np.arange(size)
        indices = [_index(variable, element) for element in elements]
        measured = self._measure(variable, [one_hot(size, element) for element in elements])
        analytic = jacobian[:, elements]
        found = self._entries(variable, indices, analytic, measured)
        if is_large:
            found += self._check_directions(variable, jacobian)
        self.entries += found
        self.report.problems += self._problems(variable, found, analytic, measured.value)

    def _values(self) -> np.ndarray:
        """All outputs, or their combinations, where the variables are now: (k,)."""
        values = self.subject.values()
        return values if self.combinations is None else self.combinations @ values

    def _measure(self, variable: Variable, directions: Sequence[np.ndarray]) -> Derivative:
        """The numeric derivatives as the variable moves along p directions: fields of shape (k, p)."""
        at, start = variable.array, variable.array.copy()
        size = float(np.abs(start).max())

        def values_at(step: float, direction: np.ndarray) -> np.ndarray:
            np.add(start, step * direction, out=at)
            return self._values()

        try:
            columns = [
                derivative(
                    partial(values_at, direction=direction.reshape(start.shape)),
                    self.here,
                    size,
                    self.first_step,
                    self.report.rtol,
                )
                for direction in directions
            ]
        finally:
            at[...] = start
        return Derivative.stacked(columns)

    def _entries(
        self, variable: Variable, indices: Sequence[Index], analytic: np.ndarray, measured: Derivative
    ) -> list[Entry]:
        """Compares (k, p) derivatives. Returns the worst, each element that has no derivative, and not the rest."""
        self.report.checked += analytic.size
        errors, faults = _compared(analytic, measured, self.report.rtol)
        worst_first = np.argsort(-errors, axis=None, kind="stable")[:5]
        faulty_columns = np.flatnonzero((faults != "").any(axis=0))
        places = {(int(i // errors.shape[1]), int(i % errors.shape[1])) for i in worst_first}
        places |= {(int(np.argmax(faults[:, column] != "")), int(column)) for column in faulty_columns}
        places |= {(int(i), int(j)) for i, j in np.argwhere((errors > self.report.rtol) & (faults == ""))[:20]}
        entries = []
        for row, column in sorted(places):
            fault = faults[row, column]
            if np.isnan(analytic[row, column]) and not fault and column in faulty_columns:
                continue  # 0 * inf, from the derivative that does not exist
            numbers = [float(a[row, column]) for a in (analytic, measured.value, errors, measured.left, measured.right)]
            entries.append(Entry(variable.label, indices[column], self._output(row), *numbers, fault))
        return entries

    def _check_directions(self, variable: Variable, jacobian: np.ndarray) -> list[Entry]:
        """Random directions through all elements; where one disagrees, halving it leads to an element that does."""
        found: list[Entry] = []
        for _ in range(RANDOM_DIRECTIONS):
            direction = self.rng.choice([-1.0, 1.0], variable.array.size)
            found += self._entries(
                variable, [None], jacobian @ direction[:, None], self._measure(variable, [direction])
            )
            if any(self._is_bad(entry) for entry in found):
                return found + self._element_behind(variable, jacobian, direction)
        return found

    def _element_behind(self, variable: Variable, jacobian: np.ndarray, direction: np.ndarray) -> list[Entry]:
        """The direction is cut in two, and the half that disagrees more is cut again, down to one element."""
        members = np.arange(direction.size)
        while len(members) > 1:
            halves = np.array_split(members, 2)
            parts = [np.where(np.isin(np.arange(direction.size), half), direction, 0.0) for half in halves]
            measured = self._measure(variable, parts)
            apart = np.abs(jacobian @ np.stack(parts, axis=1) - measured.value)
            apart[(measured.fault != "") | ~np.isfinite(apart)] = np.inf
            members = halves[int(apart.max(axis=0).argmax())]
        element = int(members[0])
        measured = self._measure(variable, [one_hot(direction.size, element)])
        return self._entries(variable, [_index(variable, element)], jacobian[:, [element]], measured)

    def _output(self, row: int) -> str:
        """What row j of the Jacobian is the gradient of: "output 1 (0, 2)"."""
        if self.combinations is not None:
            return f"random cotangent {row}"
        for label, shape in zip(self.subject.output_labels, self.output_shapes, strict=True):
            size = int(np.prod(shape))
            if row < size:
                return f"{label} {tuple(int(i) for i in np.unravel_index(row, shape))}"
            row -= size
        raise IndexError(row)

    def _is_bad(self, entry: Entry) -> bool:
        return bool(entry.fault) or not entry.relative_error <= self.report.rtol

    def _problems(
        self, variable: Variable, found: list[Entry], analytic: np.ndarray, numeric: np.ndarray
    ) -> Iterator[str]:
        """A sentence for a wrong gradient, and one for each of the first three elements without a derivative."""
        wrong = [entry for entry in found if not entry.fault and self._is_bad(entry)]
        if wrong:
            worst = min(wrong, key=lambda entry: (entry.index is None, _severity(entry)))
            finite = (np.isfinite(numeric) & np.isfinite(analytic)).all(axis=0)
            cause = likely_cause(analytic[:, finite], numeric[:, finite], variable.array.shape, self._lengths(variable))
            yield (
                f"{worst.place}: wrong gradient of {worst.output}: analytic {worst.analytic:.9g}, "
                f"numeric {worst.numeric:.9g}, relative error {worst.relative_error:.1e}; likely cause: {cause}"
            )
        faults = {entry.place: entry for entry in found if entry.fault}
        yield from (entry.explain() for entry in list(faults.values())[:3])
        if len(faults) > 3:
            yield f"{variable.label}: the same at {len(faults) - 3} other places"

    def _lengths(self, variable: Variable) -> dict[int, str]:
        """Numbers that a wrong factor may stem from, those of the variable last, for they win."""
        lengths = {}
        shapes = [*zip(self.subject.output_labels, self.output_shapes, strict=True)]
        for what, shape in [*shapes, (variable.label, variable.array.shape)]:
            lengths[int(np.prod(shape))] = f"the number of elements of {what}"
            lengths.update({n: f"the length of axis {axis} of {what}" for axis, n in enumerate(shape)})
        return lengths


def _compared(analytic: np.ndarray, measured: Derivative, rtol: float) -> tuple[np.ndarray, np.ndarray]:
    """The relative errors, and the faults that there are to report in place of an error: (k, p) each."""
    with np.errstate(invalid="ignore"):
        larger = np.maximum(np.abs(analytic), np.abs(measured.value))
        allowed = np.maximum(larger, measured.noise / rtol)  # below, an entry is compared with what rounding makes
        errors = np.abs(analytic - measured.value) / np.maximum(allowed, np.finfo(float).tiny)
        slack = rtol * np.maximum(np.abs(measured.left), np.abs(measured.right))
        above = analytic >= np.minimum(measured.left, measured.right) - slack
        below = analytic <= np.maximum(measured.left, measured.right) + slack
    errors[~np.isfinite(errors)] = np.inf
    faults = measured.fault.copy()
    faults[(faults == "unsettled") & (errors <= rtol)] = ""  # it did not settle to a tenth of rtol, but agrees within
    faults[(faults == "kink") & ~(above & below)] = ""  # neither side's derivative nor between: wrong, kink or not
    return errors, faults


def one_hot(size: int, element: int) -> np.ndarray:
    direction = np.zeros(size)
    direction[element] = 1
    return direction


def _index(variable: Variable, element: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(element, variable.array.shape))


def _severity(entry: Entry) -> tuple:
    """For sorting: entries without a derivative first, then by relative error, then by difference."""
    return not entry.fault, -entry.relative_error, -abs(entry.analytic - entry.numeric)
