"""Convolution, pooling, normalisation and linear layers against torch, over generated geometries and memory layouts,
in every version of the kernels and both precisions: values, gradients, gradients of gradients."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minidet.functional as F
import minidet_kernels as kernels
from tests.functional.oracle import DTYPES, LAYOUTS, assert_close, check, laid_out

torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
T = torch.nn.functional

EXAMPLES = settings(max_examples=12, deadline=None)
seeds, layouts = st.integers(0, 2**32 - 1), st.sampled_from(LAYOUTS)
every_version = pytest.mark.parametrize("version", ["reference", "cpu"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def pairs(low, high):
    """A number for both axes, or one for each."""
    return st.one_of(st.integers(low, high), st.tuples(st.integers(low, high), st.integers(low, high)))


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def normal(shape, dtype, seed, layout="contiguous"):
    return laid_out(np.random.default_rng(seed).normal(size=shape).astype(dtype), layout)


@st.composite
def convolutions(draw):
    """(shapes of x, weight and bias, geometry) that fit: batches may be empty."""
    groups, per_group, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    geometry = {"stride": draw(pairs(1, 3)), "padding": draw(pairs(0, 2)), "dilation": draw(pairs(1, 2))}
    sizes = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 8))
        for k, p, d in zip(kernel, pair(geometry["padding"]), pair(geometry["dilation"]), strict=True)
    ]
    x = (draw(st.integers(0, 2)), groups * per_group, *sizes)
    return x, (groups * outputs, per_group, *kernel), groups * outputs, geometry | {"groups": groups}


@every_version
@every_dtype
@EXAMPLES
@given(case=convolutions(), seed=seeds, layout=layouts, with_bias=st.booleans())
def test_conv2d_equals_torchs(version, dtype, case, seed, layout, with_bias):
    x, weight, channels, geometry = case
    arrays = [normal(x, dtype, seed, layout), normal(weight, dtype, seed + 1, layout)]
    arrays += [normal(channels, dtype, seed + 2)] * with_bias
    with kernels.use(version):
        check(lambda *a: F.conv2d(*a, **geometry), lambda *a: T.conv2d(*a, **geometry), *arrays, seed=seed)


@every_version
@every_dtype
@EXAMPLES
@given(data=st.data(), seed=seeds, layout=layouts, with_bias=st.booleans())
def test_conv_transpose2d_equals_torchs(version, dtype, data, seed, layout, with_bias):
    groups, per_group, outputs = (data.draw(st.integers(1, n)) for n in (2, 2, 2))
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride, dilation = data.draw(pairs(1, 3)), data.draw(pairs(1, 2))
    padding = data.draw(pairs(0, 1))
    extra = tuple(data.draw(st.integers(0, s - 1)) for s in pair(stride))
    size = data.draw(st.tuples(st.integers(2, 5), st.integers(2, 5)))
    for n, k, s, p, d, e in zip(size, kernel, pair(stride), pair(padding), pair(dilation), extra, strict=True):
        assume((n - 1) * s - 2 * p + d * (k - 1) + e + 1 >= 1)  # an output at all
    geometry = {"stride": stride, "padding": padding, "output_padding": extra, "groups": groups, "dilation": dilation}
    x = (data.draw(st.integers(0, 2)), groups * per_group, *size)
    arrays = [normal(x, dtype, seed, layout), normal((x[1], outputs, *kernel), dtype, seed + 1)]
    arrays += [normal(groups * outputs, dtype, seed + 2)] * with_bias
    with kernels.use(version):
        check(
            lambda *a: F.conv_transpose2d(*a, **geometry),
            lambda *a: T.conv_transpose2d(*a, **geometry),
            *arrays,
            seed=seed,
        )


@st.composite
def windows(draw, dilated):
    """(shape of x, window) that fit, by torch's rules."""
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    window = {
        "kernel_size": kernel,
        "stride": draw(st.one_of(st.none(), pairs(1, 3))),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }
    dilation = pair(draw(pairs(1, 2))) if dilated else (1, 1)
    if dilated:
        window["dilation"] = dilation
    else:
        window["count_include_pad"] = draw(st.booleans())
    sizes = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 8))
        for k, p, d in zip(kernel, window["padding"], dilation, strict=True)
    ]
    return (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *sizes), window


@every_version
@every_dtype
@EXAMPLES
@given(case=windows(dilated=True), seed=seeds, layout=layouts)
def test_max_pool2d_equals_torchs(version, dtype, case, seed, layout):
    shape, window = case
    x = normal(shape, dtype, seed, layout)
    with torch.no_grad():  # a dilated window that misses the image: torch's gradient has nowhere to go
        assume(bool(torch.isfinite(T.max_pool2d(torch.tensor(x), **window)).all()))
    with kernels.use(version):
        check(lambda a: F.max_pool2d(a, **window), lambda a: T.max_pool2d(a, **window), x, seed=seed)


@every_version
@every_dtype
@EXAMPLES
@given(case=windows(dilated=False), seed=seeds, layout=layouts)
def test_avg_pool2d_equals_torchs(version, dtype, case, seed, layout):
    shape, window = case
    with kernels.use(version):
        check(
            lambda a: F.avg_pool2d(a, **window),
            lambda a: T.avg_pool2d(a, **window),
            normal(shape, dtype, seed, layout),
            seed=seed,
        )


@every_version
@every_dtype
@EXAMPLES
@given(
    shape=st.tuples(*(st.integers(low, high) for low, high in ((0, 2), (1, 2), (1, 9), (1, 9)))),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    seed=seeds,
    layout=layouts,
)
def test_adaptive_avg_pool2d_equals_torchs(version, dtype, shape, size, seed, layout):
    x = normal(shape, dtype, seed, layout)
    with kernels.use(version):
        check(lambda a: F.adaptive_avg_pool2d(a, size), lambda a: T.adaptive_avg_pool2d(a, size), x, seed=seed)


@every_version
@every_dtype
@EXAMPLES
@given(shape=st.tuples(*(st.integers(low, 4) for low in (0, 1, 1, 1))), seed=seeds, layout=layouts)
def test_global_pooling_equals_torchs(version, dtype, shape, seed, layout):
    x = normal(shape, dtype, seed, layout)
    with kernels.use(version):
        check(F.global_avg_pool2d, lambda a: a.mean((2, 3)), x, seed=seed)
        check(F.global_max_pool2d, lambda a: a.amax((2, 3)), x, seed=seed)


@every_version
@every_dtype
@EXAMPLES
@given(shape=st.tuples(*(st.integers(low, 4) for low in (0, 1, 1, 1))), seed=seeds, layout=layouts, track=st.booleans())
def test_batch_norm_in_training_equals_torchs(version, dtype, shape, seed, layout, track):
    assume(shape[0] * shape[2] * shape[3] != 1)
    channels = shape[1]
    arrays = [
        2 * normal(shape, dtype, seed, layout) + 1,
        normal(channels, dtype, seed + 1),
        normal(channels, dtype, seed + 2),
    ]
    running = [normal(channels, dtype, seed + 3), np.abs(normal(channels, dtype, seed + 4))]
    theirs_running = [torch.tensor(array) for array in running]

    def ours(x, weight, bias):
        return F.batch_norm(x, *(running if track else (None, None)), weight, bias, True, 0.3, 1e-2)

    def theirs(x, weight, bias):
        statistics = theirs_running if track else (None, None)
        return T.batch_norm(x, *statistics, weight, bias, True, 0.3, 1e-2)

    with kernels.use(version):
        check(ours, theirs, *arrays, seed=seed)
    for got, expected in zip(running, theirs_running, strict=True):
        assert_close(got, expected.numpy(), "running statistics")


@every_dtype
@EXAMPLES
@given(shape=st.tuples(*(st.integers(low, 4) for low in (0, 1, 1, 1))), seed=seeds, layout=layouts)
def test_batch_norm_in_evaluation_equals_torchs(dtype, shape, seed, layout):
    channels = shape[1]
    running = [normal(channels, dtype, seed + 3), np.abs(normal(channels, dtype, seed + 4)) + 0.1]
    before = [array.copy() for array in running]
    arrays = [normal(shape, dtype, seed, layout), normal(channels, dtype, seed + 1), normal(channels, dtype, seed + 2)]
    check(
        lambda x, w, b: F.batch_norm(x, *running, w, b),
        lambda x, w, b: T.batch_norm(x, *map(torch.tensor, running), w, b),
        *arrays,
        seed=seed,
    )
    assert all((a == b).all() for a, b in zip(running, before, strict=True))


@every_dtype
@EXAMPLES
@given(
    shape=st.tuples(*(st.integers(low, 6) for low in (0, 1, 1, 1))), size=st.integers(1, 6), seed=seeds, layout=layouts
)
def test_local_response_norm_equals_torchs(dtype, shape, size, seed, layout):
    options = {"size": size, "alpha": 0.5, "beta": 0.75, "k": 2.0}
    check(
        lambda x: F.local_response_norm(x, **options),
        lambda x: T.local_response_norm(x, **options),
        normal(shape, dtype, seed, layout),
        seed=seed,
    )


@every_dtype
@EXAMPLES
@given(
    lead=st.lists(st.integers(0, 3), max_size=3),
    channels=st.integers(1, 5),
    outputs=st.integers(1, 4),
    with_bias=st.booleans(),
    seed=seeds,
)
def test_linear_equals_torchs(dtype, lead, channels, outputs, with_bias, seed):
    arrays = [normal((*lead, channels), dtype, seed), normal((outputs, channels), dtype, seed + 1)]
    arrays += [normal(outputs, dtype, seed + 2)] * with_bias
    check(F.linear, T.linear, *arrays, seed=seed)
