"""interpolate: numbers worked out by hand, torch over generated sizes and memory layouts, and what it refuses."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minidet
import minidet.functional as F
import minidet_kernels as kernels
from minidet import Tensor
from tests.functional.oracle import DTYPES, LAYOUTS, check, laid_out

X = np.array([[[[1.0, 3.0], [5.0, 7.0]]]])


def test_by_default_pixels_are_copied():
    x = Tensor(X, requires_grad=True)
    y = F.interpolate(x, 4)
    np.testing.assert_array_equal(y.data[0, 0], [[1, 1, 3, 3], [1, 1, 3, 3], [5, 5, 7, 7], [5, 5, 7, 7]])
    (grad,) = minidet.grad(y, [x], np.arange(16.0).reshape(1, 1, 4, 4))
    np.testing.assert_array_equal(
        grad.data[0, 0], [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]
    )


def test_bilinear_by_hand():
    edges = F.interpolate(X, scale_factor=(1, 2), mode="bilinear")
    np.testing.assert_allclose(edges[0, 0], [[1, 1.5, 2.5, 3], [5, 5.5, 6.5, 7]])
    corners = F.interpolate(X, (3, 3), mode="bilinear", align_corners=True)
    np.testing.assert_allclose(corners[0, 0], [[1, 2, 3], [3, 4, 5], [5, 6, 7]])


def test_a_scale_factor_rounds_the_size_down_and_keeps_the_scale():
    x = np.arange(5.0).reshape(1, 1, 1, 5)
    y = F.interpolate(x, scale_factor=(1, 1.5), mode="bilinear")
    np.testing.assert_allclose(y[0, 0, 0], [0, 0.5, 7 / 6, 11 / 6, 2.5, 19 / 6, 23 / 6])  # (j + 1/2) / 1.5 - 1/2
    assert F.interpolate(x, (1, 7), mode="bilinear")[0, 0, 0, 6] == 4


REFUSED = pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "either size or scale_factor, got neither"),
        ({"size": 2, "scale_factor": 2}, ValueError, "either size or scale_factor, got both"),
        ({"size": 2, "align_corners": False}, ValueError, "align_corners only with mode 'bilinear', got False"),
        ({"size": 2, "mode": "cubic"}, ValueError, "mode 'nearest' or 'bilinear', got 'cubic'"),
        ({"size": 0}, ValueError, "size .*got 0"),
        ({"size": (2, 2, 2)}, ValueError, "size"),
        ({"size": 2.5}, ValueError, "size .*got 2.5"),
        ({"scale_factor": 0.4}, ValueError, "a scale_factor that leaves a pixel"),
        ({"scale_factor": 1e300}, ValueError, "a scale_factor that leaves a pixel, and at most"),
        ({"scale_factor": 1e308}, ValueError, "a scale_factor that leaves a pixel, and at most"),
        ({"scale_factor": -1}, ValueError, "scale_factor .*got -1"),
        ({"scale_factor": np.nan}, ValueError, "scale_factor .*got nan"),
        ({"scale_factor": (2,)}, ValueError, "scale_factor"),
    ],
)


@REFUSED
def test_bad_arguments_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=f"interpolate: expected {message}"):
        F.interpolate(X, **arguments)


@REFUSED
def test_torch_refuses_them_too(arguments, error, message):
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    theirs = (error, RuntimeError, TypeError)  # the latter two from its C++, where that is the one to find out
    with pytest.raises(theirs):
        torch.nn.functional.interpolate(torch.from_numpy(X), **arguments)


def test_an_image_without_batch_is_refused_by_name():
    with pytest.raises(ValueError, match=r"interpolate: expected input \(N, C, H, W\).*batch axis is missing"):
        F.interpolate(X[0], 2)


@pytest.mark.parametrize("align_corners", [None, False, True])
def test_every_small_row_is_resized_as_torch_does(align_corners):
    """With all the corner cases that torch has for scale factors: a size that stays, or doubles."""
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    rng = np.random.default_rng(0)
    for width in range(1, 9):
        x = rng.normal(size=(1, 1, 1, width))
        rules = [{"size": (1, n)} for n in range(1, 18)]
        rules += [{"scale_factor": (1.0, f)} for f in (0.5, 0.7, 1.0, 1.1, 1.3, 2.0, 2.05, 2.6) if width * f >= 1]
        for rule in rules:
            for options in ({**rule, "mode": "bilinear", "align_corners": align_corners}, rule):
                expected = torch.nn.functional.interpolate(torch.from_numpy(x), **options)
                np.testing.assert_allclose(F.interpolate(x, **options), expected, atol=1e-12, err_msg=str(options))


@pytest.mark.parametrize("version", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), layout=st.sampled_from(LAYOUTS))
def test_interpolate_equals_torchs(version, dtype, data, seed, layout):
    """Values, gradients, gradients of gradients."""
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    if kernels.available()[version] is not None:
        pytest.skip(kernels.available()[version])
    shape = data.draw(st.tuples(*(st.integers(low, high) for low, high in ((0, 2), (1, 3), (1, 8), (1, 8)))))
    options = {"mode": data.draw(st.sampled_from(["nearest", "bilinear"]))}
    if options["mode"] == "bilinear":
        options["align_corners"] = data.draw(st.sampled_from([None, False, True]))
    if data.draw(st.booleans()):
        options["size"] = data.draw(st.one_of(st.integers(1, 17), st.tuples(st.integers(1, 17), st.integers(1, 17))))
    else:
        factor = st.sampled_from([0.5, 0.7, 1, 1.3, 2, 2.6])
        options["scale_factor"] = data.draw(st.one_of(factor, st.tuples(factor, factor)))
        factors = np.broadcast_to(options["scale_factor"], 2)
        assume(all(np.floor(size * f) >= 1 for size, f in zip(shape[2:], factors, strict=True)))
    x = laid_out(np.random.default_rng(seed).normal(size=shape).astype(dtype), layout)
    with kernels.use(version):
        check(
            lambda a: F.interpolate(a, **options),
            lambda a: torch.nn.functional.interpolate(a, **options),
            x,
            seed=seed,
        )
