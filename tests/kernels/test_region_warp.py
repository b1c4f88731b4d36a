"""R-CNN's warped regions: by hand, against torch's interpolation, and the contract's errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minidet_kernels as mk


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def picture(height: int, width: int, channels: int = 1) -> np.ndarray:
    """Every pixel another number: 10 * row + column, + 100 a channel."""
    rows, columns = np.mgrid[:height, :width]
    return np.float32(100 * np.arange(channels)[:, None, None] + 10 * rows + columns)


def boxes(*rows: tuple) -> np.ndarray:
    return np.array(rows, np.float32)


def test_a_box_as_large_as_the_square_is_cut_out() -> None:
    image = picture(8, 8, 3)
    warped = mk.region_warp(image, boxes((2, 3, 6, 7)), 4)
    np.testing.assert_array_equal(warped[0], image[:, 3:7, 2:6])


def test_twice_as_large_pixels_are_mixed_inside_and_repeated_at_the_border() -> None:
    warped = mk.region_warp(picture(5, 5), boxes((1, 2, 3, 4)), 4)
    row = np.array([1, 1.25, 1.75, 2])  # columns 1 and 2; the border repeats, and columns 0 and 3 do not shine in
    np.testing.assert_allclose(warped[0, 0], [20 + row, 22.5 + row, 27.5 + row, 30 + row])


def test_proportions_are_not_kept() -> None:
    warped = mk.region_warp(picture(9, 9), boxes((0, 4, 8, 6)), 8)
    np.testing.assert_allclose(warped[0, 0, :, 0], [40, 40, 41.25, 43.75, 46.25, 48.75, 50, 50], atol=2.51)
    np.testing.assert_allclose(np.diff(warped[0, 0], axis=1), 1, atol=1e-5)


def test_context_shows_what_is_around_the_box_to_the_width_asked_for() -> None:
    # a white box on black; size 12, context 3: the factor is 2, and the box ends 3 pixels from each side of the square
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 12:18, 10:22] = 1
    warped = mk.region_warp(image, boxes((10, 12, 22, 18)), 12, context=3)[0, 0]
    expected = np.zeros((12, 12), bool)
    expected[3:9, 3:9] = True
    np.testing.assert_array_equal(warped > 0.5, expected)
    assert warped[:2].max() == warped[-2:].max() == 0
    assert warped[4:8, 4:8].min() == 1


def test_the_papers_square_has_the_factor_227_over_195() -> None:
    # a box of 195 pixels becomes a window of 227, and keeps its size
    image = picture(300, 300)
    warped = mk.region_warp(image, boxes((50, 60, 245, 255)), 227, context=16)
    np.testing.assert_array_equal(warped[0], image[:, 44:271, 34:261])


def test_outside_the_image_is_fill_and_the_image_is_where_it_belongs() -> None:
    image = picture(4, 4, 2)
    warped = mk.region_warp(image, boxes((-2, -1, 2, 3)), 4, fill=[7, 8])[0]
    np.testing.assert_array_equal(warped[:, 1:, 2:], image[:, :3, :2])
    assert (warped[0, :1] == 7).all()
    assert (warped[1, :, :2] == 8).all()


def test_without_fill_it_is_the_mean_of_what_is_shown() -> None:
    image = picture(4, 4, 2)
    warped = mk.region_warp(image, boxes((-2, -1, 2, 3), (2, 2, 6, 6)), 4)
    for square, shown in zip(warped, (image[:, :3, :2], image[:, 2:, 2:]), strict=True):
        np.testing.assert_allclose(square.mean(axis=(1, 2)), shown.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(warped[0, :, 0, 0], image[:, :3, :2].mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(warped[1, :, 3, 3], image[:, 2:, 2:].mean(axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize("box", [(-9, 0, -5, 4), (4, 0, 8, 4), (0, 4, 4, 9), (0, -5, 3, 0), (1e6, 1e6, 2e6, 2e6)])
def test_a_box_that_misses_the_image_is_nothing_but_fill(box: tuple) -> None:
    assert (mk.region_warp(picture(4, 4), boxes(box), 4) == 0).all()
    assert (mk.region_warp(picture(4, 4), boxes(box), 4, fill=[5]) == 5).all()


def test_a_box_without_area_is_one_pixel() -> None:
    np.testing.assert_array_equal(mk.region_warp(picture(5, 5), boxes((3, 2, 3, 2)), 2), np.full((1, 1, 2, 2), 23))


def test_halves_round_upwards_on_both_sides_of_0() -> None:
    left, right = mk.region_warp(picture(4, 6), boxes((0.5, 0, 2.5, 4), (-1.5, 0, 2.5, 4)), 4, fill=[-9])[:, 0, 0]
    np.testing.assert_allclose(left, [1, 1.25, 1.75, 2])  # columns 1 and 2
    np.testing.assert_allclose(right, [-9, 0, 1, 2])  # columns -1 to 2


def test_no_boxes_give_no_squares() -> None:
    assert mk.region_warp(picture(4, 4, 3), np.zeros((0, 4), np.float32), 5).shape == (0, 3, 5, 5)


def test_squares_of_boxes_inside_are_torchs_interpolation() -> None:
    torch = pytest.importorskip("torch", reason="torch is the peer")
    rng = np.random.default_rng(0)
    image = rng.random((3, 30, 40)).astype(np.float32)
    for _ in range(30):
        (x1, y1), (w, h) = rng.integers(0, 15, 2), rng.integers(1, 15, 2)
        size = int(rng.integers(1, 30))
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(image[None, :, y1 : y1 + h, x1 : x1 + w]), (size, size), mode="bilinear"
        )
        warped = mk.region_warp(image, boxes((x1, y1, x1 + w, y1 + h)), size)
        np.testing.assert_allclose(warped, expected.numpy(), atol=1e-5)


def test_windows_across_the_border_follow_the_authors_arithmetic() -> None:
    """Written out once more, box by box, from the paper's appendix, with torch to resize."""
    torch = pytest.importorskip("torch", reason="torch is the peer")
    rng = np.random.default_rng(1)
    image = rng.random((2, 20, 25)).astype(np.float32)

    def nearest(value: float) -> int:
        return math.floor(value + 0.5)

    for _ in range(100):
        x1, y1 = rng.uniform(-12, 22, 2)
        box = (x1, y1, x1 + rng.uniform(0, 30), y1 + rng.uniform(0, 30))
        size, context = int(rng.integers(9, 20)), int(rng.integers(0, 4))
        larger = size / (size - 2 * context)
        low, high = [], []
        for axis in (1, 0):  # rows first
            centre, half = (box[axis] + box[axis + 2]) / 2, (box[axis + 2] - box[axis]) / 2 * larger
            low.append(nearest(centre - half))
            high.append(max(nearest(centre + half), low[-1] + 1))
        cut_low = [max(v, 0) for v in low]
        cut_high = [min(v, n) for v, n in zip(high, image.shape[1:], strict=True)]
        expected = np.full((2, size, size), 0.5, np.float32)
        scale = [size / (b - a) for a, b in zip(low, high, strict=True)]
        sides = [nearest((b - a) * s) for a, b, s in zip(cut_low, cut_high, scale, strict=True)]
        if min(b - a for a, b in zip(cut_low, cut_high, strict=True)) > 0:
            start = [nearest((a - full) * s) for a, full, s in zip(cut_low, low, scale, strict=True)]
            sides = [min(side, size - at) for side, at in zip(sides, start, strict=True)]
            if min(sides) > 0:
                part = torch.from_numpy(image[None, :, cut_low[0] : cut_high[0], cut_low[1] : cut_high[1]])
                shown = torch.nn.functional.interpolate(part, sides, mode="bilinear")[0].numpy()
                expected[:, start[0] : start[0] + sides[0], start[1] : start[1] + sides[1]] = shown
        warped = mk.region_warp(image, np.array([box]), size, context, fill=[0.5, 0.5])
        np.testing.assert_allclose(warped[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"image": np.zeros((4, 4), np.float32)}, ValueError, "image .C, H, W."),
        ({"image": np.zeros((3, 4, 4), np.uint8)}, TypeError, "float32 or float64"),
        ({"image": np.zeros((3, 0, 4), np.float32)}, ValueError, "at least one pixel"),
        ({"boxes": boxes((3, 0, 1, 2))}, ValueError, "x1 <= x2"),
        ({"boxes": boxes((0, 0, 2**31, 2))}, ValueError, "2.30"),
        ({"size": 0}, ValueError, "size"),
        ({"context": 2}, ValueError, "context below size / 2 = 2, got 2"),
        ({"fill": [1, 2]}, ValueError, "fill"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(change: dict, error: type, told: str) -> None:
    arguments = {"image": picture(4, 4, 3), "boxes": boxes((0, 0, 2, 2)), "size": 4} | change
    with pytest.raises(error, match=told):
        mk.region_warp(**arguments)
