"""The matcher: which object each anchor, or proposal, is trained to find.

    best IoU >= high               the object that it overlaps with most
    low <= best IoU < high         BETWEEN: neither an object nor background, and not trained on
    best IoU < low                 BELOW: background

With allow_low_quality an object takes its best anchor, or all of them where several are equally good, whatever their
IoU, so that no object is left without (Ren et al. 2015, section 3.1.2).
"""

import numpy as np

BELOW, BETWEEN = -1, -2  # in place of an object's index
# A box inside a crowd by at least this part of its own area is no background: the rule of Mask R-CNN's authors' code,
# where the number is 0.7. Lower: fewer boxes beside crowds are learned from.
IN_CROWD = 0.5


def match_boxes(iou: np.ndarray, high: float, low: float, allow_low_quality: bool = False) -> np.ndarray:
    """For each of A anchors the index of its object, BELOW or BETWEEN: (A,) int64.

    iou (R, A) of R objects with the anchors. Of equally good objects the first is taken. An object that no anchor
    overlaps with at all matches none: its best IoU is 0, and so is that of all background. An anchor that an object
    takes with allow_low_quality is for the object which *it* overlaps with most, as in the authors' code and
    torchvision's.
    """
    if iou.ndim != 2:
        raise ValueError(f"match_boxes: expected iou (R, A) of objects with anchors, got {iou.shape}")
    if not 0 <= low <= high <= 1:
        raise ValueError(f"match_boxes: expected 0 <= low <= high <= 1, got low {low} and high {high}")
    objects, anchors = iou.shape
    if objects == 0:
        return np.full(anchors, BELOW, np.int64)
    best_object = iou.argmax(axis=0)
    best_iou = iou[best_object, np.arange(anchors)]
    matched = best_object.copy()
    matched[best_iou < high] = BETWEEN
    matched[best_iou < low] = BELOW
    if allow_low_quality and anchors:
        best_of_object = iou.max(axis=1, keepdims=True)
        taken = ((iou == best_of_object) & (best_of_object > 0)).any(axis=0)
        matched[taken] = best_object[taken]
    return matched


def match_bipartite(iou: np.ndarray) -> np.ndarray:
    """For each of R objects a box of its own, the best pair first: indices (R,) int64 of boxes, or BELOW where an
    object overlaps with none that is left (Liu et al. 2016, section 2.2, and the authors' code).

    iou (R, A) of objects with boxes. The pair with the largest IoU of all is matched, object and box are taken out, and
    so on: two objects that are nearest to the same box do not share it. Equal ones: the lower object, then box.
    """
    if iou.ndim != 2:
        raise ValueError(f"match_bipartite: expected iou (R, A) of objects with boxes, got {iou.shape}")
    left, matched = iou.copy(), np.full(len(iou), BELOW, np.int64)
    for _ in range(len(iou) if iou.size else 0):
        r, a = np.unravel_index(left.argmax(), left.shape)
        if left[r, a] <= 0:
            break
        matched[r] = a
        left[r], left[:, a] = -1, -1
    return matched


def inside_crowds(boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """Whether each box (R, 4) lies in one of the crowds (C, 4) by IN_CROWD of its own area: (R,) bool."""
    if not len(crowds):
        return np.zeros(len(boxes), bool)
    top_left = np.maximum(boxes[:, None, :2], crowds[:, :2])
    sides = np.maximum(np.minimum(boxes[:, None, 2:], crowds[:, 2:]) - top_left, 0)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return (sides.prod(axis=2) >= IN_CROWD * area[:, None]).any(axis=1) & (area > 0)
