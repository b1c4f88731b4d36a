"""Sizes that no memory holds, and whose products overflow: refused in words, before any memory is asked for."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels.emulator import why_not
from tests.kernels.harness import engine

HUGE = (2**40, 2**40)
X = np.ones((1, 3, 8, 8), np.float32)
WEIGHT = np.ones((4, 3, 3, 3), np.float32)
GRAD = np.ones((1, 4, 6, 6), np.float32)
BOXES = [np.array([[0, 0, 4, 4]], np.float32)]
MATRICES = np.array([[[1, 0, 0], [0, 1, 0]]], float)

CALLS = {
    "conv2d a padded image": lambda: mk.conv2d(X, WEIGHT, padding=HUGE),
    "conv2d_input_grad input_size": lambda: mk.conv2d_input_grad(GRAD, WEIGHT, HUGE),
    "conv2d_weight_grad kernel_size": lambda: mk.conv2d_weight_grad(X, GRAD, HUGE),
    "max_pool2d_scatter input_size": lambda: mk.max_pool2d_scatter(X, np.zeros(X.shape, np.int64), HUGE),
    "avg_pool2d_adjoint input_size": lambda: mk.avg_pool2d_adjoint(X, HUGE, 3),
    "resize_bilinear size": lambda: mk.resize_bilinear(X, HUGE),
    "resize_bilinear_adjoint input_size": lambda: mk.resize_bilinear_adjoint(X, HUGE),
    "resize_nearest size": lambda: mk.resize_nearest(X, HUGE),
    "affine_warp output_size": lambda: mk.affine_warp(X, MATRICES, HUGE),
    "affine_warp_adjoint input_size": lambda: mk.affine_warp_adjoint(X, MATRICES, HUGE),
    "roi_align output_size": lambda: mk.roi_align(X, BOXES, HUGE),
    "roi_align_adjoint input_size": lambda: mk.roi_align_adjoint(X, BOXES, (1, 3, *HUGE)),
    "roi_pool output_size": lambda: mk.roi_pool(X, BOXES, HUGE),
}


@pytest.mark.parametrize("version", ["reference", "cpu"])
@pytest.mark.parametrize("call", CALLS)
def test_a_huge_size_is_refused_by_name(call: str, version: str) -> None:
    if mk.available()[version] is not None:
        pytest.skip(mk.available()[version])
    operation, _, argument = call.partition(" ")
    with mk.use(version), pytest.raises(ValueError, match=rf"^{operation}: expected {argument}.*, got \("):
        CALLS[call]()


@pytest.mark.parametrize("version", ["reference", "cpu"])
def test_a_huge_stride_or_dilation_of_a_small_image_is_no_work(version: str) -> None:
    if mk.available()[version] is not None:
        pytest.skip(mk.available()[version])
    with mk.use(version):
        point, line = np.ones((1, 4, 1, 1), np.float32), np.ones((4, 3, 1, 1), np.float32)
        np.testing.assert_array_equal(
            mk.conv2d_input_grad(point, WEIGHT, (3, 3), stride=2**62), np.full((1, 3, 3, 3), 4)
        )
        np.testing.assert_array_equal(mk.conv2d_weight_grad(X, point, 3, stride=2**62), WEIGHT)
        np.testing.assert_array_equal(mk.conv2d(X, line, dilation=2**62), np.full((1, 4, 8, 8), 3))


@pytest.mark.parametrize("version", ["reference", "cpu", "emulated forward"])
def test_pooling_makes_no_step_that_is_longer_than_the_image(version: str) -> None:
    """A step of 2**62 fits into no int of the GPU, and none is made: there is one window."""
    reason = why_not() if version.startswith("emulated") else mk.available()[version]
    if reason is not None:
        pytest.skip(reason)
    x = np.arange(64.0).reshape(1, 1, 8, 8)
    with engine(version) as (to_engine, to_host):
        there = to_engine(x)
        values, indices = mk.max_pool2d(there, 2, stride=2**62, ceil_mode=True)
        assert (to_host(values).item(), to_host(indices).item()) == (9, 9)
        values, _ = mk.max_pool2d(there, 1, stride=1, dilation=2**62)
        np.testing.assert_array_equal(to_host(values), x)
        mean = mk.avg_pool2d(there, 2, stride=(2**62, 3), padding=1)
        np.testing.assert_array_equal(to_host(mean), [[[[0, (2 + 3) / 4, (5 + 6) / 4]]]])
        grad = to_host(mk.avg_pool2d_adjoint(mean, (8, 8), 2, stride=(2**62, 3), padding=1))
        np.testing.assert_array_equal(grad[0, 0, 0], np.array([0, 0, 5, 5, 0, 11, 11, 0]) / 16)
        assert not grad[0, 0, 1:].any()
