"""Winograd's convolution: equal to the definition but for its own rounding, in all of its ways."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minidet_kernels as mk
from tests.kernels.harness import Call, images

if mk.available()["cpu"] is not None:
    pytest.skip(f"Winograd's method is of the cpu version: {mk.available()['cpu']}", allow_module_level=True)

from minidet_kernels.convolution import choice, direct, winograd, winograd_weights
from minidet_kernels.convolution.winograd_tiles import Method

# Of the largest result, by the pixels of a tile's side; a wrong transform is off by 1e-1, float32 summed directly by
# 1e-6.
TOLERANCE = {2: 5e-6, 4: 3e-5}
CHANNELS = st.sampled_from([16, 32, 48, 144])
METHODS = {
    f"{pixels} x {pixels}, by {'outputs' if by_outputs else 'tiles'}": Method(pixels, by_outputs)
    for pixels in (2, 4)
    for by_outputs in (False, True)
}


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


def assert_close(result: np.ndarray, expected: np.ndarray, method: Method) -> None:
    assert result.shape == expected.shape
    assert result.dtype == np.float32
    difference = np.abs(result - expected).max(initial=0)
    assert difference <= TOLERANCE[method.pixels] * np.abs(expected).max(initial=1), f"off by {difference}"


@pytest.mark.parametrize("name", METHODS)
def test_it_equals_the_definition(name: str) -> None:
    method = METHODS[name]

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(geometries())
    def properties(call: Call) -> None:
        (x, weight, bias, y), padding = call.arrays, call.options["padding"]
        before = [array.tobytes() for array in (x, weight, y)]
        results = [
            winograd.conv2d(x, weight, bias, padding, method),
            winograd.conv2d_input_grad(y, weight, padding, method),
            winograd_weights.conv2d_weight_grad(x, y, padding, method),
        ]
        wide = [np.asarray(array, np.float64) for array in (x, weight, y)]
        with mk.use("reference"):
            expected = [
                mk.conv2d(wide[0], wide[1], None if bias is None else bias.astype(np.float64), padding=padding),
                mk.conv2d_input_grad(wide[2], wide[1], x.shape[2:], padding=padding),
                mk.conv2d_weight_grad(wide[0], wide[2], 3, padding=padding),
            ]
        for result, right in zip(results, expected, strict=True):
            assert_close(result, right, method)
        assert [array.tobytes() for array in (x, weight, y)] == before
        assert results[0].tobytes() == winograd.conv2d(x, weight, bias, padding, method).tobytes()
        assert results[2].tobytes() == winograd_weights.conv2d_weight_grad(x, y, padding, method).tobytes()

    properties()


@pytest.mark.parametrize("name", METHODS)
def test_many_blocks_and_passes(name: str) -> None:
    """More tiles than a block holds, more channels than a pass sums."""
    method = METHODS[name]
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 272, 41, 39)), rng.standard_normal((80, 272, 3, 3))
    y = rng.standard_normal((2, 80, 41, 39))
    x, weight, y = (array.astype(np.float32) for array in (x, weight, y))
    with mk.exact(), mk.use("cpu"):
        expected = [
            mk.conv2d(x, weight, padding=1),
            mk.conv2d_input_grad(y, weight, (41, 39), padding=1),
            mk.conv2d_weight_grad(x, y, 3, padding=1),
        ]
    assert_close(winograd.conv2d(x, weight, None, (1, 1), method), expected[0], method)
    assert_close(winograd.conv2d_input_grad(y, weight, (1, 1), method), expected[1], method)
    assert_close(winograd_weights.conv2d_weight_grad(x, y, (1, 1), method), expected[2], method)


def test_a_nan_stays_within_its_tiles() -> None:
    x = np.zeros((1, 16, 16, 16), np.float32)
    x[0, 3, 5, 5] = np.nan  # seen by one tile of results only: rows 4 to 7, columns 4 to 7
    y = winograd.conv2d(x, np.ones((16, 16, 3, 3), np.float32), None, (1, 1), Method(4, by_outputs=False))
    wrong = np.isnan(y)
    assert wrong[:, :, 4:7, 4:7].all()  # the 3 x 3 results whose sum contains it
    wrong[:, :, 4:8, 4:8] = False
    assert not wrong.any()


def test_it_is_taken_where_it_is_faster_and_never_within_exact(monkeypatch) -> None:
    taken = []
    modules = {"conv2d": winograd, "conv2d_input_grad": winograd, "conv2d_weight_grad": winograd_weights}
    for name, module in modules.items():
        monkeypatch.setattr(module, name, lambda *arguments, name=name: taken.append(name))
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
    assert choice.FEWEST_TILES == 32


@pytest.mark.parametrize(
    ("shape", "forward", "weight_grad"),
    [
        ((1, 16, 16, (16, 16)), None, None),  # 16 tiles
        ((4, 16, 32, (16, 16)), "4 x 4, by tiles", "4 x 4, by tiles"),
        ((1, 512, 512, (7, 7)), "2 x 2, by outputs", "2 x 2, by outputs"),
        ((1, 512, 512, (14, 14)), "4 x 4, by outputs", "4 x 4, by outputs"),
        ((1, 64, 64, (14, 14)), "4 x 4, by outputs", "4 x 4, by outputs"),
        ((1, 64, 64, (224, 224)), "4 x 4, by tiles", "4 x 4, by tiles"),
        ((4, 128, 128, (56, 56)), "4 x 4, by tiles", "4 x 4, by outputs"),
        ((4, 256, 256, (28, 28)), "4 x 4, by outputs", "4 x 4, by outputs"),
    ],
)
def test_the_table_of_shapes(shape: tuple, forward: str | None, weight_grad: str | None) -> None:
    assert choice.forward(*shape) == (forward and METHODS[forward])
    assert choice.weight_grad(*shape) == (weight_grad and METHODS[weight_grad])


def test_small_tiles_are_nearly_as_exact_as_the_direct_sum() -> None:
    """Root mean square errors at 256 channels, against the sum in float64."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 256, 12, 12)), rng.standard_normal((64, 256, 3, 3))
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    with mk.use("reference"):
        right = mk.conv2d(x.astype(np.float64), weight.astype(np.float64), padding=1)

    def error(y: np.ndarray) -> float:
        return np.sqrt(np.mean((y - right) ** 2) / np.mean(right**2))

    of_direct = error(direct.conv2d(x, weight, None, (1, 1), (1, 1)))
    of_small, of_large = (error(winograd.conv2d(x, weight, None, (1, 1), Method(side, True))) for side in (2, 4))
    assert of_direct < 1e-6
    assert of_small < 2 * of_direct
    assert of_small < of_large < 5e-6


def test_exact_is_over_at_its_end_also_after_an_error() -> None:
    x, weight = np.random.default_rng(0).standard_normal((2, 2, 16, 20, 20)).astype(np.float32)[:, :, :16]
    weight = weight[:1, :, :3, :3].repeat(16, axis=0)
    plain = mk.conv2d(x, weight)
    with mk.exact():
        assert not np.array_equal(mk.conv2d(x, weight), plain)
    with pytest.raises(ZeroDivisionError), mk.exact():
        raise ZeroDivisionError
    assert np.array_equal(mk.conv2d(x, weight), plain)
