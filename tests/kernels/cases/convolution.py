"""Convolution and its two gradients, over all geometries that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

import minidet_kernels as mk
from minidet_kernels.convolution import conv2d_output_size
from tests.kernels.cases.drawing import DTYPES, pairs, without
from tests.kernels.harness import Call, Case, images

CHANNELS = st.sampled_from([0, 1, 2, 3, 5, 16, 17, 32, 48, 64, 70])  # of none at all: sums are 0


@st.composite
def convolutions(draw: st.DrawFn, arrays: Callable[..., Any]) -> Call:
    """A geometry whose kernel fits into the image; `arrays` makes the call from the three shapes."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels, outputs = (
        (draw(CHANNELS), draw(CHANNELS)) if groups == 1 else tuple(groups * v for v in draw(pairs(1, 5)))
    )
    geometry = {
        "stride": draw(pairs(1, 3)),
        "padding": draw(pairs(0, 2)),
        "dilation": draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 3)])),
    }
    kernel_size, size = draw(pairs(1, 4)), draw(pairs(1, 14))
    spans = [
        d * (k - 1) + 1 - 2 * p for k, d, p in zip(kernel_size, geometry["dilation"], geometry["padding"], strict=True)
    ]
    assume(size[0] >= spans[0] and size[1] >= spans[1])
    output_size = conv2d_output_size("conv2d", size, kernel_size, **geometry)
    n = draw(st.integers(0, 3))
    x, weight, y = (n, channels, *size), (outputs, channels // groups, *kernel_size), (n, outputs, *output_size)
    operands, options = arrays(draw, draw(DTYPES), x, weight, y)
    return Call(operands, {**options, **geometry, "groups": groups})


def _forward(draw: st.DrawFn, dtype: Any, x: Any, weight: Any, y: Any) -> Any:
    bias = draw(st.sampled_from([None, np.arange(y[1], dtype=dtype)]))
    return (draw(images(x, dtype)), draw(images(weight, dtype, special=False)), bias), {}


def _input_grad(draw: st.DrawFn, dtype: Any, x: Any, weight: Any, y: Any) -> Any:
    return (draw(images(y, dtype)), draw(images(weight, dtype, special=False))), {"input_size": x[2:]}


def _weight_grad(draw: st.DrawFn, dtype: Any, x: Any, weight: Any, y: Any) -> Any:
    return (draw(images(x, dtype)), draw(images(y, dtype))), {"kernel_size": weight[2:]}


CASES = [
    Case(
        "conv2d",
        convolutions(_forward),
        {
            0: lambda call, y: mk.conv2d_input_grad(y, call.arrays[1], call.arrays[0].shape[2:], **call.options),
            1: lambda call, y: mk.conv2d_weight_grad(call.arrays[0], y, call.arrays[1].shape[2:], **call.options),
        },
    ),
    Case(
        "conv2d_input_grad",
        convolutions(_input_grad),
        {
            0: lambda call, y: mk.conv2d(y, call.arrays[1], **without(call.options, "input_size")),
            1: lambda call, y: mk.conv2d_weight_grad(
                y, call.arrays[0], call.arrays[1].shape[2:], **without(call.options, "input_size")
            ),
        },
    ),
    Case(
        "conv2d_weight_grad",
        convolutions(_weight_grad),
        {
            0: lambda call, y: mk.conv2d_input_grad(
                call.arrays[1], y, call.arrays[0].shape[2:], **without(call.options, "kernel_size")
            ),
            1: lambda call, y: mk.conv2d(call.arrays[0], y, **without(call.options, "kernel_size")),
        },
    ),
]

MUTANTS = {
    "kernel shifted by one column": (
        "convolution",
        "conv2d",
        "slice(s * dw, s",
        "slice(max(s - 1, 0) * dw, max(s - 1, 0)",
    ),
    "kernel upside down": (
        "convolution",
        "conv2d",
        "weight[..., r, s] @ seen",
        "weight[..., r_size - 1 - r, s] @ seen",
    ),
    "first tap dropped": ("convolution", "conv2d", "y += weight", "y += ((r, s) != (0, 0)) * weight"),
    "bias dropped": ("convolution", "conv2d", "y + bias[:, None, None]", "y"),
    "padding only above": ("convolution", "conv2d", "(ph, ph), (pw, pw)", "(ph, ph), (2 * pw, 0)"),
    "shares overwrite": ("convolution", "conv2d_input_grad", "dilation)] += share", "dilation)] = share"),
    "margin not cut off": ("convolution", "conv2d_input_grad", "ph : ph + h, pw : pw + w", ":h, :w"),
    "one image only": ("convolution", "conv2d_weight_grad", ".sum(axis=0)", "[:1].sum(axis=0)"),
    "0.1 % too large": ("convolution", "conv2d_weight_grad", "= (grad @", "= 1.001 * (grad @"),
    "random rounding": (
        "convolution",
        "conv2d",
        "y = np.zeros((n, groups, k // groups, ho * wo), x.dtype)",
        "y = np.random.default_rng().normal(0, 1e-12, (n, groups, k // groups, ho * wo)).astype(x.dtype)",
    ),
}

CUDA_MUTANTS = {
    "bias left out": ("convolution", "conv2d", "value + bias[channel]", "value"),
    "bias added by each part": ("convolution", "conv2d", "biased && part_number == 0", "biased"),
    "a part forgotten": ("convolution", "conv2d", "part < parts; part++", "part < parts - 1; part++"),
    "columns by the rows' dilation": ("convolution", "conv2d", "column = b * w.shift", "column = b * h.shift"),
    "phase without its steps": ("convolution", "conv2d_input_grad", "h.first + i * h.spread", "h.first + i"),
    "phase with another's weights": ("convolution", "conv2d_input_grad", "w.first_tap + b", "b"),
    "column outside": (
        "convolution",
        "conv2d",
        " && unsigned(column) < unsigned(image.w)",
        "",
    ),
    "group ignored": ("convolution", "conv2d_weight_grad", "x + group * channels * h.size * w.size", "x"),
    "first image only": ("convolution", "conv2d_weight_grad", "depth / outputs * groups", "0 * groups"),
    "last slice of the sum missing": (
        "convolution",
        "conv2d",
        "start < part.end; start +=",
        "start + DEPTH <= part.end; start +=",
    ),
    "last column of the results missing": (
        "convolution",
        "conv2d_weight_grad",
        "j * ACROSS < part.columns",
        "j * ACROSS + 1 < part.columns",
    ),
}
