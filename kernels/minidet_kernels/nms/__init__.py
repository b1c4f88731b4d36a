"""Non-maximum suppression: of boxes that overlap, the one with the best score stays.

    nms           greedy: boxes in the order of their scores; a box is kept unless its IoU with a box that was kept
                  before is > iou_threshold (equal to it is kept)
    batched_nms   the same, but only boxes of the same class suppress each other. It looks at each class by itself; the
                  trick of moving each class to a place of its own by adding an offset to the coordinates rounds them,
                  and fails on negative ones
    soft_nms_*    nobody is thrown out at once: the box with the best score is taken, and the scores of the others are
                  lowered by how much they overlap with it; then the best of the rest, and so on
                      linear:    s <- s * (1 - IoU)          where IoU > iou_threshold
                      gaussian:  s <- s * exp(-IoU^2 / sigma)
                  Boxes whose score falls below score_threshold are dropped

Source of soft-NMS: Bodla et al. 2017, section 3, with N_t = 0.3 and sigma = 0.5; score_threshold 0.001 and the
comparison with > (the paper's equation has >=) are those of the authors' code.

The rules, the same in every version, so that all give the same boxes in the same order:
- The order is that of the scores, descending; of equal scores the lower index comes first.
- IoU is that of `box_iou`, to the bit; degenerate boxes overlap with nothing, not even with their equals.
- Thresholds are rounded to the boxes' dtype, so that an IoU of 3/10 in float32 is not more than 0.3. (torchvision
  compares with the double 0.3, which is less than the float32 nearest to it, and suppresses.)
- Soft scores are computed in double and rounded to their dtype at every step.

boxes (R, 4), x1 y1 x2 y2, and scores (R,), float32 or float64, the same for both; R may be 0; no input is changed.
Cost: greedy, all pairs of kept boxes with others in the reference; in the cpu version about R times the number of kept
boxes nearby (see `grid.py`), and 30 R numbers of memory. Soft: R times the number of boxes taken.

On the GPU, greedy: pairs within chunks of 4096 boxes, and of boxes that were kept with those of later chunks; memory
2 MB for overlaps and 100 R bytes. Soft: one block of threads, R times the number of boxes taken. The host waits once,
for the number of boxes that are kept. It does not wait to look at values, so nothing is raised for them: a box with NaN
overlaps with nothing, a NaN score comes last in `nms` and is never taken in soft-NMS, and infinite boxes or those with
x2 < x1 have overlaps without meaning. CuPy takes float32 numbers below 1.2e-38 for 0, so that boxes with sides or areas
that small overlap with nothing there. The GPU's exp may differ from the CPU's in the last bit.

TypeError: other dtypes, not arrays. ValueError: other shapes, boxes that `box_iou` refuses, NaN among the scores (soft:
also infinite or negative ones), thresholds outside [0, 1], sigma not above 0.
"""

from __future__ import annotations

import numbers

import numpy as np

from minidet_kernels.arguments import check_boxes, check_floats, check_fraction, check_shape, is_finite
from minidet_kernels.versions import choose, is_on_gpu

__all__ = ["batched_nms", "nms", "soft_nms_gaussian", "soft_nms_linear"]


def nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """boxes (R, 4), scores (R,) -> the indices of the kept boxes (K,), int64, best score first."""
    _check("nms", boxes, scores)
    check_fraction("nms", "iou_threshold", iou_threshold)
    return choose(__name__, boxes, scores).nms(boxes, scores, boxes.dtype.type(iou_threshold))


def batched_nms(boxes: np.ndarray, scores: np.ndarray, idxs: np.ndarray, iou_threshold: float) -> np.ndarray:
    """boxes (R, 4), scores (R,), classes idxs (R,) of any integers -> the indices of the kept boxes (K,), int64, best
    score of all classes first. TypeError where idxs are not integers."""
    _check("batched_nms", boxes, scores)
    check_fraction("batched_nms", "iou_threshold", iou_threshold)
    check_shape("batched_nms", "idxs", idxs, "R", (len(boxes),))
    if idxs.dtype.kind not in "iu":
        raise TypeError(f"batched_nms: expected idxs {idxs.shape} of integers, the classes, got {idxs.dtype}")
    return choose(__name__, boxes, scores, idxs).batched_nms(boxes, scores, idxs, boxes.dtype.type(iou_threshold))


def soft_nms_linear(
    boxes: np.ndarray, scores: np.ndarray, iou_threshold: float = 0.3, score_threshold: float = 0.001
) -> tuple[np.ndarray, np.ndarray]:
    """boxes (R, 4), scores (R,) >= 0 -> the indices of the boxes taken (K,), int64, in the order in which they were
    taken, and the scores that they had then (K,), which do not increase."""
    check_fraction("soft_nms_linear", "iou_threshold", iou_threshold)
    _check_soft("soft_nms_linear", boxes, scores, score_threshold)
    of_dtype = boxes.dtype.type
    return choose(__name__, boxes, scores).soft_nms_linear(
        boxes, scores, of_dtype(iou_threshold), of_dtype(score_threshold)
    )


def soft_nms_gaussian(
    boxes: np.ndarray, scores: np.ndarray, sigma: float = 0.5, score_threshold: float = 0.001
) -> tuple[np.ndarray, np.ndarray]:
    """As `soft_nms_linear`. sigma: the smaller, the more an overlap lowers a score."""
    if not isinstance(sigma, numbers.Real):
        raise TypeError(f"soft_nms_gaussian: expected sigma to be a number above 0, got {type(sigma).__name__}")
    if not (is_finite(sigma) and sigma > 0):
        raise ValueError(f"soft_nms_gaussian: expected sigma above 0 and finite, got {sigma!r}")
    _check_soft("soft_nms_gaussian", boxes, scores, score_threshold)
    return choose(__name__, boxes, scores).soft_nms_gaussian(
        boxes, scores, float(sigma), boxes.dtype.type(score_threshold)
    )


def _check(operation: str, boxes: np.ndarray, scores: np.ndarray) -> None:
    check_boxes(operation, boxes=boxes)
    check_shape(operation, "scores", scores, "R", (len(boxes),))
    check_floats(operation, boxes=boxes, scores=scores)
    if not is_on_gpu(scores) and np.isnan(scores).any():
        raise ValueError(
            f"{operation}: expected scores {scores.shape} that are numbers, got NaN at index "
            f"{int(np.isnan(scores).argmax())}; look for where it was made before this call"
        )


def _check_soft(operation: str, boxes: np.ndarray, scores: np.ndarray, score_threshold: float) -> None:
    check_fraction(operation, "score_threshold", score_threshold)
    _check(operation, boxes, scores)
    if is_on_gpu(scores):
        return
    bad = ~((scores >= 0) & (scores < np.inf))
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(
            f"{operation}: expected scores {scores.shape} that are finite and not negative (a factor below 1 would "
            f"raise a negative one), got {float(scores[at])} at index {at}; use probabilities"
        )
