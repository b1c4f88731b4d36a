"""Max and average pooling, with indices that max pooling itself would never make."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

import minidet_kernels as mk
from minidet_kernels.pooling import pool2d_output_size
from tests.kernels.cases.drawing import DTYPES, pairs, without
from tests.kernels.harness import Call, Case, images


@st.composite
def pools(draw: st.DrawFn, dilated: bool) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The shape of an image, and a geometry of which at least one window fits."""
    kernel_size = draw(pairs(1, 4))
    options = {
        "kernel_size": kernel_size,
        "stride": draw(st.one_of(st.none(), pairs(1, 3))),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel_size),
        "ceil_mode": draw(st.booleans()),
    }
    if dilated:
        options["dilation"] = draw(st.sampled_from([(1, 1), (2, 1), (3, 2)]))
    shape = (draw(st.integers(0, 3)), draw(st.sampled_from([1, 3, 16, 40])), *draw(pairs(1, 9)))
    try:
        pool2d_output_size("pool", shape[2:], **{**options, "stride": options["stride"] or kernel_size})
    except ValueError:
        assume(False)
    return shape, options


@st.composite
def max_pools(draw: st.DrawFn) -> Call:
    shape, options = draw(pools(dilated=True))
    return Call((draw(images(shape, draw(DTYPES))),), options)


@st.composite
def indexed(draw: st.DrawFn, scatter: bool) -> Call:
    """Random indices, repeated and -1 ones included: more than max_pool2d itself would ever make."""
    n, c = draw(st.integers(0, 3)), draw(st.sampled_from([1, 3, 16, 40]))
    (h, w), (ho, wo) = draw(pairs(1, 6)), draw(pairs(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    indices = rng.integers(-1, h * w, (n, c, ho, wo))
    if scatter:
        return Call((draw(images((n, c, ho, wo), draw(DTYPES))), indices), {"input_size": (h, w)})
    return Call((draw(images((n, c, h, w), draw(DTYPES))), indices))


@st.composite
def average_pools(draw: st.DrawFn, adjoint: bool) -> Call:
    shape, options = draw(pools(dilated=False))
    size = pool2d_output_size("pool", shape[2:], **{**options, "stride": options["stride"] or options["kernel_size"]})
    options["count_include_pad"] = draw(st.booleans())
    if adjoint:
        return Call((draw(images((*shape[:2], *size), draw(DTYPES))),), {"input_size": shape[2:], **options})
    return Call((draw(images(shape, draw(DTYPES))),), options)


CASES = [
    Case("max_pool2d", max_pools()),
    Case(
        "max_pool2d_gather",
        indexed(scatter=False),
        {0: lambda call, y: mk.max_pool2d_scatter(y, call.arrays[1], call.arrays[0].shape[2:])},
    ),
    Case(
        "max_pool2d_scatter",
        indexed(scatter=True),
        {0: lambda call, y: mk.max_pool2d_gather(y, call.arrays[1])},
        adds_atomically=True,
    ),
    Case(
        "avg_pool2d",
        average_pools(adjoint=False),
        {0: lambda call, y: mk.avg_pool2d_adjoint(y, call.arrays[0].shape[2:], **call.options)},
    ),
    Case(
        "avg_pool2d_adjoint",
        average_pools(adjoint=True),
        {0: lambda call, y: mk.avg_pool2d(y, **without(call.options, "input_size"))},
    ),
]

MUTANTS = {
    "last of equal values wins": ("pooling", "max_pool2d", "value > best", "value >= best"),
    "NaN loses": ("pooling", "max_pool2d", " | np.isnan(value)", ""),
    "index by height": ("pooling", "max_pool2d", "row * w + column", "row * h + column"),
    "-inf never wins": ("pooling", "max_pool2d", " | (indices == -1)", ""),
    "repeated index adds once": (
        "pooling",
        "max_pool2d_scatter",
        "np.add.at(x_grad, (batch, channel, indices[batch, channel, i, j]), grad[batch, channel, i, j])",
        "x_grad[batch, channel, indices[batch, channel, i, j]] += grad[batch, channel, i, j]",
    ),
    "-1 is the last pixel": (
        "pooling",
        "max_pool2d_gather",
        "np.where(chosen == -1, x.dtype.type(0), values)",
        "values",
    ),
    "indices changed": ("pooling", "max_pool2d_gather", "chosen.clip(0)", "chosen.clip(0, out=chosen)"),
    "sum for average": ("pooling", "avg_pool2d", "total / count", "total"),
    "last row dropped": ("pooling", "avg_pool2d", "total += padded", "total += (r == 0) * padded"),
    "shares undivided": ("pooling", "avg_pool2d_adjoint", "+= grad / count", "+= grad"),
}

CUDA_MUTANTS = {
    "last of equal maxima": ("pooling", "max_pool2d", "value > best", "value >= best"),
    "NaN never wins": ("pooling", "max_pool2d", " || value != value", ""),
    "one column too many": ("pooling", "max_pool2d", "column >= w", "column > w"),
    "row by width": ("pooling", "max_pool2d", "at / wo % ho", "at / wo % wo"),
    "pixel 0 left out": (
        "pooling",
        "max_pool2d_scatter",
        "if (index >= 0 && index < pixels)\n        atomicAdd",
        "if (index > 0 && index < pixels)\n        atomicAdd",
    ),
    "window begins in the padding": ("pooling", "avg_pool2d", "max(left, 0)", "left"),
    "first window by stride 1": ("pooling", "avg_pool2d_adjoint", "- window_rows + stride_rows", "- window_rows + 1"),
    "window beyond the last": ("pooling", "avg_pool2d_adjoint", "min(row / stride_rows, ho - 1)", "row / stride_rows"),
}
