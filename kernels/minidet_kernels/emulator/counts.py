"""What the host did with the device: launches, copies, and the times it had to wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Counts:
    launches: int = 0  # of kernels from .cu files
    to_device: int = 0  # copies of host arrays
    waits: int = 0  # the host needs a value from the GPU and waits for all that is still running there


current = Counts()


@contextmanager
def counted() -> Iterator[Counts]:
    """The counts of what happens in the `with` statement."""
    global current
    former, current = current, Counts()
    try:
        yield current
    finally:
        current = former
