"""The matching of detections with true objects, and the precision that follows."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.kernels.cases.drawing import DTYPES
from tests.kernels.harness import Call, Case, in_memory

MEMORY = st.sampled_from(["contiguous", "sliced", "reversed", "read-only"])
LEVELS = st.sampled_from([(), (0.5,), (0, 1), (0.25, 0.5, 0.75), tuple(np.linspace(0.5, 0.95, 10))])


@st.composite
def groups(draw: st.DrawFn) -> Call:
    """Overlaps of few values, so that many are equal, to each other and to the thresholds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 6))
    detections, truths = rng.integers(0, 6, count), rng.integers(0, 5, count)
    overlaps = rng.integers(0, 5, int((detections * truths).sum())) / 4
    if draw(st.booleans()):
        overlaps = rng.random(len(overlaps))
    objects = int(truths.sum())
    ignored = rng.random((draw(st.integers(0, 3)), objects)) < 0.4
    crowd = rng.random(objects) < 0.3
    arrays = (overlaps.astype(draw(DTYPES)), detections, truths, ignored, crowd)
    return Call(tuple(in_memory(array, draw(MEMORY)) for array in arrays), {"thresholds": draw(LEVELS)})


@st.composite
def outcomes(draw: st.DrawFn) -> Call:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, classes = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    counts = rng.integers(0, draw(st.sampled_from([3, 12])), classes)
    results = rng.choice([-1, 0, 1], (rows, int(counts.sum())), p=[0.2, 0.4, 0.4]).astype(np.int8)
    positives = rng.integers(0, 12, (rows, classes))
    arrays = (results, counts, positives)
    recalls = draw(st.one_of(LEVELS, st.just(tuple(np.linspace(0, 1, 101)))))
    return Call(tuple(in_memory(array, draw(MEMORY)) for array in arrays), {"recalls": recalls})


CASES = [Case("match_detections", groups()), Case("precision_at_recalls", outcomes())]

_MATCH, _PRECISION = ("detection_matching", "match_detections"), ("detection_matching", "precision_at_recalls")
MUTANTS = {
    "overlap must be above the threshold": (*_MATCH, "of_detection >= threshold", "of_detection > threshold"),
    "of equal overlaps the first object": (*_MATCH, "values[place] >= values[best]", "values[place] > values[best]"),
    "ignored objects like others": (*_MATCH, "possible & ~ignored", "possible"),
    "ignored objects are never taken": (*_MATCH, "possible & ignored", "possible & ~possible"),
    "a crowd is taken once": (*_MATCH, "(crowd | ~taken)", "~taken"),
    "an object is taken again and again": (*_MATCH, "taken[best] = True", "taken[best] = False"),
    "all ignored objects are crowds": (*_MATCH, "(crowd | ~taken)", "(ignored | ~taken)"),
    "every detection has a second choice only": (*_MATCH, "if best < 0:", "if best >= 0:"),
    "objects numbered within their group": (*_MATCH, "first_truth + g", "g"),
    "ranges of sizes mixed up": (*_MATCH, "ignored[a, objects]", "ignored[0, objects]"),
    "wrong ones forgotten": (*_PRECISION, "right + wrong +", "right +"),
    "left out ones are wrong": (*_PRECISION, "of_class == FALSE", "of_class != TRUE"),
    "recall above the level": (*_PRECISION, "recall_after >= level", "recall_after > level"),
    "precision at the level itself": (
        *_PRECISION,
        "precision_after[enough].max(initial=0)",
        "precision_after[enough][:1].sum()",
    ),
    "recall of the detections": (*_PRECISION, "right / positives[b, k]", "right / max(1, len(of_class))"),
    "absent classes have precision 0": (*_PRECISION, "recalls)), -1.0)", "recalls)), 0.0)"),
    "places within the class": (*_PRECISION, "start + enough[0]", "enough[0]"),
}
