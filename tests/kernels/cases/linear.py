"""The fully connected layer: small ones, and some large enough for the CPU's own products."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

import minidet_kernels as mk
from tests.kernels.cases.drawing import DTYPES
from tests.kernels.harness import Call, Case, in_memory

MEMORY = st.sampled_from(["contiguous", "sliced", "reversed", "read-only"])
# Of the large ones, one has several stretches and a block that is not full, one is no multiple of anything.
LARGE = st.sampled_from([(448, 640), (24, 4160 * 3), (1000, 303)])
SMALL = st.tuples(st.sampled_from([1, 2, 5, 16, 40]), st.sampled_from([1, 3, 16, 65]))


@st.composite
def operands(draw: st.DrawFn, *names: str) -> Call:
    """Arrays of the shapes that the letters say: "NC" is x, "KC" the weight, "NK" the gradient, "K" a bias or None."""
    is_large = draw(st.integers(0, 9)) == 0
    k, c = draw(LARGE if is_large else SMALL)
    n = draw(st.sampled_from([0, 1, 2, 7, 8, 9, 70] if is_large else [0, 1, 2, 7]))
    dtype, lengths = draw(DTYPES), {"N": n, "C": c, "K": k}
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    arrays = [
        in_memory(rng.standard_normal([lengths[letter] for letter in name]).astype(dtype), draw(MEMORY))
        for name in names
    ]
    if names[-1] == "K" and draw(st.booleans()):
        arrays[-1] = None
    return Call(tuple(arrays))


CASES = [
    Case(
        "linear",
        operands("NC", "KC", "K"),
        {
            0: lambda call, y: mk.linear_input_grad(y, call.arrays[1]),
            1: lambda call, y: mk.linear_weight_grad(call.arrays[0], y),
        },
    ),
    Case(
        "linear_input_grad",
        operands("NK", "KC"),
        {
            0: lambda call, y: mk.linear(y, call.arrays[1]),
            1: lambda call, y: mk.linear_weight_grad(y, call.arrays[0]),
        },
    ),
    Case(
        "linear_weight_grad",
        operands("NC", "NK"),
        {
            0: lambda call, y: mk.linear_input_grad(call.arrays[1], y),
            1: lambda call, y: mk.linear(call.arrays[0], y),
        },
    ),
]

MUTANTS = {
    "one weight too few": ("linear", "linear", "(weight * x[n])", "(weight * x[n])[:, 1:]"),
    "every row the first": ("linear", "linear", "y[n] =", "y[:] ="),
    "only the last output": ("linear", "linear_input_grad", "x_grad +=", "x_grad ="),
    "only the last row": ("linear", "linear_weight_grad", "weight_grad +=", "weight_grad ="),
}
