"""ReLU and batch normalisation."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

import minidet_kernels as mk
from tests.kernels.cases.drawing import CHANNELS, DTYPES
from tests.kernels.harness import Call, Case, images


@st.composite
def rectified(draw: st.DrawFn, backward: bool) -> Call:
    dtype = draw(DTYPES)
    shape = (draw(st.integers(0, 3)), draw(CHANNELS), draw(st.integers(1, 9)), draw(st.sampled_from([1, 7, 300])))
    return Call(tuple(draw(images(shape, dtype)) for _ in range(1 + backward)))


@st.composite
def normalized(draw: st.DrawFn, backward: bool) -> Call:
    dtype = draw(DTYPES)
    # up to 1800 values a channel: more than the CPU's block of 512 and the 256 threads of the GPU's
    shape = (draw(st.integers(1, 4)), draw(CHANNELS), draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 9, 50])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = draw(images(shape, dtype))
    weight, bias = rng.standard_normal((2, shape[1])).astype(dtype)
    if not backward:
        return Call((x, weight, bias), {"eps": draw(st.sampled_from([1e-5, 1e-3, 0.1]))})
    mean, std = rng.standard_normal(shape[1]).astype(dtype), rng.uniform(0.5, 2, shape[1]).astype(dtype)
    return Call((draw(images(shape, dtype)), x, weight, mean, std))


CASES = [
    Case("relu", rectified(backward=False)),
    Case(
        "relu_backward",
        rectified(backward=True),
        {0: lambda call, y: mk.relu_backward(y, call.arrays[1])},
    ),
    Case("batch_norm", normalized(backward=False)),
    Case("batch_norm_backward", normalized(backward=True)),
]

MUTANTS = {
    "slope 1 at 0": ("relu", "relu_backward", "y > 0", "y >= 0"),
    "negatives kept": ("relu", "relu", "np.maximum(x, 0)", "np.maximum(x, -1)"),
    "mean not subtracted": ("batch_norm", "batch_norm", "z = (x - _per_channel(mean))", "z = x"),
    "eps outside the root": (
        "batch_norm",
        "batch_norm",
        "np.sqrt(variance + np.asarray(eps, x.dtype))",
        "np.sqrt(variance) + eps",
    ),
    "term of the variance dropped": ("batch_norm", "batch_norm_backward", " - z * _per_channel(mean_product)", ""),
    "term of the mean dropped": ("batch_norm", "batch_norm_backward", "(grad - _per_channel(mean_grad)", "(grad"),
}

CUDA_MUTANTS = {
    "NaN becomes 0": ("relu", "relu", "value > 0 || value != value", "value > 0"),
    "last element missing": ("relu", "relu_backward", "i >= count", "i >= count - 1"),
    "last term of each thread only": ("batch_norm", "batch_norm", "total += x", "total = x"),
    "last square missing": (
        "batch_norm",
        "batch_norm",
        "i < count; i += THREADS) {\n        const Real difference",
        "i < count - 1; i += THREADS) {\n        const Real difference",
    ),
    "eps left out": ("batch_norm", "batch_norm", " + eps", ""),
    "term of the variance left out": (
        "batch_norm",
        "batch_norm_backward",
        " - z * (weight_grad[c] / per_channel)",
        "",
    ),
}
