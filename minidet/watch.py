"""Everything can be watched: a model names its intermediate results, a listener gets them as they are made.

In a model:                                  Outside:

    watch.emit("logits", logits)                 with watch.listen(print):
    watch.emit("iou", lambda: iou(a, b))             model(images)

While nobody listens `emit` returns at once: nothing is kept, and a value given as a function is never computed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One intermediate result: its name ("localizer.features"), the value as the model has it, and the names of the
    pictures of the batch that it belongs to (empty when the caller did not say)."""

    name: str
    value: Any
    pictures: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The value's shape, None when it has none."""
        return getattr(self.value, "shape", None)

    def __str__(self) -> str:
        return f"{self.name}: {_described(self.value)}" + (f" of {', '.join(self.pictures)}" if self.pictures else "")


def _described(value: Any) -> str:
    """Shape and dtype; of a list those of each of its elements, or how many there are."""
    if isinstance(value, list):
        shapes = [_described(element) for element in value[:LISTED] if hasattr(element, "shape")]
        return f"list of {len(value)}" + (f": {', '.join(shapes)}" if shapes else "") + ", ..." * (len(value) > LISTED)
    dtype = getattr(value, "dtype", type(value).__name__)
    return f"{getattr(value, 'shape', None) or ''} {dtype}".strip()


LISTED = 5  # elements of a list that are described: a pyramid has five levels
_listeners: list[Callable[[Event], None]] = []
_pictures: tuple[str, ...] = ()


def listening() -> bool:
    """Whether anybody listens: ask before work that only a listener needs."""
    return bool(_listeners)


def emit(name: str, value: Any) -> None:
    """Tells all listeners of a result. value: anything, or a function without arguments that computes it."""
    if not _listeners:
        return
    event = Event(name, value() if callable(value) else value, _pictures)
    for listener in list(_listeners):
        listener(event)


@contextmanager
def listen(listener: Callable[[Event], None]) -> Iterator[Callable]:
    """Within it, listener(event) is called for every result that is emitted."""
    _listeners.append(listener)
    try:
        yield listener
    finally:
        _listeners.remove(listener)


@contextmanager
def pictures(names: Sequence[str]) -> Iterator[None]:
    """Within it, events say that they belong to these pictures, one an image of the batch."""
    global _pictures
    before, _pictures = _pictures, tuple(names)
    try:
        yield
    finally:
        _pictures = before
