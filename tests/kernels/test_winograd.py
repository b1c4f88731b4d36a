"""Winograd's convolution: equal to the definition but for its own rounding, in both of its schedules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minidet_kernels as mk
from tests.kernels.harness import Call, images

if mk.available()["cpu"] is not None:
    pytest.skip(f"Winograd's method is of the cpu version: {mk.available()['cpu']}", allow_module_level=True)

from minidet_kernels.convolution import cpu, winograd

TOLERANCE = 3e-5  # of the largest result; a wrong transform is off by 1e-1, float32 summed directly by 1e-6
CHANNELS = st.sampled_from([16, 32, 48, 144])
SCHEDULES = {"by tiles": 1 << 40, "by outputs": 0}  # C K up to which threads share out tiles


@st.composite
def geometries(draw: st.DrawFn) -> Call:
    """x, weight, bias, y and the padding of a 3 x 3 convolution, in any memory."""
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    size = tuple(draw(st.integers(max(1, 3 - 2 * p), 13)) for p in padding)
    n, c, k = draw(st.integers(0, 3)), draw(CHANNELS), draw(CHANNELS)
    x = draw(images((n, c, *size), np.float32, special=False))
    weight = draw(images((k, c, 3, 3), np.float32, special=False))
    y = draw(images((n, k, size[0] + 2 * padding[0] - 2, size[1] + 2 * padding[1] - 2), np.float32, special=False))
    bias = draw(st.sampled_from([None, np.arange(k, dtype=np.float32)]))
    return Call((x, weight, bias, y), {"padding": padding})


def assert_close(result: np.ndarray, expected: np.ndarray) -> None:
    assert result.shape == expected.shape
    assert result.dtype == np.float32
    difference = np.abs(result - expected).max(initial=0)
    assert difference <= TOLERANCE * np.abs(expected).max(initial=1), f"off by {difference}"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_equals_the_definition(schedule: str, monkeypatch) -> None:
    monkeypatch.setattr(winograd, "LARGEST_BY_TILES", SCHEDULES[schedule])

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(geometries())
    def properties(call: Call) -> None:
        (x, weight, bias, y), padding = call.arrays, call.options["padding"]
        before = [array.tobytes() for array in (x, weight, y)]
        results = [
            winograd.conv2d(x, weight, bias, padding),
            winograd.conv2d_input_grad(y, weight, padding),
            winograd.conv2d_weight_grad(x, y, padding),
        ]
        wide = [np.asarray(array, np.float64) for array in (x, weight, y)]
        with mk.use("reference"):
            expected = [
                mk.conv2d(wide[0], wide[1], None if bias is None else bias.astype(np.float64), padding=padding),
                mk.conv2d_input_grad(wide[2], wide[1], x.shape[2:], padding=padding),
                mk.conv2d_weight_grad(wide[0], wide[2], 3, padding=padding),
            ]
        for result, right in zip(results, expected, strict=True):
            assert_close(result, right)
        assert [array.tobytes() for array in (x, weight, y)] == before
        assert results[0].tobytes() == winograd.conv2d(x, weight, bias, padding).tobytes()
        assert results[2].tobytes() == winograd.conv2d_weight_grad(x, y, padding).tobytes()

    properties()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_many_blocks_and_passes(schedule: str, monkeypatch) -> None:
    """More tiles than a block holds, more channels than a pass sums."""
    monkeypatch.setattr(winograd, "LARGEST_BY_TILES", SCHEDULES[schedule])
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 272, 41, 39)), rng.standard_normal((80, 272, 3, 3))
    y = rng.standard_normal((2, 80, 41, 39))
    x, weight, y = (array.astype(np.float32) for array in (x, weight, y))
    with mk.exact():
        expected = [
            mk.conv2d(x, weight, padding=1),
            mk.conv2d_input_grad(y, weight, (41, 39), padding=1),
            mk.conv2d_weight_grad(x, y, 3, padding=1),
        ]
    assert_close(winograd.conv2d(x, weight, None, (1, 1)), expected[0])
    assert_close(winograd.conv2d_input_grad(y, weight, (1, 1)), expected[1])
    assert_close(winograd.conv2d_weight_grad(x, y, (1, 1)), expected[2])


def test_a_nan_stays_within_its_tiles() -> None:
    x = np.zeros((1, 16, 16, 16), np.float32)
    x[0, 3, 5, 5] = np.nan  # seen by one tile of results only: rows 4 to 7, columns 4 to 7
    y = winograd.conv2d(x, np.ones((16, 16, 3, 3), np.float32), None, (1, 1))
    wrong = np.isnan(y)
    assert wrong[:, :, 4:7, 4:7].all()  # the 3 x 3 results whose sum contains it
    wrong[:, :, 4:8, 4:8] = False
    assert not wrong.any()


def test_it_is_taken_where_it_is_faster_and_never_within_exact(monkeypatch) -> None:
    taken = []
    for name in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
        monkeypatch.setattr(winograd, name, lambda *arguments, name=name: taken.append(name))
    x, weight = np.zeros((2, 32, 16, 16), np.float32), np.zeros((16, 32, 3, 3), np.float32)
    y = np.zeros((2, 16, 16, 16), np.float32)

    def all_three(x: np.ndarray, weight: np.ndarray, y: np.ndarray, **geometry) -> list[str]:
        taken.clear()
        mk.conv2d(x, weight, **geometry)
        mk.conv2d_input_grad(y, weight, x.shape[2:], **geometry)
        mk.conv2d_weight_grad(x, y, weight.shape[2:], **geometry)
        return list(taken)

    with mk.use("cpu"):
        assert all_three(x, weight, y, padding=1) == ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"]
        with mk.exact():
            assert all_three(x, weight, y, padding=1) == []
        assert all_three(x[:1, :, :8, :8], weight, y[:1, :, :8, :8], padding=1) == []  # 4 tiles: too few
        assert all_three(x, weight, y[:, :, :8, :8], padding=1, stride=2) == []
        assert all_three(x[:, :31], weight[:, :31], y, padding=1) == []
        assert all_three(*(array.astype(np.float64) for array in (x, weight, y)), padding=1) == []
    assert cpu.FEWEST_TILES == 32


def test_exact_is_over_at_its_end_also_after_an_error() -> None:
    x, weight = np.random.default_rng(0).standard_normal((2, 2, 16, 20, 20)).astype(np.float32)[:, :, :16]
    weight = weight[:1, :, :3, :3].repeat(16, axis=0)
    plain = mk.conv2d(x, weight)
    with mk.exact():
        assert not np.array_equal(mk.conv2d(x, weight), plain)
    with pytest.raises(ZeroDivisionError), mk.exact():
        raise ZeroDivisionError
    assert np.array_equal(mk.conv2d(x, weight), plain)
