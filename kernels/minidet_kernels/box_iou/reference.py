"""Overlaps in plain NumPy: one box with all others at a time."""

from __future__ import annotations

import numpy as np


def box_iou(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    iou = np.zeros((len(boxes1), len(boxes2)), boxes1.dtype)
    for i, box in enumerate(boxes1):
        iou[i] = iou_with_all(box, boxes2)
    return iou


def generalized_box_iou(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    giou = np.zeros((len(boxes1), len(boxes2)), boxes1.dtype)
    for i, box in enumerate(boxes1):
        intersection, union = _intersection_and_union(box, boxes2)
        hull = _area(np.minimum(box[:2], boxes2[:, :2]), np.maximum(box[2:], boxes2[:, 2:]))
        giou[i] = _ratio(intersection, union) - _ratio(hull - union, hull)
    return giou


def iou_with_all(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """box (4,), boxes (B, 4) -> IoU (B,)."""
    intersection, union = _intersection_and_union(box, boxes)
    return _ratio(intersection, union)


def _intersection_and_union(box: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    top_left = np.maximum(box[:2], boxes[:, :2])
    bottom_right = np.minimum(box[2:], boxes[:, 2:])
    intersection = _area(top_left, np.maximum(bottom_right, top_left))  # boxes apart: the sides are 0, not negative
    union = _area(box[:2], box[2:]) + _area(boxes[:, :2], boxes[:, 2:]) - intersection
    return intersection, union


def _area(top_left: np.ndarray, bottom_right: np.ndarray) -> np.ndarray:
    sides = bottom_right - top_left
    return sides[..., 0] * sides[..., 1]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where the whole is practically nothing: see the contract."""
    divisible = whole >= np.finfo(whole.dtype).tiny
    return np.divide(part, whole, out=np.zeros_like(whole), where=divisible)
