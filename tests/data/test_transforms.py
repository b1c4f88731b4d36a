"""Augmentation moves boxes, masks and joints along with the pixels.

The oracle is the picture itself: something of one colour is painted, the sample transformed, and the colour found
again in the result.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidet.data import transforms as T
from minidet.data.dataset import Sample
from minidet.data.joints import LSP_SWAP
from minidet.data.miniscene import SCENES, make_scene

RED = np.array([255, 0, 0], np.uint8)
SHIFTS = st.integers(-20, 20)


def box_sample(box=(10, 20, 30, 44), height: int = 64, width: int = 80) -> Sample:
    """A red rectangle on grey, which is the box and the mask of the only object."""
    image = np.full((height, width, 3), 120, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = RED
    masks = (image == RED).all(axis=2)[None]
    return Sample(image, np.array([box], np.float64), np.array([1]), masks=masks, name="box")


def red_box(image: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 around the pixels that are mostly red."""
    rows, columns = np.nonzero((image[:, :, 0] > 187) & (image[:, :, 1] < 60))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)


def dot_sample(x: int, y: int, height: int = 64, width: int = 80) -> Sample:
    """One pixel of red at a joint; 13 more joints sit in the middle. The box is the whole picture."""
    image = np.zeros((height, width, 3), np.uint8)
    image[y, x] = RED
    joints = np.tile([width // 2, height // 2, 2.0], (14, 1))
    joints[0] = x, y, 2
    return Sample(image, np.array([[0.0, 0, width, height]]), np.array([1]), keypoints=joints[None])


def assert_mask_is_red(sample: Sample, most_wrong: int = 0) -> None:
    red = (sample.image[:, :, 0] > 187) & (sample.image[:, :, 1] < 60)
    assert (sample.masks[0] != red).sum() <= most_wrong


def test_a_flipped_box_is_where_its_pixels_are():
    sample = box_sample()
    flipped = T.flip(sample)
    np.testing.assert_array_equal(flipped.boxes[0], red_box(flipped.image))
    assert flipped.boxes.tolist() == [[50, 20, 70, 44]]
    assert_mask_is_red(flipped)
    assert sample.boxes.tolist() == [[10, 20, 30, 44]]  # the given sample stays as it was


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 79), st.integers(0, 63))
def test_a_flipped_joint_is_where_its_pixel_is(x, y):
    flipped = T.flip(dot_sample(x, y))
    row, column = np.argwhere((flipped.image == RED).all(axis=2))[0]
    assert flipped.keypoints[0, 0].tolist() == [column, row, 2]


def test_a_mirrored_right_ankle_is_a_left_ankle():
    flipped = T.flip(dot_sample(7, 9), swap=LSP_SWAP)
    assert flipped.keypoints[0, 5].tolist() == [72, 9, 2]  # left ankle
    assert flipped.keypoints[0, 0].tolist() == [39, 32, 2]


def test_flipping_twice_changes_nothing_and_unlabelled_joints_stay_zero():
    sample = dot_sample(7, 9)
    sample.keypoints[0, 3] = 0
    assert T.flip(sample).keypoints[0, 3].tolist() == [0, 0, 0]
    twice = T.flip(T.flip(sample, LSP_SWAP), LSP_SWAP)
    np.testing.assert_array_equal(twice.image, sample.image)
    np.testing.assert_array_equal(twice.keypoints, sample.keypoints)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 79), st.floats(0, 63), st.floats(0.01, 80), st.floats(0.01, 64))
def test_no_box_is_inside_out_after_a_flip(x, y, width, height):
    box = np.array([[x, y, min(x + width, 80), min(y + height, 64)]])
    flipped = T.flip(Sample(np.zeros((64, 80, 3), np.uint8), box, np.array([1]))).boxes
    assert (flipped[:, 2:] >= flipped[:, :2]).all()
    np.testing.assert_allclose(flipped[:, 2:] - flipped[:, :2], box[:, 2:] - box[:, :2], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(dx=SHIFTS, dy=SHIFTS)
def test_a_translated_box_mask_and_joint_are_where_their_pixels_are(dx, dy):
    moved = T.translate(box_sample(), dx, dy)
    np.testing.assert_array_equal(moved.boxes[0], red_box(moved.image))
    assert_mask_is_red(moved)
    dot = T.translate(dot_sample(40, 30), dx, dy)
    row, column = np.argwhere((dot.image == RED).all(axis=2))[0]
    assert dot.keypoints[0, 0].tolist() == [column, row, 2]


@pytest.mark.parametrize("shift", [(200, 0), (-200, 0), (0, 64), (0, -64), (500, 500)])
def test_what_is_moved_out_of_the_picture_is_gone(shift):
    moved = T.translate(box_sample(), *shift, fill=(1, 2, 3))
    assert (moved.image == (1, 2, 3)).all()
    assert moved.boxes.shape == (0, 4)
    assert moved.labels.shape == (0,)
    assert moved.masks.shape == (0, 64, 80)
    assert T.translate(dot_sample(4, 4), *shift).keypoints.shape == (0, 14, 3)


def test_a_cut_box_is_clipped_and_a_sliver_is_dropped():
    assert T.translate(box_sample(), -20, 0).boxes.tolist() == [[0, 20, 10, 44]]  # half of it
    assert T.translate(box_sample(), -23, 0).boxes.tolist() == [[0, 20, 7, 44]]  # 35 %
    assert len(T.translate(box_sample(), -25, 0).boxes) == 0  # 25 %, below MIN_VISIBLE
    assert len(T.scale(box_sample((10, 20, 12, 22)), 0.4).boxes) == 0  # narrower than a pixel


def test_what_is_left_of_a_crowd_stays():
    crowd = box_sample()
    crowd.iscrowd[:] = True
    assert T.translate(crowd, -25, 0).boxes.tolist() == [[0, 20, 5, 44]]
    assert len(T.translate(crowd, -40, 0).boxes) == 0


def test_joints_that_leave_the_picture_become_not_labelled():
    moved = T.translate(dot_sample(3, 30), -10, 0)
    assert moved.keypoints[0, 0].tolist() == [0, 0, 0]
    assert moved.keypoints[0, 1].tolist() == [30, 32, 2]


@settings(max_examples=60, deadline=None)
@given(factor=st.floats(0.5, 2.0), cx=st.floats(5, 35), cy=st.floats(15, 45))
def test_a_scaled_box_and_mask_are_where_their_pixels_are(factor, cx, cy):
    scaled = T.scale(box_sample(), factor, (cx, cy))
    assert np.abs(scaled.boxes[0] - red_box(scaled.image)).max() <= 1.0
    assert_mask_is_red(scaled, most_wrong=int(2 * (scaled.boxes[0, 2:] - scaled.boxes[0, :2]).sum()))


@settings(max_examples=40, deadline=None)
@given(factor=st.floats(1.0, 1.7), x=st.integers(25, 55), y=st.integers(20, 44))
def test_a_scaled_joint_is_at_the_centre_of_its_light(factor, x, y):
    scaled = T.scale(dot_sample(x, y), factor)
    light = scaled.image[:, :, 0].astype(float)
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]]
    center = (columns * light).sum() / light.sum(), (rows * light).sum() / light.sum()
    np.testing.assert_allclose(scaled.keypoints[0, 0, :2], center, atol=0.3)


def test_scaling_about_a_point_leaves_the_point_where_it_is():
    sample = dot_sample(20, 30)
    assert T.scale(sample, 1.7, (20.5, 30.5)).keypoints[0, 0].tolist() == pytest.approx([20, 30, 2])
    np.testing.assert_array_equal(T.scale(sample, 1.0).image, sample.image)


def test_the_area_follows_the_zoom():
    assert T.scale(box_sample(), 0.5).areas.tolist() == pytest.approx([20 * 24 / 4])
    assert T.translate(box_sample(), -20, 0).areas.tolist() == pytest.approx([10 * 24])


def test_resizing_stretches_boxes_masks_and_joints():
    resized = T.resize(box_sample(), 128, 40)
    assert resized.image.shape == (128, 40, 3)
    assert resized.boxes.tolist() == [[5, 40, 15, 88]]
    assert np.abs(red_box(resized.image) - resized.boxes[0]).max() <= 1
    assert_mask_is_red(resized, most_wrong=20)
    assert T.resize(dot_sample(10, 10), 128, 160).keypoints[0, 0].tolist() == [20.5, 20.5, 2]


def literal_color(image, brightness, contrast, saturation):
    """Pixel by pixel: brightness, then contrast about the mean grey, then saturation about each pixel's grey."""
    bright = image.astype(float) * brightness
    gray = bright @ [0.299, 0.587, 0.114]
    contrasted = gray.mean() + contrast * (bright - gray.mean())
    own_gray = (contrasted @ [0.299, 0.587, 0.114])[..., None]
    return np.clip(own_gray + saturation * (contrasted - own_gray), 0, 255)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 1.5), st.floats(0.5, 1.5), st.floats(0.0, 2.0))
def test_colours_follow_the_three_definitions(brightness, contrast, saturation):
    sample = box_sample()
    sample.image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    changed = T.color(sample, brightness, contrast, saturation)
    expected = literal_color(sample.image, brightness, contrast, saturation)
    assert np.abs(changed.image - expected).max() <= 0.51
    assert changed.boxes is sample.boxes


def test_factors_of_one_change_no_colour():
    sample = box_sample()
    np.testing.assert_array_equal(T.color(sample).image, sample.image)


ALL = T.Compose(
    [T.RandomFlip(), T.RandomTranslate(keep_boxes=True), T.RandomScale(0.7, 2.0, keep_boxes=True), T.RandomColor()]
)


def test_the_same_generator_state_gives_the_same_augmentation():
    first, second, other = (ALL(box_sample(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert not np.array_equal(first.image, other.image)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_keep_boxes_never_cuts_an_object(seed):
    scene = make_scene(np.random.default_rng(seed), **SCENES["localization"])
    sample = Sample(scene.image, scene.boxes, scene.labels)
    augmented = ALL(sample, np.random.default_rng(seed))
    assert len(augmented.boxes) == 1
    before, after = (s.boxes[0, 2:] - s.boxes[0, :2] for s in (sample, augmented))
    assert np.ptp(after / before) < 1e-6  # same proportions: nothing was clipped
    assert augmented.boxes.min() >= 0
    assert augmented.boxes.max() <= 64


def test_random_parameters_cover_their_ranges():
    rng = np.random.default_rng(0)
    shifts = np.array([T.RandomTranslate(0.25)(box_sample((30, 22, 50, 42)), rng).boxes[0] for _ in range(300)])
    assert sorted({int(v) for v in shifts[:, 0] - 30}) == list(range(-20, 21))
    widths = [np.ptp(T.RandomScale(0.5, 2.0)(box_sample((30, 22, 50, 42)), rng).boxes[0, ::2]) for _ in range(300)]
    assert 10 <= min(widths) < 11
    assert 38 < max(widths) <= 40
    assert 0.4 < np.mean(np.array(widths) < 20) < 0.6  # as often smaller as larger
    flipped = [T.RandomFlip(0.5)(box_sample(), rng).boxes[0, 0] == 50 for _ in range(300)]
    assert 0.4 < np.mean(flipped) < 0.6


def test_resize_is_a_transform_too():
    assert T.Resize(32, 48)(box_sample(), np.random.default_rng(0)).image.shape == (32, 48, 3)


def test_an_image_without_objects_goes_through_everything():
    sample = Sample(
        np.zeros((64, 64, 3), np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros((0, 64, 64), bool)
    )
    for seed in range(20):
        result = ALL(sample, np.random.default_rng(seed))
        assert result.boxes.shape == (0, 4)
        assert result.masks.shape == (0, 64, 64)


def with_proposals(*boxes, sample=None) -> Sample:
    sample = box_sample() if sample is None else sample
    sample.proposals = np.array(boxes, float).reshape(-1, 4)
    return sample


@settings(max_examples=40, deadline=None)
@given(
    dx=SHIFTS, dy=SHIFTS, factor=st.floats(0.5, 2.0), height=st.integers(40, 130), width=st.integers(40, 130),
    mirror=st.booleans(),
)  # fmt: skip
def test_a_proposal_moves_as_the_box_that_it_covers(dx, dy, factor, height, width, mirror):
    sample = T.resize(T.scale(T.translate(with_proposals((10, 20, 30, 44)), dx, dy), factor), height, width)
    sample = T.flip(sample) if mirror else sample
    assert len(sample.boxes) <= len(sample.proposals) <= 1  # a sliver of a box is dropped, of a proposal it is kept
    if len(sample.boxes):
        np.testing.assert_array_equal(sample.proposals, sample.boxes)


def test_proposals_are_clipped_to_the_image_and_those_that_vanish_are_dropped():
    sample = with_proposals((0, 0, 80, 64), (70, 10, 80, 20), (60, 10, 70.75, 20), (10, 20, 11, 44))
    moved = T.translate(sample, 9, 0)
    assert moved.proposals.tolist() == [[9, 0, 80, 64], [79, 10, 80, 20], [69, 10, 79.75, 20], [19, 20, 20, 44]]
    assert T.translate(sample, 10, 0).proposals.tolist() == [[10, 0, 80, 64], [70, 10, 80, 20], [20, 20, 21, 44]]
    assert T.scale(sample, 0.9, (0, 0)).proposals.shape == (3, 4)  # the last one is narrower than a pixel
    assert T.translate(sample, 500, 0).proposals.shape == (0, 4)
    assert sample.proposals[0].tolist() == [0, 0, 80, 64]  # the given sample stays as it was


def test_proposals_go_through_everything_without_objects_and_none_stay_none():
    empty = Sample(np.zeros((64, 64, 3), np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))
    for seed in range(10):
        result = ALL(with_proposals((8, 8, 56, 56), sample=empty), np.random.default_rng(seed))
        assert result.proposals.shape == (1, 4)
        assert result.boxes.shape == (0, 4)
        assert ALL(with_proposals(sample=empty), np.random.default_rng(seed)).proposals.shape == (0, 4)
        assert ALL(box_sample(), np.random.default_rng(seed)).proposals is None
