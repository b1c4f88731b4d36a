"""Winograd's convolution on the GPU, emulated: equal to the definition in float64 but for its own rounding."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
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
SLABS = {"many slabs": 1, "one slab": 1 << 24}  # the least that a slab can be is a block of 64 tiles

# `old` becomes `new` in winograd.cuh
MUTANTS = {
    "wrong coefficient of the image": ("v[5 * step] = 4 * d1 - 5 * d3 + d5", "v[5 * step] = 4 * d1 - 4 * d3 + d5"),
    "wrong coefficient of the products": ("8 * (m3 - m4) + m5", "4 * (m3 - m4) + m5"),
    "wrong coefficient of grad": ("- (2 * y1 + 8 * y3)", "- (2 * y1 + 4 * y3)"),
    "wrong coefficient of the weights": ("TWELFTH * g1;\n    v[5", "SIXTH * g1;\n    v[5"),
    "wrong coefficient of the weights' gradient": ("TWELFTH * (m3 - m4)", "SIXTH * (m3 - m4)"),
    "weights not turned": ("taps[turned ? 8 - tap : tap]", "taps[tap]"),
    "columns' padding for the rows": ("at.row - padding_h", "at.row - padding_w"),
    "column of pixels outside": (" && unsigned(left + column) < unsigned(w)", " && left + column < w"),
    "tiles of the first image": ("tile / (down * across), tile / across % down", "0, tile / across % down"),
    "first slab again and again": ("const int tile = first + i % tiles", "const int tile = i % tiles"),
    "a part forgotten": ("part < parts; part++)\n            tile", "part < 1; part++)\n            tile"),
    "only the last slab": ("more ? sum + value : value", "value"),
    "last channels left out": (
        "part_of_sum(rows, columns, depth, 0, depth)",
        "part_of_sum(rows, columns, depth, 0, depth / 16 * 16)",
    ),
}


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


@pytest.mark.parametrize("slab", SLABS)
@pytest.mark.parametrize("order", emulator.ORDERS)
def test_it_equals_the_definition(order: str, slab: str) -> None:
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(geometries())
    def properties(call: Call) -> None:
        check(call, order, SLABS[slab])

    properties()


def layer(n: int, c: int, k: int, size: int) -> Call:
    rng = np.random.default_rng(0)
    shapes = ((n, c, size, size), (k, c, 3, 3), (k,), (n, k, size + 2, size))
    return Call(tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes), {"padding": (2, 1)})


@pytest.mark.parametrize("slab", SLABS)
def test_many_channels_and_parts(slab: str) -> None:
    check(layer(1, 272, 80, 17), "reverse", SLABS[slab])
    check(layer(2, 3, 70, 38), "random", SLABS[slab])  # 200 tiles: of one slab blocks share the sums


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(mutant: str) -> None:
    def check_all_slabs() -> None:
        for slab in SLABS.values():
            check(layer(2, 17, 5, 38), "forward", slab)

    check_all_slabs()
    with planted("convolution", *MUTANTS[mutant]), pytest.raises(AssertionError, match="is off by"):
        check_all_slabs()


def test_a_nan_stays_within_its_tiles() -> None:
    x = np.zeros((1, 16, 16, 16), np.float32)
    x[0, 3, 5, 5] = np.nan  # seen by one tile of results only: rows 4 to 7, columns 4 to 7
    with always("forward", SLABS["one slab"]):
        import cupy

        y = mk.conv2d(cupy.asarray(x), cupy.ones((16, 16, 3, 3), np.float32), padding=1).get()
    wrong = np.isnan(y)
    assert wrong[:, :, 4:7, 4:7].all()  # the 3 x 3 results whose sum contains it
    wrong[:, :, 4:8, 4:8] = False
    assert not wrong.any()


def test_it_is_taken_where_it_is_faster_and_never_within_exact(monkeypatch) -> None:
    with emulated():
        import cupy

        host_code = importlib.import_module("minidet_kernels.convolution.cuda")
        launched = []
        monkeypatch.setattr(host_code.SOURCE, "launch", lambda kernel, *_: launched.append(kernel))

        def kernels(c=64, k=64, size=32, dtype=np.float32, kernel=3, stride=1, **geometry) -> set[str]:
            launched.clear()
            x, weight = cupy.zeros((1, c, size, size), dtype), cupy.zeros((k, c, kernel, kernel), dtype)
            y = mk.conv2d(x, weight, stride=stride, padding=kernel // 2, **geometry)
            mk.conv2d_input_grad(y, weight, x.shape[2:], stride=stride, padding=kernel // 2, **geometry)
            mk.conv2d_weight_grad(x, y, weight.shape[2:], stride=stride, padding=kernel // 2, **geometry)
            return set(launched) & {"correlate", "weight_gradient", "sum_over_channels", "sum_over_tiles"}

        assert kernels() == {"sum_over_channels", "sum_over_tiles"}
        direct = {"correlate", "weight_gradient"}
        with mk.exact():
            assert kernels() == direct
        assert kernels(size=28) == direct  # 49 tiles
        assert kernels(c=63) == kernels(k=63) == direct
        assert kernels(kernel=1) == kernels(kernel=5) == kernels(stride=2) == direct
        assert kernels(dtype=np.float64) == direct


@pytest.mark.parametrize("channels", [2, 128, 1024, 100_000])
@pytest.mark.parametrize("tiles", [1, 64, 65, 5000, 2**20 + 1])
def test_slabs_are_all_tiles_once_and_bounded(tiles: int, channels: int) -> None:
    with emulated():
        host_code = importlib.import_module("minidet_kernels.convolution.cuda")
    slabs, most = host_code._slabs(tiles, channels)
    assert [first for first, _ in slabs] == list(np.cumsum([0, *(count for _, count in slabs[:-1])]))
    assert sum(count for _, count in slabs) == tiles
    assert max(count for _, count in slabs) == most
    assert most <= 64 or 36 * channels * most <= host_code.SLAB
