"""RoIPool and RoIAlign on Tensors against formulas in torch: values, gradients, gradients of gradients; minidet.ops."""

import inspect

import numpy as np
import pytest

import minidet
import minidet.functional as F
import minidet_kernels as kernels
from minidet import ops
from tests.functional.oracle import DTYPES, LAYOUTS, check, laid_out
from tests.kernels import rois_oracle

# Two that overlap, one on the other image, one beyond the border, one outside; no place where rounding decides.
ROIS = np.array(
    [[0, 0.3, 0.2, 5.1, 7.3], [0, 2.2, 1.1, 7.4, 6], [1, 3, 2, 4.3, 3.9], [1, 6.1, 5, 12.6, 9], [0, 30, 30, 34, 32]]
)


@pytest.mark.parametrize("version", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_they_equal_the_formulas(version, dtype, layout):
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    x = laid_out(np.random.default_rng(0).standard_normal((2, 70, 5, 6)).astype(dtype), layout)
    boxes = ROIS.astype(dtype)
    theirs = torch.tensor(boxes)
    with kernels.use(version):
        check(
            lambda a: F.roi_pool(a, boxes, (2, 3), 0.5),
            lambda a: rois_oracle.roi_pool(torch, a, theirs, (2, 3), 0.5)[0],
            x,
        )
        for ratio in (-1, 2):
            for aligned in (False, True):
                check(
                    lambda a, r=ratio, half=aligned: F.roi_align(a, boxes, (2, 3), 0.5, r, half),
                    lambda a, r=ratio, half=aligned: rois_oracle.roi_align(torch, a, theirs, (2, 3), 0.5, r, half),
                    x,
                )


def test_boxes_may_be_tensors_and_are_constants():
    x = minidet.tensor(np.random.default_rng(0).standard_normal((2, 3, 5, 6)), requires_grad=True)
    boxes = minidet.tensor(ROIS, requires_grad=True)
    per_image = [minidet.tensor(ROIS[ROIS[:, 0] == image, 1:]) for image in range(2)]
    order = np.argsort(ROIS[:, 0], kind="stable")  # a list has the boxes image by image
    for function in (F.roi_pool, F.roi_align):
        y = function(x, boxes, 2)
        np.testing.assert_array_equal(y.data, function(x.data, ROIS, 2))
        np.testing.assert_array_equal(y.data[order], function(x, per_image, 2).data)
        x_grad, boxes_grad = minidet.grad(y.sum(), [x, boxes], allow_unused=True)
        assert x_grad.data.any()
        assert boxes_grad is None


def test_ops_have_the_arguments_of_torchvision():
    assert minidet.ops is ops
    assert ops.roi_pool is F.roi_pool
    assert ops.roi_align is F.roi_align
    names = {name: p.default for name, p in inspect.signature(ops.roi_align).parameters.items()}
    empty = inspect.Parameter.empty
    pool = {"input": empty, "boxes": empty, "output_size": empty, "spatial_scale": 1.0}
    assert names == {**pool, "sampling_ratio": -1, "aligned": False}
    assert list(names) == [*pool, "sampling_ratio", "aligned"]
    assert {name: p.default for name, p in inspect.signature(ops.roi_pool).parameters.items()} == pool
