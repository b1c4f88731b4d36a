"""RoIPool: numbers worked out by hand, literal loops, and a formula in torch; and the errors of the contract."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

import minidet_kernels as mk
from tests.kernels import rois_oracle
from tests.kernels.cases import BY_NAME
from tests.kernels.harness import assert_close, run

IMAGE = np.arange(30.0).reshape(1, 1, 5, 6)  # of any pixels, the last has the maximum; its number is its place


@pytest.fixture(params=["reference", "cpu"])
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def pool(box, output_size, spatial_scale: float = 1.0, x: np.ndarray = IMAGE) -> tuple[np.ndarray, np.ndarray]:
    """One box x1 y1 x2 y2 on one image of one channel."""
    values, argmax = mk.roi_pool(x, np.array([[0, *box]], x.dtype), output_size, spatial_scale)
    return values[0, 0], argmax[0, 0]


def test_bins_that_divide_the_box(version) -> None:
    values, argmax = pool((0, 0, 3, 3), 2)  # both corners belong to the box: 4 pixels
    np.testing.assert_array_equal(values, [[7, 9], [19, 21]])
    np.testing.assert_array_equal(argmax, values)
    assert argmax.dtype == np.int32


def test_bins_overlap_where_they_do_not_divide_the_box(version) -> None:
    # 3 pixels, bins of 1.5: from floor(0) to ceil(1.5), from floor(1.5) to ceil(3), so that pixel 1 is in both
    values, _ = pool((0, 0, 2, 2), 2)
    np.testing.assert_array_equal(values, [[7, 8], [13, 14]])
    values, _ = pool((1, 1, 3, 2), (1, 2), x=-IMAGE)  # now of any pixels the first: columns 1 and 2
    np.testing.assert_array_equal(values, [[-7, -8]])


def test_a_box_of_one_pixel_fills_all_bins(version) -> None:
    np.testing.assert_array_equal(pool((2, 1, 2, 1), 3)[0], np.full((3, 3), 8))


@pytest.mark.parametrize(
    ("corner", "pixel"), [(2.5, 3), (1.5, 2), (0.5, 1), (2.4999, 2), (np.nextafter(0.5, 0), 0), (3.5, 4)]
)
def test_halves_are_rounded_away_from_zero(version, corner: float, pixel: int) -> None:
    """NumPy and Python round 2.5 and 0.5 to the even neighbour; floor(x + 0.5) turns the number before 0.5 into 1."""
    for dtype in (np.float64, np.float32):
        below = np.nextafter(dtype(0.5), dtype(0)) if pixel == 0 else dtype(corner)
        _, argmax = pool([below] * 4, 1, x=IMAGE.astype(dtype))
        assert argmax.item() == 6 * pixel + pixel


def test_halves_are_rounded_after_scaling(version) -> None:
    assert pool((5, 5, 5, 5), 1, spatial_scale=0.5)[1].item() == 6 * 3 + 3


def test_negative_halves_too(version) -> None:
    # -0.5 becomes -1: two columns, of which the first is outside the map. (-0 would make one column of it.)
    values, argmax = pool((-0.5, 0, 0, 0), (1, 2), x=IMAGE + 5)
    np.testing.assert_array_equal(values, [[0, 5]])
    np.testing.assert_array_equal(argmax, [[-1, 0]])


def test_bins_are_cut_off_at_the_border(version) -> None:
    values, argmax = pool((-2, -2, 1, 1), 2, x=IMAGE + 5)  # 4 pixels: -2 -1, 0 1
    np.testing.assert_array_equal(values, [[0, 0], [0, 12]])
    np.testing.assert_array_equal(argmax, [[-1, -1], [-1, 7]])
    values, argmax = pool((4, 3, 7, 6), 2, x=IMAGE + 5)  # columns 4 5, 6 7; rows 3 4, 5 6
    np.testing.assert_array_equal(argmax, [[29, -1], [-1, -1]])


def test_a_box_outside_the_map_gives_zeros_and_takes_no_gradient(version) -> None:
    boxes = np.array([[0, 10, 10, 12, 12.0]])
    values, argmax = mk.roi_pool(IMAGE + 1, boxes, 2)
    assert not values.any()
    assert (argmax == -1).all()
    assert not mk.roi_pool_gather(IMAGE + 1, boxes, argmax).any()
    assert not mk.roi_pool_scatter(values + 1, boxes, argmax, IMAGE.shape).any()


def test_a_negative_maximum_stays_negative_and_minus_infinity_has_a_place(version) -> None:
    assert pool((1, 1, 2, 2), 1, x=-IMAGE - 1)[0].item() == -8
    values, argmax = pool((1, 1, 2, 2), 1, x=np.full_like(IMAGE, -np.inf))
    assert (values.item(), argmax.item()) == (-np.inf, 7)


@pytest.mark.parametrize("channels", [1, 64])
def test_the_first_of_equal_maxima_and_the_last_nan_win(version, channels: int) -> None:
    row = np.array([1, 3, 3, 0, 5, np.nan, 9, np.nan, 2], np.float32)
    x = np.repeat(row[None], channels, axis=0)[None, :, None]
    boxes = np.array([[0, 0, 0, 3, 0], [0, 4, 0, 8, 0]], np.float32)
    values, argmax = mk.roi_pool(x, boxes, 1)
    np.testing.assert_array_equal(values[..., 0, 0], np.repeat([[3], [np.nan]], channels, axis=1))
    np.testing.assert_array_equal(argmax[..., 0, 0], np.repeat([[1], [7]], channels, axis=1))


def test_gradients_of_boxes_that_overlap_add_up(version) -> None:
    boxes = np.array([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1], [0, 0, 1, 1, 1]], float)
    _, argmax = mk.roi_pool(IMAGE, boxes, 1)
    np.testing.assert_array_equal(argmax.ravel(), [7, 7, 7])
    x_grad = mk.roi_pool_scatter(np.array([1.0, 20, 300]).reshape(3, 1, 1, 1), boxes, argmax, IMAGE.shape)
    assert x_grad.ravel()[7] == 321
    assert x_grad.sum() == 321


def test_a_list_of_boxes_an_image_is_the_other_format(version) -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 5, 6))
    boxes = np.array([[0, 1, 1, 3, 4], [0, 0, 0, 5, 4], [2, 2, 1, 4, 3.0]])
    per_image = [boxes[:2, 1:], np.zeros((0, 4)), boxes[2:, 1:]]
    for one, other in zip(mk.roi_pool(x, boxes, 2), mk.roi_pool(x, per_image, 2), strict=True):
        assert one.tobytes() == other.tobytes()
    values, argmax = mk.roi_pool(x, boxes, 2)
    np.testing.assert_array_equal(mk.roi_pool_gather(x, tuple(per_image), argmax), values)
    np.testing.assert_array_equal(
        mk.roi_pool_scatter(values, per_image, argmax, x.shape), mk.roi_pool_scatter(values, boxes, argmax, x.shape)
    )


def test_nothing_in_nothing_out(version) -> None:
    for shape, boxes in [
        ((2, 3, 4, 4), np.zeros((0, 5))),
        ((2, 3, 4, 4), [np.zeros((0, 4))] * 2),
        ((0, 3, 4, 4), []),
        ((0, 3, 4, 4), np.zeros((0, 5))),
        ((1, 0, 4, 4), np.zeros((1, 5))),
    ]:
        x = np.zeros(shape)
        values, argmax = mk.roi_pool(x, boxes, (2, 3))
        count = len(boxes) if isinstance(boxes, np.ndarray) else 0
        assert values.shape == argmax.shape == (count, shape[1], 2, 3)
        assert mk.roi_pool_gather(x, boxes, argmax).shape == values.shape
        assert mk.roi_pool_scatter(values, boxes, argmax, shape).shape == shape
        assert not mk.roi_pool_scatter(values, boxes, argmax, shape).any()


def test_a_box_as_large_as_is_allowed(version) -> None:
    # 2**20 + 1 pixels from -2**19 to 2**19, a bin of half of them begins or ends at 0
    values, argmax = pool((-(2**19), 0, 2**19, 4), (1, 2))
    np.testing.assert_array_equal(argmax, [[24, 29]])
    np.testing.assert_array_equal(values, argmax)


def equals_literal_loops() -> None:
    """40 random problems; AssertionError for the first that differs."""
    rng = np.random.default_rng(0)
    for number in range(40):
        x = rng.integers(-9, 10, (2, 2, 5, 6)).astype(float)
        scale, (ho, wo) = rng.choice([1.0, 0.5]), rng.integers(1, 5, 2).tolist()
        corners = np.sort(rng.integers(-8, 20, (3, 2, 2)) / 2, axis=1).reshape(3, 4) / scale
        if number % 4 == 0:
            corners = np.sort(rng.uniform(-3, 9, (3, 2, 2)), axis=1).reshape(3, 4)
        boxes = np.concatenate([rng.integers(0, 2, (3, 1)), corners], axis=1)
        values, argmax = mk.roi_pool(x, boxes, (ho, wo), scale)
        for r, c, i, j in np.ndindex(values.shape):
            x1, y1, x2, y2 = (math.copysign(math.floor(abs(v * scale) + 0.5), v) for v in boxes[r, 1:])
            height, width = y2 - y1 + 1, x2 - x1 + 1
            best, where = 0, -1
            for h in range(5):
                for w in range(6):
                    inside = y1 + math.floor(i * (height / ho)) <= h < y1 + math.ceil(
                        (i + 1) * (height / ho)
                    ) and x1 + math.floor(j * (width / wo)) <= w < x1 + math.ceil((j + 1) * (width / wo))
                    value = x[int(boxes[r, 0]), c, h, w]
                    if inside and (where == -1 or value > best):
                        best, where = value, h * 6 + w
            assert (values[r, c, i, j], argmax[r, c, i, j]) == (best, where)


def test_literal_loops_agree(version) -> None:
    equals_literal_loops()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (">= 0.5, np.sign(value), 0)", "> 0.5, np.sign(value), 0)"),
        ("whole + np.where(np.abs(value - whole) >= 0.5, np.sign(value), 0)", "np.floor(value + 0.5)"),
        ("whole + np.where(np.abs(value - whole) >= 0.5, np.sign(value), 0)", "np.round(value)"),
        ("last - first + 1", "last - first"),
        ("np.floor(i *", "np.ceil(i *"),
        ("np.ceil((i + 1)", "np.floor((i + 1)"),
        ("astype(np.int64) + first[:, None]", "astype(np.int64)"),
        ("stop.clip(0, map_size)", "stop.clip(0, map_size - 1)"),
        ("high * number(spatial_scale)", "high"),
    ],
)
def test_a_geometry_broken_on_purpose_is_caught(old: str, new: str, monkeypatch) -> None:
    rois_oracle.break_geometry(monkeypatch, "roi_pool", "bin_ranges", old, new)
    with mk.use("reference"), pytest.raises(AssertionError):
        equals_literal_loops()


def test_a_formula_in_torch_agrees_with_gradients(version) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")

    @settings(max_examples=60, deadline=None)
    @given(BY_NAME["roi_pool"].calls)
    def agrees(call):
        x, boxes = (torch.from_numpy(np.ascontiguousarray(array).copy()) for array in call.arrays)
        if torch.isnan(x).any():
            return  # torch's first NaN wins
        values, argmax = run(BY_NAME["roi_pool"], call, version)
        x.requires_grad_()
        expected, places = rois_oracle.roi_pool(torch, x, boxes, **call.options)
        assert_close(values, expected.detach().numpy(), "roi_pool differs from torch")
        if (x == x.round()).all():
            return  # ties, of which torch does not say which one wins
        np.testing.assert_array_equal(argmax, places.numpy())
        grad = np.random.default_rng(0).standard_normal(values.shape).astype(values.dtype)
        if expected.requires_grad:
            (x_grad,) = torch.autograd.grad(expected, x, torch.from_numpy(grad))
            mine = mk.roi_pool_scatter(grad, call.arrays[1], argmax, tuple(x.shape))
            assert_close(mine, x_grad.numpy(), "roi_pool_scatter differs from torch")

    agrees()


def test_the_number_of_threads_changes_only_the_rounding_of_scatter() -> None:
    numba = pytest.importorskip("numba", reason="the cpu version needs numba")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 70, 9, 9)).astype(np.float32)
    corners = np.sort(rng.uniform(0, 9, (40, 2, 2)), axis=1).reshape(40, 4)
    boxes = np.concatenate([rng.integers(0, 2, (40, 1)), corners], axis=1).astype(np.float32)
    most, results = numba.get_num_threads(), []
    try:
        for threads in (1, most):
            numba.set_num_threads(threads)
            with mk.use("cpu"):
                values, argmax = mk.roi_pool(x, boxes, 7)
                results.append((values, argmax, mk.roi_pool_scatter(values, boxes, argmax, x.shape)))
    finally:
        numba.set_num_threads(most)
    (values, argmax, x_grad), (values_2, argmax_2, x_grad_2) = results
    assert values.tobytes() == values_2.tobytes()
    assert argmax.tobytes() == argmax_2.tobytes()
    assert_close(x_grad, x_grad_2, "scatter depends on the number of threads")


X, BOX = np.zeros((2, 3, 8, 8)), np.array([[1, 0, 0, 4, 4.0]])
ARGMAX = np.zeros((1, 3, 2, 2), np.int32)
G = np.zeros(ARGMAX.shape)


def boxed(**changed: float) -> np.ndarray:
    box = BOX.copy()
    for name, value in changed.items():
        box[0, ["image", "x1", "y1", "x2", "y2"].index(name)] = value
    return box


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mk.roi_pool(X[0], BOX, 2), ValueError, "batch axis is missing"),
        (lambda: mk.roi_pool(X[:, :, :0], BOX, 2), ValueError, "H \\* W"),
        (lambda: mk.roi_pool(X, BOX, 0), ValueError, "output_size"),
        (lambda: mk.roi_pool(X, BOX, (2, 2, 2)), ValueError, "output_size"),
        (lambda: mk.roi_pool(X, BOX[:, 1:], 2), ValueError, r"\(R, 5\)"),
        (lambda: mk.roi_pool(X, BOX[0], 2), ValueError, r"\(R, 5\)"),
        (lambda: mk.roi_pool(X, [BOX[:, 1:]], 2), ValueError, "2 in all, got 1"),
        (lambda: mk.roi_pool(X, [BOX, BOX], 2), ValueError, r"boxes\[0\]"),
        (lambda: mk.roi_pool(X, BOX.tolist(), 2), TypeError, "NumPy or CuPy arrays"),
        (lambda: mk.roi_pool(X, BOX.astype(np.float32), 2), TypeError, "the same for all"),
        (lambda: mk.roi_pool(X.astype(np.float16), BOX.astype(np.float16), 2), TypeError, "float32 or float64"),
        (lambda: mk.roi_pool(X, BOX.astype(int), 2), TypeError, "boxes int64"),
        (lambda: mk.roi_pool(X[:0].astype(int), [], 2), TypeError, "float32 or float64"),
        (lambda: mk.roi_pool(X, [BOX[:, 1:].astype(np.float32)] * 2, 2), TypeError, r"boxes\[0\] float32"),
        (lambda: mk.roi_pool(X, boxed(image=2), 2), ValueError, "0 to 1, got 2.0 at 0"),
        (lambda: mk.roi_pool(X, boxed(image=-1), 2), ValueError, "got -1.0"),
        (lambda: mk.roi_pool(X, boxed(image=0.5), 2), ValueError, "whole number"),
        (lambda: mk.roi_pool(X, boxed(image=np.nan), 2), ValueError, "whole number"),
        (lambda: mk.roi_pool(X[:0], BOX, 2), ValueError, "number of an image"),
        (lambda: mk.roi_pool(X, boxed(x2=-1), 2), ValueError, "x1 <= x2"),
        (lambda: mk.roi_pool(X, boxed(y2=-1), 2), ValueError, r"got \(x1, y1, x2, y2\) = \[0.0, 0.0, 4.0, -1.0\] at 0"),
        (lambda: mk.roi_pool(X, boxed(x1=np.nan), 2), ValueError, "finite"),
        (lambda: mk.roi_pool(X, boxed(y2=np.inf), 2), ValueError, "finite"),
        (lambda: mk.roi_pool(X, boxed(x2=1e300), 2), ValueError, "at most 1048576"),
        (lambda: mk.roi_pool(X, boxed(x1=-1e8), 2), ValueError, "at most 1048576"),
        (lambda: mk.roi_pool(X, boxed(x2=2e6), 2, spatial_scale=1.0), ValueError, "at most 1048576"),
        (lambda: mk.roi_pool(X, BOX, 2, spatial_scale=0), ValueError, "spatial_scale"),
        (lambda: mk.roi_pool(X, BOX, 2, spatial_scale=np.nan), ValueError, "spatial_scale"),
        (lambda: mk.roi_pool(X, BOX, 2, spatial_scale=np.inf), ValueError, "spatial_scale"),
        (lambda: mk.roi_pool(X, BOX, 2, spatial_scale="1"), ValueError, "spatial_scale"),
        (lambda: mk.roi_pool(np.broadcast_to(0.0, (1, 1, 2**16, 2**15)), BOX, 2), ValueError, "2147483647"),
        (lambda: mk.roi_pool_gather(X, BOX, ARGMAX + 64), IndexError, r"\[-1, 64\)"),
        (lambda: mk.roi_pool_gather(X, BOX, ARGMAX - 2), IndexError, "-2"),
        (lambda: mk.roi_pool_gather(X, BOX, ARGMAX.astype(np.int64)), TypeError, "int32"),
        (lambda: mk.roi_pool_gather(X, BOX, ARGMAX[:, :2]), ValueError, "argmax"),
        (lambda: mk.roi_pool_gather(X, BOX[:0], ARGMAX), ValueError, "argmax"),
        (lambda: mk.roi_pool_gather(X, boxed(image=2), ARGMAX), ValueError, "number of an image"),
        (lambda: mk.roi_pool_scatter(G, BOX, ARGMAX + 64, X.shape), IndexError, "64"),
        (lambda: mk.roi_pool_scatter(G, BOX, ARGMAX - 2, X.shape), IndexError, "-2"),
        (lambda: mk.roi_pool_scatter(G, BOX, ARGMAX, (2, 3, 0, 8)), ValueError, "input_size"),
        (lambda: mk.roi_pool_scatter(G, BOX, ARGMAX, (2, 3, 8)), ValueError, "input_size"),
        (lambda: mk.roi_pool_scatter(G, BOX, ARGMAX, (2, 3, 8, 8.0)), ValueError, "input_size"),
        (lambda: mk.roi_pool_scatter(G, BOX, ARGMAX, 8), ValueError, "input_size"),
        (lambda: mk.roi_pool_scatter(G, BOX, ARGMAX, (1, 3, 8, 8)), ValueError, "0 to 0, got 1.0"),
        (lambda: mk.roi_pool_scatter(G, BOX, ARGMAX, (2, 4, 8, 8)), ValueError, "grad"),
        (lambda: mk.roi_pool_scatter(G[:, :, :1], BOX, ARGMAX, X.shape), ValueError, "argmax"),
        (lambda: mk.roi_pool_scatter(G.astype(np.float32), BOX, ARGMAX, X.shape), TypeError, "the same for all"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_arguments_are_refused_by_name(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
