"""Winograd's convolution on the GPU, emulated: equal to the definition in float64 but for its own rounding."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import minidet_kernels as mk
from minidet_kernels import emulator
from minidet_kernels.emulator import emulated
from tests.kernels.cases.drawing import CHANNELS, pairs
from tests.kernels.harness import Call, images
from tests.kernels.planted import planted

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))

TOLERANCE = 3e-5  # of the largest result; a wrong transform is off by 1e-1, float32 summed directly by 1e-6
NAMES = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")
TILE = 36 * 64  # numbers that a slab holds of each channel, if it holds one block of tiles only


@st.composite
def geometries(draw: st.DrawFn) -> Call:
    """x, weight, bias, y and the padding of a 3 x 3 convolution, in any memory."""
    padding = draw(pairs(0, 3))
    size = tuple(draw(st.integers(max(1, 3 - 2 * p), 21)) for p in padding)
    n, c, k = draw(st.integers(1, 3)), draw(CHANNELS), draw(CHANNELS)
    x = draw(images((n, c, *size), np.float32, special=False))
    weight = draw(images((k, c, 3, 3), np.float32, special=False))
    y = draw(images((n, k, size[0] + 2 * padding[0] - 2, size[1] + 2 * padding[1] - 2), np.float32, special=False))
    bias = draw(st.sampled_from([None, np.arange(k, dtype=np.float32)]))
    return Call((x, weight, bias, y), {"padding": padding})


@contextmanager
def always(order: str, slab: int) -> Iterator[ModuleType]:
    """Within it arrays are on the emulated GPU, and any 3 x 3 convolution takes Winograd's method, in small slabs."""
    with emulated(order), pytest.MonkeyPatch.context() as patch:
        host_code = importlib.import_module("minidet_kernels.convolution.cuda")
        patch.setattr(host_code, "LEAST_CHANNELS", 1)
        patch.setattr(host_code, "FEWEST_TILES", 1)
        patch.setattr(host_code, "SLAB", slab)
        patch.setattr(host_code, "_correlate", None)
        yield host_code


def all_three(x, weight, bias, y, padding) -> list[np.ndarray]:
    """In whatever version is chosen."""
    return [
        mk.conv2d(x, weight, bias, padding=padding),
        mk.conv2d_input_grad(y, weight, x.shape[2:], padding=padding),
        mk.conv2d_weight_grad(x, y, 3, padding=padding),
    ]


def check(call: Call, order: str, slab: int) -> None:
    padding = call.options["padding"]
    with mk.use("reference"):
        expected = all_three(*(None if a is None else np.asarray(a, np.float64) for a in call.arrays), padding)
    with always(order, slab):
        import cupy

        on_device = [None if a is None else cupy.asarray(np.ascontiguousarray(a)) for a in call.arrays]
        results = [result.get() for result in all_three(*on_device, padding)]
        again = [result.get() for result in all_three(*on_device, padding)]
    for name, result, right, repeated in zip(NAMES, results, expected, again, strict=True):
        assert result.shape == right.shape
        assert result.dtype == np.float32
        difference = np.abs(result - right).max(initial=0) / np.abs(right).max(initial=1)
        assert difference <= TOLERANCE, f"{name} is off by {difference}"
        assert result.tobytes() == repeated.tobytes()


def check_often(order: str, slab: int, examples: int, phases=tuple(Phase)) -> None:
    @settings(max_examples=examples, deadline=None, phases=phases, suppress_health_check=[HealthCheck.too_slow])
    @given(geometries())
    def properties(call: Call) -> None:
        check(call, order, slab)

    properties()


@pytest.mark.parametrize("slab", [1, 1 << 24], ids=["many slabs", "one slab"])
@pytest.mark.parametrize("order", emulator.ORDERS)
def test_it_equals_the_definition(order: str, slab: int) -> None:
    check_often(order, slab, 30)
