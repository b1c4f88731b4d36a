"""How much a detection has in common with an object: of boxes, of masks, of people's joints.

Everything in float64, and each operation where pycocotools has it, so that an overlap of exactly 0.5 is one here too.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .groups import Groups

KINDS = BOXES, MASKS, KEYPOINTS = "boxes", "masks", "keypoints"

Shapes = np.ndarray | list[np.ndarray]  # boxes (n, 4), keypoints (n, J, 2 or more), or n packed masks

# How precisely people place a joint, a standard deviation in units of the square root of the object's area: nose, eyes,
# ears, shoulders, elbows, wrists, hips, knees, ankles (COCO, "Keypoint evaluation", from 5000 images that were
# annotated twice). Larger: the joint may be farther away for the same OKS.
COCO_SIGMAS = (0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
               0.089, 0.089)  # fmt: skip
OTHER_SIGMA = 0.067  # their mean: of joints that nobody has annotated twice


def oks_sigmas(joints: int) -> np.ndarray:
    """(J,): COCO's own where there are 17 joints, else OTHER_SIGMA for each."""
    return np.array(COCO_SIGMAS) if joints == len(COCO_SIGMAS) else np.full(joints, OTHER_SIGMA)


def overlaps(groups: "Groups", kind: str, sigmas: Sequence[float] | None = None) -> np.ndarray:
    """(P,) of all pairs, as `match_detections` wants them."""
    if kind == BOXES:
        return _of_boxes(groups)
    if kind == MASKS:
        return _of_masks(groups)
    return _of_keypoints(groups, oks_sigmas(groups.truths.shapes.shape[1]) if sigmas is None else np.asarray(sigmas))


def areas_of(shapes: Shapes) -> np.ndarray:
    """(n,): of boxes, of masks in pixels, of the boxes around keypoints, all joints of which count."""
    if isinstance(shapes, list):
        return np.array([np.bitwise_count(mask).sum() for mask in shapes], np.float64)
    corners = shapes.reshape(-1, 2, 2) if shapes.ndim == 2 else shapes[..., :2]
    if not corners.size:
        return np.zeros(len(corners))
    return (corners.max(axis=1) - corners.min(axis=1)).prod(axis=1)


def packed(masks: np.ndarray) -> list[np.ndarray]:
    """Masks (n, H, W) bool, n of (words,) uint64: 64 pixels a word, so that a comparison is few operations."""
    rows = np.packbits(masks.reshape(len(masks), -1), axis=1)
    return list(np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))).view(np.uint64))


def _of_boxes(groups: "Groups") -> np.ndarray:
    """Intersection over union; over the detection's area, where the object is a crowd."""
    detection, truth = groups.pairs()
    x1, y1, x2, y2, area = (column[detection] for column in _rounded_as_x_y_width_height(groups.detections.shapes))
    u1, v1, u2, v2, others = (column[truth] for column in _rounded_as_x_y_width_height(groups.truths.shapes))
    width, height = np.minimum(x2, u2) - np.maximum(x1, u1), np.minimum(y2, v2) - np.maximum(y1, v1)
    intersection = width * height
    whole = np.where(groups.crowd[truth], area, area + others - intersection)
    apart = (width <= 0) | (height <= 0)  # where the whole may be 0
    return np.divide(intersection, whole, out=np.zeros(len(truth)), where=~apart)


def _rounded_as_x_y_width_height(boxes: np.ndarray) -> tuple[np.ndarray, ...]:
    """x1, y1, x2, y2, area: COCO's files have width and height, to which x1 and y1 are added again."""
    x, y, x2, y2 = boxes.T
    width, height = x2 - x, y2 - y
    return x, y, x + width, y + height, width * height


def _of_masks(groups: "Groups") -> np.ndarray:
    """As _of_boxes, of pixels."""
    detection, truth = groups.pairs()
    both = (groups.detections.shapes[d] & groups.truths.shapes[g] for d, g in zip(detection, truth, strict=True))
    intersection, area = areas_of(list(both)), groups.detections.areas[detection]
    union = area + areas_of(groups.truths.shapes)[truth] - intersection
    whole = np.where(groups.crowd[truth], area, union)
    return np.divide(intersection, whole, out=np.zeros(len(truth)), where=intersection > 0)


def _of_keypoints(groups: "Groups", sigmas: np.ndarray) -> np.ndarray:
    """Object keypoint similarity: the mean over the labelled joints of exp(-d^2 / (2 area (2 sigma)^2)).

    Of an object without labelled joints d is how far each joint lies outside of its box, made three times as large on
    both axes: people detected near it are not to be wrong.
    """
    detection, truth = groups.pairs()
    if not len(truth):
        return np.zeros(0)
    found, true = groups.detections.shapes[detection][..., :2], groups.truths.shapes[truth]
    joints = true.shape[1]
    if found.shape[1] != joints:
        raise ValueError(f"expected predictions of {joints} joints, as the targets have, got {found.shape[1]}")
    if len(sigmas) != joints:
        raise ValueError(f"expected {joints} sigmas, one a joint, got {len(sigmas)}")
    labelled = true[..., 2] > 0
    nobody = ~labelled.any(axis=1)
    boxes = groups.boxes[truth][nobody]
    sides = boxes[:, 2:] - boxes[:, :2]
    low, high = (boxes[:, :2] - sides)[:, None], (boxes[:, :2] + 2 * sides)[:, None]
    distances = found - true[..., :2]
    distances[nobody] = np.maximum(0, low - found[nobody]) + np.maximum(0, found[nobody] - high)
    labelled[nobody] = True
    scale = (groups.truths.areas[truth] + np.finfo(np.float64).eps)[:, None]  # an area of 0 divides too
    similarity = np.exp(-((distances**2).sum(axis=2) / (2 * sigmas) ** 2 / scale / 2))
    return (similarity * labelled).sum(axis=1) / labelled.sum(axis=1)
