"""SSD's augmentation: what a crop keeps, which crops are taken, and that a canvas moves everything."""

import numpy as np
import pytest

from minidet.boxes import box_iou
from minidet.data import Sample, crops

CORNER = np.array([11, 7, 11, 7])  # where the canvas has the sample


def sample() -> Sample:
    """20 x 30 pixels, each its own colour, with three objects, their masks, a joint each, and proposals."""
    image = np.zeros((20, 30, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(30), np.arange(20)[:, None]
    boxes = np.array([[2.0, 3, 8, 9], [10, 5, 20, 15], [22, 10, 30, 20]])
    masks = np.zeros((3, 20, 30), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    keypoints = np.array([[[4.0, 5, 2]], [[19, 14, 1]], [[0, 0, 0]]])
    return Sample(
        image,
        boxes,
        np.array([1, 2, 3]),
        masks,
        keypoints,
        iscrowd=np.array([False, False, True]),
        proposals=np.array([[0.0, 0, 30, 20], [0, 0, 5, 5]]),
    )


def test_a_crop_keeps_objects_by_their_centres():
    """The first is whole, of the second, whose centre is 15, 10, a part, of the third nothing."""
    found = crops.crop(sample(), 1, 2, 16, 14)
    assert found.image.shape == (12, 15, 3)
    assert found.image[0, 0].tolist() == [1, 2, 0]
    assert found.boxes.tolist() == [[1, 1, 7, 7], [9, 3, 15, 12]]
    assert found.labels.tolist() == [1, 2]
    assert found.iscrowd.tolist() == [False, False]
    np.testing.assert_allclose(found.areas, [36, 100 * 54 / 100])
    assert found.masks.shape == (2, 12, 15)
    assert found.masks[1, 3:, 9:].all()
    assert found.masks[1].sum() == 54
    assert found.keypoints.tolist() == [[[3, 3, 2]], [[0, 0, 0]]]  # the second's joint is outside
    assert found.proposals.tolist() == [[0, 0, 15, 12], [0, 0, 4, 3]]


def test_what_is_seen_of_a_crowd_stays():
    """The crowd's centre is 26, 15; of the second object nothing is left but its edge."""
    found = crops.crop(sample(), 20, 4, 25, 12)
    assert found.labels.tolist() == [3]
    assert found.iscrowd.tolist() == [True]
    assert found.boxes.tolist() == [[2, 6, 5, 8]]
    assert len(crops.crop(sample(), 20, 0, 22, 20).boxes) == 0


def test_a_crop_is_not_taken_for_a_crowd():
    crowd = sample()
    crowd.iscrowd[:] = True
    assert crops.RandomCrop()(crowd, np.random.default_rng(0)) is crowd
    one = sample()
    one.iscrowd[1:] = True
    for seed in range(20):
        found = crops.RandomCrop()(one, np.random.default_rng(seed))
        assert 1 in found.labels


def test_a_centre_on_the_edge_is_outside():
    assert crops.crop(sample(), 0, 0, 15, 20).labels.tolist() == [1]


def test_a_canvas_moves_everything():
    found = crops.expand(sample(), 50, 70, 7, 11)
    assert found.image.shape == (50, 70, 3)
    np.testing.assert_array_equal(found.image[7:27, 11:41], sample().image)
    assert found.image[0, 0].tolist() == [14, 9, 0]  # the mean colour
    np.testing.assert_array_equal(found.boxes, sample().boxes + CORNER)
    np.testing.assert_array_equal(found.proposals, sample().proposals + CORNER)
    np.testing.assert_array_equal(found.masks[:, 7:27, 11:41], sample().masks)
    assert found.masks.sum() == sample().masks.sum()
    assert found.keypoints.tolist() == [[[15, 12, 2]], [[30, 21, 1]], [[0, 0, 0]]]
    np.testing.assert_array_equal(found.areas, sample().areas)


@pytest.mark.parametrize("least", [0.0, 0.1, 0.5, 0.9])
def test_one_object_is_enough_for_a_crop(least, monkeypatch):
    """Of some object it has that much; of all of them it hardly ever has."""
    monkeypatch.setattr(crops, "LEAST_IOUS", (least,))
    taken = []
    monkeypatch.setattr(crops, "crop", lambda sample, *edges: taken.append(edges) or sample)
    whole = sample()
    for seed in range(60):
        crops.RandomCrop()(whole, np.random.default_rng(seed))
    if least < 0.9:
        assert len(taken) == 60
    edges = np.array(taken, float)
    iou = box_iou(edges, whole.boxes)
    assert (iou.max(axis=1) >= least).all()
    assert (iou.min(axis=1) < 0.1).any()
    centers = (whole.boxes[:, :2] + whole.boxes[:, 2:]) / 2
    inside = (edges[:, None, :2] < centers) & (centers < edges[:, None, 2:])
    assert inside.all(axis=2).any(axis=1).all()
    sides = edges[:, 2:] - edges[:, :2]
    assert (sides >= np.floor([0.3 * 30, 0.3 * 20])).all()
    assert (edges[:, 2:] <= [30, 20]).all()
    ratios = sides[:, 0] / sides[:, 1]
    assert ratios.min() >= 0.5
    assert ratios.max() <= 2


def test_some_images_stay_whole_and_those_without_objects_always():
    whole = sample()
    same = [crops.RandomCrop()(whole, np.random.default_rng(seed)) is whole for seed in range(100)]
    assert 5 < sum(same) < 60
    nothing = Sample(whole.image, np.zeros((0, 4)), np.zeros(0, np.int64))
    assert all(crops.RandomCrop()(nothing, np.random.default_rng(seed)) is nothing for seed in range(20))


def test_canvases_are_up_to_four_times_as_large_every_other_time():
    whole = sample()
    found = [crops.RandomExpand()(whole, np.random.default_rng(seed)) for seed in range(100)]
    assert 35 < sum(one is whole for one in found) < 65
    heights = [one.image.shape[0] for one in found]
    assert 60 < max(heights) <= 80
    for one in found:
        height, width = one.image.shape[:2]
        assert (one.boxes >= 0).all()
        assert (one.boxes <= [width, height, width, height]).all()
