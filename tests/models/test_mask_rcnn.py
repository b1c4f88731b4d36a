"""Mask R-CNN: its loss by loops, its goals by hand, its rivals' shapes, and what bad targets are told."""

import math

import numpy as np
import pytest

import minidet
from minidet import Tensor, no_grad
from minidet.boxes import base_anchors
from minidet.models.image_batch import batch_images, detection_targets, resized_masks
from minidet.models.mask_rcnn import cut_out, small_mask_rcnn
from minidet.random import manual_seed
from tests.models.detector_helpers import TwoConvolutions, larger_heads, scene

LABELS = np.array([2, 3])  # of two regions, of four classes


def small(seed: int = 0, **options):
    rng = manual_seed(seed)
    return larger_heads(
        small_mask_rcnn(TwoConvolutions(), 4, base_anchors((8, 16)), channels=8, convolutions=1, hidden=16, **options),
        rng,
    )


def masked(target: dict, height: int, width: int) -> dict:
    """The target, with full masks of its boxes."""
    masks = np.zeros((len(target["boxes"]), height, width), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, target["boxes"], strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    return target | {"masks": masks}


def case(maps: int):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, maps, 5, 5)), rng.uniform(size=(2, 5, 5))


@pytest.mark.parametrize("agnostic", [False, True])
def test_the_loss_by_a_loop(agnostic):
    """Of the region's own class alone, or of the only map: the mean of -t log s(x) - (1 - t) log(1 - s(x))."""
    logits, goals = case(1 if agnostic else 4)
    total = 0.0
    for r, label in enumerate(LABELS):
        for y in range(5):
            for x in range(5):
                p = 1 / (1 + math.exp(-logits[r, 0 if agnostic else label, y, x]))
                total -= goals[r, y, x] * math.log(p) + (1 - goals[r, y, x]) * math.log(1 - p)
    found = small(agnostic=agnostic).roi_heads.mask_loss(Tensor(logits), LABELS, goals)
    np.testing.assert_allclose(found.item(), total / 50, rtol=1e-12)


def test_the_competing_loss_by_a_loop():
    """A softmax over all classes' maps; pixels beside the object are the background's, class 0."""
    logits, goals = case(4)
    total = 0.0
    for r, label in enumerate(LABELS):
        for y in range(5):
            for x in range(5):
                true = label if goals[r, y, x] > 0.5 else 0
                total += math.log(sum(math.exp(v) for v in logits[r, :, y, x])) - logits[r, true, y, x]
    found = small(competing=True).roi_heads.mask_loss(Tensor(logits), LABELS, goals)
    np.testing.assert_allclose(found.item(), total / 50, rtol=1e-12)


def test_only_the_true_classs_map_learns():
    logits, goals = case(4)
    logits = Tensor(logits, requires_grad=True)
    small().roi_heads.mask_loss(logits, LABELS, goals).backward()
    assert [sorted(set(np.nonzero(of_region)[0].tolist())) for of_region in logits.grad.data] == [[2], [3]]


def test_the_goals_are_what_the_boxes_cut_out():
    """Of the first mask the left half of a box, of the second nothing, of the third all."""
    masks = np.zeros((3, 40, 50), bool)
    masks[0, :, :20] = True
    masks[2, 10:30, 5:45] = True
    boxes = np.float32([[10, 10, 30, 30], [0, 0, 50, 40], [12, 14, 40, 26]])
    first, second, third = cut_out(masks, np.arange(3), boxes, 10)
    assert (first[:, :5] == 1).all()
    assert (first[:, 5:] == 0).all()
    assert (second == 0).all()
    np.testing.assert_allclose(third, 1, rtol=1e-6)
    assert cut_out(masks, np.arange(0), boxes[:0], 10).shape == (0, 10, 10)
    of_some = np.array([2, 0, 2])  # of the second object no region is there
    np.testing.assert_array_equal(cut_out(masks, of_some, boxes[of_some], 10), [third, first, third])


@pytest.mark.parametrize("aligned", [True, False])
def test_the_goals_by_a_literal_loop(aligned):
    """RoIAlign's mean of about a sample a pixel, of the matched object's own mask; aligned: pixels' centres are at
    halves."""
    rng = np.random.default_rng(0)
    masks, boxes = rng.random((2, 12, 15)) > 0.5, np.float32([[1.3, 2.1, 9.8, 8.9], [0, 0, 15, 12]])
    found = cut_out(masks[::-1], np.array([1, 0]), boxes, 3, aligned)
    for mask, (x1, y1, x2, y2), grid in zip(masks, boxes.tolist(), found, strict=True):
        across, down = (x2 - x1) / 3, (y2 - y1) / 3
        nx, ny = math.ceil(across), math.ceil(down)
        for i in range(3):
            for j in range(3):
                total = 0.0
                for a in range(ny):
                    for b in range(nx):
                        y = min(max(y1 + (i + (a + 0.5) / ny) * down - aligned / 2, 0), 11)
                        x = min(max(x1 + (j + (b + 0.5) / nx) * across - aligned / 2, 0), 14)
                        top, left = min(int(y), 10), min(int(x), 13)
                        dy, dx = y - top, x - left
                        total += (1 - dy) * ((1 - dx) * mask[top, left] + dx * mask[top, left + 1])
                        total += dy * ((1 - dx) * mask[top + 1, left] + dx * mask[top + 1, left + 1])
                np.testing.assert_allclose(grid[i, j], total / (nx * ny), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"mlp": True}, {"agnostic": True}, {"competing": True}, {"pooling": "pool"}])
def test_every_variant_trains_and_finds_masks_of_its_images(options):
    rng, model = np.random.default_rng(0), small(**options)
    sizes = ((40, 48), (32, 56))
    images, targets = zip(*(scene(rng, *size, n) for size, n in zip(sizes, (2, 0), strict=True)), strict=True)
    targets = [masked(target, *size) for target, size in zip(targets, sizes, strict=True)]
    losses = model(images, targets)
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert np.isfinite(parameter.grad.data).all(), name
        assert parameter.grad.data.any() or "bias" in name, name
    with no_grad():
        found = model.eval()(images)
    for one, size in zip(found, sizes, strict=True):
        assert len(one["boxes"]) > 0
        assert one["masks"].shape == (len(one["boxes"]), *size)
        assert one["masks"].dtype == bool


@pytest.mark.parametrize("options", [{}, {"competing": True}, {"agnostic": True}])
def test_each_detection_has_its_own_classs_mask(options):
    """Map k is full within columns 7 k to 7 k + 6 of its 28, and empty elsewhere, whatever the region shows. Competing
    maps are empty although a sigmoid is above 0.5 everywhere: the background's map is above theirs."""
    model, maps = small(**options).eval(), 1 if "agnostic" in options else 4

    class Said(minidet.nn.Module):
        def forward(self, features):
            logits = np.zeros((len(features), 4), np.float32)
            logits[np.arange(len(features)), 1 + np.arange(len(features)) % 3] = 9
            deltas = np.zeros((len(features), 16), np.float32)
            deltas[:, 2::4] = 5 * math.log(4)  # four times as wide as the proposals
            return Tensor(logits), Tensor(deltas)

    class Drawn(minidet.nn.Module):
        def forward(self, features):
            logits = np.full((len(features), maps, 28, 28), 1 if "competing" in options else -9, np.float32)
            for k in range(maps):
                logits[:, k, :, 7 * k : 7 * k + 7] = 9
            if "competing" in options:
                logits[:, 0] = 4
            return Tensor(logits)

    model.roi_heads.box_predictor, model.roi_heads.mask_predictor = Said(), Drawn()
    image, _ = scene(np.random.default_rng(3), 64, 64, 0)
    with no_grad():
        (found,) = model([image])
    wide = found["boxes"][:, 2] - found["boxes"][:, 0] > 16
    assert wide.any()
    assert len(set(found["labels"][wide].tolist())) > 1
    for (x1, _, x2, _), label, mask in zip(*(found[key][wide] for key in ("boxes", "labels", "masks")), strict=True):
        columns = np.flatnonzero(mask.any(axis=0)) + 0.5
        k = min(label, maps - 1)
        low, high = x1 + (x2 - x1) * k / 4, x1 + (x2 - x1) * (k + 1) / 4
        assert low - 1.5 <= columns.min() <= columns.max() <= high + 1.5


def test_without_an_object_the_mask_loss_is_zero():
    image, target = scene(np.random.default_rng(0), 40, 40, 0)
    losses = small()([image], [masked(target, 40, 40)])
    assert losses["loss_mask"].item() == 0
    assert losses["loss_box_reg"].item() == 0
    assert all(np.isfinite(loss.item()) for loss in losses.values())


def test_masks_go_with_their_objects_and_sizes():
    """Crowds have none to learn; an image that is resized has masks of its new size."""
    image, target = scene(np.random.default_rng(0), 20, 30, 3)
    target = masked(target, 20, 30) | {"iscrowd": np.array([False, True, False])}
    batch = batch_images([image], lambda x: x, 40, None, 4)
    (found,) = detection_targets([target], batch, 3)
    np.testing.assert_array_equal(found["masks"], target["masks"][[0, 2]].repeat(2, axis=1).repeat(2, axis=2))


def test_a_smaller_mask_has_the_pixels_of_its_centres():
    masks = np.zeros((1, 5, 7), bool)
    masks[0, 2, [1, 3, 5]] = True
    assert resized_masks(masks, (1, 3)).tolist() == [[[True, True, True]]]
    assert resized_masks(masks, (1, 1)).tolist() == [[[True]]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda t: t | {"masks": t["masks"][:1]},
            r"expected masks \(R, H, W\) for 2 boxes, got \(1, 40, 48\) in image 0",
        ),
        (lambda t: t | {"masks": t["masks"][:, 1:]}, r"masks \(R, 40, 48\), of their image's size, got \(2, 39, 48\)"),
        (
            lambda t: {k: v for k, v in t.items() if k != "masks"},
            r"expected masks \(R, H, W\) to train on, got none in",
        ),
    ],
)
def test_other_masks_are_refused(change, told):
    image, target = scene(np.random.default_rng(0), 40, 48, 2)
    with pytest.raises(ValueError, match=told):
        small()([image], [change(masked(target, 40, 48))])


@pytest.mark.parametrize(
    ("value", "told"), [(255, "got 255 in image 0"), (-1, "got -1 in"), (math.nan, "got nan in"), (0.5, "got 0.5 in")]
)
def test_masks_are_of_0_and_1(value, told):
    image, target = scene(np.random.default_rng(0), 40, 48, 2)
    target = masked(target, 40, 48)
    with pytest.raises(ValueError, match=f"expected masks of bool, or of 0 and 1, {told}"):
        small()([image], [target | {"masks": np.where(target["masks"], value, 0)}])
    losses = [small()([image], [target | {"masks": target["masks"].astype(kind)}])["loss_mask"] for kind in (bool, int)]
    assert losses[0].item() == losses[1].item() > 0


def test_one_map_has_no_rivals():
    with pytest.raises(ValueError, match="expected agnostic or competing, got both"):
        small(agnostic=True, competing=True)
