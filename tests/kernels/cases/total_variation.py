"""Total variation, its subgradients, and the discrete gradient with its adjoint; images of one row or column too."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

import minidet_kernels as mk
from tests.kernels.cases.drawing import DTYPES
from tests.kernels.harness import Call, Case, images, in_memory

SIZES = st.sampled_from([0, 1, 2, 3, 16, 17, 33])  # the sums of the CPU version take 16 rows at a time
CHANNELS = st.sampled_from([0, 1, 2, 3, 17])


@st.composite
def pictures(draw: st.DrawFn) -> Call:
    shape = (draw(st.integers(0, 3)), draw(CHANNELS), draw(SIZES), draw(SIZES))
    return Call((draw(images(shape, draw(DTYPES))),))


@st.composite
def fields(draw: st.DrawFn, radius: bool = False) -> Call:
    """A field is a pair of images; its memory is drawn once more, for the pair may lie in any order too."""
    shape = (draw(st.integers(0, 3)), draw(CHANNELS), draw(SIZES), draw(SIZES))
    dtype = draw(DTYPES)
    pair = np.stack([draw(images(shape, dtype)) for _ in range(2)])
    if draw(st.booleans()):  # as the CPU version makes them
        pair = np.ascontiguousarray(pair.transpose(0, 1, 3, 4, 2)).transpose(0, 1, 4, 2, 3)
    else:
        pair = in_memory(pair, draw(st.sampled_from(["contiguous", "sliced", "reversed", "read-only"])))
    return Call((pair,), {"radius": draw(st.sampled_from([0, 0.25, 1, 2.5]))} if radius else {})


CASES = [
    Case("tv_anisotropic", pictures()),
    Case("tv_isotropic", pictures()),
    Case("tv_anisotropic_subgradient", pictures()),
    Case("tv_isotropic_subgradient", pictures()),
    Case("image_gradient", pictures(), {0: lambda call, y: mk.image_gradient_adjoint(y)}),
    Case("image_gradient_adjoint", fields(), {0: lambda call, y: mk.image_gradient(y)}),
    Case("project_anisotropic", fields(radius=True)),
    Case("project_isotropic", fields(radius=True)),
]

MUTANTS = {
    "sum of squares": ("total_variation", "tv_isotropic", "np.sqrt(dx**2 + dy**2)", "(dx**2 + dy**2)"),
    "rows left out": ("total_variation", "tv_anisotropic", "(np.abs(dx) + np.abs(dy))", "np.abs(dx)"),
    "summed up in float32": (
        "total_variation",
        "tv_anisotropic",
        "image_gradient(x.astype(np.float64))",
        "image_gradient(x).astype(np.float64)",
    ),
    "sign 1 at 0": (
        "total_variation",
        "tv_anisotropic_subgradient",
        "np.sign(image_gradient(x))",
        "np.where(image_gradient(x) >= 0, 1, -1).astype(x.dtype)",
    ),
    "wraps around": (
        "total_variation",
        "image_gradient",
        "p[0, :, :, :, :-1] = x[:, :, :, 1:] - x[:, :, :, :-1]",
        "p[0] = np.roll(x, -1, axis=3) - x",
    ),
    "sign of the adjoint": (
        "total_variation",
        "image_gradient_adjoint",
        "x[:, :, 1:, :] += p[1, :, :, :-1, :]",
        "x[:, :, 1:, :] -= p[1, :, :, :-1, :]",
    ),
    "ball cut on one side": (
        "total_variation",
        "project_anisotropic",
        "np.clip(p, -radius, radius)",
        "np.minimum(p, radius)",
    ),
    "each component by itself": (
        "total_variation",
        "project_isotropic",
        "return (p * shrink).astype(p.dtype)",
        "return np.clip(p, -radius, radius)",
    ),
}

CUDA_MUTANTS = {
    "differences in float": (
        "total_variation",
        "tv_anisotropic",
        "Number(x[1]) - Number(x[0])",
        "Number(Real(x[1] - x[0]))",
    ),
    "beside the lower pixel": ("total_variation", "tv_anisotropic", "Number(x[w])", "Number(x[w - 1])"),
    "squares": ("total_variation", "tv_isotropic", "sqrt(dx * dx + dy * dy)", "(dx * dx + dy * dy)"),
    "NaN has the sign 0": ("total_variation", "tv_anisotropic_subgradient", "Real(-1) : value;", "Real(-1) : Real(0);"),
    "left neighbour forgotten": (
        "total_variation",
        "tv_isotropic_subgradient",
        "total += Direction(x + at - 1, row, column - 1, h, w).x;",
        "total += 0;",
    ),
    "second field over the first": ("total_variation", "image_gradient", "p[count + at] =", "p[at] ="),
    "p read in the last column": (
        "total_variation",
        "image_gradient_adjoint",
        "if (column + 1 < w)\n        total -= px",
        "total -= px",
    ),
    "cut on one side": ("total_variation", "project_anisotropic", "p[at] < -radius ? -radius :", ""),
    "only dx made shorter": ("total_variation", "project_isotropic", "py * shrink", "py"),
}
