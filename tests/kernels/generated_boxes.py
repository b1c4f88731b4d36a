"""Boxes for tests: crowded, with ties in everything that can tie; and suppression by literal loops.

python -m tests.kernels.generated_boxes 100000               all versions of `nms`, compared with the loops on that
                                                             many sets of boxes
python -m tests.kernels.generated_boxes 100000 --emulated    and the CUDA version, in the emulator
"""

from __future__ import annotations

import argparse
import os
from fractions import Fraction

import numpy as np

import minidet_kernels as mk
from minidet_kernels import emulator
from tests.kernels.harness import engine

THRESHOLDS = (
    0,
    0.1,
    0.25,
    0.3,
    0.5,
    0.6,
    0.7,
    0.75,
    0.9,
    1,
)  # 1/10, 1/4, 1/2 ... are what small whole boxes give exactly


def random_boxes(rng: np.random.Generator, count: int, dtype: type) -> np.ndarray:
    """Boxes (count, 4) of one of the kinds that find mistakes."""
    kind = rng.integers(6)
    if kind == 0:  # whole numbers: equal overlaps, lines and points
        corners = rng.integers(-4, 9, (count, 2))
        sides = rng.integers(0, 8, (count, 2))
    elif kind == 1:  # variations of a few objects
        objects = rng.integers(0, 3, count)
        corners = 40 * objects[:, None] + rng.normal(0, 1.5, (count, 2))
        sides = 12 * rng.uniform(0.7, 1.3, (count, 2))
    elif kind == 2:  # from tiny to huge
        sides = np.exp(rng.uniform(-12, 8, (count, 2)))
        corners = rng.uniform(-50, 50, (count, 2)) - sides / 2
    elif kind == 3:  # far from 0, where coordinates are coarse
        corners = rng.choice([-1, 1]) * 1e6 + rng.integers(0, 8, (count, 2)) / 4
        sides = rng.integers(0, 12, (count, 2)) / 4
    elif kind == 4:  # long and thin, in both directions
        sides = np.exp(rng.normal(0, 2, (count, 2)))
        corners = rng.uniform(0, 4, (count, 2)) - sides / 2
    else:  # around the smallest numbers that there are
        scale = np.sqrt(np.finfo(dtype).tiny) * rng.choice([0.1, 1, 3])
        corners, sides = scale * rng.integers(0, 6, (count, 2)), scale * rng.integers(0, 5, (count, 2))
    corners = corners.astype(dtype)
    return np.concatenate([corners, np.maximum(corners, (corners + sides).astype(dtype))], axis=1)


def random_scores(rng: np.random.Generator, count: int, dtype: type) -> np.ndarray:
    """Few different values, for ties, or many."""
    return (rng.integers(0, 4, count) / 4 if rng.integers(2) else rng.random(count)).astype(dtype)


def iou_by_hand(a: np.ndarray, b: np.ndarray) -> np.floating:
    """IoU of two boxes, in the boxes' dtype."""
    zero, tiny = a.dtype.type(0), np.finfo(a.dtype).tiny
    width = max(min(a[2], b[2]) - max(a[0], b[0]), zero)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), zero)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union >= tiny else zero


def exact_iou(a: np.ndarray, b: np.ndarray) -> Fraction:
    """IoU of two boxes without any rounding; 0 where both are empty."""
    a, b = [Fraction(float(v)) for v in a], [Fraction(float(v)) for v in b]
    intersection = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    return intersection / union if union else Fraction(0)


def nms_by_hand(boxes: np.ndarray, scores: np.ndarray, threshold: float, idxs: np.ndarray | None = None) -> list[int]:
    """Every pair is looked at; the list of the kept ones grows."""
    threshold = boxes.dtype.type(threshold)
    keep: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        rivals = [k for k in keep if idxs is None or idxs[k] == idxs[i]]
        if all(not iou_by_hand(boxes[k], boxes[i]) > threshold for k in rivals):
            keep.append(i)
    return keep


def compare(seed: int, versions: list[str], most: int) -> None:
    """One set of up to `most` boxes: every version must keep the same ones in the same order; AssertionError if not."""
    rng = np.random.default_rng(seed)
    count, dtype = int(rng.integers(0, most + 1)), (np.float32, np.float64)[rng.integers(2)]
    boxes, scores = random_boxes(rng, count, dtype), random_scores(rng, count, dtype)
    idxs, threshold = rng.integers(-2, 3, count), float(rng.choice([*THRESHOLDS, rng.random()]))
    with np.errstate(under="ignore"):
        alone, batched = nms_by_hand(boxes, scores, threshold), nms_by_hand(boxes, scores, threshold, idxs)
        for version in versions:
            told = f"seed {seed}, {version}, {count} boxes, threshold {threshold}"
            with engine(version, seed) as (to_engine, _):
                there = to_engine(boxes), to_engine(scores)
                assert mk.nms(*there, threshold).tolist() == alone, f"nms: {told}"
                kept = mk.batched_nms(*there, to_engine(idxs), threshold)
                assert kept.tolist() == batched, f"batched_nms: {told}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares all versions of nms with literal loops.")
    parser.add_argument("sets", type=int, help="how many sets of boxes")
    parser.add_argument("--emulated", action="store_true", help="the CUDA version too, its threads in random order")
    arguments = parser.parse_args()
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # so few boxes are no work to share
    versions = [name for name, reason in mk.available().items() if reason is None]
    if arguments.emulated:
        if emulator.why_not() is not None:
            parser.error(emulator.why_not())
        versions.append("emulated random")
    sets = arguments.sets
    for seed in range(sets):
        compare(seed, versions, most=16)
        if (seed + 1) % 10000 == 0 or seed + 1 == sets:
            print(f"{seed + 1} sets of boxes: {', '.join(versions)} and the loops keep the same boxes", flush=True)


if __name__ == "__main__":
    main()
