"""Boxes: conversions, areas and overlaps against counted pixels and hand-made numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidet import Tensor, gradcheck
from minidet.boxes import box_area, box_convert, paired_giou, paired_iou

SIDE = 12


@st.composite
def integer_boxes(draw, count: int = 5) -> np.ndarray:
    corners = [sorted(draw(st.lists(st.integers(0, SIDE), min_size=2, max_size=2))) for _ in range(2 * count)]
    return np.array([[x[0], y[0], x[1], y[1]] for x, y in zip(corners[::2], corners[1::2], strict=True)], float)


def painted(box: np.ndarray) -> np.ndarray:
    """The box's pixels: with whole numbers, counting them is the area."""
    pixels = np.zeros((SIDE, SIDE), bool)
    x1, y1, x2, y2 = box.astype(int)
    pixels[y1:y2, x1:x2] = True
    return pixels


@settings(max_examples=100, deadline=None)
@given(integer_boxes(), integer_boxes())
def test_area_and_iou_count_pixels(boxes: np.ndarray, others: np.ndarray) -> None:
    areas, iou = box_area(boxes), paired_iou(boxes, others)
    for i, (box, other) in enumerate(zip(boxes, others, strict=True)):
        assert areas[i] == painted(box).sum()
        union = (painted(box) | painted(other)).sum()
        expected = (painted(box) & painted(other)).sum() / union if union else 0
        assert abs(iou[i] - expected) < 1e-9


def test_the_three_formats_by_hand() -> None:
    xyxy = np.array([[10.0, 20.0, 40.0, 60.0]])
    assert box_convert(xyxy, "xyxy", "xywh").tolist() == [[10, 20, 30, 40]]
    assert box_convert(xyxy, "xyxy", "cxcywh").tolist() == [[25, 40, 30, 40]]
    assert box_convert(np.array([[25.0, 40.0, 30.0, 40.0]]), "cxcywh", "xyxy").tolist() == xyxy.tolist()
    assert box_convert(np.array([[10.0, 20.0, 30.0, 40.0]]), "xywh", "cxcywh").tolist() == [[25, 40, 30, 40]]


@settings(max_examples=50, deadline=None)
@given(integer_boxes(), st.sampled_from(["xywh", "cxcywh"]))
def test_there_and_back_changes_nothing(boxes: np.ndarray, form: str) -> None:
    assert np.array_equal(box_convert(box_convert(boxes, "xyxy", form), form, "xyxy"), boxes)


def test_empty_boxes_have_no_overlap_and_no_nan() -> None:
    point = np.array([[3.0, 3.0, 3.0, 3.0]])
    assert paired_iou(point, point).tolist() == [0]
    assert paired_iou(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)
    assert box_area(np.array([[5.0, 5.0, 2.0, 9.0]])).tolist() == [0]  # turned inside out


@settings(max_examples=100, deadline=None)
@given(integer_boxes(), integer_boxes())
def test_generalized_iou_counts_the_pixels_of_the_hull(boxes: np.ndarray, others: np.ndarray) -> None:
    giou = paired_giou(boxes, others)
    for i, (box, other) in enumerate(zip(boxes, others, strict=True)):
        union = (painted(box) | painted(other)).sum()
        hull = (max(box[2], other[2]) - min(box[0], other[0])) * (max(box[3], other[3]) - min(box[1], other[1]))
        if union:
            expected = (painted(box) & painted(other)).sum() / union - (hull - union) / hull
            assert abs(giou[i] - expected) < 1e-9


def test_generalized_iou_of_boxes_apart_falls_with_their_distance() -> None:
    box = np.array([[0.0, 0.0, 2.0, 2.0]])
    near, far = paired_giou(box, box + 3), paired_giou(box, box + 6)
    assert near == pytest.approx((8 - 25) / 25)  # hull 5 x 5, union 4 + 4
    assert far < near < 0


def test_iou_is_differentiable() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([[1.0, 1.0, 8.0, 9.0], [2.0, 3.0, 6.0, 7.0], [0.0, 0.0, 5.0, 5.0]])
    others = boxes + rng.uniform(-1, 1, boxes.shape)
    for overlap in (paired_iou, paired_giou):
        assert gradcheck(overlap, [Tensor(boxes, requires_grad=True), Tensor(others, requires_grad=True)])


def test_wrong_shapes_and_formats_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected boxes \(\.\.\., 4\), got \(2, 5\)"):
        box_area(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="one shape"):
        paired_iou(np.zeros((2, 4)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="expected formats among xyxy, xywh, cxcywh"):
        box_convert(np.zeros((2, 4)), "xyxy", "xyx2y2")


def test_small_boxes_in_fractions_of_an_image_overlap_as_large_ones_do():
    """The least area that stands for 0 must be far below theirs: here a box of 2 x 2 pixels of 1000 x 1000."""
    boxes, others = np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[0.0, 1.0, 2.0, 3.0]])
    np.testing.assert_allclose(paired_iou(boxes / 1000, others / 1000), [1 / 3])
    np.testing.assert_allclose(paired_giou(boxes / 1000, others / 1000), [1 / 3])
