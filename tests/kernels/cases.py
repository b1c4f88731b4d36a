"""The inputs of every kernel: shapes, geometry, dtypes and memory, drawn by Hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

import minidet_kernels as mk
from minidet_kernels.convolution import conv2d_output_size
from minidet_kernels.pooling import pool2d_output_size
from tests.kernels.harness import Call, Case, images

DTYPES = st.sampled_from([np.float32, np.float64])
# Around the 16 lanes of the vector type, and the blocks of 16, 32 and 64 channels that the CPU's convolution works on.
CHANNELS = st.sampled_from([1, 2, 3, 5, 16, 17, 32, 48, 64, 70])


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


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


def _without(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}


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


@st.composite
def rectified(draw: st.DrawFn, backward: bool) -> Call:
    dtype = draw(DTYPES)
    shape = (draw(st.integers(0, 3)), draw(CHANNELS), draw(st.integers(1, 9)), draw(st.sampled_from([1, 7, 300])))
    return Call(tuple(draw(images(shape, dtype)) for _ in range(1 + backward)))


@st.composite
def normalized(draw: st.DrawFn, backward: bool) -> Call:
    dtype = draw(DTYPES)
    shape = (draw(st.integers(1, 4)), draw(CHANNELS), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = draw(images(shape, dtype))
    weight, bias = rng.standard_normal((2, shape[1])).astype(dtype)
    if not backward:
        return Call((x, weight, bias), {"eps": draw(st.sampled_from([1e-5, 1e-3, 0.1]))})
    mean, std = rng.standard_normal(shape[1]).astype(dtype), rng.uniform(0.5, 2, shape[1]).astype(dtype)
    return Call((draw(images(shape, dtype)), x, weight, mean, std))


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
            0: lambda call, y: mk.conv2d(y, call.arrays[1], **_without(call.options, "input_size")),
            1: lambda call, y: mk.conv2d_weight_grad(
                y, call.arrays[0], call.arrays[1].shape[2:], **_without(call.options, "input_size")
            ),
        },
    ),
    Case(
        "conv2d_weight_grad",
        convolutions(_weight_grad),
        {
            0: lambda call, y: mk.conv2d_input_grad(
                call.arrays[1], y, call.arrays[0].shape[2:], **_without(call.options, "kernel_size")
            ),
            1: lambda call, y: mk.conv2d(call.arrays[0], y, **_without(call.options, "kernel_size")),
        },
    ),
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
    ),
    Case(
        "avg_pool2d",
        average_pools(adjoint=False),
        {0: lambda call, y: mk.avg_pool2d_adjoint(y, call.arrays[0].shape[2:], **call.options)},
    ),
    Case(
        "avg_pool2d_adjoint",
        average_pools(adjoint=True),
        {0: lambda call, y: mk.avg_pool2d(y, **_without(call.options, "input_size"))},
    ),
    Case("relu", rectified(backward=False)),
    Case(
        "relu_backward",
        rectified(backward=True),
        {0: lambda call, y: mk.relu_backward(y, call.arrays[1])},
    ),
    Case("batch_norm", normalized(backward=False)),
    Case("batch_norm_backward", normalized(backward=True)),
]
