"""Skeletons whose joints say by their colours how far they are from the truth."""

import numpy as np
import pytest

from minidet.data.joints import MPII_JOINTS, MPII_LIMBS
from minidet.drawing import draw_pose_errors, draw_skeleton, error_legend, side_legend
from minidet.drawing.skeletons import (
    ERROR_COLORS,
    LEFT_COLOR,
    MIDDLE_COLOR,
    NOT_MEASURED_COLOR,
    RIGHT_COLOR,
    error_color,
)

GRAY = np.full((32, 48, 3), 128, np.uint8)
GOOD, FAIR, BAD, WRONG = (color for _, color in ERROR_COLORS)


def count(picture: np.ndarray, color) -> int:
    return int((picture == color).all(axis=2).sum())


def pair() -> tuple[np.ndarray, np.ndarray]:
    """Four joints in a row, off by 0, 1.5, 4 and 8 pixels, and one whose truth is not labelled; the torso has 10."""
    truth = np.zeros((1, 14, 3))
    keypoints = np.full((1, 14, 3), 2.0)
    keypoints[0, :, :2] = -100, -100  # the others: outside the picture
    for k, off in enumerate((0, 1.5, 4, 8)):
        truth[0, k] = 5 + 10 * k, 8, 2
        keypoints[0, k] = 5 + 10 * k, 8 + off, 2
    keypoints[0, 4, :2] = 24, 28
    return keypoints, truth


def test_joints_have_the_colour_of_their_error() -> None:
    keypoints, truth = pair()
    picture = draw_pose_errors(GRAY, keypoints, truth, np.array([10.0]), limbs=(), factor=8)
    for k, color in enumerate((GOOD, FAIR, BAD, WRONG, NOT_MEASURED_COLOR)):
        x, y = keypoints[0, k, :2]
        np.testing.assert_array_equal(picture[int((y + 0.5) * 8), int((x + 0.5) * 8)], color)
    assert count(picture, WRONG) > count(picture, BAD) > count(picture, FAIR) > count(picture, GOOD) > 0  # and the size


def test_the_colours_change_at_their_limits() -> None:
    assert [error_color(error)[0] for error in (0, 0.1, 0.11, 0.2, 0.5, 0.51, 9)] == [
        GOOD, GOOD, FAIR, FAIR, BAD, WRONG, WRONG
    ]  # fmt: skip
    assert error_color(np.nan)[0] == NOT_MEASURED_COLOR


def test_the_true_limbs_are_dashed_beside_the_predicted_ones() -> None:
    keypoints, truth = pair()
    with_truth = draw_pose_errors(GRAY, keypoints, truth, np.array([10.0]), limbs=((0, 1), (2, 3)), factor=8)
    without = draw_pose_errors(GRAY, keypoints, truth * 0, np.array([10.0]), limbs=((0, 1), (2, 3)), factor=8)
    assert count(with_truth, (255, 255, 255)) > count(without, (255, 255, 255)) + 100
    row = (with_truth[8 * 8 + 4, 26 * 8 : 34 * 8] == 255).all(axis=1)  # along the true limb from joint 2 to joint 3
    assert 0 < row.sum() < len(row)


def test_people_without_a_size_are_not_measured_and_without_truth_only_drawn(recwarn) -> None:
    keypoints, truth = pair()
    for size in (np.nan, 0.0):
        picture = draw_pose_errors(GRAY, keypoints, truth, np.array([size]), limbs=())
        assert count(picture, GOOD) == count(picture, BAD) == count(picture, WRONG) == 0
        assert count(picture, NOT_MEASURED_COLOR) > 0
    assert not recwarn.list
    np.testing.assert_array_equal(draw_pose_errors(GRAY, keypoints), draw_skeleton(GRAY, keypoints))
    nobody = np.zeros((0, 14, 3))
    assert (draw_pose_errors(GRAY, nobody, nobody, np.zeros(0), factor=1) == GRAY).all()
    sixteen = np.zeros((2, 16, 3))
    drawn = draw_pose_errors(GRAY, sixteen, sixteen, np.ones(2), MPII_LIMBS, MPII_JOINTS, factor=2)
    assert drawn.shape == (64, 96, 3)


def test_counts_that_do_not_fit_are_refused() -> None:
    keypoints, truth = pair()
    with pytest.raises(ValueError, match=r"sizes \(P,\), got \(1, 14, 3\), \(1, 14, 3\) and \(2,\)"):
        draw_pose_errors(GRAY, keypoints, truth, np.ones(2))
    with pytest.raises(ValueError, match=r"and \(\)"):
        draw_pose_errors(GRAY, keypoints, truth)


def test_the_legend_shows_every_colour_and_fits_the_sheet() -> None:
    legend = error_legend(700)
    assert legend.shape[1:] == (700, 3)
    for color in (GOOD, FAIR, BAD, NOT_MEASURED_COLOR):
        assert count(legend, color) > 30


def test_a_legend_of_a_narrow_sheet_is_wider_than_the_sheet_and_not_cut_off() -> None:
    narrow, wide = error_legend(100), error_legend(2000)
    assert (wide[:, narrow.shape[1] :] == 255).all()
    np.testing.assert_array_equal(narrow, wide[:, : narrow.shape[1]])
    assert (narrow[:, -8:] == 255).all()


def test_joints_coloured_by_their_side_have_a_legend_of_sides() -> None:
    legend = side_legend(400)
    assert legend.shape[1:] == (400, 3)
    assert all(count(legend, color) > 30 for color in (RIGHT_COLOR, LEFT_COLOR, MIDDLE_COLOR))
    assert count(legend, GOOD) == count(legend, BAD) == count(legend, NOT_MEASURED_COLOR) == 0
