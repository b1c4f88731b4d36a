"""Resizing and warping, with matrices that look far outside the image, exactly at its pixels, and between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import minidet_kernels as mk
from minidet_kernels.resample import rotation_then_translation
from tests.kernels.cases.drawing import DTYPES, pairs, without
from tests.kernels.harness import Call, Case, images, in_memory

CHANNELS = st.sampled_from([0, 1, 2, 3, 17])


@st.composite
def resizes(draw: st.DrawFn, adjoint: bool, nearest: bool = False) -> Call:
    shape = (draw(st.integers(0, 3)), draw(CHANNELS), *draw(pairs(1, 9)))
    options: dict[str, Any] = {"input_size" if adjoint else "size": draw(pairs(1, 20))}
    if not nearest:
        options["align_corners"] = draw(st.booleans())
    options["scale_factor"] = draw(st.sampled_from([None, None, 0.3, 1.7, (2.0, 0.7)]))  # fitting the size or not
    return Call((draw(images(shape, draw(DTYPES))),), options)


@st.composite
def matrices(draw: st.DrawFn, count: int) -> np.ndarray:
    """Rotations, shears and mirrors, some by whole pixels, some far away; float32 or float64."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["rotation", "any", "whole pixels", "far"]))
    if kind == "rotation":
        made = rotation_then_translation(rng.uniform(-0.5, 0.5, count), rng.uniform(-3, 3, (count, 2)), (7, 7))
    else:
        made = rng.normal(0, 1, (count, 2, 3)) * [1, 1, 5]
    if kind == "whole pixels":
        made[:, :, :2] = [[0, 1], [1, 0]]
        made = np.round(made)
    if kind == "far":
        made[:, :, 2] *= 1e7
    memory = draw(st.sampled_from(["contiguous", "sliced", "reversed", "read-only"]))
    return in_memory(made.astype(draw(DTYPES)), memory)


@st.composite
def warps(draw: st.DrawFn, adjoint: bool) -> Call:
    """One image for all matrices, or one each. The images are finite: next to a NaN rounding decides where it goes."""
    count = draw(st.integers(0, 4))
    one_image = draw(st.booleans())
    channels, size, output_size = draw(CHANNELS), draw(pairs(1, 9)), draw(pairs(1, 9))
    dtype, made = draw(DTYPES), draw(matrices(count))
    if adjoint:
        grad = draw(images((count, channels, *output_size), dtype, special=False))
        return Call((grad, made), {"input_size": size, "images": 1 if one_image else None})
    x = draw(images((1 if one_image else count, channels, *size), dtype, special=False))
    return Call((x, made), {"output_size": draw(st.sampled_from([output_size, None]))})


@st.composite
def grams(draw: st.DrawFn) -> Call:
    made = draw(matrices(draw(st.integers(0, 4))))
    return Call((made,), {"input_size": draw(pairs(1, 9)), "output_size": draw(pairs(1, 9))})


@st.composite
def gram_products(draw: st.DrawFn) -> Call:
    """Any numbers: more than a warp would ever make."""
    size, dtype = draw(pairs(1, 20)), draw(DTYPES)
    x = draw(images((draw(st.integers(0, 3)), draw(CHANNELS), *size), dtype))
    return Call((x, draw(images((1, 5, *size), dtype))[0]))


def _back(adjoint: str) -> Callable[[Call, np.ndarray], np.ndarray]:
    """For a kernel that takes size=..."""
    return lambda call, y: getattr(mk, adjoint)(y, call.arrays[0].shape[2:], **without(call.options, "size"))


def _forth(kernel: str) -> Callable[[Call, np.ndarray], np.ndarray]:
    """For an adjoint that takes input_size=..."""
    return lambda call, y: getattr(mk, kernel)(y, call.arrays[0].shape[2:], **without(call.options, "input_size"))


def _warp_back(call: Call, y: np.ndarray) -> np.ndarray:
    x, made = call.arrays
    return mk.affine_warp_adjoint(y, made, x.shape[2:], len(x))


CASES = [
    Case("resize_bilinear", resizes(adjoint=False), {0: _back("resize_bilinear_adjoint")}),
    Case("resize_bilinear_adjoint", resizes(adjoint=True), {0: _forth("resize_bilinear")}),
    Case("resize_nearest", resizes(adjoint=False, nearest=True), {0: _back("resize_nearest_adjoint")}),
    Case("resize_nearest_adjoint", resizes(adjoint=True, nearest=True), {0: _forth("resize_nearest")}),
    Case("affine_warp", warps(adjoint=False), {0: _warp_back}, waits=1),  # for the matrices, to check them
    Case(
        "affine_warp_adjoint",
        warps(adjoint=True),
        {0: lambda call, y: mk.affine_warp(y, call.arrays[1], call.arrays[0].shape[2:])},
        waits=1,
    ),
    Case("affine_warp_gram", grams(), waits=1),
    Case("gram_product", gram_products(), {0: lambda call, y: mk.gram_product(y, call.arrays[1])}),
]

MUTANTS = {
    "columns weighted by rows": (
        "resample",
        "resize_bilinear",
        "row_weight[:, None] * column_weight",
        "row_weight[:, None] * column_weight[::-1]",
    ),
    "resize: shares overwrite": (
        "resample",
        "resize_bilinear_adjoint",
        "np.add.at(x_grad, (slice(None), slice(None), row, column), weight.astype(grad.dtype) * grad)",
        "x_grad[:, :, row, column] += weight.astype(grad.dtype) * grad",
    ),
    "nearest: rows for columns": (
        "resample",
        "resize_nearest",
        "x[:, :, rows[:, None], columns]",
        "x[:, :, rows[:, None], columns[::-1]]",
    ),
    "nearest: copies overwrite": (
        "resample",
        "resize_nearest_adjoint",
        "np.add.at(x_grad, (slice(None), slice(None), rows[:, None], columns), grad)",
        "x_grad[:, :, rows[:, None], columns] += grad",
    ),
    "rows and columns swapped": ("resample", "affine_warp", "np.stack([j, i,", "np.stack([i, j,"),
    "last column outside": ("resample", "affine_warp", "(column < input_size[1])", "(column < input_size[1] - 1)"),
    "border repeated": ("resample", "affine_warp", "(row >= 0)", "(row >= -1)"),
    "rounded to zero, not down": (
        "resample",
        "affine_warp",
        "np.floor(u).astype(np.int64), np.floor(v)",
        "np.trunc(u).astype(np.int64), np.floor(v)",
    ),
    "always the first image": ("resample", "affine_warp", "x[n] if len(x) > 1 else x[0]", "x[0]"),
    "warp: shares overwrite": (
        "resample",
        "affine_warp_adjoint",
        "np.add.at(image_grad, (slice(None), row, column), weight.astype(grad.dtype) * grad[n, :, i, j].T)",
        "image_grad[:, row, column] += weight.astype(grad.dtype) * grad[n, :, i, j].T",
    ),
    "gram at the other pixel": (
        "resample",
        "affine_warp_gram",
        "GRAM_OFFSETS.index((h2 - h, w2 - w)), h, w",
        "GRAM_OFFSETS.index((h2 - h, w2 - w)), h2, w2",
    ),
    "only the diagonal": ("resample", "affine_warp_gram", "for other in taps:", "for other in [one]:"),
    "half of the neighbours": (
        "resample",
        "gram_product",
        "y[:, :, rows_there, columns_there] +=",
        "y[:, :, rows_there, columns_there] += 0 *",
    ),
    "a neighbour too far": ("resample", "gram_product", "_overlap(x.shape[3], s)", "_overlap(x.shape[3], 2 * s)"),
}

CUDA_MUTANTS = {
    "weights of the other pixel": ("resample", "resize_bilinear", "columns.share(s, j)", "columns.share(1 - s, j)"),
    "one result too few looks": ("resample", "resize_bilinear_adjoint", "i < last_row[row]", "i < last_row[row] - 1"),
    "a share for who does not look": (
        "resample",
        "resize_bilinear_adjoint",
        "if (rows.pixel(r, i) == row && columns.pixel(s, j) == column)",
        "if (columns.pixel(s, j) == column)",
    ),
    "copies of the row's column": ("resample", "resize_nearest", "columns[at % wo]", "columns[0]"),
    "only the first copy": ("resample", "resize_nearest_adjoint", "total += plane", "total = plane"),
    "last column of the input outside": ("resample", "affine_warp", "column < w)\n", "column < w - 1)\n"),
    "one image for all": ("resample", "affine_warp", "(images > 1 ? n : 0)", "0"),
    "to zero, not down": ("resample", "affine_warp", "left(floor(u))", "left(trunc(u))"),
    "search too near": (
        "resample",
        "affine_warp_adjoint",
        "floor(middle + s[3])",
        "floor(middle + 0.8 * s[3])",
    ),
    "share of pixels that are not seen": (
        "resample",
        "affine_warp_adjoint",
        "(row == top || row == top + 1)",
        "(row >= top - 1 && row <= top + 1)",
    ),
    "only one image's results": (
        "resample",
        "affine_warp_adjoint",
        "last = images > 1 ? image + 1 : matrix_count",
        "last = min(image + 1, matrix_count)",
    ),
    "neighbour to the other side": (
        "resample",
        "affine_warp_gram",
        ": entry - 3;\n    double",
        ": 3 - entry;\n    double",
    ),
    "wraps around the row": (
        "resample",
        "gram_product",
        "column - right >= 0 && column - right < w",
        "column - right >= 0",
    ),
}
