"""Arguments that look right and are not: what no check of shapes, dtypes or values would find."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels.solvers import polyak_steps

X = np.ones((1, 2, 4, 4), np.float32)
WEIGHT = np.ones((2, 2, 3, 3), np.float32)
INDICES = np.zeros((1, 2, 4, 4), np.int64)
ARGMAX = np.zeros((1, 2, 4, 4), np.int32)
ROIS = np.array([[0, 0, 0, 3, 3]], np.float32)
BOXES, SCORES, IDXS = ROIS[:, 1:], np.ones(1, np.float32), np.zeros(1, np.int64)
MATRICES = np.array([[[1, 0, 0], [0, 1, 0]]], float)
CHANNELS = np.ones(2, np.float32)
ROWS = np.ones((3, 2), np.float32)
IMAGE, LABELS = np.ones((1, 4, 4), np.float32), np.zeros((4, 4), np.int64)
ONE = np.ones(1, np.int64)
FIELD = np.ones((2, 1, 2, 4, 4), np.float32)

# What each operation takes by position: every array of every call must be refused where it is not a plain one.
CALLS = {
    "conv2d": (X, WEIGHT, CHANNELS),
    "conv2d_input_grad": (X[:, :, :2, :2], WEIGHT, (4, 4)),
    "conv2d_weight_grad": (X, X[:, :, :2, :2], 3),
    "max_pool2d": (X, 2),
    "max_pool2d_gather": (X, INDICES),
    "max_pool2d_scatter": (X, INDICES, (4, 4)),
    "avg_pool2d": (X, 2),
    "avg_pool2d_adjoint": (X[:, :, :2, :2], (4, 4), 2),
    "batch_norm": (X, CHANNELS, CHANNELS),
    "batch_norm_backward": (X, X, CHANNELS, CHANNELS, CHANNELS),
    "relu": (X,),
    "relu_backward": (X, X),
    "linear": (ROWS, ROWS, CHANNELS[[0, 1, 0]]),
    "linear_input_grad": (ROWS[:, [0, 1, 0]], ROWS),
    "linear_weight_grad": (ROWS, ROWS),
    "resize_bilinear": (X, 3),
    "resize_bilinear_adjoint": (X, 3),
    "resize_nearest": (X, 3),
    "resize_nearest_adjoint": (X, 3),
    "affine_warp": (X, MATRICES),
    "affine_warp_adjoint": (X, MATRICES, 4),
    "affine_warp_gram": (MATRICES, 4, 4),
    "gram_product": (X, np.ones((5, 4, 4), np.float32)),
    "image_gradient": (X,),
    "image_gradient_adjoint": (FIELD,),
    "tv_anisotropic": (X,),
    "tv_isotropic": (X,),
    "tv_anisotropic_subgradient": (X,),
    "tv_isotropic_subgradient": (X,),
    "project_anisotropic": (FIELD, 0.5),
    "project_isotropic": (FIELD, 0.5),
    "roi_pool": (X, ROIS, 4),
    "roi_pool_gather": (X, ROIS, ARGMAX),
    "roi_pool_scatter": (X, ROIS, ARGMAX, X.shape),
    "roi_align": (X, ROIS, 4),
    "roi_align_adjoint": (X, ROIS, X.shape),
    "box_iou": (BOXES, BOXES),
    "box_iou_blocks": (BOXES, BOXES),
    "generalized_box_iou": (BOXES, BOXES),
    "nms": (BOXES, SCORES, 0.5),
    "batched_nms": (BOXES, SCORES, IDXS, 0.5),
    "soft_nms_linear": (BOXES, SCORES),
    "soft_nms_gaussian": (BOXES, SCORES),
    "connected_components": (X[0] > 0,),
    "felzenszwalb": (IMAGE, 100),
    "region_adjacency": (LABELS,),
    "region_boxes": (LABELS,),
    "color_histograms": (IMAGE, LABELS),
    "texture_histograms": (IMAGE, LABELS),
    "region_warp": (X[0], BOXES, 4),
    "linear_svm": (ROWS, np.arange(len(ROWS)) > 0),
    "match_detections": (np.ones(1, np.float32), ONE, ONE, np.zeros((1, 1), bool), np.zeros(1, bool), (0.5,)),
    "precision_at_recalls": (np.ones((1, 1), np.int8), ONE, ONE[None], (0.5,)),
    "group_regions": (BOXES, ONE, np.zeros((0, 2), np.int64), ONE[:, None], ONE[:, None], np.ones((1, 4), bool)),
}
NO_ARRAYS = {"available", "current", "exact", "use"}
ARRAYS = [(name, at) for name, args in CALLS.items() for at, value in enumerate(args) if isinstance(value, np.ndarray)]


def call(operation: str, at: int, value: object) -> None:
    args = list(CALLS[operation])
    args[at] = value
    getattr(mk, operation)(*args)


def test_all_operations_are_here() -> None:
    assert set(CALLS) == set(mk.__all__) - NO_ARRAYS
    for operation, args in CALLS.items():
        getattr(mk, operation)(*args)


@pytest.mark.parametrize(("operation", "at"), ARRAYS)
def test_masked_arrays_are_refused(operation: str, at: int) -> None:
    masked = np.ma.masked_array(CALLS[operation][at], False)
    with pytest.raises(TypeError, match=rf"^{operation}: expected .* to be a plain array, got a MaskedArray"):
        call(operation, at, masked)


@pytest.mark.parametrize(("operation", "at"), ARRAYS)
def test_what_is_no_array_is_a_type_error(operation: str, at: int) -> None:
    for value in [1.0, "x", CALLS[operation][at].tolist()]:
        with pytest.raises(TypeError, match="array"):
            call(operation, at, value)


def test_an_index_that_a_mask_hides_is_not_followed() -> None:
    """min() and max() of a masked array leave it out, so that no check of the range finds it."""
    hidden = INDICES.copy()
    hidden[0, 0, 0, 0] = 2**40
    with pytest.raises(TypeError, match="plain array"):
        mk.max_pool2d_gather(X, np.ma.masked_array(hidden, hidden > 16))
    with pytest.raises(TypeError, match="plain array"):
        mk.max_pool2d_scatter(X, np.ma.masked_array(hidden, hidden > 16), (4, 4))
    nowhere = ROIS.copy()
    nowhere[0, 0] = 2**30
    with pytest.raises(TypeError, match="plain array"):
        mk.roi_align(X, np.ma.masked_array(nowhere, nowhere > 16), 4)


def test_matrices_are_refused_and_other_subclasses_are_arrays() -> None:
    with pytest.raises(TypeError, match=r"^roi_align: expected boxes \(1, 5\) to be a plain array, got a matrix"):
        mk.roi_align(X, np.asmatrix(ROIS), 4)
    with pytest.raises(TypeError, match=r"boxes1.*got a matrix"):
        mk.box_iou(np.asmatrix(BOXES), BOXES)

    class Named(np.ndarray):
        pass

    np.testing.assert_array_equal(np.asarray(mk.relu(X.view(Named))), X)
    np.testing.assert_array_equal(mk.avg_pool2d(X.view(Named), 2), X[:, :, :2, :2])


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: mk.conv2d(X, WEIGHT, stride=2**63), ValueError, "^conv2d: expected stride"),
        (lambda: mk.conv2d(X, WEIGHT, dilation=10**400), ValueError, "^conv2d: expected dilation"),
        (lambda: mk.conv2d(X, WEIGHT, stride=np.array(1.5)), ValueError, "^conv2d: expected stride"),
        (lambda: mk.conv2d(X, WEIGHT, groups=1.0), ValueError, "^conv2d: expected an integer groups.*got 1.0"),
        (lambda: mk.conv2d(X, WEIGHT, groups=None), ValueError, "^conv2d: expected an integer groups"),
        (lambda: mk.conv2d_input_grad(X, WEIGHT, (6, 6), groups="1"), ValueError, "input_grad: expected.* groups"),
        (lambda: mk.conv2d_weight_grad(X, X, 1, groups=(1, 1)), ValueError, "weight_grad: expected .* groups"),
        (lambda: mk.max_pool2d(X, 2, stride=2**64), ValueError, "^max_pool2d: expected stride"),
        (lambda: mk.avg_pool2d(X, 2, stride=2**64), ValueError, "^avg_pool2d: expected stride"),
        (lambda: mk.batch_norm(X, CHANNELS, CHANNELS, np.nan), ValueError, "^batch_norm: expected a finite eps"),
        (lambda: mk.batch_norm(X, CHANNELS, CHANNELS, np.inf), ValueError, "^batch_norm: expected a finite eps"),
        (lambda: mk.batch_norm(X, CHANNELS, CHANNELS, "1"), ValueError, "^batch_norm: expected a finite eps"),
        (lambda: mk.batch_norm(X, CHANNELS, CHANNELS, 10**400), ValueError, "^batch_norm: expected a finite eps"),
        (lambda: mk.resize_bilinear(X, 3, scale_factor=10**400), ValueError, "scale_factor"),
        (lambda: mk.roi_align(X, ROIS, 4, 10**400), ValueError, "spatial_scale"),
        (lambda: mk.soft_nms_gaussian(BOXES, SCORES, 10**400), ValueError, "sigma"),
        (lambda: mk.affine_warp_adjoint(X, MATRICES, 4, images=1.0), ValueError, "images to be 1"),
        (lambda: mk.affine_warp_adjoint(X, MATRICES, 4, images=np.ones(2)), ValueError, "images to be 1"),
        (lambda: mk.connected_components(X[0] > 0, np.ones(2)), ValueError, "connectivity 4 or 8"),
        (lambda: mk.roi_align_adjoint(X, ROIS, (2**62, 2, 4, 4)), ValueError, "expected input_size"),
        (lambda: mk.roi_pool_scatter(X, ROIS, ARGMAX, (2**62, 2, 4, 4)), ValueError, "expected input_size"),
        (lambda: mk.felzenszwalb(IMAGE, 100, min_size=2**63), ValueError, "integer min_size >= 1, got 9.*64 bits"),
        (lambda: mk.color_histograms(IMAGE, LABELS, bins=2**63), ValueError, "integer bins >= 1, got 9.*64 bits"),
        (lambda: polyak_steps(10**400), ValueError, "polyak_steps: expected a finite optimum"),
        (lambda: mk.box_iou_blocks(BOXES, BOXES, np.inf), ValueError, "max_bytes"),
        (lambda: mk.box_iou_blocks(BOXES, BOXES, "1"), ValueError, "max_bytes"),
    ],
)
def test_numbers_of_the_wrong_kind_or_size_are_refused_by_name(wrong, error, message: str) -> None:
    with pytest.raises(error, match=message):
        wrong()


def test_any_integer_of_numpy_is_a_number_of_groups() -> None:
    expected = mk.conv2d(X, WEIGHT[:, :1], groups=2)
    np.testing.assert_array_equal(mk.conv2d(X, WEIGHT[:, :1], groups=np.int8(2)), expected)
    with mk.use("reference"):
        np.testing.assert_array_equal(mk.conv2d(X, WEIGHT, groups=True), mk.conv2d(X, WEIGHT))


def test_an_array_without_axes_is_a_number() -> None:
    np.testing.assert_array_equal(mk.conv2d(X, WEIGHT, padding=np.int64(1)), mk.conv2d(X, WEIGHT, padding=1))
    with pytest.raises(ValueError, match=r"^conv2d: expected padding to be an integer"):
        mk.conv2d(X, WEIGHT, padding=np.array(1))
