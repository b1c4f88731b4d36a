"""Anomaly mode's checks: which value is not finite first, in which operation, from which line of the forward pass."""

import linecache
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGE = Path(__file__).resolve().parents[1]
# Frames in these folders are how the engine works, not what the user wrote.
_ENGINE = tuple(str(_PACKAGE / name) + os.sep for name in ("autograd", "functional", "nn"))


class AnomalyError(FloatingPointError):
    """The first value that is not finite. Its attributes: operation, phase ("forward" or "backward"), line, index."""

    def __init__(self, message: str, operation: str, phase: str, line: str, index: tuple[int, ...]) -> None:
        super().__init__(message)
        self.operation, self.phase, self.line, self.index = operation, phase, line, index


def calling_line() -> str:
    """The innermost line outside the engine, as `file:line in function: source text`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_ENGINE):
        frame = frame.f_back
    code = frame.f_code
    source = linecache.getline(code.co_filename, frame.f_lineno).strip()
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}: {source}"


def _first_bad(array: Any) -> tuple[int, ...] | None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return None
    return tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])


def check_forward(function: Any, result: Any, inputs: list) -> None:
    """Remembers the line that called this operation; raises when the result is not finite."""
    function.trace = calling_line()
    index = _first_bad(result)
    if index is None:
        return
    arrays = [x for x in inputs if hasattr(x, "dtype")]
    told = ", ".join(f"{x.shape} {_range(x)}" for x in arrays)
    raise AnomalyError(
        f"{function.name} (forward) made {result[index]} at index {index} of its result of shape {result.shape}\n"
        f"  in the forward pass: {function.trace}\n  its inputs: {told or 'none'}",
        function.name, "forward", function.trace, index,
    )  # fmt: skip


def check_backward(function: Any, gradients: list, grad: Any) -> None:
    """Raises when a gradient that this operation's backward returned is not finite."""
    for position, gradient in enumerate(gradients):
        if not hasattr(gradient, "dtype"):  # None, or what the backward pass is about to refuse
            continue
        index = _first_bad(gradient)
        if index is not None:
            trace = _trace(function)
            raise AnomalyError(
                f"{function.name} (backward) made {gradient[index]} at index {index} of the gradient of its input "
                f"{position}, shape {gradient.shape}\n  the operation was made by the forward pass at: {trace}\n"
                f"  the gradient that reached it: {grad.shape} {_range(grad)}",
                function.name, "backward", trace, index,
            )  # fmt: skip


def inside_backward(function: Any, error: AnomalyError) -> AnomalyError:
    """The error of an operation that a backward rule used, told as that of the rule: the user wrote its forward."""
    trace = _trace(function)
    message = (
        f"{function.name} (backward): in its rule, {error}\n  the operation was made by the forward pass at: {trace}"
    )
    return AnomalyError(message, function.name, "backward", trace, error.index)


def _trace(function: Any) -> str:
    return getattr(function, "trace", "unknown: run the forward pass inside detect_anomaly too")


def _range(array: Any) -> str:
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        return "empty" if array.size == 0 else "with no finite value"
    bad = array.size - finite.size
    return f"between {finite.min():.4g} and {finite.max():.4g}" + (f", {bad} not finite" if bad else "")
