"""RoIAlign: numbers worked out by hand, literal loops, and a formula in torch; and the errors of the contract."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

import minidet_kernels as mk
from tests.kernels import rois_oracle
from tests.kernels.cases import BY_NAME
from tests.kernels.harness import assert_close, run

PLANE = (10 * np.arange(8.0)[:, None] + np.arange(8.0))[
    None, None
]  # at row v and column u, between pixels too: 10 v + u
SQUARES = np.array([0.0, 1, 4, 9, 16]).reshape(1, 1, 1, 5)  # not linear: shows how many samples there are
TWO = np.array([4.0, 8]).reshape(1, 1, 1, 2)


@pytest.fixture(params=["reference", "cpu"])
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def align(box, output_size, *, x: np.ndarray = PLANE, **options) -> np.ndarray:
    """One box x1 y1 x2 y2 on one image of one channel."""
    return mk.roi_align(x, np.array([[0, *box]], x.dtype), output_size, **options)[0, 0]


def test_bins_of_a_plane_have_its_values_at_their_centres(version) -> None:
    # columns 1 to 5 in two bins: centres 2 and 4; rows 2 to 6: 3 and 5
    expected = np.array([[32.0, 34], [52, 54]])
    for ratio in (-1, 0, 1, 2, 3):
        np.testing.assert_allclose(align((1, 2, 5, 6), 2, sampling_ratio=ratio), expected)
        np.testing.assert_allclose(align((2, 4, 10, 12), 2, sampling_ratio=ratio, spatial_scale=0.5), expected)


def test_aligned_takes_half_a_pixel_from_all_coordinates(version) -> None:
    expected = np.array([[32.0, 34], [52, 54]]) - 5.5
    np.testing.assert_allclose(align((1, 2, 5, 6), 2, aligned=True), expected)
    np.testing.assert_allclose(align((2, 4, 10, 12), 2, spatial_scale=0.5, aligned=True), expected)  # after scaling


def test_a_whole_map_pooled_to_its_size_is_itself_when_aligned(version) -> None:
    """One sample a bin lies on each pixel: the meaning of the half pixel."""
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 5))
    np.testing.assert_allclose(mk.roi_align(x, np.array([[0, 0, 0, 5, 4.0]]), (4, 5), aligned=True), x)


def test_only_the_legacy_rule_makes_small_boxes_one_pixel_large(version) -> None:
    assert align((3, 3, 3, 3), 1).item() == pytest.approx(38.5)  # the centre of 3 to 4
    assert align((3, 3, 3.5, 3.5), 1, sampling_ratio=1).item() == pytest.approx(38.5)
    assert align((3, 3, 3.5, 3.5), 1, sampling_ratio=1, aligned=True).item() == pytest.approx(11 * 2.75)
    assert align((3, 3, 3, 3), 1, sampling_ratio=2, aligned=True).item() == pytest.approx(27.5)
    assert align((3, 3, 3, 3), 1, aligned=True).item() == 0  # as many samples as it has pixels: none


def test_the_samples_of_a_bin(version) -> None:
    # from 0 to 3: adaptive means three samples, at 0.5, 1.5, 2.5, where the squares are joined by straight lines
    assert align((0, 0, 3, 0), 1, x=SQUARES).item() == pytest.approx((0.5 + 2.5 + 6.5) / 3)
    assert align((0, 0, 3, 0), 1, x=SQUARES, sampling_ratio=1).item() == pytest.approx(2.5)
    assert align((0, 0, 3, 0), 1, x=SQUARES, sampling_ratio=2).item() == pytest.approx((0.75 + 5.25) / 2)
    # from 0 to 2.5: also three, at 5/12, 15/12, 25/12
    assert align((0, 0, 2.5, 0), 1, x=SQUARES).item() == pytest.approx((5 / 12 + 1.75 + 4 + 5 / 12) / 3)
    # from 0 to 4 in two bins of 2: two samples each
    np.testing.assert_allclose(align((0, 0, 4, 0), (1, 2), x=SQUARES), [[(0.5 + 2.5) / 2, (6.5 + 12.5) / 2]])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (-1.25, 0),  # outside
        (-1, 4),  # from -1 to 0, the first pixel
        (-0.25, 4),
        (0, 4),
        (0.25, 5),
        (1, 8),
        (1.5, 8),  # beyond the last one, that
        (2, 8),
        (2.25, 0),
    ],
)
def test_samples_near_the_border(version, place: float, value: float) -> None:
    box = (place - 0.5, 0, place + 0.5, 1)
    assert align(box, 1, x=TWO, sampling_ratio=1).item() == value
    upright = (0, place - 0.5, 1, place + 0.5)
    assert align(upright, 1, x=TWO.transpose(0, 1, 3, 2), sampling_ratio=1).item() == value


def test_samples_outside_count_as_zeros(version) -> None:
    assert align((-3, 0, 1, 1), 1, x=TWO, sampling_ratio=2).item() == (0 + 4) / 2  # at -2 and 0
    assert not align((-9, -9, -3, -3), 2).any()
    assert not align((20, 2, 24, 4), 2).any()


def test_the_adjoint_gives_each_gradient_back_by_the_weights(version) -> None:
    def adjoint(place: float) -> list[float]:
        box = np.array([[0, place - 0.5, 0, place + 0.5, 1]])
        return mk.roi_align_adjoint(np.full((1, 1, 1, 1), 8.0), box, (1, 1, 1, 2), sampling_ratio=1).ravel().tolist()

    assert adjoint(0.25) == [6, 2]
    assert adjoint(-0.5) == [8, 0]
    assert adjoint(1.5) == [0, 8]
    assert adjoint(-1.5) == [0, 0]


def test_gradients_of_boxes_that_overlap_add_up(version) -> None:
    boxes = np.array([[0, 0, 0, 2, 2], [0, 0, 0, 2, 2], [1, 0, 0, 2, 2.0]])
    grad = np.array([1.0, 20, 300]).reshape(3, 1, 1, 1)
    x_grad = mk.roi_align_adjoint(grad, boxes, (2, 1, 3, 3), sampling_ratio=1)  # one sample, on pixel (1, 1)
    assert x_grad[:, 0, 1, 1].tolist() == [21, 300]
    assert x_grad.sum() == 321


@pytest.mark.parametrize("channels", [1, 64])
def test_a_pixel_of_weight_zero_is_not_looked_at(version, channels: int) -> None:
    x = np.full((1, channels, 3, 3), np.nan, np.float32)
    x[:, :, 1, 1] = 5
    boxes = np.array([[0, 0.5, 0.5, 1.5, 1.5]], np.float32)
    assert (mk.roi_align(x, boxes, 1, sampling_ratio=1) == 5).all()
    assert np.isnan(mk.roi_align(x, boxes, 1, sampling_ratio=2)).all()


def test_a_list_of_boxes_an_image_is_the_other_format(version) -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 5, 6))
    boxes = np.array([[0, 1, 1, 3, 4], [0, 0, 0, 5, 4], [2, 2, 1, 4, 3.0]])
    per_image = [boxes[:2, 1:], np.zeros((0, 4)), boxes[2:, 1:]]
    y = mk.roi_align(x, boxes, 2)
    assert y.tobytes() == mk.roi_align(x, per_image, 2).tobytes()
    adjoint = mk.roi_align_adjoint(y, boxes, x.shape)
    assert adjoint.tobytes() == mk.roi_align_adjoint(y, tuple(per_image), x.shape).tobytes()


def test_nothing_in_nothing_out(version) -> None:
    for shape, boxes in [
        ((2, 3, 4, 4), np.zeros((0, 5))),
        ((2, 3, 4, 4), [np.zeros((0, 4))] * 2),
        ((0, 3, 4, 4), []),
        ((0, 3, 4, 4), np.zeros((0, 5))),
        ((1, 0, 4, 4), np.zeros((1, 5))),
    ]:
        y = mk.roi_align(np.zeros(shape), boxes, (2, 3))
        assert y.shape == (len(boxes) if isinstance(boxes, np.ndarray) else 0, shape[1], 2, 3)
        x_grad = mk.roi_align_adjoint(y, boxes, shape)
        assert x_grad.shape == shape
        assert not x_grad.any()


def test_a_box_as_large_as_is_allowed_takes_neither_long_nor_much_memory(version) -> None:
    """2**20 pixels and as many samples, of which those from -1 to 8 are inside the map: the mean is nearly 0."""
    y = align((-(2**19), 0, 2**19, 8), 1, x=PLANE.clip(0) * 0 + 1)
    assert y.item() == pytest.approx(9 / 2**20)  # samples at -0.5, 0.5 ... 7.5


def literal(x, box, size, scale: float, ratio: int, aligned: bool) -> np.ndarray:
    """(C, Ho, Wo): sample by sample, pixel by pixel."""
    x1, y1, x2, y2 = (v * scale - (0.5 if aligned else 0.0) for v in box[1:])
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    bin_height, bin_width = height / size[0], width / size[1]
    rows = ratio if ratio > 0 else math.ceil(bin_height)
    columns = ratio if ratio > 0 else math.ceil(bin_width)
    y = np.zeros((x.shape[1], *size))
    for c, i, j in np.ndindex(y.shape):
        for s in range(rows):
            for t in range(columns):
                v = y1 + i * bin_height + (s + 0.5) * bin_height / rows
                u = x1 + j * bin_width + (t + 0.5) * bin_width / columns
                y[c, i, j] += between(x[int(box[0]), c], v, u) / (rows * columns)
    return y


def between(image: np.ndarray, v: float, u: float) -> float:
    h, w = image.shape
    if v < -1 or v > h or u < -1 or u > w:
        return 0.0
    v, u = min(max(v, 0.0), h - 1.0), min(max(u, 0.0), w - 1.0)
    top, left = int(v), int(u)
    bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
    upper = image[top, left] * (left + 1 - u) + image[top, right] * (u - left)
    lower = image[bottom, left] * (left + 1 - u) + image[bottom, right] * (u - left)
    return upper * (top + 1 - v) + lower * (v - top)


def equals_literal_loops() -> None:
    """80 random problems, many with samples on pixels and on the border; AssertionError for the first that differs."""
    rng = np.random.default_rng(0)
    for number in range(80):
        x = rng.standard_normal((2, 1, *rng.integers(1, 6, 2)))
        scale, ratio, aligned = rng.choice([1.0, 0.5]), int(rng.integers(-1, 4)), bool(number % 2)
        size = rng.integers(1, 4, 2).tolist()
        corners = np.sort(rng.integers(-10, 17, (2, 2, 2)) / 2, axis=1).reshape(2, 4) / scale
        if number % 3 == 0:
            corners = np.sort(rng.uniform(-3, 9, (2, 2, 2)), axis=1).reshape(2, 4)
        if number % 10 == 0:
            corners *= 8
        boxes = np.concatenate([rng.integers(0, 2, (2, 1)), corners], axis=1)
        y = mk.roi_align(x, boxes, size, scale, ratio, aligned)
        expected = np.stack([literal(x, box, size, scale, ratio, aligned) for box in boxes])
        assert_close(y, expected, "roi_align differs from literal loops")


def test_literal_loops_agree(version) -> None:
    equals_literal_loops()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5 if aligned else 0", "0"),
        ("0.5 if aligned else 0", "0.5"),
        ("0.5 if aligned else 0", "0 if aligned else 0.5"),
        ("- offset - start", "- start"),
        ("if not aligned", "if False"),
        ("if not aligned", "if True"),
        ("np.maximum(size, number(1))", "size + number(1)"),
        ("np.ceil(bin_size)", "np.floor(bin_size)"),
        ("if sampling_ratio > 0", "if sampling_ratio > 1"),
        ("s.astype(number) + number(0.5)", "s.astype(number)"),
        ("position >= -1", "position > -1"),
        ("position >= -1", "position >= 0"),
        ("position <= map_size", "position < map_size"),
        ("position <= map_size", "position <= map_size - 1"),
        (" & (s < grid[:, None, None])", ""),
        ("np.maximum(position, 0)", "position"),
        ("np.stack([1 - part, part])", "np.stack([part, 1 - part])"),
        ("(-2 - bin_start)", "(2 - bin_start)"),
        ("2 * (map_size + 3) + 2", "map_size"),
    ],
)
def test_a_geometry_broken_on_purpose_is_caught(old: str, new: str, monkeypatch) -> None:
    rois_oracle.break_geometry(monkeypatch, "roi_align", "samples", old, new)
    with mk.use("reference"), np.errstate(all="ignore"), pytest.raises((AssertionError, IndexError)):
        equals_literal_loops()


def test_a_formula_in_torch_agrees_with_gradients(version) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")

    @settings(max_examples=100, deadline=None)
    @given(BY_NAME["roi_align"].calls)
    def agrees(call):
        x, boxes = (np.ascontiguousarray(array).astype(np.float64) for array in call.arrays)
        if not np.isfinite(x).all():
            return
        boxes = boxes[~on_an_edge(boxes, x.shape, **call.options)]
        result = run(BY_NAME["roi_align"], type(call)((x, boxes), call.options), version)[0]
        image = torch.from_numpy(x).requires_grad_()
        expected = rois_oracle.roi_align(torch, image, torch.from_numpy(boxes), **call.options)
        assert_close(result, expected.detach().numpy(), "roi_align differs from torch")
        grad = np.random.default_rng(0).standard_normal(result.shape)
        (x_grad,) = torch.autograd.grad(expected, image, torch.from_numpy(grad))
        options = {name: value for name, value in call.options.items() if name != "output_size"}
        mine = mk.roi_align_adjoint(grad, boxes, x.shape, **options)
        assert_close(mine, x_grad.numpy(), "roi_align_adjoint differs from torch")

    agrees()


def on_an_edge(boxes, shape, output_size, spatial_scale: float, sampling_ratio: int, aligned: bool) -> np.ndarray:
    """(R,) whether rounding decides what is sampled: a place within 1e-9 of the border, a bin of a whole number of
    pixels. Such boxes are for the tests by hand, whose numbers are exact."""
    boxes = boxes[:, 1:] * spatial_scale - (0.5 if aligned else 0)
    found = np.zeros(len(boxes), bool)
    for (low, high), bins, size in (((1, 3), output_size[0], shape[2]), ((0, 2), output_size[1], shape[3])):
        length = boxes[:, high] - boxes[:, low]
        bin_size = (length if aligned else length.clip(1)) / bins
        for r, (start, step) in enumerate(zip(boxes[:, low], bin_size, strict=True)):
            samples = sampling_ratio if sampling_ratio > 0 else math.ceil(step)
            places = start + step * (np.arange(bins * samples) + 0.5) / max(samples, 1)
            found[r] |= sampling_ratio <= 0 and abs(step - round(step)) < 1e-9
            found[r] |= (np.abs(places + 1) < 1e-9).any() or (np.abs(places - size) < 1e-9).any()
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_threads_gives_the_same_bits(dtype) -> None:
    numba = pytest.importorskip("numba", reason="the cpu version needs numba")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 70, 9, 9)).astype(dtype)
    corners = np.sort(rng.uniform(0, 9, (40, 2, 2)), axis=1).reshape(40, 4)
    boxes = np.concatenate([rng.integers(0, 2, (40, 1)), corners], axis=1).astype(dtype)
    most, results = numba.get_num_threads(), []
    try:
        for threads in (1, most):
            numba.set_num_threads(threads)
            with mk.use("cpu"):
                y = mk.roi_align(x, boxes, 7)
                results.append(y.tobytes() + mk.roi_align_adjoint(y, boxes, x.shape).tobytes())
    finally:
        numba.set_num_threads(most)
    assert results[0] == results[1]


X, BOX, G = np.zeros((2, 3, 8, 8)), np.array([[1, 0, 0, 4, 4.0]]), np.zeros((1, 3, 2, 2))


def boxed(**changed: float) -> np.ndarray:
    box = BOX.copy()
    for name, value in changed.items():
        box[0, ["image", "x1", "y1", "x2", "y2"].index(name)] = value
    return box


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mk.roi_align(X[0], BOX, 2), ValueError, "batch axis is missing"),
        (lambda: mk.roi_align(X[:, :, :, :0], BOX, 2), ValueError, "H \\* W"),
        (lambda: mk.roi_align(X, BOX, 0), ValueError, "output_size"),
        (lambda: mk.roi_align(X, BOX[:, 1:], 2), ValueError, r"\(R, 5\)"),
        (lambda: mk.roi_align(X, [BOX[:, 1:]], 2), ValueError, "2 in all, got 1"),
        (lambda: mk.roi_align(X, [BOX, BOX], 2), ValueError, r"boxes\[0\]"),
        (lambda: mk.roi_align(X, BOX.astype(np.float32), 2), TypeError, "the same for all"),
        (lambda: mk.roi_align(X.astype(np.float16), BOX.astype(np.float16), 2), TypeError, "float32 or float64"),
        (lambda: mk.roi_align(X, boxed(image=2), 2), ValueError, "0 to 1, got 2.0 at 0"),
        (lambda: mk.roi_align(X, boxed(image=np.nan), 2), ValueError, "whole number"),
        (lambda: mk.roi_align(X, boxed(x2=-1), 2), ValueError, "x1 <= x2"),
        (lambda: mk.roi_align(X, boxed(y1=np.nan), 2), ValueError, "finite"),
        (lambda: mk.roi_align(X, boxed(y1=-np.inf), 2), ValueError, "finite"),
        (lambda: mk.roi_align(X, boxed(x2=1e300), 2), ValueError, "at most 1048576"),
        (lambda: mk.roi_align(X, BOX, 2, spatial_scale=-1), ValueError, "spatial_scale"),
        (lambda: mk.roi_align(X, BOX, 2, sampling_ratio=1.5), TypeError, "sampling_ratio"),
        (lambda: mk.roi_align(X, BOX, 2, sampling_ratio=10**9), ValueError, "at most 1024"),
        (lambda: mk.roi_align(X, BOX, 2, sampling_ratio=None), TypeError, "sampling_ratio"),
        (lambda: mk.roi_align_adjoint(G, BOX, (2, 3, 8)), ValueError, "input_size"),
        (lambda: mk.roi_align_adjoint(G, BOX, (2, 4, 8, 8)), ValueError, "grad"),
        (lambda: mk.roi_align_adjoint(G, BOX[[0, 0]], X.shape), ValueError, "grad"),
        (lambda: mk.roi_align_adjoint(G[:, :, :0], BOX, X.shape), ValueError, "grad"),
        (lambda: mk.roi_align_adjoint(G, BOX, (1, 3, 8, 8)), ValueError, "0 to 0, got 1.0"),
        (lambda: mk.roi_align_adjoint(G, boxed(x2=np.nan), X.shape), ValueError, "finite"),
        (lambda: mk.roi_align_adjoint(G, boxed(x2=-1), X.shape), ValueError, "x1 <= x2"),
        (lambda: mk.roi_align_adjoint(G.astype(np.float32), BOX, X.shape), TypeError, "the same for all"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_arguments_are_refused_by_name(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.skipif(mk.available()["cpu"] is not None, reason="of the cpu version")
@pytest.mark.parametrize("channels", [256, 260])
def test_results_larger_than_the_caches(channels: int) -> None:
    """Of 4 MB and more, which are written in another way, if vectors of 64 bytes fit; float64 never is."""
    rng = np.random.default_rng(0)
    x, corner = rng.standard_normal((1, channels, 12, 12)), rng.uniform(0, 6, (90, 2))
    boxes = np.concatenate([np.zeros((90, 1)), corner, corner + rng.uniform(1, 6, (90, 2))], axis=1).astype(np.float32)
    with mk.use("cpu"):
        result = mk.roi_align(x.astype(np.float32), boxes, 7, 1.0, 2)
        expected = mk.roi_align(x.astype(np.float32).astype(float), boxes.astype(float), 7, 1.0, 2)
    assert result.nbytes >= 1 << 22
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-5)
