"""Non-maximum suppression on the GPU: launches the kernels of nms.cu.

The host waits once, for the number of boxes that are kept.
"""

from __future__ import annotations

from pathlib import Path

import cupy
import numpy as np

from minidet_kernels.cuda_source import THREADS, CudaSource

# Boxes whose overlaps with each other are held at a time, a bit each: 2 MB. keep_best's block of 64 threads then has
# one word of 64 boxes a thread. In larger chunks more boxes are compared in vain, since others of the chunk drop them;
# smaller ones are more launches, three each.
CHUNK = 4096
WORD = 64  # boxes

SOURCE = CudaSource(Path(__file__).with_name("nms.cu"), CHUNK=CHUNK, THREADS=THREADS)

Taken = tuple[cupy.ndarray, cupy.ndarray]


def nms(boxes: cupy.ndarray, scores: cupy.ndarray, iou_threshold: np.floating) -> cupy.ndarray:
    return batched_nms(boxes, scores, cupy.zeros(len(boxes), np.int64), iou_threshold)


def batched_nms(
    boxes: cupy.ndarray, scores: cupy.ndarray, idxs: cupy.ndarray, iou_threshold: np.floating
) -> cupy.ndarray:
    order = _best_first(scores)
    boxes = cupy.ascontiguousarray(boxes[order])
    classes = idxs[order].astype(np.int64)
    kept = cupy.ones(len(boxes), bool)
    bits = cupy.empty((min(CHUNK, len(boxes)), CHUNK // WORD), np.uint64)
    limits = (iou_threshold, np.finfo(boxes.dtype).tiny)
    for start in range(0, len(boxes), CHUNK):
        count = min(CHUNK, len(boxes) - start)
        words, later = -(-count // WORD), len(boxes) - start - count
        pairs = (boxes, classes, kept, *limits, bits, start, count)
        SOURCE.launch("overlaps", boxes.dtype, (words, words), (WORD,), *pairs)
        SOURCE.launch("keep_best", boxes.dtype, (1,), (WORD,), bits, kept, start, count)
        behind = (boxes, classes, kept, *limits, start, later)
        SOURCE.launch("suppress", boxes.dtype, (-(-later // THREADS),), (THREADS,), *behind)
    return order[kept]


def soft_nms_linear(
    boxes: cupy.ndarray, scores: cupy.ndarray, iou_threshold: np.floating, score_threshold: np.floating
) -> Taken:
    return _soft_nms(boxes, scores, iou_threshold, score_threshold, sigma=0.0)


def soft_nms_gaussian(boxes: cupy.ndarray, scores: cupy.ndarray, sigma: float, score_threshold: np.floating) -> Taken:
    return _soft_nms(boxes, scores, boxes.dtype.type(0), score_threshold, sigma)


def _soft_nms(
    boxes: cupy.ndarray, scores: cupy.ndarray, iou_threshold: np.floating, score_threshold: np.floating, sigma: float
) -> Taken:
    boxes, scores = cupy.ascontiguousarray(boxes), cupy.array(scores, order="C")  # the copy of the scores is lowered
    taken, taken_scores = cupy.empty(len(boxes), np.int64), cupy.empty(len(boxes), scores.dtype)
    taken_count = cupy.empty(1, np.int32)
    numbers = (iou_threshold, score_threshold, np.float64(sigma), np.finfo(boxes.dtype).tiny)
    results = (taken, taken_scores, taken_count)
    SOURCE.launch("soft_nms", boxes.dtype, (1,), (THREADS,), boxes, scores, *numbers, *results, len(boxes))
    count = int(taken_count[0])
    return taken[:count], taken_scores[:count]


def _best_first(scores: cupy.ndarray) -> cupy.ndarray:
    """The indices by score, descending; equal scores by index, ascending; NaN last.

    Sorted as integers: a GPU sorts them fast, and compares them exactly, where its float32 numbers below 1e-38 would
    become 0. A float is sign and magnitude; without the sign bit the rest of its bits grow with the magnitude.
    """
    bits = cupy.ascontiguousarray(scores).view(f"i{scores.dtype.itemsize}")
    largest = np.iinfo(bits.dtype).max
    descending = cupy.where(bits < 0, bits & bits.dtype.type(largest), -bits)  # both zeros become 0
    return cupy.argsort(cupy.where(cupy.isnan(scores), bits.dtype.type(largest), descending), kind="stable")
