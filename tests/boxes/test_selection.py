"""Proposals and detections against literal loops over all boxes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minidet.boxes import best_first, filter_detections, filter_proposals


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def suppress(candidates, threshold):
    """candidates: (score, index, group, box), any order; the survivors, best first."""
    kept = []
    for candidate in sorted(candidates, key=lambda c: (-c[0], c[1])):
        if all(other[2] != candidate[2] or iou(other[3], candidate[3]) <= threshold for other in kept):
            kept.append(candidate)
    return kept


def some_boxes(rng, count):
    corners = rng.integers(-4, 20, (count, 2))
    return np.concatenate([corners, corners + rng.integers(1, 14, (count, 2))], axis=1).astype(np.float64)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 25), st.integers(0, 10**6), st.integers(1, 30))
def test_proposals_are_those_of_a_loop(count, seed, limit):
    rng = np.random.default_rng(seed)
    boxes, scores = some_boxes(rng, count), rng.integers(0, 6, count) / 4
    levels = rng.integers(0, 2, count)
    candidates = []
    for index in range(count):
        x1, y1, x2, y2 = boxes[index]
        box = (min(max(x1, 0), 16), min(max(y1, 0), 12), min(max(x2, 0), 16), min(max(y2, 0), 12))
        if box[2] - box[0] >= 2 and box[3] - box[1] >= 2:
            candidates.append((scores[index], index, levels[index], box))
    expected = suppress(candidates, 0.45)[:limit]
    kept = filter_proposals(boxes, scores, levels, (12, 16), limit, 0.45, min_size=2)
    np.testing.assert_array_equal(kept, np.array([box for _, _, _, box in expected]).reshape(-1, 4))


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 12), st.integers(1, 3), st.integers(0, 10**6), st.booleans())
def test_detections_are_those_of_a_loop(count, classes, seed, box_for_each_class):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (count, classes)) / 4
    boxes = (
        some_boxes(rng, count * classes).reshape(count, classes, 4) if box_for_each_class else some_boxes(rng, count)
    )
    candidates = []
    for r in range(count):
        for k in range(classes):
            box = boxes[r, k] if box_for_each_class else boxes[r]
            if scores[r, k] > 0.25 and min(box[2] - box[0], box[3] - box[1]) >= 3:
                candidates.append((scores[r, k], (r, k), k + 1, tuple(box)))
    expected = suppress(candidates, 0.45)[:7]
    found = filter_detections(boxes, scores, 0.25, 0.45, limit=7, min_size=3)
    np.testing.assert_array_equal(found["boxes"], np.array([c[3] for c in expected]).reshape(-1, 4))
    np.testing.assert_array_equal(found["labels"], [c[2] for c in expected])
    np.testing.assert_array_equal(found["scores"], [c[0] for c in expected])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 35))
def test_the_best_come_first_and_equal_ones_by_index(scores, count):
    expected = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:count]
    np.testing.assert_array_equal(best_first(np.array(scores, np.float32), count), expected)
