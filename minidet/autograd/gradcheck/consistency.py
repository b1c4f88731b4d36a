"""What must hold of a backward pass besides its numbers. Each check yields a sentence for every violation.

A gradient can be right on a fresh, contiguous leaf and wrong in a network: because the rule writes into the gradient it
was given, which another branch shares; because it assumes a memory layout; because it skips an input that is wanted.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..tensor import Tensor
from .subject import Subject, pull_back, split

# Sums taken in another order, which a memory layout may bring about, differ by some units in the last place: of the
# largest element, and where everything cancels (a bias before a batch norm), of what was summed.
SAME = 1e-10
CANCELLED = 1e-13


def check_forward(subject: Subject) -> Iterator[str]:
    """Runs before anything else: without a forward pass that repeats itself, finite differences mean nothing."""
    arrays = [*(v.array for v in subject.variables), *subject.constants]
    labels = [*(v.label for v in subject.variables), *(f"constant {i}" for i in range(len(subject.constants)))]
    before = [array.copy() for array in arrays]
    first = subject.values()
    for label, array, copy in zip(labels, arrays, before, strict=True):
        if not same_bits(array, copy):
            yield f"{label}: the function writes into it; copy it first, or make a new array"
            return
    if not same_bits(first, subject.values()):
        yield "the function gives another result each time: seed what is random inside it, or check it in eval() mode"
    elif not np.isfinite(first).all():
        yield f"the function gives {first[~np.isfinite(first)][0]} here: choose inputs where it is finite"


def check_backward(subject: Subject, rng: np.random.Generator) -> Iterator[str]:
    """The consistency of the backward pass, with random cotangents."""
    with subject.graph() as (tensors, outputs):
        cotangents = random_like(outputs, rng)
        with np.errstate(all="ignore"):
            expected = [x.data for x in pull_back(outputs, tensors, cotangents)]
    for variable, gradient in zip(subject.variables, expected, strict=True):
        if not np.isfinite(gradient).all():
            yield f"{variable.label}: the gradient is not finite at index {where_not_finite(gradient)}"
            return
    for check in (_repeats, _linear, _needs, _behind_another_layer, _strided, _broadcast_cotangent):
        with doing(subject, check.__doc__):
            found = list(check(subject, cotangents, expected))
        yield from found
        if found and check is _repeats:
            return  # the others would only see the consequences


def _repeats(subject: Subject, cotangents: list, expected: list) -> Iterator[str]:
    """going backward twice"""
    given = [cotangent.copy() for cotangent in cotangents]
    values = [variable.array.copy() for variable in subject.variables]
    with subject.graph() as (tensors, outputs):
        results = [x.data.copy() for x in outputs]
        recorded = np.concatenate([x.ravel() for x in results])
        passes = [[x.data.copy() for x in pull_back(outputs, tensors, cotangents)] for _ in range(2)]
        changed = [not same_bits(x.data, result) for x, result in zip(outputs, results, strict=True)]
    if not close(recorded, subject.values(), largest(expected, cotangents)):
        yield "another result when it is recorded (for a gradient: with create_graph=True) than when it is not"
    for label, is_changed in zip(subject.output_labels, changed, strict=True):
        if is_changed:
            yield f"{label}: the backward rule writes into the function's result"
    for label, cotangent, copy in zip(subject.output_labels, cotangents, given, strict=True):
        if not same_bits(cotangent, copy):
            yield f"{label}: the backward rule writes into the gradient it is given, which other branches may share"
            cotangent[...] = copy
    for variable, copy, first, second, fresh in zip(subject.variables, values, *passes, expected, strict=True):
        if not same_bits(variable.array, copy):
            yield f"{variable.label}: the backward rule writes into it"
            variable.array[...] = copy
        if first.shape != variable.array.shape or first.dtype != np.float64:
            yield (
                f"{variable.label}: expected a gradient of {variable.array.shape} float64, got {first.shape} "
                f"{first.dtype}"
            )
        elif not (same_bits(first, second) and same_bits(first, fresh)):
            yield (
                f"{variable.label}: a second backward pass gives another gradient: the rule changes what was saved, "
                "or is random"
            )


def _linear(subject: Subject, cotangents: list, expected: list) -> Iterator[str]:
    """whether the gradient is linear in the cotangent"""
    summed = 3 * largest(expected, cotangents)
    others = [np.roll(cotangent, 1) for cotangent in cotangents]
    with subject.graph() as (tensors, outputs):
        second = pull_back(outputs, tensors, others)
        both = pull_back(outputs, tensors, [a - 2 * b for a, b in zip(cotangents, others, strict=True)])
    for variable, a, b, ab in zip(subject.variables, expected, second, both, strict=True):
        if not close(ab.data, a - 2 * b.data, summed):
            yield f"{variable.label}: not linear in the cotangent: the rule may use it as a factor only"


def _needs(subject: Subject, cotangents: list, expected: list) -> Iterator[str]:
    """with one variable at a time requiring grad"""
    summed = largest(expected, cotangents)
    for variable, gradient in zip(subject.variables, expected, strict=True):
        with subject.graph(wanted=[variable]) as (tensors, outputs):
            alone = pull_back(outputs, tensors, cotangents)[0].data
        if not close(alone, gradient, summed):
            yield (
                f"{variable.label}: another gradient when it alone requires grad than when all do: see how the rule "
                "uses self.needs"
            )


def _behind_another_layer(subject: Subject, cotangents: list, expected: list) -> Iterator[str]:
    """with its inputs made by another operation and used a second time, and its outputs used further"""
    summed = largest(expected, cotangents)
    weights = [np.roll(variable.array, 1) + 0.25 for variable in subject.variables]
    halves = [v.array if v.is_parameter else v.array / 2 for v in subject.variables]
    with subject.tensors(subject.variables, halves) as leaves:
        inputs = [x if v.is_parameter else x * 2 for v, x in zip(subject.variables, leaves, strict=True)]
        outputs = [output * 4 for output in subject.call(inputs)]
        again = [x * weight for x, weight in zip(inputs, weights, strict=True)]
        seeds = [cotangent / 4 for cotangent in cotangents] + [np.ones(x.shape) for x in again]
        found = pull_back([*outputs, *again], leaves, seeds)
    for variable, weight, gradient, got in zip(subject.variables, weights, expected, found, strict=True):
        if not close(got.data, (gradient + weight) * (1 if variable.is_parameter else 2), summed):
            yield f"{variable.label}: another gradient behind another layer than on its own"


def _strided(subject: Subject, cotangents: list, expected: list) -> Iterator[str]:
    """with non-contiguous inputs and cotangents"""
    summed = largest(expected, cotangents)
    with subject.graph(arrays=[strided(variable.array) for variable in subject.variables]) as (tensors, outputs):
        found = pull_back(outputs, tensors, [strided(cotangent) for cotangent in cotangents])
        flat = np.concatenate([output.data.ravel() for output in outputs])
    if not close(flat, subject.values(), summed):
        yield "another result when its inputs are not contiguous in memory"
    for variable, gradient, got in zip(subject.variables, expected, found, strict=True):
        if not close(got.data, gradient, summed):
            yield f"{variable.label}: another gradient when its inputs are not contiguous in memory"


def _broadcast_cotangent(subject: Subject, cotangents: list, expected: list) -> Iterator[str]:
    """with one number, broadcast and read-only, as cotangent: what the backward of a sum hands on"""
    with subject.graph() as (tensors, outputs):
        repeated = [np.broadcast_to(np.float64(0.7), output.shape) for output in outputs]
        broadcast = pull_back(outputs, tensors, repeated)
        plain = pull_back(outputs, tensors, [np.array(array, order="C") for array in repeated])
    for variable, a, b in zip(subject.variables, broadcast, plain, strict=True):
        if not close(a.data, b.data, largest(expected, cotangents)):
            yield f"{variable.label}: another gradient for a broadcast cotangent than for its copy"


def random_like(outputs: list[Tensor], rng: np.random.Generator) -> list[np.ndarray]:
    """Cotangents: of ones they would accept wrong gradients (one that is transposed, or summed over a wrong axis)."""
    flat = rng.uniform(0.5, 1.5, sum(output.size for output in outputs))
    return split(flat * rng.choice([-1.0, 1.0], flat.shape), outputs)


def strided(array: np.ndarray) -> np.ndarray:
    """The same values with axes in reversed order in memory, the first backwards and in every second place; NaN lies
    in between, so that whoever reads past the strides shows it."""
    if array.ndim == 0:
        return array.copy()
    memory = np.full((*array.shape[:0:-1], 2 * array.shape[0]), np.nan)
    view = memory[..., ::-2].T
    view[...] = array
    return view


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def close(a: np.ndarray, b: np.ndarray, summed: float = 0.0) -> bool:
    """Equal but for rounding. summed: the size of the numbers that they were computed from."""
    return bool(np.all(np.abs(a - b) <= SAME * np.abs(b).max(initial=0.0) + CANCELLED * summed))


def largest(*groups: list[np.ndarray]) -> float:
    return max(float(np.abs(array).max(initial=0.0)) for group in groups for array in group)


def where_not_finite(array: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])


@contextmanager
def doing(subject: Subject, what: str) -> Iterator[None]:
    """An error raised within says what gradcheck was trying."""
    try:
        yield
    except Exception as error:
        error.add_note(f"gradcheck of {subject.name}: raised {what}")
        raise
