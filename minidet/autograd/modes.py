"""What is switched on in this thread: recording (no_grad, enable_grad) and anomaly detection."""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any


class _Modes(threading.local):
    """Per thread, so that one that predicts under `no_grad` does not stop another one that trains."""

    recording = True
    detecting_anomalies = False


modes = _Modes()


class _Switch:
    """Sets one mode for the length of a `with` block or, as a decorator, of a call."""

    mode = "recording"
    value: Any = None
    before: tuple = ()  # what was set before the block, and this for the block around it: the same switch may be nested

    def __enter__(self) -> None:
        self.before = getattr(modes, self.mode), self.before
        setattr(modes, self.mode, self.value)

    def __exit__(self, *error: Any) -> None:
        former, self.before = self.before
        setattr(modes, self.mode, former)

    def __call__(self, function: Callable) -> Callable:
        @wraps(function)
        def switched(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return switched


class no_grad(_Switch):
    """Within it, operations leave no graph: faster, and nothing is kept for a backward pass. Also a decorator."""

    value = False


class enable_grad(_Switch):
    """Within it, operations are recorded again, also inside a surrounding `no_grad`. Also a decorator."""

    value = True


class detect_anomaly(_Switch):
    """Within it, the first value that is not finite, forward or backward, raises AnomalyError. Also a decorator.

    with minidet.detect_anomaly():
        loss = model(images, targets)
        loss.backward()

    Every result is checked as it is made, which is slow: the training loop switches it on only to explain a loss that
    has already gone wrong.
    """

    mode = "detecting_anomalies"
    value = True


def is_grad_enabled() -> bool:
    """Whether operations are recorded now, in this thread."""
    return modes.recording
