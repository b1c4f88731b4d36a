"""Overlaps of boxes, and the suppression of those that overlap."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.kernels.cases.drawing import DTYPES
from tests.kernels.generated_boxes import THRESHOLDS, random_boxes, random_scores
from tests.kernels.harness import Call, Case, in_memory

MEMORY = st.sampled_from(["contiguous", "sliced", "reversed", "read-only"])


@st.composite
def pairs_of_boxes(draw: st.DrawFn) -> Call:
    rng, dtype = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(DTYPES)
    boxes = [random_boxes(rng, draw(st.integers(0, 40)), dtype) for _ in range(2)]
    return Call(tuple(in_memory(array, draw(MEMORY)) for array in boxes))


@st.composite
def scored_boxes(draw: st.DrawFn, method: str) -> Call:
    rng, dtype = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(DTYPES)
    # the CUDA version takes words of 64 boxes
    count = draw(st.one_of(st.integers(0, 12), st.integers(12, 60), st.integers(60, 150)))
    arrays = [random_boxes(rng, count, dtype), random_scores(rng, count, dtype)]
    thresholds = st.one_of(st.sampled_from(THRESHOLDS), st.floats(0, 1))
    options = {"iou_threshold": draw(thresholds)}
    if method == "batched":
        arrays.append(rng.integers(-2, 3, count).astype(draw(st.sampled_from([np.int64, np.int32]))))
    if method == "linear":
        options["score_threshold"] = draw(st.sampled_from([0, 0.001, 0.25]))
    if method == "gaussian":
        options = {"sigma": draw(st.sampled_from([0.1, 0.5, 2])), "score_threshold": draw(thresholds)}
    return Call(tuple(in_memory(array, draw(MEMORY)) for array in arrays), options)


CASES = [
    Case("box_iou", pairs_of_boxes()),
    Case("generalized_box_iou", pairs_of_boxes()),
    Case("nms", scored_boxes("greedy"), waits=1),
    Case("batched_nms", scored_boxes("batched"), waits=1),
    Case("soft_nms_linear", scored_boxes("linear"), waits=1),
    Case("soft_nms_gaussian", scored_boxes("gaussian"), waits=1),
]

MUTANTS = {
    "boxes apart overlap by negative sides": (
        "box_iou",
        "box_iou",
        "np.maximum(bottom_right, top_left)",
        "bottom_right",
    ),
    "intersection counted twice": ("box_iou", "box_iou", " - intersection", ""),
    "width + 1": ("box_iou", "box_iou", "sides = bottom_right - top_left", "sides = bottom_right - top_left + 1"),
    "0 / 0": ("box_iou", "box_iou", "divisible = whole >= np.finfo(whole.dtype).tiny", "divisible = whole == whole"),
    "hull without the first box": (
        "box_iou",
        "generalized_box_iou",
        "np.maximum(box[2:], boxes2[:, 2:])",
        "boxes2[:, 2:]",
    ),
    "an equal overlap suppresses": ("nms", "nms", "> iou_threshold).any()", ">= iou_threshold).any()"),
    "suppressed boxes suppress": (
        "nms",
        "nms",
        "boxes[keep])",
        "boxes[_best_first(scores)[: (_best_first(scores) == candidate).argmax()]])",
    ),
    "of equal scores the last first": (
        "nms",
        "nms",
        'np.argsort(-scores, kind="stable")',
        'np.argsort(scores, kind="stable")[::-1]',
    ),
    "classes suppress each other": (
        "nms",
        "batched_nms",
        "for label in np.unique(idxs):",
        "for idxs in [idxs * 0]:\n        label = 0",
    ),
    "class after class": ("nms", "batched_nms", "return order[kept[order]]", "return np.flatnonzero(kept)"),
    "linear without its threshold": (
        "nms",
        "soft_nms_linear",
        "1 - float(iou) if iou > iou_threshold",
        "1 - float(iou) if iou > 0",
    ),
    "gaussian of the overlap itself": ("nms", "soft_nms_gaussian", "-float(iou) * float(iou)", "-float(iou)"),
    "the order of the first scores": (
        "nms",
        "soft_nms_gaussian",
        "best = remaining[scores[remaining].argmax()]",
        "best = remaining[0]",
    ),
    "scores changed in place": ("nms", "soft_nms_linear", "scores = scores.copy()", "scores.flags.writeable = True"),
    "dropped at the threshold": (
        "nms",
        "soft_nms_linear",
        "scores[best] < score_threshold",
        "scores[best] <= score_threshold",
    ),
}

CUDA_MUTANTS = {
    "IoU: boxes apart overlap by negative sides": (
        "box_iou",
        "box_iou",
        "larger(smaller(a[2], b[2]), left)",
        "smaller(a[2], b[2])",
    ),
    "IoU: 0 / 0": ("box_iou", "box_iou", "whole >= smallest ?", "whole == whole ?"),
    "GIoU: hull without the second box": (
        "box_iou",
        "generalized_box_iou",
        "(larger(a[3], b[3]) -",
        "(a[3] -",
    ),
    "NMS: an equal overlap suppresses": ("nms", "nms", "smallest) > threshold", "smallest) >= threshold"),
    "NMS: suppressed boxes suppress": (
        "nms",
        "nms",
        "if (!(gone >> k & 1)) {",
        "if (stay |= Word(!(gone >> k & 1)) << k, gone |= own[k], false) {",
    ),
    "NMS: later words forgotten": ("nms", "nms", "dropped[later] |= bits", "dropped[later] = bits"),
    "NMS: words of the row before": ("nms", "nms", "blockIdx.x < blockIdx.y", "blockIdx.x <= blockIdx.y"),
    "NMS: classes suppress each other": ("nms", "batched_nms", "other_classes[k] == classes[row] && ", ""),
    "soft NMS: of equal scores the last": (
        "nms",
        "soft_nms_linear",
        "indices[other] < indices[thread]",
        "indices[other] > indices[thread]",
    ),
    "soft NMS: an equal overlap lowers": ("nms", "soft_nms_linear", "iou > iou_threshold", "iou >= iou_threshold"),
    "soft NMS: the overlap itself": ("nms", "soft_nms_gaussian", "-overlap * overlap", "-overlap"),
    "soft NMS: scores kept in float": (
        "nms",
        "soft_nms_gaussian",
        "const double overlap = iou;",
        "const float overlap = (float)iou;",
    ),
}
