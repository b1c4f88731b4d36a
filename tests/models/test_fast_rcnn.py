"""Fast R-CNN: what it samples and its losses against literal loops, odd proposals, and layers of a lower rank."""

import math

import numpy as np
import pytest

import minidet
from minidet import nn, no_grad, watch
from minidet.boxes import inside_crowds
from minidet.models.fast_rcnn import BOX_WEIGHTS, FastRCNN, RoIHeads, compressed, in_parts
from minidet.models.roi_pooling import RoIPooling
from minidet.random import manual_seed
from tests.models.detector_helpers import TwoConvolutions, larger_heads, scene, target_of


def small_fast_rcnn(seed: int = 0, **options) -> FastRCNN:
    rng = manual_seed(seed)
    return larger_heads(FastRCNN(TwoConvolutions(), 4, 16, RoIPooling(3, "pool"), **options), rng)


def heads(**options) -> RoIHeads:
    return RoIHeads(RoIPooling(3), nn.Identity(), nn.Identity(), 4, **options)


PROPOSALS = np.float32([
    [0, 0, 10, 10],  # the object itself
    [0, 0, 10, 5],  # IoU 0.5: still the object's
    [0, 0, 10, 4.9],  # 0.49: background
    [0, 0, 10, 1],  # 0.1: background
    [0, 0, 10, 0.9],  # 0.09: too little to teach
    [40, 40, 50, 50],  # 0
])  # fmt: skip


def test_regions_are_an_objects_or_hard_background_or_left_out():
    boxes, labels, deltas, objects, overlaps = heads(batch_size_per_image=100, positive_fraction=0.5).sample(
        PROPOSALS, target_of([[0, 0, 10, 10]], [3])
    )
    # The true box is a proposal, too.
    np.testing.assert_array_equal(boxes, PROPOSALS[[0, 1, 0, 2, 3]])
    np.testing.assert_array_equal(labels, [3, 3, 3, 0, 0])
    np.testing.assert_allclose(deltas[1], np.multiply([0, 2.5 / 5, 0, math.log(2)], BOX_WEIGHTS), rtol=1e-6)
    np.testing.assert_array_equal(deltas[[0, 2, 3, 4]], np.zeros((4, 4)))
    np.testing.assert_array_equal(objects, [0, 0, 0])
    np.testing.assert_array_equal(overlaps, [1, 0.5, 1])


def test_without_a_lower_limit_all_background_may_teach():
    boxes, labels, *_ = heads(batch_size_per_image=100, bg_iou=0.0).sample(PROPOSALS, target_of([[0, 0, 10, 10]], [3]))
    assert len(boxes) == 7
    assert (labels == 0).sum() == 4


@pytest.mark.parametrize("bg_iou", [-0.1, 0.5, 0.6])
def test_background_must_begin_below_objects(bg_iou):
    with pytest.raises(ValueError, match=r"0 <= bg_iou < fg_iou <= 1, got -?0\.\d and 0\.5"):
        heads(bg_iou=bg_iou)


def test_a_quarter_are_objects_at_most():
    many = np.tile(PROPOSALS[:1], (50, 1)), np.tile(PROPOSALS[2:3], (50, 1))
    _, labels, *_ = heads(batch_size_per_image=16).sample(np.concatenate(many), target_of([[0, 0, 10, 10]], [2]))
    assert labels.tolist() == [2] * 4 + [0] * 12


def test_an_image_without_objects_teaches_background():
    _, labels, *_ = heads().sample(PROPOSALS, target_of([], []))
    assert labels.tolist() == [0] * 6


def test_crowds_are_no_background():
    _, labels, *_ = heads(bg_iou=0.0).sample(PROPOSALS, target_of([], [], [[0, 0, 10, 10]]))
    assert labels.tolist() == [0]
    crowd = np.float32([[0, 0, 10, 10]])
    inside = inside_crowds(np.float32([[5, 0, 15, 10], [6, 0, 16, 10], [3, 3, 3, 3]]), crowd)
    assert inside.tolist() == [True, False, False]  # by half; by 0.4; nothing at all


def test_the_losses_by_a_loop():
    rng = np.random.default_rng(0)
    logits, deltas = rng.normal(size=(5, 4)), rng.normal(size=(5, 16))
    labels, goals = np.array([2, 0, 3, 0, 1]), rng.normal(size=(5, 4))
    class_loss = box_loss = 0.0
    for r in range(5):
        class_loss += math.log(sum(math.exp(value) for value in logits[r])) - logits[r, labels[r]]
        if labels[r]:
            for i in range(4):
                size = abs(deltas[r, 4 * labels[r] + i] - goals[r, i])
                box_loss += 0.5 * size**2 if size < 1 else size - 0.5
    losses = heads().losses(minidet.Tensor(logits), minidet.Tensor(deltas), labels, goals)
    np.testing.assert_allclose(losses["loss_classifier"].item(), class_loss / 5, rtol=1e-12)
    np.testing.assert_allclose(losses["loss_box_reg"].item(), box_loss / 5, rtol=1e-12)  # background counts


def test_without_the_box_loss_detections_stay_at_the_proposals():
    model = small_fast_rcnn(box_loss=False)
    image, target = scene(np.random.default_rng(0), 40, 40, 2)
    target["proposals"] = np.float32([[2, 3, 20, 30], [10, 5, 38, 22]])
    assert set(model([image], [target])) == {"loss_classifier"}
    with no_grad():
        (found,) = model.eval()([image], [target])
    assert len(found["boxes"]) > 0
    assert {tuple(box) for box in found["boxes"].tolist()} <= {tuple(box) for box in target["proposals"].tolist()}


@pytest.mark.parametrize(
    "proposals",
    [
        np.zeros((0, 4), np.float32),
        np.float32([[-30, -30, -5, -5], [50, 50, 90, 90]]),  # outside
        np.float32([[-30, -30, 90, 90], [5, 5, 5, 9]]),  # larger than the image; without area
    ],
)
def test_odd_proposals(proposals):
    model = small_fast_rcnn()
    image, target = scene(np.random.default_rng(0), 40, 40, 1)
    losses = model([image], [target | {"proposals": proposals}])
    assert all(np.isfinite(loss.item()) for loss in losses.values())
    with no_grad():
        (found,) = model.eval()([image], [{"proposals": proposals}])
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"] <= 40).all()


def test_neither_proposals_nor_objects_at_all():
    model = small_fast_rcnn()
    image, target = scene(np.random.default_rng(0), 40, 40, 0)
    losses = model([image], [target | {"proposals": np.zeros((0, 4), np.float32)}])
    assert [loss.item() for loss in losses.values()] == [0, 0]


def test_regions_of_images_that_have_none_are_proposed():
    shown = []

    def propose(image):
        shown.append(image)
        return np.float32([[4, 4, 30, 30]])

    model = small_fast_rcnn(propose=propose).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 44, 3)).astype(np.uint8)
    image = minidet.Tensor((pixels / 255).astype(np.float32).transpose(2, 0, 1))
    heard = {}
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        model([image])
    np.testing.assert_array_equal(shown[0], pixels)
    np.testing.assert_array_equal(heard["roi.boxes"][0], [[4, 4, 30, 30]])


@pytest.mark.parametrize("counts", [[7, 0, 5, 1], [0], [0, 0], [4]])
@pytest.mark.parametrize("most", [1, 4, 100])
def test_regions_are_looked_at_in_parts(counts, most):
    rng = np.random.default_rng(0)
    boxes = [rng.random((count, 4)) for count in counts]
    parts = list(in_parts(boxes, most))
    assert len(parts) == max(1, math.ceil(sum(counts) / most))
    assert all(len(part) == len(counts) and sum(map(len, part)) <= most for part in parts)
    np.testing.assert_array_equal(np.concatenate([box for part in parts for box in part]), np.concatenate(boxes))
    for number, of_image in enumerate(boxes):
        np.testing.assert_array_equal(np.concatenate([part[number] for part in parts]), of_image)


def test_the_size_of_the_parts_does_not_change_what_is_found(monkeypatch):
    rng = np.random.default_rng(0)
    images = [scene(rng, 40, 40, 0)[0] for _ in range(3)]
    corners = rng.uniform(0, 28, (3, 20, 2))
    regions = np.concatenate([corners, corners + rng.uniform(4, 12, (3, 20, 2))], axis=2).astype(np.float32)
    proposals = [{"proposals": regions[0]}, {"proposals": regions[1, :0]}, {"proposals": regions[2]}]
    model, found = small_fast_rcnn().eval(), []
    for most, times in ((100, 1), (7, 6)):
        monkeypatch.setattr("minidet.models.fast_rcnn.AT_ONCE", most)
        seen = []
        with no_grad(), watch.listen(lambda event, seen=seen: seen.append(event.name)):
            found.append(model(images, proposals))
        assert seen.count("roi.regions") == times
    assert len(found[0][0]["boxes"]) > 0
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one["labels"], other["labels"])
        np.testing.assert_allclose(one["scores"], other["scores"], rtol=1e-5)
        np.testing.assert_allclose(one["boxes"], other["boxes"], atol=1e-3)


@pytest.mark.parametrize("targets", [None, [{}], [{}, {}, {}]])
def test_targets_are_checked_before_anything_is_done(targets):
    """Of two images."""

    def propose(image):
        raise AssertionError("regions were searched")

    rng = np.random.default_rng(0)
    images = [scene(rng, 24, 24, 0)[0] for _ in range(2)]
    model = FastRCNN(TwoConvolutions(), 4, 16, propose=propose)
    told = "expected targets to train on, got None" if targets is None else "expected a target for each of 2 images"
    with pytest.raises(ValueError, match=told):
        model(images, targets)
    if targets is not None:
        with pytest.raises(ValueError, match=told):
            model.eval()(images, targets)


def test_a_layer_without_bias_stays_so():
    layer = nn.Linear(6, 5, bias=False)
    whole = compressed(layer, 5)
    x = minidet.Tensor(np.random.default_rng(0).random((2, 6), np.float32))
    np.testing.assert_allclose(whole(x).data, layer(x).data, atol=1e-6)


def test_a_layer_of_a_lower_rank_is_the_best_there_is():
    manual_seed(0)
    layer = nn.Linear(7, 5)
    x = minidet.Tensor(np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32))
    np.testing.assert_allclose(compressed(layer, 5)(x).data, layer(x).data, atol=1e-5)
    two = compressed(layer, 2)
    product = two[1].weight.data @ two[0].weight.data
    values = np.linalg.svd(layer.weight.data, compute_uv=False)
    assert np.linalg.matrix_rank(product) == 2
    # Eckart and Young: no matrix of rank 2 is nearer.
    np.testing.assert_allclose(np.linalg.norm(layer.weight.data - product), np.sqrt((values[2:] ** 2).sum()), rtol=1e-4)
    with pytest.raises(ValueError, match="expected a rank from 1 to 5"):
        compressed(layer, 6)
