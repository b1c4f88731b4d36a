"""Compiling ahead of time: every kernel is in it, and it runs in processes of its own."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels.warmup import ALL, SMALL_NETWORK, warm_up
from tests.kernels.cases import CASES

needs_numba = pytest.mark.skipif(mk.available()["cpu"] is not None, reason="the cpu version needs Numba")


@needs_numba
def test_every_kernel_is_called_in_float32(monkeypatch) -> None:
    called = set()

    def spy(name: str):
        kernel = getattr(mk, name)

        def call(*arrays, **options):
            assert all(a.dtype != np.float64 for a in arrays if isinstance(a, np.ndarray))
            called.add(name)
            return kernel(*arrays, **options)

        return call

    names = {case.name for case in CASES}
    for name in names:
        monkeypatch.setattr(mk, name, spy(name))
    for part in ALL.values():
        part()
    assert called == names


@needs_numba
def test_the_parts_are_compiled_in_other_processes() -> None:
    parts = {name: SMALL_NETWORK[name] for name in ("ReLU", "batch norm")}
    done = dict(warm_up(parts, processes=2))
    assert done.keys() == parts.keys()
    assert all(seconds > 0 for seconds in done.values())
