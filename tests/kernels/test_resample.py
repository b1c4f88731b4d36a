"""Resampling: numbers worked out by hand, literal loops, torch and SciPy; what a warp's matrices mean; the errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

import minidet_kernels as mk
from minidet_kernels.resample import invert_affine, rotation_then_translation
from tests.kernels.cases import BY_NAME
from tests.kernels.harness import assert_close, run

IDENTITY = np.eye(2, 3)[None]


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def shifted(x: float, y: float) -> np.ndarray:
    """The matrix that looks x to the right and y below."""
    return np.array([[[1, 0, x], [0, 1, y]]], float)


def row(*numbers: float) -> np.ndarray:
    return np.array(numbers, float).reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("x", "width", "align_corners", "expected"),
    [
        (row(0, 1), 4, False, [0, 0.25, 0.75, 1]),  # looks at -1/4, 1/4, 3/4, 5/4, held inside
        (row(0, 1), 4, True, [0, 1 / 3, 2 / 3, 1]),
        (row(0, 1, 2, 3), 2, False, [0.5, 2.5]),
        (row(0, 1, 2, 3), 2, True, [0, 3]),
        (row(0, 1, 2, 3), 1, False, [1.5]),
        (row(0, 1, 2, 3), 1, True, [0]),  # one pixel cannot be both corners: the first
        (row(7), 3, False, [7, 7, 7]),
        (row(7), 3, True, [7, 7, 7]),
    ],
)
def test_resized_rows_by_hand(x, width: int, align_corners: bool, expected) -> None:
    np.testing.assert_allclose(mk.resize_bilinear(x, (1, width), align_corners)[0, 0, 0], expected, atol=1e-15)
    turned = x.transpose(0, 1, 3, 2)
    np.testing.assert_allclose(mk.resize_bilinear(turned, (width, 1), align_corners)[0, 0, :, 0], expected, atol=1e-15)


def test_the_adjoint_of_resizing_hands_back_the_weights() -> None:
    back = mk.resize_bilinear_adjoint(row(1, 10, 100, 1000), (1, 2))  # weights of the first table's first line
    np.testing.assert_allclose(back[0, 0, 0], [1 + 7.5 + 25, 2.5 + 75 + 1000])


@pytest.mark.parametrize(
    ("x", "width", "expected"),
    [
        (row(0, 1, 2), 3, [0, 1, 2]),
        (row(0, 1, 2), 6, [0, 0, 1, 1, 2, 2]),
        (row(0, 1, 2), 4, [0, 0, 1, 2]),  # 0, 3/4, 3/2, 9/4 rounded down
        (row(0, 1, 2, 3, 4), 2, [0, 2]),
        (row(7), 3, [7, 7, 7]),
    ],
)
def test_nearest_rows_by_hand(x, width: int, expected) -> None:
    assert mk.resize_nearest(x, (1, width))[0, 0, 0].tolist() == expected
    assert mk.resize_nearest(x.transpose(0, 1, 3, 2), (width, 1))[0, 0, :, 0].tolist() == expected
    back = mk.resize_nearest_adjoint(np.ones((1, 1, 1, width)), x.shape[2:])[0, 0, 0]
    assert back.tolist() == [expected.count(pixel) for pixel in x.ravel()]


def test_a_scale_factor_sets_the_distance_of_the_results() -> None:
    x = row(0, 1, 2, 3, 4)  # 1.5 times larger: 7 pixels, at (j + 1/2) / 1.5 - 1/2
    expected = [0, 0.5, 7 / 6, 11 / 6, 2.5, 19 / 6, 23 / 6]
    np.testing.assert_allclose(mk.resize_bilinear(x, (1, 7), scale_factor=1.5)[0, 0, 0], expected, atol=1e-12)
    # 0, 1/1.3 = 0.77, 1.54, 2.31, 3.08, 3.85; by the sizes, 5/6, the last would look at 4.17
    assert mk.resize_nearest(x, (1, 6), scale_factor=1.3)[0, 0, 0].tolist() == [0, 0, 1, 2, 3, 3]
    assert mk.resize_nearest(x, (1, 6))[0, 0, 0].tolist() == [0, 0, 1, 2, 3, 4]
    corners = mk.resize_bilinear(x, (1, 7), align_corners=True, scale_factor=1.5)
    np.testing.assert_array_equal(corners, mk.resize_bilinear(x, (1, 7), align_corners=True))
    np.testing.assert_array_equal(mk.resize_bilinear(x, (1, 5), scale_factor=1.1), x)  # a size that stays is copied
    np.testing.assert_array_equal(mk.resize_nearest(x, (1, 5), scale_factor=1.1), x)


def test_copied_pixels_keep_their_bits() -> None:
    x = np.array([np.nan, np.inf, -0.0, 1e-310]).reshape(1, 1, 2, 2)
    assert mk.resize_nearest(x, 4)[:, :, ::2, ::2].tobytes() == x.tobytes()


def test_torch_copies_the_same_pixels(version) -> None:
    """All sizes to 40, where torch's own rounding decides about many; in float32, which is what it rounds to."""
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    for width in range(1, 41):
        x = np.arange(width, dtype=np.float32).reshape(1, 1, 1, width)
        for new in (*range(1, 41), 82, 94, 123):  # 41 / 82 and the like: multiplied back they are no whole numbers
            expected = torch.nn.functional.interpolate(torch.from_numpy(x), (1, new))
            np.testing.assert_array_equal(mk.resize_nearest(x, (1, new)), expected.numpy(), f"{width} to {new}")


@pytest.mark.parametrize("name", ["resize_bilinear", "resize_bilinear_adjoint"])
def test_torch_resizes_alike(name: str, version) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    interpolate = torch.nn.functional.interpolate

    @settings(max_examples=100, deadline=None)
    @given(BY_NAME[name].calls)
    def agrees(call):
        array = torch.from_numpy(np.ascontiguousarray(call.arrays[0]).copy())
        if 0 in array.shape or not np.isfinite(call.arrays[0]).all() or call.options["scale_factor"] is not None:
            return  # torch refuses empty ones and has no size beside a scale; where a weight is 0 it may skip infinity
        options = {"mode": "bilinear", "align_corners": call.options["align_corners"]}
        (result,) = run(BY_NAME[name], call, version)
        if name == "resize_bilinear":
            expected = interpolate(array, call.options["size"], **options)
        else:
            x = torch.zeros(*array.shape[:2], *call.options["input_size"], dtype=array.dtype, requires_grad=True)
            (expected,) = torch.autograd.grad(interpolate(x, array.shape[2:], **options), x, array)
        assert_close(result, expected.numpy(), f"{name} differs from torch")

    agrees()


def test_torch_samples_alike(version) -> None:
    """Forward and backward; grid_sample counts from -1 to 1, with align_corners=True between the outermost centres."""
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    rng = np.random.default_rng(0)
    x, matrices = rng.standard_normal((4, 3, 6, 9)), rng.normal(0, 1, (4, 2, 3)) * [1, 1, 4]
    grad = rng.standard_normal((4, 3, 7, 5))
    i, j = np.indices((7, 5))
    places = np.einsum("nkl,lij->nijk", matrices, np.stack([j, i, np.ones_like(i)]))  # (N, Ho, Wo, 2), (u, v)
    grid = torch.from_numpy(2 * places / [9 - 1, 6 - 1] - 1)
    images = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.grid_sample(images, grid, padding_mode="zeros", align_corners=True)
    (back,) = torch.autograd.grad(expected, images, torch.from_numpy(grad))
    np.testing.assert_allclose(mk.affine_warp(x, matrices, (7, 5)), expected.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(mk.affine_warp_adjoint(grad, matrices, (6, 9)), back.numpy(), atol=1e-12)


def test_scipy_warps_alike(version) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is the oracle; minidet itself installs it")

    @settings(max_examples=100, deadline=None)
    @given(BY_NAME["affine_warp"].calls)
    def agrees(call):
        x, matrices = call.arrays
        if 0 in x.shape:
            return  # SciPy crashes on them
        (result,) = run(BY_NAME["affine_warp"], call, version)
        i, j = np.indices(result.shape[2:])
        for n, c in np.ndindex(result.shape[:2]):
            (a, b, left), (d, e, top) = matrices[n].astype(float)
            places = np.stack([d * j + e * i + top, a * j + b * i + left])
            places = places.clip(-9, 99)  # as far outside as it needs to be; SciPy counts pixels in 32 bits
            image = x[n if len(x) > 1 else 0, c].astype(float)
            expected = ndimage.map_coordinates(image, places, order=1, mode="grid-constant")
            assert_close(result[n, c], expected.astype(x.dtype), "affine_warp differs from SciPy")

    agrees()


def test_literal_loops_warp_alike() -> None:
    rng = np.random.default_rng(0)
    x, matrices = rng.standard_normal((2, 3, 5, 6)), rng.normal(0, 1, (2, 2, 3)) * [1, 1, 3]
    y = mk.affine_warp(x, matrices, (4, 7))
    for n, c, i, j in np.ndindex(y.shape):
        u = matrices[n, 0, 0] * j + matrices[n, 0, 1] * i + matrices[n, 0, 2]
        v = matrices[n, 1, 0] * j + matrices[n, 1, 1] * i + matrices[n, 1, 2]
        total = 0.0
        for h in range(5):
            for w in range(6):
                total += max(1 - abs(v - h), 0) * max(1 - abs(u - w), 0) * x[n, c, h, w]
        assert y[n, c, i, j] == pytest.approx(total, abs=1e-12)


def test_the_matrix_says_where_a_result_looks() -> None:
    x = row(10, 20, 30, 40)
    shift = shifted(1.5, 0)
    np.testing.assert_allclose(mk.affine_warp(x, shift)[0, 0, 0], [25, 35, 20, 0])  # 20: half of 40, half outside
    twice = IDENTITY * [[2], [1]]
    np.testing.assert_allclose(mk.affine_warp(x, twice)[0, 0, 0], [10, 30, 0, 0])


def test_a_quarter_turn_is_clockwise_and_exact() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 5))
    matrices = rotation_then_translation([math.pi / 2], [[0, 0]], (5, 5))
    np.testing.assert_allclose(mk.affine_warp(x, matrices), np.rot90(x, -1, axes=(2, 3)), atol=1e-12)


def test_the_picture_is_rotated_first_and_shifted_then() -> None:
    x = np.zeros((1, 1, 9, 9))
    x[0, 0, 4, 6] = 1  # 2 to the right of the centre: rotated 2 below it, then shifted by (x, y) = (1, -3)
    y = mk.affine_warp(x, rotation_then_translation([math.pi / 2], [[1, -3]], (9, 9)))
    assert y[0, 0, 4 + 2 - 3, 4 + 1] == pytest.approx(1)
    assert y.sum() == pytest.approx(1)


def test_the_inverse_undoes_a_warp() -> None:
    rng = np.random.default_rng(0)
    matrices = rotation_then_translation(rng.uniform(-3, 3, 4), rng.uniform(-9, 9, (4, 2)), (7, 11))
    lower = np.broadcast_to([0, 0, 1], (4, 1, 3))
    product = np.concatenate([matrices, lower], 1) @ np.concatenate([invert_affine(matrices), lower], 1)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), (4, 3, 3)), atol=1e-12)


def test_one_image_is_warped_by_all_matrices_and_the_adjoint_sums_up() -> None:
    rng = np.random.default_rng(0)
    matrices = rotation_then_translation(rng.uniform(-1, 1, 5), rng.uniform(-3, 3, (5, 2)), (6, 7))
    x, grad = rng.standard_normal((1, 2, 6, 7)), rng.standard_normal((5, 2, 4, 3))
    copies = np.repeat(x, 5, axis=0)
    np.testing.assert_allclose(mk.affine_warp(x, matrices, (4, 3)), mk.affine_warp(copies, matrices, (4, 3)))
    each = mk.affine_warp_adjoint(grad, matrices, (6, 7))
    together = mk.affine_warp_adjoint(grad, matrices, (6, 7), images=1)
    np.testing.assert_allclose(together, each.sum(axis=0, keepdims=True), atol=1e-12)


def test_the_gram_matrix_is_that_of_the_dense_operator() -> None:
    rng = np.random.default_rng(0)
    matrices = rotation_then_translation(rng.uniform(-1, 1, 6), rng.uniform(-3, 3, (6, 2)), (5, 6))
    pixels = np.eye(30).reshape(30, 1, 5, 6)  # K, column by column
    dense = np.stack([mk.affine_warp(pixel[None], matrices, (3, 4)).ravel() for pixel in pixels], axis=1)
    product = mk.gram_product(pixels, mk.affine_warp_gram(matrices, (5, 6), (3, 4)))
    np.testing.assert_allclose(product.reshape(30, 30), dense.T @ dense, atol=1e-12)


def test_a_nan_reaches_those_that_look_at_it_and_no_others() -> None:
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = np.nan
    moved = mk.affine_warp(x, shifted(0.5, 0.25))
    assert np.argwhere(np.isnan(moved[0, 0])).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_an_image_far_away_is_all_zeros() -> None:
    x = np.ones((1, 1, 4, 4))
    for shift in (4, -4, 1e8, -1e8):
        assert not mk.affine_warp(x, shifted(shift, 0)).any()


@pytest.mark.parametrize("scale_factor", [1e-10, 1e-20, 1e-39, 5e-324])
def test_a_scale_factor_that_asks_for_places_beyond_all_integers_reads_the_last_pixel(scale_factor: float) -> None:
    x, grad = np.arange(9.0).reshape(1, 1, 1, 9), np.ones((1, 1, 1, 5))
    assert mk.resize_nearest(x, (1, 5), scale_factor=scale_factor).tolist() == [[[[0, 8, 8, 8, 8]]]]
    assert mk.resize_nearest_adjoint(grad, (1, 9), scale_factor=scale_factor).tolist() == [[[[1, *[0] * 7, 4]]]]


X, M = np.zeros((2, 3, 8, 8)), np.repeat(IDENTITY, 2, axis=0)
NAN, SINGULAR, HUGE = M.copy(), M.copy(), M.copy()
NAN[1, 0, 2], SINGULAR[1, 1], HUGE[1, 0, 2] = np.nan, 0, 1e300


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mk.resize_bilinear(X, 0), ValueError, "size"),
        (lambda: mk.resize_bilinear(X, (3, -1)), ValueError, "size"),
        (lambda: mk.resize_bilinear(X[0], 4), ValueError, "batch axis is missing"),
        (lambda: mk.resize_bilinear(X.astype(int), 4), TypeError, "float32 or float64"),
        (lambda: mk.resize_bilinear(X[:, :, :0], 4), ValueError, "at least one pixel"),
        (lambda: mk.resize_bilinear(X, 2.5), ValueError, "size.*got 2.5"),
        (lambda: mk.resize_bilinear(X, (4, 4, 4)), ValueError, "size"),
        (lambda: mk.resize_bilinear(X.tolist(), 4), TypeError, "x to be an array, got list"),
        (lambda: mk.resize_bilinear(X, 4, scale_factor=0), ValueError, "scale_factor.*got 0"),
        (lambda: mk.resize_bilinear_adjoint(X, 4, scale_factor=(1.0, np.inf)), ValueError, "scale_factor"),
        (lambda: mk.resize_bilinear_adjoint(X, (0, 8)), ValueError, "input_size"),
        (lambda: mk.resize_nearest(X, -1), ValueError, "resize_nearest.*size"),
        (lambda: mk.resize_nearest(X, 4, "2"), ValueError, "scale_factor"),
        (lambda: mk.resize_nearest(X[:, :, :0], 4), ValueError, "at least one pixel"),
        (lambda: mk.resize_nearest(X.astype(int), 4), TypeError, "x int64"),
        (lambda: mk.resize_nearest_adjoint(X[0], 4), ValueError, "grad"),
        (lambda: mk.resize_nearest_adjoint(X, 0), ValueError, "input_size"),
        (lambda: mk.affine_warp(X, NAN), ValueError, "finite.*nan.* at 1"),
        (lambda: mk.affine_warp(X, HUGE), ValueError, "finite.* at 1"),
        (lambda: mk.affine_warp(X, SINGULAR), ValueError, "invertible.* at 1"),
        (lambda: mk.affine_warp(X, M[0]), ValueError, "matrices"),
        (lambda: mk.affine_warp(X, np.repeat(M, 2, axis=0)), ValueError, "2 images and 4 matrices"),
        (lambda: mk.affine_warp(X, M.astype(int)), TypeError, "matrices int64"),
        (lambda: mk.affine_warp(X, M, 0), ValueError, "output_size"),
        (lambda: mk.affine_warp(X[:, :, :, :0], M), ValueError, "at least one pixel"),
        (lambda: mk.affine_warp_adjoint(X, M[:1], 8), ValueError, "matrices"),
        (lambda: mk.affine_warp_adjoint(X, M, 8, images=3), ValueError, "images to be 1 or N = 2"),
        (lambda: mk.affine_warp_gram(SINGULAR, 8, 4), ValueError, "affine_warp_gram.*invertible"),
        (lambda: mk.affine_warp_gram(M, 8, (4, 0)), ValueError, "output_size"),
        (lambda: mk.gram_product(X, np.zeros((5, 8, 7))), ValueError, "gram"),
        (lambda: mk.gram_product(X, np.zeros((5, 8, 8), np.float32)), TypeError, "the same for all"),
        (lambda: mk.gram_product(X[:, :, :, :0], np.zeros((5, 8, 0))), ValueError, "at least one pixel"),
        (lambda: invert_affine(SINGULAR), ValueError, "invert_affine.*invertible"),
        (lambda: rotation_then_translation(np.zeros(2), np.zeros((3, 2)), (8, 8)), ValueError, "shifts"),
        (lambda: rotation_then_translation(np.zeros(2), np.zeros((2, 2)), 0), ValueError, "size"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
