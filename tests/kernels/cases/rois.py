"""RoIPool and RoIAlign: boxes inside, across and beyond the border, with corners on whole, half and odd places."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import minidet_kernels as mk
from tests.kernels.cases.drawing import DTYPES, pairs, without
from tests.kernels.harness import Call, Case, images, in_memory

CHANNELS = st.sampled_from([1, 3, 16, 64, 70])  # around the blocks of 64 channels that the CPU version works on
SCALES = st.sampled_from([1.0, 0.5, 0.0625, 0.3])
BOX_MEMORY = st.sampled_from(["contiguous", "sliced", "reversed", "read-only"])


@st.composite
def maps(draw: st.DrawFn) -> tuple[int, int, int, int]:
    return (draw(st.sampled_from([2, 1, 3, 2, 0])), draw(CHANNELS), *draw(pairs(1, 9)))


@st.composite
def rois(draw: st.DrawFn, shape: tuple[int, ...], scale: float, dtype: Any) -> np.ndarray:
    """Boxes (R, 5) on a map of `shape`: some reach far beyond it, some have no size, some lie on others."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.sampled_from([5, 1, 2, 12, 0])) if shape[0] else 0
    size = np.array([shape[3], shape[2]])
    corners = rng.uniform(-3, size + 3, (2, count, 2))
    if draw(st.booleans()):
        corners = np.round(2 * corners) / 2
    if draw(st.integers(0, 3)) == 0:
        corners *= rng.choice([0, 1, 1, 30], (1, count, 1))
    corners = np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1) / scale
    image = rng.integers(0, max(shape[0], 1), (count, 1))
    return in_memory(np.concatenate([image, corners], axis=1).astype(dtype), draw(BOX_MEMORY))


@st.composite
def pooled(draw: st.DrawFn) -> Call:
    shape, scale, dtype = draw(maps()), draw(SCALES), draw(DTYPES)
    x, boxes = draw(images(shape, dtype)), draw(rois(shape, scale, dtype))
    if draw(st.booleans()):  # more often than `images` does: a bin is small, and its first NaN proves nothing
        x = np.where(np.random.default_rng(x.size).random(shape) < 0.3, np.nan, x).astype(dtype)
    return Call((x, boxes), {"output_size": draw(pairs(1, 4)), "spatial_scale": scale})


@st.composite
def indexed(draw: st.DrawFn, scatter: bool) -> Call:
    """Random argmax, repeated and -1 ones included: more than roi_pool itself would ever make."""
    shape, dtype = draw(maps()), draw(DTYPES)
    boxes = draw(rois(shape, 1.0, dtype))
    bins = (len(boxes), shape[1], *draw(pairs(1, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    argmax = rng.integers(-1, shape[2] * shape[3], bins).astype(np.int32)
    if scatter:
        return Call((draw(images(bins, dtype)), boxes, argmax), {"input_size": shape})
    return Call((draw(images(shape, dtype)), boxes, argmax))


@st.composite
def aligned(draw: st.DrawFn, adjoint: bool) -> Call:
    shape, scale, dtype = draw(maps()), draw(SCALES), draw(DTYPES)
    boxes, size = draw(rois(shape, scale, dtype)), draw(pairs(1, 4))
    options = {
        "spatial_scale": scale,
        "sampling_ratio": draw(st.sampled_from([-1, 0, 1, 2, 3])),
        "aligned": draw(st.booleans()),
    }
    if adjoint:
        grad = draw(images((len(boxes), shape[1], *size), dtype))
        return Call((grad, boxes), {"input_size": shape, **options})
    return Call((draw(images(shape, dtype)), boxes), {"output_size": size, **options})


CASES = [
    Case("roi_pool", pooled()),
    Case(
        "roi_pool_gather",
        indexed(scatter=False),
        {0: lambda call, y: mk.roi_pool_scatter(y, *call.arrays[1:], call.arrays[0].shape)},
    ),
    Case(
        "roi_pool_scatter",
        indexed(scatter=True),
        {0: lambda call, y: mk.roi_pool_gather(y, *call.arrays[1:])},
        adds_atomically=True,
    ),
    Case(
        "roi_align",
        aligned(adjoint=False),
        {
            0: lambda call, y: mk.roi_align_adjoint(
                y, call.arrays[1], call.arrays[0].shape, **without(call.options, "output_size")
            )
        },
    ),
    Case(
        "roi_align_adjoint",
        aligned(adjoint=True),
        {
            0: lambda call, y: mk.roi_align(
                y, call.arrays[1], call.arrays[0].shape[2:], **without(call.options, "input_size")
            )
        },
        adds_atomically=True,
    ),
]

MUTANTS = {
    "RoIPool: last of equal values wins": ("roi_pool", "roi_pool", "value > best", "value >= best"),
    "RoIPool: NaN loses": ("roi_pool", "roi_pool", " | np.isnan(value)", ""),
    "RoIPool: a negative maximum is 0": ("roi_pool", "roi_pool", "(index == -1) | ", ""),
    "RoIPool: place by height": ("roi_pool", "roi_pool", "row * x.shape[3]", "row * x.shape[2]"),
    "RoIPool: bins do not overlap": (
        "roi_pool",
        "roi_pool",
        "range(top[r, i], bottom[r, i])",
        "range(top[r, i], top[r, i + 1] if i + 1 < output_size[0] else bottom[r, i])",
    ),
    "RoIPool: all boxes on one image": (
        "roi_pool",
        "roi_pool_gather",
        "x[images[r], channel",
        "x[images[r * 0], channel",
    ),
    "RoIPool: a pixel of several boxes counts once": (
        "roi_pool",
        "roi_pool_scatter",
        "np.add.at(x_grad, (images[r], channel, row, column), grad[r, channel, i, j])",
        "x_grad[images[r], channel, row, column] += grad[r, channel, i, j]",
    ),
    "RoIPool: -1 is the last pixel": ("roi_pool", "roi_pool_gather", "argmax >= 0", "argmax >= -1"),
    "RoIAlign: sum for mean": ("roi_align", "roi_align", "y[r] /= _samples_in_a_bin(rows, columns, r)", "pass"),
    "RoIAlign: mean of the samples inside": (
        "roi_align",
        "roi_align",
        "y[r] /= _samples_in_a_bin(rows, columns, r)",
        "y[r] /= np.maximum(rows.weight[:, r].sum((0, 2))[:, None] * columns.weight[:, r].sum((0, 2)), 1)",
    ),
    "RoIAlign: the nearer pixel only": ("roi_align", "roi_align", "range(2)", "range(1)"),
    "RoIAlign: NaN of weight 0 counts": (
        "roi_align",
        "roi_align",
        "np.where(weight > 0, weight * x[n][:, row, column], 0)",
        "weight * x[n][:, row, column]",
    ),
    "RoIAlign: a pixel of several bins counts once": (
        "roi_align",
        "roi_align_adjoint",
        "np.add.at(x_grad[n], (slice(None), row, column), np.where(weight > 0, weight * share, 0))",
        "x_grad[n][:, row, column] += np.where(weight > 0, weight * share, 0)",
    ),
    "RoIAlign: shares undivided": (
        "roi_align",
        "roi_align_adjoint",
        "grad[r] / _samples_in_a_bin(rows, columns, r)",
        "grad[r]",
    ),
}

CUDA_MUTANTS = {
    "RoIPool: last of equal maxima": ("roi_pool", "roi_pool", "value > best", "value >= best"),
    "RoIPool: NaN never wins": ("roi_pool", "roi_pool", " || value != value", ""),
    "RoIPool: a maximum below 0 is 0": ("roi_pool", "roi_pool", "index == -1 || ", ""),
    "RoIPool: row by height": ("roi_pool", "roi_pool", "index = row * w + column", "index = row * h + column"),
    "RoIPool: size without + 1": ("roi_pool", "roi_pool", "Real(last - first + 1)", "Real(last - first)"),
    "RoIPool: halves rounded up": ("roi_pool", "roi_pool", "round(low * scale)", "floor(low * scale + Real(0.5))"),
    "RoIPool: all boxes on image 0": ("roi_pool", "roi_pool_gather", "x + (image * channels", "x + (0 * channels"),
    "RoIPool: pixel 0 left out": (
        "roi_pool",
        "roi_pool_scatter",
        "index >= 0 && index < pixels)",
        "index > 0 && index < pixels)",
    ),
    "RoIAlign: sum for mean": ("roi_align", "roi_align", "total /= divisor(rows, columns);", ""),
    "RoIAlign: NaN of weight 0": ("roi_align", "roi_align", "if (weight > 0)", "if (weight >= 0)"),
    "RoIAlign: small boxes stay small": ("roi_align", "roi_align", "if (!aligned)", "if (false)"),
    "RoIAlign: half a pixel off": ("roi_align", "roi_align", "aligned ? 0.5 : 0", "0"),
    "RoIAlign: samples just outside count as 0": ("roi_align", "roi_align", "y < -1", "y < 0"),
    "RoIAlign: too many samples passed over": ("roi_align", "roi_align", "(-2 - start)", "(2 - start)"),
    "RoIAlign: shares undivided": ("roi_align", "roi_align_adjoint", "grad[at] / divisor(rows, columns)", "grad[at]"),
}
