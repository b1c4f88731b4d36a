"""Keypoint R-CNN: its loss by a loop, and what it does with people whose joints nobody knows."""

import math

import numpy as np
import pytest

from minidet import Tensor, no_grad, watch
from minidet.boxes import base_anchors
from minidet.models.keypoint_rcnn import KeypointRoIHeads, keypoint_loss, small_keypoint_rcnn
from minidet.random import manual_seed
from tests.models.detector_helpers import TwoConvolutions, larger_heads, scene

JOINTS = 3


def small(seed: int = 0, **options):
    rng = manual_seed(seed)
    model = small_keypoint_rcnn(
        TwoConvolutions(), 2, JOINTS, base_anchors((8, 16)), channels=8, convolutions=2, hidden=16, **options
    )
    return larger_heads(model, rng)


def with_joints(rng: np.random.Generator, target: dict) -> dict:
    boxes = target["boxes"]
    places = boxes[:, None, :2] + rng.random((len(boxes), JOINTS, 2)) * (boxes[:, None, 2:] - boxes[:, None, :2])
    flags = np.full((len(boxes), JOINTS, 1), 2)
    return target | {"keypoints": np.concatenate([places, flags], axis=2).astype(np.float32)}


def test_the_loss_by_a_loop():
    """Visible joints within their boxes alone; the mean over them."""
    rng = np.random.default_rng(0)
    logits, boxes = rng.normal(size=(2, 3, 4, 4)), np.array([[0.0, 0, 8, 8], [2, 2, 10, 6]])
    keypoints = np.array([[[1, 1, 2], [7.5, 3, 1], [9, 1, 2]], [[2, 2, 0], [10, 6, 2], [4, 5, 1]]], float)
    total, count = 0.0, 0
    for p in range(2):
        x1, y1, x2, y2 = boxes[p]
        for j in range(3):
            x, y, v = keypoints[p, j]
            if v == 0 or not (x1 <= x <= x2 and y1 <= y <= y2):
                continue
            column, row = min(int((x - x1) / (x2 - x1) * 4), 3), min(int((y - y1) / (y2 - y1) * 4), 3)
            total += math.log(sum(math.exp(value) for value in logits[p, j].ravel())) - logits[p, j, row, column]
            count += 1
    assert count == 4
    np.testing.assert_allclose(keypoint_loss(Tensor(logits), keypoints, boxes).item(), total / count, rtol=1e-12)


@pytest.mark.parametrize("cells", [14, 5])
def test_it_trains_and_finds_joints_of_its_images(cells):
    rng, model = np.random.default_rng(0), small(cells=cells)
    images, targets = zip(*(scene(rng, *size, n, classes=1) for size, n in (((40, 48), 2), ((32, 56), 0))), strict=True)
    losses = model(images, [with_joints(rng, target) for target in targets])
    assert "loss_keypoint" in losses
    sum(losses.values()).backward()
    assert all(np.isfinite(parameter.grad.data).all() for parameter in model.parameters())
    maps = []
    with no_grad(), watch.listen(lambda event: maps.append(event.value) if event.name == "keypoint.logits" else None):
        found = model.eval()(images)
    assert {one.shape[1:] for one in maps} == {(JOINTS, 4 * cells, 4 * cells)}
    for one in found:
        people = len(one["boxes"])
        assert people > 0
        assert one["keypoints"].shape == (people, JOINTS, 3)
        assert one["keypoints_scores"].shape == (people, JOINTS)
        places, boxes = one["keypoints"][..., :2], one["boxes"][:, None]
        assert ((places >= boxes[..., :2] - 1e-3) & (places <= np.maximum(boxes[..., 2:], boxes[..., :2] + 1))).all()


@pytest.mark.parametrize("flags", [0, 2])
def test_joints_that_nobody_knows_teach_nothing(flags):
    """Not labelled, or far outside of the box; and no person at all."""
    rng = np.random.default_rng(0)
    image, target = scene(rng, 40, 48, 2, classes=1)
    target = with_joints(rng, target)
    target["keypoints"][..., 2] = flags
    target["keypoints"][..., :2] += 1000
    for one in (target, with_joints(rng, scene(rng, 40, 48, 0)[1])):
        losses = small()([image], [one])
        assert losses["loss_keypoint"].item() == 0
        assert all(np.isfinite(loss.item()) for loss in losses.values())


@pytest.mark.parametrize(
    ("keypoints", "told"),
    [
        (None, r"expected keypoints \(R, 3, 3\) to train on, got none in image 0"),
        (np.zeros((1, 4, 3)), r"expected keypoints \(R, 3, 3\) to train on, got \(1, 4, 3\) in image 0"),
        (np.zeros((2, 3, 3)), r"expected keypoints \(R, J, 3\) for 1 boxes, got \(2, 3, 3\) in image 0"),
        (np.zeros((1, 3, 2)), r"expected keypoints \(R, J, 3\) for 1 boxes, got \(1, 3, 2\) in image 0"),
        ([[[9, 9, 2], [math.nan, 9, 1], [9, 9, 2]]], r"got \[nan, 9.0, 1.0\], joint 1 of person 0 in image 0"),
        ([[[9, 9, 3], [9, 9, 1], [9, 9, 2]]], r"with v 0, 1 or 2, .* got \[9.0, 9.0, 3.0\], joint 0 of person 0"),
        ([[[9, 9, math.nan], [9, 9, 1], [9, 9, 2]]], r"with v 0, 1 or 2"),
    ],
)
def test_other_joints_are_refused(keypoints, told):
    image, target = scene(np.random.default_rng(0), 40, 48, 1, classes=1)
    with pytest.raises(ValueError, match=told):
        small()([image], [target if keypoints is None else target | {"keypoints": np.array(keypoints, float)}])


def test_the_person_whose_joint_is_wrong_is_counted_with_the_crowds():
    image, target = scene(np.random.default_rng(0), 40, 48, 2, classes=1)
    joints = np.array([[[9, 9, 0]] * 3, [[9, 9, 2], [math.nan, 9, 2], [9, 9, 2]]])
    with pytest.raises(ValueError, match="joint 1 of person 1 in image 0 of a batch"):
        small()([image], [target | {"keypoints": joints, "iscrowd": np.array([True, False])}])


def test_where_a_joint_that_is_not_labelled_is_means_nothing():
    """Files have 0, or what is not a number."""
    image, target = scene(np.random.default_rng(0), 40, 48, 1, classes=1)
    losses = []
    for nowhere in (0, math.nan, math.inf):
        x, y = target["boxes"][0, :2] + 3
        joints = np.array([[[x, y, 2], [nowhere, nowhere, 0], [x + 1, y, 1]]])
        losses.append(small(keypoint_iou=0.5)([image], [target | {"keypoints": joints}])["loss_keypoint"].item())
    assert losses[0] == losses[1] == losses[2] > 0


@pytest.mark.parametrize(("least", "expected"), [(0.5, [0, 1, 2, 4]), (0.7, [0, 1, 4]), (1.0, [0, 4])])
def test_joints_are_learned_in_tight_regions(least, expected, monkeypatch):
    """IoUs of 1, 0.705, 0.695 and 0.3 with the one person, whose own box is the last region."""
    rng, heads = np.random.default_rng(0), small(keypoint_iou=least).roi_heads
    person = np.float32([[0, 0, 20, 20]])
    regions = np.float32([[0, 0, 20, 20], [0, 0, 20, 14.1], [0, 0, 20, 13.9], [0, 0, 20, 6], [0, 0, 20, 20]])
    target = with_joints(rng, {"boxes": person, "labels": np.array([1]), "crowds": np.zeros((0, 4), np.float32)})
    chosen, pointed, point = heads.sample(regions[:4], target), [], heads.point
    monkeypatch.setattr(heads, "point", lambda *told: pointed.extend(told[2]) or point(*told))
    maps = [Tensor(rng.normal(size=(1, TwoConvolutions().out_channels, 8, 8)).astype(np.float32))]
    assert heads.learn(maps, [(4, 4)], [chosen], [target])["loss_keypoint"].item() > 0
    np.testing.assert_array_equal(pointed, regions[expected][None])


def test_by_default_joints_are_learned_where_boxes_are():
    heads = small().roi_heads
    parts = {name: getattr(heads, f"keypoint_{name}") for name in ("pooling", "head", "predictor")}
    more = {f"keypoint_{name}": part for name, part in parts.items()}
    wider = KeypointRoIHeads(heads.pooling, heads.box_head, heads.box_predictor, 2, fg_iou=0.6, **more)
    assert wider.keypoint_iou == 0.6


@pytest.mark.parametrize("least", [0.49, 1.1, math.nan])
def test_joints_are_learned_in_regions_that_are_an_objects(least):
    with pytest.raises(ValueError, match=r"keypoint_iou: expected a number from fg_iou, 0\.5, to 1, got"):
        small(keypoint_iou=least)
