"""What the harness does not reach of the CUDA versions of RoIPool and RoIAlign: boxes that nobody checked, lists."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels import emulator
from minidet_kernels.emulator import counted, emulated
from tests.kernels.harness import assert_close, engine

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))


@pytest.fixture(params=[f"emulated {order}" for order in emulator.ORDERS])
def version(request) -> str:
    return request.param


X = np.arange(1.0, 2 * 3 * 5 * 6 + 1).reshape(2, 3, 5, 6)
GOOD = [1, 0, 0, 4, 3]
BAD = {
    "no such image": [2, 0, 0, 4, 3],
    "image -1": [-1, 0, 0, 4, 3],
    "half an image": [0.5, 0, 0, 4, 3],
    "image far beyond any int": [1e30, 0, 0, 4, 3],
    "image NaN": [np.nan, 0, 0, 4, 3],
    "image infinite": [np.inf, 0, 0, 4, 3],
    "coordinate NaN": [0, 0, np.nan, 4, 3],
    "coordinate infinite": [0, -np.inf, 0, 4, 3],
    "coordinate far beyond any int": [0, 0, 0, 1e30, 3],
    "x2 < x1": [0, 4, 0, 0, 3],
    "y2 < y1": [0, 0, 3, 4, 0],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", BAD)
def test_a_box_that_would_be_refused_has_no_pixels(version: str, bad: str, dtype: type) -> None:
    """And nothing outside the image is read for it, which the address sanitizer would see."""
    boxes, x = np.array([BAD[bad], GOOD], dtype), X.astype(dtype)
    with mk.use("reference"):
        values, argmax = mk.roi_pool(x, boxes[1:], (2, 3))
        aligned = mk.roi_align(x, boxes[1:], (2, 3))
    with engine(version) as (to_engine, to_host):
        there = to_engine(boxes)
        pooled = [to_host(array) for array in mk.roi_pool(to_engine(x), there, (2, 3))]
        assert not pooled[0][0].any()
        assert (pooled[1][0] == -1).all()
        np.testing.assert_array_equal(pooled[0][1:], values)
        np.testing.assert_array_equal(pooled[1][1:], argmax)
        result = to_host(mk.roi_align(to_engine(x), there, (2, 3)))
        assert not result[0].any()
        assert_close(result[1:], aligned, "roi_align")


@pytest.mark.parametrize("bad", BAD)
def test_its_gradient_goes_nowhere(version: str, bad: str) -> None:
    boxes, grad = np.array([BAD[bad], GOOD], float), np.ones((2, 3, 2, 2))
    with engine(version) as (to_engine, to_host):
        there, share = to_engine(boxes), to_engine(grad)
        both = to_host(mk.roi_align_adjoint(share, there, X.shape))
        good = to_host(mk.roi_align_adjoint(to_engine(grad[1:]), to_engine(boxes[1:]), X.shape))
        np.testing.assert_array_equal(both, good)
        assert good.sum() == pytest.approx(12)
        if "image" not in bad:
            return  # of gather and scatter the coordinates do not matter
        argmax = to_engine(np.full((2, 3, 2, 2), 7, np.int32))
        x_grad = to_host(mk.roi_pool_scatter(share, there, argmax, X.shape))
        assert x_grad.sum() == 12
        assert (x_grad[1, :, 1, 1] == 4).all()
        values = to_host(mk.roi_pool_gather(to_engine(X), there, argmax))
        assert not values[0].any()
        np.testing.assert_array_equal(values[1], np.broadcast_to(X[1, :, 1, 1, None, None], (3, 2, 2)))


def test_an_argmax_outside_the_map_is_skipped(version: str) -> None:
    boxes = np.array([GOOD, GOOD, GOOD, GOOD], float)
    argmax = np.array([-1, -2, 30, 2**31 - 1], np.int32).reshape(4, 1, 1, 1)
    with engine(version) as (to_engine, to_host):
        there = to_engine(boxes), to_engine(argmax)
        assert not to_host(mk.roi_pool_gather(to_engine(X[:, :1]), *there)).any()
        assert not to_host(mk.roi_pool_scatter(to_engine(np.ones((4, 1, 1, 1))), *there, (2, 1, 5, 6))).any()


def test_a_list_of_boxes_for_each_image_is_the_same_and_nobody_waits(version: str) -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 5, (5, 2, 2)), axis=1).reshape(5, 4)
    rois = np.concatenate([[[0], [0], [1], [1], [1]], corners], axis=1)
    grad = rng.standard_normal((5, 3, 2, 2))
    with engine(version) as (to_engine, to_host):
        x, of_all, of_each = to_engine(X), to_engine(rois), [to_engine(corners[:2]), to_engine(corners[2:])]
        share = to_engine(grad)
        with counted() as counts:
            results = []
            for boxes in (of_all, of_each):
                values, argmax = mk.roi_pool(x, boxes, 2)
                gathered = mk.roi_pool_gather(x, boxes, argmax)
                scattered = mk.roi_pool_scatter(share, boxes, argmax, X.shape)
                aligned = mk.roi_align(x, boxes, 2)
                adjoint = mk.roi_align_adjoint(share, boxes, X.shape)
                results.append((values, argmax, gathered, scattered, aligned, adjoint))
        assert counts.waits == 0
        for of_rois, of_list in zip(*results, strict=True):
            np.testing.assert_array_equal(to_host(of_rois), to_host(of_list))
        none = [to_engine(corners[:0]), to_engine(corners[:0])]
        assert mk.roi_align(x, none, 2).shape == (0, 3, 2, 2)


@pytest.mark.parametrize("aligned", [False, True])
def test_a_box_much_larger_than_the_map_is_soon_done(version: str, aligned: bool) -> None:
    """A million samples each way, of which a few lie on the map; in the adjoint too."""
    boxes = np.array([[0, -(2.0**20), -(2.0**20), 2.0**20, 2.0**20], [1, -(2.0**19), 2, 5, 2.0**18]])
    with mk.use("reference"):
        expected = mk.roi_align(X, boxes, (3, 1), aligned=aligned)
        adjoint = mk.roi_align_adjoint(1e9 * expected, boxes, X.shape, aligned=aligned)
    assert expected[0].any()
    with engine(version) as (to_engine, to_host):
        result = to_host(mk.roi_align(to_engine(X), to_engine(boxes), (3, 1), aligned=aligned))
        np.testing.assert_allclose(result, expected, rtol=1e-9)
        there = to_engine(1e9 * expected), to_engine(boxes)
        np.testing.assert_allclose(to_host(mk.roi_align_adjoint(*there, X.shape, aligned=aligned)), adjoint, rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, boxes: mk.roi_pool(x, boxes, 2, spatial_scale=0), ValueError, "spatial_scale"),
        (lambda x, boxes: mk.roi_pool(x, boxes[:, 1:], 2), ValueError, r"R, 5"),
        (lambda x, boxes: mk.roi_pool(x, [boxes[:, 1:]], 2), ValueError, "2 in all, got 1"),
        (lambda x, boxes: mk.roi_align(x, boxes.astype(np.float32), 2), TypeError, "boxes float32"),
        (lambda x, boxes: mk.roi_align(x, boxes.get(), 2), TypeError, "all arrays on one device"),
        (lambda x, boxes: mk.roi_align(x, boxes, 2, sampling_ratio=1025), ValueError, "sampling_ratio"),
        (lambda x, boxes: mk.roi_pool_gather(x, boxes, boxes.astype(np.int64)), ValueError, "argmax"),
    ],
)
def test_shapes_and_dtypes_are_refused_as_on_the_cpu(call, error, message: str) -> None:
    with emulated():
        import cupy

        with pytest.raises(error, match=message):
            call(cupy.zeros((2, 3, 5, 6)), cupy.zeros((1, 5)))
