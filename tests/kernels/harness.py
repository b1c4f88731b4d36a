"""The one harness for all kernels: a case says what a kernel takes and what its adjoint is; the properties follow.

Of every case, for every version that can run here:

- the version equals the reference, to 1e-5 in float32 and 1e-10 in float64, the first mismatches reported by index;
- the adjoint identity <A u, y> = <u, A* y> holds for random u and y, for each operand that the kernel is linear in;
- no input is changed, and a second run gives the same bits;
- the host code of the CUDA version does not wait for the GPU, unless the case says that it must.

To enter a new kernel, put its `Case` into a module of `tests/kernels/cases/`; test_harness.py fails as long as one is
missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

import minidet_kernels
from minidet_kernels.emulator import counted, emulated

TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}
MEMORY = ("contiguous", "channels last", "sliced", "reversed", "read-only")


@dataclass(frozen=True)
class Call:
    """The arguments of one call: arrays by position, the rest by name."""

    arrays: tuple[np.ndarray | None, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def with_array(self, operand: int, array: np.ndarray) -> Call:
        return replace(self, arrays=(*self.arrays[:operand], array, *self.arrays[operand + 1 :]))


@dataclass(frozen=True)
class Case:
    """A kernel that `minidet_kernels` exports, the inputs it takes, and its adjoints.

    `adjoints[operand](call, y)` computes A* y, where A is the kernel as a linear function of that operand.
    """

    name: str
    calls: st.SearchStrategy[Call]
    adjoints: dict[int, Callable[[Call, np.ndarray], np.ndarray]] = field(default_factory=dict)
    waits: int = 0  # how often the host must wait for the GPU: 1 where the size of the result depends on values
    adds_atomically: bool = False  # on a GPU, in whatever order the threads come: the last bits differ between runs


def run(case: Case, call: Call, version: str) -> tuple[np.ndarray, ...]:
    """The results, as NumPy arrays; AssertionError if an input was changed, or the host waited for an emulated GPU."""
    with engine(version, seed=len(call.arrays)) as (to_engine, to_host):
        operands = [None if array is None else to_engine(array) for array in call.arrays]
        before = [None if array is None else to_host(array).tobytes() for array in operands]
        with counted() as counts:
            result = getattr(minidet_kernels, case.name)(*operands, **call.options)
        assert counts.waits <= case.waits, f"{case.name} made the host wait for the GPU {counts.waits} times"
        for number, (operand, former) in enumerate(zip(operands, before, strict=True)):
            assert operand is None or to_host(operand).tobytes() == former, f"{case.name} changed its input {number}"
        return tuple(to_host(array) for array in (result if isinstance(result, tuple) else (result,)))


@contextmanager
def engine(version: str, seed: int = 0) -> Iterator[tuple[Callable, Callable]]:
    """Within it NumPy arrays, after the first function, run in that version; the second brings results back.

    "emulated forward", "emulated reverse" and "emulated random" are the CUDA version without a GPU.
    """
    # Winograd's convolution rounds more, and spreads NaN: test_winograd.py measures it.
    with minidet_kernels.exact(), np.errstate(all="ignore"):  # NaN is given on purpose
        if version.startswith("emulated"):
            with emulated(version.split()[1], seed):
                yield _to_device, lambda array: array.get()
        elif version == "cuda":
            yield _to_device, lambda array: array.get()
        else:
            with minidet_kernels.use(version):
                yield np.asarray, np.asarray


def _to_device(array: np.ndarray) -> Any:
    """The same numbers in the same kind of memory, gaps and negative strides included, as an array of cupy."""
    import cupy

    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    start = (array.ctypes.data - whole.ctypes.data) // array.itemsize if array.size else 0
    memory = cupy.asarray(whole.ravel(order="K"))
    return cupy.lib.stride_tricks.as_strided(memory[start:], array.shape, array.strides)


def check(case: Case, call: Call, version: str) -> None:
    """All properties for one call; AssertionError says which one failed, and where."""
    results = run(case, call, version)
    for result, expected in zip(results, run(case, call, "reference"), strict=True):
        assert_close(result, expected, f"{case.name} ({version}) differs from the reference")
    for result, again in zip(results, run(case, call, version), strict=True):
        if case.adds_atomically and version == "cuda":
            continue
        assert result.tobytes() == again.tobytes(), f"{case.name} ({version}): other bits on the second run"
    for operand in case.adjoints:
        check_adjoint(case, call, operand, version)


def check_adjoint(case: Case, call: Call, operand: int, version: str) -> None:
    """<A u, y> = <u, A* y> to rounding, where u is the call's own operand and y is random."""
    if not all(array is None or np.isfinite(array).all() for array in call.arrays):
        return
    u = call.arrays[operand]
    (result,) = run(case, call, version)
    (constant,) = run(case, call.with_array(operand, np.zeros_like(u)), version)  # what does not depend on u, as a bias
    y = np.random.default_rng(result.size).standard_normal(result.shape).astype(result.dtype)
    with engine(version) as (to_engine, to_host):
        there = Call(tuple(None if array is None else to_engine(array) for array in call.arrays), call.options)
        adjoint = to_host(case.adjoints[operand](there, to_engine(y)))
    assert adjoint.shape == u.shape, (
        f"{case.name}: adjoint in operand {operand} has shape {adjoint.shape}, not {u.shape}"
    )
    left = (result - constant).astype(np.float64) * y
    right = u.astype(np.float64) * adjoint
    scale = 1 + np.abs(left).sum() + np.abs(right).sum()
    difference = abs(left.sum() - right.sum()) / scale
    assert difference <= TOLERANCE[u.dtype], (
        f"{case.name}: adjoint in operand {operand} is off by {difference:.1e} of its terms"
    )


def assert_close(result: np.ndarray, expected: np.ndarray, message: str) -> None:
    """|result - expected| <= tolerance * the largest number expected; integers, NaN and infinity must be equal.

    The largest, because a sum that happens to cancel carries the rounding errors of its terms.
    """
    assert result.shape == expected.shape, f"{message}: shape {result.shape}, not {expected.shape}"
    assert result.dtype == expected.dtype, f"{message}: dtype {result.dtype}, not {expected.dtype}"
    tolerance = TOLERANCE.get(expected.dtype, 0)
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    with np.errstate(invalid="ignore"):
        near = np.abs(result - expected) <= tolerance * scale
    equal = near | (result == expected) | (np.isnan(result) & np.isnan(expected))
    wrong = np.argwhere(~equal)
    lines = [f"  at {tuple(map(int, at))}: {result[tuple(at)]!r}, not {expected[tuple(at)]!r}" for at in wrong[:5]]
    assert not len(wrong), "\n".join([f"{message} in {len(wrong)} of {result.size} places", *lines])


def in_memory(array: np.ndarray, memory: str) -> np.ndarray:
    """The same numbers, lying differently: kernels must not mind."""
    if memory == "channels last":
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if memory == "sliced":
        room = np.full([2 * size + 1 for size in array.shape], 77, array.dtype)
        view = room[tuple(slice(1, None, 2) for _ in array.shape)]
        view[...] = array
        return view
    if memory == "reversed":
        backwards = tuple(slice(None, None, -1) for _ in array.shape)
        return array[backwards].copy()[backwards]
    array = array.copy()
    array.flags.writeable = memory != "read-only"
    return array


@st.composite
def images(draw: st.DrawFn, shape: tuple[int, ...], dtype: Any, special: bool = True) -> np.ndarray:
    """Random numbers in random memory; some are small integers (for ties), some hold NaN or infinity, few or many."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        array = rng.standard_normal(shape).astype(dtype)
    else:
        array = rng.integers(-2, 3, shape).astype(dtype)
    if special and array.size and draw(st.integers(0, 4)) == 0:
        count = draw(st.sampled_from([1, 3, 4 * array.size]))
        array.flat[rng.integers(0, array.size, count)] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    return in_memory(array, draw(st.sampled_from(MEMORY)))
