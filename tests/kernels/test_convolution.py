"""Convolution: numbers worked out by hand, literal loops, and torch; and the errors of the contract."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import minidet_kernels as mk
from tests.kernels.cases import BY_NAME
from tests.kernels.harness import assert_close, run

CONV2D, INPUT_GRAD, WEIGHT_GRAD = (BY_NAME[name] for name in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"))

IMAGE = np.arange(9, dtype=np.float64).reshape(1, 1, 3, 3)  # 0 1 2 / 3 4 5 / 6 7 8
KERNEL = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def test_a_2x2_kernel_on_a_3x3_image_by_hand() -> None:
    # top left: 0*1 + 1*2 + 3*3 + 4*4 = 27; each step right adds 1+2+3+4 = 10, each step down 30
    np.testing.assert_array_equal(mk.conv2d(IMAGE, KERNEL)[0, 0], [[27, 37], [57, 67]])
    np.testing.assert_array_equal(mk.conv2d(IMAGE, KERNEL, np.array([0.5]))[0, 0], [[27.5, 37.5], [57.5, 67.5]])


def test_padding_and_stride_by_hand() -> None:
    # windows start at -1 and 1: [. . / . 0], [. . / 1 2], [. 3 / . 6], [4 5 / 7 8]
    expected = [[4 * 0, 3 * 1 + 4 * 2], [2 * 3 + 4 * 6, 1 * 4 + 2 * 5 + 3 * 7 + 4 * 8]]
    np.testing.assert_array_equal(mk.conv2d(IMAGE, KERNEL, stride=2, padding=1)[0, 0], expected)


def test_dilation_takes_the_four_corners() -> None:
    assert mk.conv2d(IMAGE, KERNEL, dilation=2)[0, 0, 0, 0] == 1 * 0 + 2 * 2 + 3 * 6 + 4 * 8


def test_groups_see_their_own_channels() -> None:
    x = np.array([1.0, 10.0]).reshape(1, 2, 1, 1)
    weight = np.array([2.0, 3.0]).reshape(2, 1, 1, 1)
    np.testing.assert_array_equal(mk.conv2d(x, weight, groups=2).ravel(), [2, 30])


def test_one_output_pixel_hands_its_gradient_to_the_pixels_it_saw() -> None:
    grad = np.zeros((1, 1, 2, 2))
    grad[0, 0, 0, 1] = 1
    expected = [[0, 1, 2], [0, 3, 4], [0, 0, 0]]
    np.testing.assert_array_equal(mk.conv2d_input_grad(grad, KERNEL, (3, 3))[0, 0], expected)


def test_the_weight_gradient_by_hand() -> None:
    grad = np.zeros((1, 1, 2, 2))
    grad[0, 0, 1, 0] = 2  # this output saw 3 4 / 6 7
    np.testing.assert_array_equal(mk.conv2d_weight_grad(IMAGE, grad, 2)[0, 0], [[6, 8], [12, 14]])


def _loops(x, weight, bias, stride, padding, dilation, groups):
    """The equation of the contract, symbol by symbol."""
    (n_size, _, h_size, w_size), (k_size, c_of_group, r_size, s_size) = x.shape, weight.shape
    ho = (h_size + 2 * padding[0] - dilation[0] * (r_size - 1) - 1) // stride[0] + 1
    wo = (w_size + 2 * padding[1] - dilation[1] * (s_size - 1) - 1) // stride[1] + 1
    y = np.zeros((n_size, k_size, ho, wo))
    for n, k, i, j in np.ndindex(y.shape):
        group = k // (k_size // groups)
        for c, r, s in np.ndindex(c_of_group, r_size, s_size):
            h = i * stride[0] + r * dilation[0] - padding[0]
            w = j * stride[1] + s * dilation[1] - padding[1]
            if 0 <= h < h_size and 0 <= w < w_size:
                y[n, k, i, j] += weight[k, c, r, s] * x[n, group * c_of_group + c, h, w]
        y[n, k, i, j] += 0 if bias is None else bias[k]
    return y


@pytest.mark.parametrize("groups", [1, 2])
def test_literal_loops_agree(groups: int) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((6, 4 // groups, 3, 2))
    bias = rng.standard_normal(6)
    geometry = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 3), "groups": groups}
    expected = _loops(x, weight, bias, **geometry)
    assert_close(mk.conv2d(x, weight, bias, **geometry), expected, "conv2d differs from the loops")


@pytest.mark.parametrize("case", [CONV2D, INPUT_GRAD, WEIGHT_GRAD], ids=lambda case: case.name)
def test_torch_agrees(case, version) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")

    @settings(max_examples=60, deadline=None)
    @given(case.calls)
    def agrees(call):
        arrays = [None if a is None else torch.from_numpy(np.ascontiguousarray(a).copy()) for a in call.arrays]
        if not all(a is None or (a.size and np.isfinite(a).all()) for a in call.arrays):
            return  # torch skips padding where we multiply it by zero, and refuses some arrays without numbers
        options = dict(call.options)
        if case is CONV2D:
            expected = torch.nn.functional.conv2d(*arrays, **options)
        elif case is INPUT_GRAD:
            grad, weight = arrays
            size = (len(grad), weight.shape[1] * options["groups"], *options.pop("input_size"))
            expected = torch.nn.grad.conv2d_input(size, weight, grad, **options)
        else:
            x, grad = arrays
            size = (grad.shape[1], x.shape[1] // options["groups"], *options.pop("kernel_size"))
            expected = torch.nn.grad.conv2d_weight(x, size, grad, **options)
        assert_close(run(case, call, version)[0], expected.numpy(), f"{case.name} differs from torch")

    agrees()


def test_a_nan_reaches_only_the_windows_that_see_it() -> None:
    x = np.ones((1, 20, 6, 6), np.float32)
    x[0, 3, 0, 0] = np.nan
    y = mk.conv2d(x, np.ones((17, 20, 3, 3), np.float32))
    assert np.isnan(y[0, :, 0, 0]).all()
    assert np.isnan(y).sum() == 17


def test_a_nan_in_the_gradient_reaches_only_the_pixels_that_its_window_saw() -> None:
    grad = np.ones((1, 20, 6, 6), np.float32)
    grad[0, 3, 2, 2] = np.nan
    for channels in (3, 20):  # few channels have a loop of their own
        x_grad = mk.conv2d_input_grad(grad, np.ones((20, channels, 3, 3), np.float32), (8, 8))
        assert np.isnan(x_grad[0, :, 2:5, 2:5]).all()
        assert np.isnan(x_grad).sum() == channels * 9


def test_the_cpu_stays_in_channels_last_memory(version) -> None:
    if version != "cpu":
        pytest.skip("a promise of the cpu version")
    x, weight = np.ones((2, 3, 8, 8), np.float32), np.ones((16, 3, 3, 3), np.float32)
    y = mk.conv2d(x, weight)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    assert mk.conv2d_input_grad(y, weight, (8, 8)).transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(
    ("layer", "geometry"),
    [
        ((2, 300, 24, 9, 3), {"padding": 1}),  # more channels than one part of a sum takes
        ((1, 40, 48, 70, 3), {"padding": 1, "stride": 2}),  # more rows than a thread's scratch memory holds
        ((5, 3, 16, 33, 7), {"padding": 3, "stride": 4}),  # the input gradient has phases
        ((3, 17, 33, 12, 1), {"stride": 2}),  # and empty ones
        ((9, 16, 16, 4, 3), {"padding": 1}),  # images smaller than a tile
        ((9, 20, 40, 4, 3), {"padding": 1, "stride": 2}),  # groups of images, not equally large
        ((1, 3, 20, 70, 3), {"padding": 1}),  # few channels, whose input gradient has several bands
    ],
)
def test_layers_larger_than_the_blocks_of_the_cpu_version(layer, geometry) -> None:
    n, c, k, size, kernel = layer
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, c, size, size + 60), dtype=np.float32)
    weight, bias = rng.standard_normal((k, c, kernel, kernel), dtype=np.float32), np.arange(k, dtype=np.float32)
    y = mk.conv2d(x, weight, bias, **geometry)
    results = [
        y,
        mk.conv2d_input_grad(y, weight, x.shape[2:], **geometry),
        mk.conv2d_weight_grad(x, y, kernel, **geometry),
    ]
    x, weight, bias = x.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64)
    with mk.use("reference"):
        grad = y.astype(np.float64)
        expected = [
            mk.conv2d(x, weight, bias, **geometry),
            mk.conv2d_input_grad(grad, weight, x.shape[2:], **geometry),
            mk.conv2d_weight_grad(x, grad, kernel, **geometry),
        ]
    for result, exact in zip(results, expected, strict=True):
        assert_close(result, exact.astype(np.float32), "differs from float64")


@pytest.mark.parametrize("padding", [0, 1, (3, 0)])
@pytest.mark.parametrize("stride", [7, (10**15, 3), 2**62])
def test_a_stride_longer_than_the_image_costs_no_more_than_the_image(stride, padding) -> None:
    rng = np.random.default_rng(0)
    x, weight = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 6, 5), (4, 3, 3, 3)))
    with mk.use("reference"):
        y = mk.conv2d(x, weight, None, stride, padding)
        expected = mk.conv2d_input_grad(y, weight, (6, 5), stride, padding)
    with mk.use("cpu"):
        assert_close(mk.conv2d(x, weight, None, stride, padding), y, "forward")
        assert_close(mk.conv2d_input_grad(y, weight, (6, 5), stride, padding), expected, "input gradient")


X, W = np.zeros((2, 3, 8, 8)), np.zeros((4, 3, 3, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mk.conv2d(X.transpose(0, 2, 3, 1), W), ValueError, "C/groups R S|C/groups, R, S"),
        (lambda: mk.conv2d(X, np.zeros((4, 5, 5, 3))), ValueError, "channels-last"),
        (lambda: mk.conv2d(X[0], W), ValueError, "batch axis is missing"),
        (lambda: mk.conv2d(X, W, np.zeros(5)), ValueError, r"bias .*4.*got \(5,\)"),
        (lambda: mk.conv2d(X, W.astype(np.float32)), TypeError, "weight float32"),
        (lambda: mk.conv2d(X.astype(int), W.astype(int)), TypeError, "float32 or float64"),
        (lambda: mk.conv2d(X, W, groups=2), ValueError, "groups"),
        (lambda: mk.conv2d(X, W, stride=0), ValueError, "stride"),
        (lambda: mk.conv2d(X, W, padding=(1, 2, 3)), ValueError, "padding"),
        (lambda: mk.conv2d(X, W, dilation=4), ValueError, "spans 9 x 9 pixels.*8 x 8"),
        (lambda: mk.conv2d_input_grad(np.zeros((2, 4, 5, 6)), W, (8, 8)), ValueError, r"Ho, Wo.*6, 6"),
        (lambda: mk.conv2d_weight_grad(X, np.zeros((1, 4, 6, 6)), 3), ValueError, "grad"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
