"""Drawings show what they should, where they should, and leave the given picture alone."""

import numpy as np
import pytest

from minidet.drawing import draw_boxes, draw_localization, draw_masks, draw_skeleton, grid, save_png
from minidet.drawing.canvas import PALETTE, enlargement
from minidet.drawing.localization import ESTIMATED, TRUE

GRAY = np.full((32, 48, 3), 128, np.uint8)


def count(picture: np.ndarray, color) -> int:
    return int((picture == color).all(axis=2).sum())


def test_small_pictures_are_enlarged_by_a_whole_number_and_large_ones_are_not():
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    picture = draw_boxes(noise, np.zeros((0, 4)))
    assert picture.shape == (32 * 7, 48 * 7, 3)
    np.testing.assert_array_equal(picture[::7, ::7], noise)
    assert enlargement(500, 400) == 1


def test_photographs_are_shrunk_with_their_boxes():
    photograph = np.full((1500, 2400, 3), 128, np.uint8)
    picture = draw_boxes(photograph, np.array([[300.0, 600, 1500, 1200]]), labels=np.array([2]))
    assert picture.shape == (500, 800, 3)
    rows, columns = np.nonzero((picture == np.array(PALETTE[2])).all(axis=2))
    body = rows >= 199  # below the name's tag
    assert (columns[body].min(), columns[body].max()) == pytest.approx((100, 499), abs=2)
    assert rows.max() == pytest.approx(399, abs=2)


def test_a_box_is_drawn_along_its_edges_in_its_labels_colour():
    picture = draw_boxes(GRAY, np.array([[10.0, 8, 30, 24]]), labels=np.array([2]), factor=4)
    color = np.array(PALETTE[2])
    rows, columns = np.nonzero((picture == color).all(axis=2))
    body = rows >= 8 * 4 - 1  # below the name's tag
    assert (columns[body].min(), columns[body].max()) == pytest.approx((40, 119), abs=2)
    assert rows.max() == pytest.approx(95, abs=2)
    assert (picture[14 * 4 : 20 * 4, 15 * 4 : 25 * 4] == 128).all()  # the inside stays free


def test_the_given_picture_stays_as_it_is_and_float_pictures_are_accepted():
    before = GRAY.copy()
    boxes = np.array([[10.0, 8, 30, 24]])
    from_bytes = draw_boxes(GRAY, boxes)
    np.testing.assert_array_equal(GRAY, before)
    np.testing.assert_array_equal(draw_boxes(GRAY.astype(np.float32) / 255, boxes), from_bytes)
    with pytest.raises(ValueError, match=r"expected an image \(H, W, 3\), got \(3, 32, 48\)"):
        draw_boxes(GRAY.transpose(2, 0, 1), boxes)


def test_truth_is_dashed_and_predictions_are_solid():
    box = np.array([[5.0, 5, 43, 27]])
    solid, dashed = draw_boxes(GRAY, box, factor=7), draw_boxes(GRAY, np.zeros((0, 4)), truth=box, factor=7)

    def gaps(picture: np.ndarray) -> int:
        """Changes between background and line along the upper edge, corners left out."""
        line = (picture[5 * 7 - 2 : 5 * 7 + 3, 60:280] != 128).any(axis=(0, 2))
        return int(np.count_nonzero(np.diff(line.astype(int))))

    assert gaps(solid) == 0
    assert gaps(dashed) > 20


def test_names_and_scores_are_written():
    box, label = np.array([[10.0, 12, 30, 24]]), np.array([1])
    plain = draw_boxes(GRAY, box, factor=6)
    named = draw_boxes(GRAY, box, label, names=("background", "cat"), factor=6)
    scored = draw_boxes(GRAY, box, label, scores=np.array([0.87]), names=("background", "cat"), factor=6)
    assert count(named, PALETTE[1]) > 100
    assert count(scored, PALETTE[1]) > count(named, PALETTE[1]) + 100  # a longer tag
    assert count(plain, PALETTE[1]) == 0


def test_boxes_outside_the_picture_and_empty_ones_do_no_harm():
    boxes = np.array([[-10.0, -10, 5, 5], [40, 20, 90, 90], [10, 10, 10, 10], [100, 100, 120, 120]])
    assert draw_boxes(GRAY, boxes, np.arange(4), np.ones(4), truth=boxes).shape == (224, 336, 3)


def test_a_mask_tints_its_pixels_and_no_other():
    masks = np.zeros((1, 32, 48), bool)
    masks[0, 4:9, 5:7] = True
    changed = (draw_masks(GRAY, masks, np.array([1])) != GRAY).any(axis=2)
    np.testing.assert_array_equal(changed, masks[0])


def joints(visibility: float = 2) -> np.ndarray:
    keypoints = np.zeros((14, 3))
    keypoints[8], keypoints[12], keypoints[9] = (10, 15, visibility), (24, 15, visibility), (38, 15, visibility)
    return keypoints


def test_a_skeleton_has_its_right_side_orange_and_its_left_side_blue():
    picture = draw_skeleton(GRAY, joints(), factor=8)
    for column, color in ((10, PALETTE[0]), (24, PALETTE[2]), (38, PALETTE[1])):
        np.testing.assert_array_equal(picture[15 * 8 + 4, column * 8 + 4], color)  # the middle of the joint's pixel
    assert count(picture[:, : 20 * 8], PALETTE[1]) == 0
    assert count(picture[:, 30 * 8 :], PALETTE[0]) == 0


def test_hidden_joints_are_hollow_and_unlabelled_ones_are_not_drawn():
    solid, hollow = draw_skeleton(GRAY, joints(2), limbs=()), draw_skeleton(GRAY, joints(1), limbs=())
    assert count(solid, PALETTE[0]) > 1.5 * count(hollow, PALETTE[0]) > 0
    nobody = draw_skeleton(GRAY, joints(0) * 0)
    assert (nobody == 128).all()


def test_several_people_and_the_truth_beside_them_are_drawn():
    people = np.stack([joints(), joints()])
    people[1, :, 1] += 8
    truth = people.copy()
    truth[:, :, 1] += 4
    picture = draw_skeleton(GRAY, people, truth=truth, factor=8)
    assert count(picture, (255, 255, 255)) > 100
    for row in (15, 23):
        np.testing.assert_array_equal(picture[row * 8 + 4, 10 * 8 + 4], PALETTE[0])


def test_a_grid_places_pictures_row_by_row():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    pictures = [np.full((10, 20, 3), color, np.uint8) for color in colors]
    sheet = grid(pictures, columns=2, least_side=1)
    centers = [np.argwhere((sheet == color).all(axis=2)).mean(axis=0) for color in colors]
    assert centers[0][0] == centers[1][0] < centers[2][0]
    assert centers[0][1] == centers[2][1] < centers[1][1]
    assert [count(sheet, color) for color in colors] == [200, 200, 200]
    taller = grid(pictures, columns=2, captions=["a", "a rather long caption for so small a picture", ""], least_side=1)
    assert taller.shape[0] > sheet.shape[0]
    assert taller.shape[1] == sheet.shape[1]


def test_a_grid_of_nothing_or_with_missing_captions_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        grid([])
    with pytest.raises(ValueError, match="a caption an image, got 1 for 2"):
        grid([GRAY, GRAY], captions=["one"])


@pytest.mark.parametrize(("pictures", "columns"), [(1, 1), (4, 4), (6, 6), (8, 4), (12, 6), (14, 5), (24, 6)])
def test_the_rows_of_a_sheet_are_evenly_filled(pictures, columns):
    sheet = grid([GRAY] * pictures, columns=6, least_side=1)
    assert sheet.shape[1] == 8 + columns * (GRAY.shape[1] + 8)


def test_an_estimated_box_is_red_over_a_true_one_in_green_and_the_map_stands_beside() -> None:
    image = np.full((20, 30, 3), 90, np.uint8)
    heat_map = np.zeros((20, 30), np.float32)
    heat_map[5:10, 5:15] = 2
    picture = draw_localization(image, np.array([4.0, 4, 16, 12]), np.array([2.0, 3, 10, 15]), heat_map)
    assert picture.dtype == np.uint8
    height, width = picture.shape[:2]
    factor = height // 20
    assert width == 2 * 30 * factor

    def has(color, part) -> bool:
        return bool((part == color).all(axis=2).any())

    for part in (picture[:, : width // 2], picture[:, width // 2 :]):
        assert has(TRUE, part)
        assert has(ESTIMATED, part)
    assert (picture[0, 0] == 90).all()
    red, green, _ = map(int, picture[3 * factor, 8 * factor])  # on the true box's upper side
    assert green > red + 50
    red, green, _ = map(int, picture[4 * factor, 8 * factor])  # on the estimated one's
    assert red > green + 50
    low, high = picture[1, width // 2 + 1].astype(int), picture[7 * factor, width // 2 + 7 * factor].astype(int)
    assert high.sum() > low.sum() + 100  # viridis: dark where the map is low, bright where it is high
    assert not has(TRUE, draw_localization(image, np.array([4.0, 4, 16, 12])))
    plain = draw_localization(image, np.zeros(4), None, np.full((5, 5), np.float32(1)))  # no box, a map of one value
    assert not has(ESTIMATED, plain)


def test_a_map_that_is_not_finite_is_drawn_as_one_of_zeros() -> None:
    image, zeros = np.full((20, 30, 3), 90, np.uint8), np.zeros((5, 5), np.float32)
    for bad in (np.nan, np.inf):
        heat_map = zeros.copy()
        heat_map[2, 3] = bad
        np.testing.assert_array_equal(
            draw_localization(image, np.zeros(4), None, heat_map), draw_localization(image, np.zeros(4), None, zeros)
        )


def test_a_path_in_the_place_of_the_image_is_refused(tmp_path):
    with pytest.raises(TypeError, match="save_png: expected a path and then an image, an array, got str for it"):
        save_png(np.zeros((4, 4, 3), np.uint8), str(tmp_path / "picture.png"))
