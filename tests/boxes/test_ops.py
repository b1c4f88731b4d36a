"""minidet.ops: torchvision's names on arrays and Tensors. What the kernels compute is tested in tests/kernels."""

import numpy as np
import pytest

import minidet
from minidet import Tensor, gradcheck, no_grad, ops

BOXES = np.array([[0.0, 0, 10, 1], [2, 0, 12, 1], [4, 0, 14, 1]])  # IoU 2/3 of neighbours, 3/7 of the outer two
SCORES = np.array([0.9, 0.8, 0.7])
CLASSES = np.array([0, 1, 0])

CALLS = {
    "box_iou": (lambda b, s, c: ops.box_iou(b, b), [[1, 2 / 3, 3 / 7], [2 / 3, 1, 2 / 3], [3 / 7, 2 / 3, 1]]),
    "generalized_box_iou": (lambda b, s, c: ops.generalized_box_iou(b[:1], b[1:]), [[2 / 3, 3 / 7]]),
    "box_area": (lambda b, s, c: ops.box_area(b), [10, 10, 10]),
    "box_convert": (lambda b, s, c: ops.box_convert(b, "xyxy", "xywh")[1], [2, 0, 10, 1]),
    "clip_boxes_to_image": (lambda b, s, c: ops.clip_boxes_to_image(b - 3, (5, 7))[::2], [[0, 0, 7, 0], [1, 0, 7, 0]]),
    "remove_small_boxes": (lambda b, s, c: ops.remove_small_boxes(b[:, [1, 1, 2, 2]], 11), [1, 2]),
    "nms": (lambda b, s, c: ops.nms(b, s, 0.5), [0, 2]),
    "batched_nms": (lambda b, s, c: ops.batched_nms(b, s, c, 0.5), [0, 1, 2]),
}


@pytest.mark.parametrize("name", CALLS)
def test_arrays_give_arrays_and_tensors_give_tensors(name: str) -> None:
    call, expected = CALLS[name]
    of_arrays = call(BOXES, SCORES, CLASSES)
    of_tensors = call(Tensor(BOXES), Tensor(SCORES), Tensor(CLASSES))
    np.testing.assert_allclose(of_arrays, expected)
    assert isinstance(of_arrays, np.ndarray)
    assert isinstance(of_tensors, Tensor)
    np.testing.assert_array_equal(of_tensors.data, of_arrays)
    if name in ("nms", "batched_nms", "remove_small_boxes"):
        assert of_arrays.dtype == np.int64
        np.testing.assert_array_equal(Tensor(BOXES)[of_tensors].data, BOXES[of_arrays])


def test_ops_is_found_from_minidet() -> None:
    assert minidet.ops.nms is ops.nms
    assert CALLS.keys() <= set(ops.__all__)


def test_sides_are_heights_first_and_images_of_nothing_give_points() -> None:
    assert ops.clip_boxes_to_image(np.array([[-5.0, -6, 50, 60]]), (30, 40)).tolist() == [[0, 0, 40, 30]]
    assert ops.clip_boxes_to_image(np.array([[-5.0, -6, 50, 60]]), (0, 0)).tolist() == [[0, 0, 0, 0]]


def test_a_side_equal_to_the_minimum_is_not_small() -> None:
    boxes = np.array([[0.0, 0, 2, 2], [0, 0, 1.9, 9], [0, 0, 9, 1.9]])
    assert ops.remove_small_boxes(boxes, 2).tolist() == [0]
    assert ops.remove_small_boxes(np.zeros((0, 4)), 2).shape == (0,)


def test_clipping_is_differentiable_away_from_the_border() -> None:
    boxes = Tensor(np.array([[-3.0, 2, 8, 9], [1, 1, 4, 4]]), requires_grad=True)
    assert gradcheck(lambda b: ops.clip_boxes_to_image(b, (6, 5)), [boxes])


@pytest.mark.parametrize("function", [ops.box_iou, ops.generalized_box_iou])
def test_a_gradient_is_not_lost_silently(function) -> None:
    boxes = Tensor(BOXES, requires_grad=True)
    with pytest.raises(
        TypeError, match=r"boxes2 without a gradient, got \(3, 4\) that requires one; use boxes2.detach"
    ):
        function(Tensor(BOXES), boxes)
    with no_grad():
        assert not function(boxes, boxes).requires_grad
    assert not function(boxes.detach(), BOXES).requires_grad


def test_suppression_takes_boxes_that_a_network_has_made() -> None:
    boxes = Tensor(BOXES, requires_grad=True)
    assert ops.nms(boxes, Tensor(SCORES, requires_grad=True), 0.5).data.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.clip_boxes_to_image(BOXES, (3, -1)), "size .height, width., not negative"),
        (lambda: ops.clip_boxes_to_image(BOXES, (3, 4, 5)), "size"),
        (lambda: ops.clip_boxes_to_image(BOXES[:, :3], (3, 4)), r"got \(3, 3\)"),
        (lambda: ops.remove_small_boxes(BOXES, -1), "min_size >= 0, got -1"),
        (lambda: ops.remove_small_boxes(BOXES[0], 1), r"boxes \(R, 4\), got \(4,\)"),
        (lambda: ops.nms(Tensor(BOXES), Tensor(SCORES), 2), "iou_threshold from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
