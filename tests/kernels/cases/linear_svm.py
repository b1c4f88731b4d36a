"""The linear support vector machine, solved or stopped after a few passes."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.kernels.cases.drawing import DTYPES
from tests.kernels.harness import Call, Case, in_memory


@st.composite
def problems(draw: st.DrawFn) -> Call:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, features = draw(st.integers(0, 30)), draw(st.integers(0, 11))
    memory = st.sampled_from(["contiguous", "sliced", "reversed", "read-only"])
    positive = rng.random(rows) < draw(st.sampled_from([0, 0.2, 0.5, 1]))
    x = rng.standard_normal((rows, features)) * draw(st.sampled_from([0.3, 1, 5]))
    x += positive[:, None] * draw(st.sampled_from([0, 1]))
    x[rng.random(rows) < 0.1] = 0
    options = {
        "cost": draw(st.sampled_from([1e-3, 0.1, 1])),
        "positive_weight": draw(st.sampled_from([0.5, 1, 2])),
        "bias": draw(st.sampled_from([0, 1, 10])),
        "tolerance": draw(st.sampled_from([0, 1e-3, 1])),
        "max_passes": draw(st.integers(1, 12)),
        "seed": draw(st.integers(0, 3)),
    }
    alphas = None
    if draw(st.booleans()):  # with some at the ends of their intervals
        costs = np.where(positive, options["cost"] * options["positive_weight"], options["cost"])
        alphas = costs * np.clip(rng.uniform(-0.5, 1.5, rows), 0, 1)
    return Call((in_memory(x.astype(draw(DTYPES)), draw(memory)), in_memory(positive, draw(memory)), alphas), options)


CASES = [Case("linear_svm", problems())]

MUTANTS = {
    "margin 0": ("linear_svm", "linear_svm", "_dot(row, weights) - 1", "_dot(row, weights)"),
    "labels forgotten in w": (
        "linear_svm",
        "linear_svm",
        "(alphas[i] - before) * signs[i] * row",
        "(alphas[i] - before) * row",
    ),
    "no upper end": ("linear_svm", "linear_svm", "0.0), costs[i])", "0.0), 1e9)"),
    "alphas below 0": (
        "linear_svm",
        "linear_svm",
        "max(before - gradient / squares[i], 0.0)",
        "(before - gradient / squares[i])",
    ),
    "last features not trained": (
        "linear_svm",
        "linear_svm",
        "* signs[i] * row",
        "* signs[i] * np.append(row[:4], 0 * row[4:])",
    ),
    "nobody left out at 0": ("linear_svm", "linear_svm", "gradient > highest", "False"),
    "nobody left out at the cost": ("linear_svm", "linear_svm", "gradient < lowest", "False"),
    "step of half the length": ("linear_svm", "linear_svm", "gradient / squares[i]", "gradient / (2 * squares[i])"),
}
