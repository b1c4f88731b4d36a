"""Heat maps in pictures: colours where the map has them, a bar that tells the values, nothing invented."""

import numpy as np
import pytest
from PIL import ImageDraw

from minidet.drawing import compare_heatmaps, draw_heatmap, overlay
from minidet.drawing import heatmaps as heatmap_pictures
from minidet.drawing.heatmaps import number, value_range

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
GRAY = np.full((32, 48, 3), 128, np.uint8)


def corner(height: int = 4, width: int = 6) -> np.ndarray:
    heat = np.zeros((height, width))
    heat[0, 0] = 2
    return heat


def test_an_overlay_is_yellow_where_the_map_is_large_and_grey_violet_where_it_is_zero():
    picture = overlay(GRAY, corner())
    assert picture.shape == (32 * 7, 48 * 7, 3)
    red, green, blue = picture[2, 2].astype(int)
    assert min(red, green) > blue + 60  # viridis ends in yellow
    red, green, blue = picture[-3, -3].astype(int)
    assert blue > green
    assert abs(red - green) + abs(blue - green) < 80  # the image still shows


def test_an_overlay_shows_the_image_in_grey():
    picture = overlay(IMAGE, np.zeros((4, 6)), factor=1).astype(float)
    gray = IMAGE @ np.array([0.299, 0.587, 0.114])
    assert np.corrcoef(picture.mean(axis=2).ravel(), gray.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_map_without_anything_positive_is_drawn_in_the_colour_of_zero_or_below(value: float):
    picture = overlay(GRAY, np.full((4, 6), value))
    assert (picture == picture[0, 0]).all()
    np.testing.assert_array_equal(picture[0, 0], overlay(GRAY, corner())[-1, -1])


def test_a_constant_positive_map_is_its_largest_value_everywhere():
    np.testing.assert_array_equal(overlay(GRAY, np.full((4, 6), 0.2))[50, 50], overlay(GRAY, corner())[0, 0])


def test_large_photographs_are_shrunk():
    assert overlay(np.zeros((1500, 2400, 3), np.uint8), corner()).shape == (500, 800, 3)


def test_boxes_are_dashed_where_they_belong():
    plain, boxed = overlay(GRAY, corner()), overlay(GRAY, corner(), boxes=np.array([[10.0, 8, 30, 24]]))
    rows, columns = np.nonzero((plain != boxed).any(axis=2))
    assert (columns.min(), columns.max()) == pytest.approx((70, 209), abs=3)
    assert (rows.min(), rows.max()) == pytest.approx((56, 167), abs=3)


def test_the_picture_has_room_for_lines_and_a_bar():
    lines = ["star 0.93", "gradcam of backbone"]
    picture = draw_heatmap(IMAGE, corner(), lines)
    inner = overlay(IMAGE, corner())
    height, width = inner.shape[:2]
    top = picture.shape[0] - height - 8
    np.testing.assert_array_equal(picture[top : top + height, 8 : 8 + width], inner)
    assert (picture[:top] < 100).any()  # ink above
    bar = picture[top : top + height, 8 + width + 8 + 5].astype(int)
    assert bar[0, 0] > 200 > bar[0, 2]  # yellow
    assert bar[-1, 2] > bar[-1, 1]  # violet
    assert np.abs(np.diff(bar, axis=0)).max() < 12  # without steps
    assert (picture[top:, 8 + width + 8 + 20 :] < 100).any()  # values beside it
    long = draw_heatmap(IMAGE, corner(), ["a line that is much longer than the picture below it is wide " * 2])
    assert long.shape[1] > picture.shape[1]


def labels_of(monkeypatch, image: np.ndarray, heat: np.ndarray) -> dict[str, float]:
    """The labels beside the bar, and at what height each is written."""
    written = {}
    write = ImageDraw.ImageDraw.text

    def text(draw, place, label, **options):
        written[label] = place[1]
        write(draw, place, label, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    picture = draw_heatmap(image, heat)
    assert max(written.values()) + 16 <= picture.shape[0]
    return written


@pytest.mark.parametrize(("height", "expected"), [(200, 5), (60, 3), (12, 2)])
def test_labels_beside_a_short_bar_do_not_overlap(monkeypatch, height: int, expected: int):
    heights = sorted(labels_of(monkeypatch, np.zeros((height, 900, 3), np.uint8), corner()).values())
    assert len(heights) == expected
    assert np.diff(heights).min() >= 16  # the height of the text


def test_beside_a_map_that_is_zero_everywhere_stands_one_zero(monkeypatch):
    written = []
    monkeypatch.setattr(heatmap_pictures, "number", lambda value: written.append(value) or number(value))
    draw_heatmap(GRAY, corner() * 0)
    assert written == [0]


def test_a_comparison_has_a_row_an_image_and_a_column_a_method():
    maps = {"one": [corner(), corner()], "two": [corner(2, 2), np.zeros((2, 2))]}
    sheet = compare_heatmaps([GRAY, GRAY], maps, ["first", "second"])
    factor, gap = 4, 8
    assert sheet.shape[1] == gap + 3 * (48 * factor + gap)
    np.testing.assert_array_equal(sheet[gap : gap + 128, gap : gap + 192], GRAY.repeat(4, axis=0).repeat(4, axis=1))
    np.testing.assert_array_equal(
        sheet[gap : gap + 128, 2 * gap + 192 : 2 * gap + 384], overlay(GRAY, corner(), factor=4)
    )
    legend = sheet[-18, 8 : 8 + 140].astype(int)
    assert (legend[:, 2] - legend[:, 0]).max() > 50  # from violet
    assert (legend[:, 0] - legend[:, 2]).max() > 150  # to yellow
    assert (legend[:, 2] - legend[:, 0]).argmax() < (legend[:, 0] - legend[:, 2]).argmax()
    narrow = compare_heatmaps([GRAY], {"one": [corner()], "two": [corner()]}, columns=1, title="title")
    assert narrow.shape[1] == gap + 192 + gap


def test_under_each_map_stands_the_range_of_its_colours(monkeypatch):
    written = []
    grid = heatmap_pictures.grid
    monkeypatch.setattr(heatmap_pictures, "grid", lambda *given: written.extend(given[2]) or grid(*given))
    spike = np.ones((64, 64))
    spike[3, 4] = 1000
    signed = np.array([[-4.99, 0], [1, 5.19]])
    maps = {"cam": signed, "positive": corner() + 1, "negative": -corner() - 1, "zero": corner() * 0, "gradient": spike}
    compare_heatmaps([GRAY], {name: [heat] for name, heat in maps.items()}, ["star"])
    assert written == [
        "star",
        "cam  -4.99 to 5.19",
        "positive  0 to 3",
        "negative  -3 to 0",
        "zero  0 everywhere",
        "gradient  0 to 1",
    ]


def test_values_are_written_short():
    assert [number(value) for value in (0.0, 0.5, 123.456, 0.00012345, -2.0, 4210.3, 3e7)] == [
        "0",
        "0.5",
        "123",
        "1.2e-04",
        "-2",
        "4210",
        "3.0e+07",
    ]
    assert value_range(np.array([[1.0, 3]])) == (0, 3)
    assert value_range(np.array([[-1.0, 3]])) == (-1, 3)
    assert value_range(np.array([[-1.0, -3]])) == (-3, 0)


def test_a_few_spikes_among_many_values_do_not_hide_the_rest():
    heat = np.ones((64, 64))
    heat[3, 4] = 1000
    assert value_range(heat) == (0, 1)
    np.testing.assert_array_equal(overlay(GRAY, heat)[-1, -1], overlay(GRAY, corner())[0, 0])
    spike_only = heat - 1
    assert value_range(spike_only) == (0, 999)
    assert value_range(heat[:8, :8]) == (0, 1000)
    assert value_range(np.arange(10101.0).reshape(91, 111)) == (0, 9999)  # the 99th percentile


@pytest.mark.parametrize("heat", [np.zeros((1, 2, 2)), np.zeros((0, 2)), np.full((2, 2), np.nan)])
def test_what_is_no_map_is_refused(heat: np.ndarray):
    for draw in (overlay, draw_heatmap):
        with pytest.raises(ValueError, match=r"expected a heat map \(h, w\) of finite numbers, got"):
            draw(GRAY, heat)
