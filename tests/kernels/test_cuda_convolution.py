"""The implicit matrix product on the GPU, emulated: larger than its tiles, split among blocks, in phases."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels import emulator
from minidet_kernels.emulator import counted, emulated
from tests.kernels.harness import assert_close

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))


def all_three(x, weight, y, **geometry) -> list:
    return [
        mk.conv2d(x, weight, **geometry),
        mk.conv2d_input_grad(y, weight, x.shape[2:], **geometry),
        mk.conv2d_weight_grad(x, y, weight.shape[2:], **geometry),
    ]


def emulated_results(order: str, *arrays: np.ndarray, **geometry) -> list[np.ndarray]:
    with emulated(order), mk.exact():
        import cupy

        return [result.get() for result in all_three(*map(cupy.asarray, arrays), **geometry)]


@pytest.mark.parametrize("order", emulator.ORDERS)
@pytest.mark.parametrize(
    ("layer", "geometry"),
    [
        ((1, 70, 130, 13, 3), {"padding": 1}),  # three rows of tiles, sums that blocks share
        ((2, 5, 8, 40, 7), {"padding": 3, "stride": 4}),  # 16 phases of the input gradient
        ((1, 6, 9, 20, 3), {"padding": 2, "stride": (4, 6), "dilation": (2, 4), "groups": 3}),  # phases with gaps
        ((3, 9, 17, 12, 1), {"stride": 3}),  # most pixels of no phase
        ((1, 300, 3, 9, 1), {}),  # a sum over channels only
    ],
)
def test_it_equals_float64(layer, geometry, order: str) -> None:
    n, c, k, size, kernel = layer
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, c, size, size + 5)).astype(np.float32)
    weight = rng.standard_normal((k, c // geometry.get("groups", 1), kernel, kernel)).astype(np.float32)
    with mk.use("reference"):
        y = mk.conv2d(x, weight, **geometry)
        expected = all_three(*(array.astype(np.float64) for array in (x, weight, y)), **geometry)
    for result, right in zip(emulated_results(order, x, weight, y, **geometry), expected, strict=True):
        assert_close(result, right.astype(np.float32), "differs from float64")


@pytest.mark.parametrize("padding", [0, 1, (3, 0)])
@pytest.mark.parametrize("stride", [7, (10**15, 3), 2**62])
def test_a_stride_longer_than_the_image(stride, padding) -> None:
    rng = np.random.default_rng(0)
    x, weight = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 6, 5), (4, 3, 3, 3)))
    with mk.use("reference"):
        y = mk.conv2d(x, weight, None, stride, padding)
        expected = all_three(x, weight, y, stride=stride, padding=padding)
    for result, right in zip(
        emulated_results("forward", x, weight, y, stride=stride, padding=padding), expected, strict=True
    ):
        assert_close(result, right, "differs from the reference")


def test_no_product_is_with_a_zero_between_two_steps_of_the_stride() -> None:
    """Stride 2: four phases, of 1, 2, 2 and 4 of the 9 taps. A pixel of 1 x 1 with stride 2: one phase."""
    with emulated():
        import cupy

        host_code = importlib.import_module("minidet_kernels.convolution.cuda")
        axis, _ = host_code._axes((8, 8), (3, 3), (4, 4), (2, 2), (1, 1), (1, 1))
        assert [(phase.first, phase.count, phase.taps) for phase in host_code._phases(axis)] == [(1, 4, 2), (0, 4, 1)]
        y, weight = cupy.ones((1, 2, 4, 4), np.float32), cupy.ones((2, 3, 1, 1), np.float32)
        with counted() as counts:
            mk.conv2d_input_grad(y, weight, (8, 8), stride=2)
        assert counts.launches == 1


@pytest.mark.parametrize("size", [1, 64 * 64, 10**7])
@pytest.mark.parametrize("blocks", [0, 1, 3, 511, 512, 10**6])
@pytest.mark.parametrize("depth", [0, 1, 64, 127, 10**4, 10**8])
def test_the_parts_of_a_sum_fill_the_gpu_and_are_bounded(blocks: int, depth: int, size: int) -> None:
    with emulated():
        host_code = importlib.import_module("minidet_kernels.convolution.cuda")
    parts = host_code._parts(blocks, depth, size)
    assert parts == 1 or parts * blocks <= 512
    assert parts == 1 or parts * size <= 512 * 64 * 64
    assert parts == 1 or depth // parts >= 64
    assert host_code._part_depth(depth, parts) * parts >= depth
    assert host_code._part_depth(depth, parts) % 16 == 0
    assert host_code._parts(3, 10**6, 3 * 64 * 64) == 170
