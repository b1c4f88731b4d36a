"""SSD: which default box learns what, which background counts, and the two losses."""

import math

import numpy as np
import pytest

import minidet
from minidet import nn, no_grad, watch
from minidet.boxes import BELOW, BETWEEN, encode_boxes
from minidet.models.ssd import BOX_WEIGHTS, SSD, DefaultBoxes, LevelHeads, focal_loss
from minidet.random import manual_seed
from tests.models.detector_helpers import TwoConvolutions, scene, target_of

LOSSES = ["bbox_regression", "classification"]


class TwoLevels(nn.Module):
    """Maps of stride 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = TwoConvolutions(4), nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.out_channels = [4, 6]

    def forward(self, images):
        fine = self.fine(images)
        return [fine, self.coarse(nn.ReLU()(fine))]


def small_ssd(**options) -> SSD:
    """Three classes; images of 32 x 32 pixels: 8 x 8 cells with two boxes, 4 x 4 with four."""
    rng = manual_seed(0)
    boxes = DefaultBoxes([4, 8], [0.2, 0.4, 0.8], [(), (2.0,)])
    model = SSD(TwoLevels(), 4, 32, boxes, **options)
    for head in (model.head.classification_head, model.head.regression_head):
        for convolution in head.module_list:
            convolution.weight.data[...] = rng.normal(0, 0.3, convolution.weight.shape)
    return model


def test_numbers_are_cell_by_cell_and_box_by_box():
    """Channel b * numbers + i of cell (row, column) is number i of its box b; levels follow each other."""
    heads = LevelHeads([1, 1], [2, 1], 3)
    maps = [minidet.Tensor(np.random.default_rng(0).random((1, 1, *size), np.float32)) for size in ((2, 3), (1, 1))]
    with no_grad():
        found = heads(maps).data
        fine, coarse = (conv(level).data for conv, level in zip(heads.module_list, maps, strict=True))
    assert found.shape == (1, 2 * 3 * 2 + 1, 3)
    for row, column, b, i in np.ndindex(2, 3, 2, 3):
        assert found[0, (row * 3 + column) * 2 + b, i] == fine[0, b * 3 + i, row, column]
    np.testing.assert_array_equal(found[0, -1], coarse[0, :, 0, 0])


BOXES = np.float32([[0, 0, 10, 10], [0, 0, 10, 12], [0, 0, 10, 30], [20, 20, 30, 30], [0, 0, 40, 40]])


def test_each_object_has_its_best_box_and_all_that_overlap_by_half():
    """The first two boxes overlap with the first object by 1 and 0.83, the fourth with the second by 0.25 only."""
    matched = small_ssd().match(BOXES, target_of([[0, 0, 10, 10], [20, 20, 40, 40]], [1, 2]))
    assert matched.tolist() == [0, 0, BELOW, 1, BELOW]


@pytest.mark.parametrize(("bipartite", "expected"), [(True, [0, 1]), (False, [1, 1])])
def test_objects_that_are_nearest_to_the_same_box(bipartite, expected):
    """Both overlap most with the first box, the first object more. By the paper the second gets the other; else it
    takes the first away, and the first object has none: the other box overlaps more with the second, too."""
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 16]])
    target = target_of([[0, 0, 10, 11], [0, 0, 10, 12]], [1, 2])
    matched = small_ssd(bipartite=bipartite).match(boxes, target)
    assert matched.tolist() == expected


def test_boxes_inside_a_crowd_are_neither():
    matched = small_ssd().match(BOXES, target_of([], [], [[18, 18, 32, 32]]))
    assert matched.tolist() == [BELOW, BELOW, BELOW, BETWEEN, BELOW]


def hand_made(rng):
    """Two images of five boxes: logits, deltas, matches and targets; two boxes of the first have an object."""
    logits, deltas = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 4))
    truth = [target_of([[1, 1, 9, 12], [19, 22, 31, 30]], [3, 1]), target_of([], [])]
    matched = [np.array([0, BELOW, BETWEEN, 1, BELOW]), np.full(5, BELOW)]
    return logits, deltas, matched, truth


def cross_entropy(logits, label) -> float:
    return math.log(sum(math.exp(x) for x in logits)) - logits[label]


def smooth_l1(x: float) -> float:
    return 0.5 * x**2 if abs(x) < 1 else abs(x) - 0.5


@pytest.mark.parametrize("mining", [True, False])
def test_the_losses_by_a_loop(mining):
    """Two boxes with objects: of the first image both background boxes count, because six might; the second image has
    no object, so that three times none of its five count, and all of them without mining."""
    logits, deltas, matched, truth = hand_made(np.random.default_rng(0))
    expected = dict.fromkeys(LOSSES, 0.0)
    for n in range(2):
        for a in range(5):
            if matched[n][a] >= 0:
                goal = encode_boxes(truth[n]["boxes"][[matched[n][a]]], BOXES[[a]], BOX_WEIGHTS)[0]
                expected["bbox_regression"] += sum(smooth_l1(x) for x in deltas[n, a] - goal)
                expected["classification"] += cross_entropy(logits[n, a], truth[n]["labels"][matched[n][a]])
            elif matched[n][a] == BELOW and (n == 0 or not mining):
                expected["classification"] += cross_entropy(logits[n, a], 0)
    model = small_ssd(mining=mining)
    losses = model.losses(minidet.Tensor(logits), minidet.Tensor(deltas), BOXES, matched, truth)
    assert list(losses) == LOSSES
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name] / 2, rel=1e-5), name


def test_three_hard_background_boxes_for_each_with_an_object_image_by_image():
    """Eight boxes; the logit of the background says how easy each is. The positive itself is never counted twice."""
    logits = np.zeros((2, 8, 2))
    logits[:, :, 0] = [[5, 1, 4, 0, 3, 2, 9, -9], [0, 1, 2, 3, 4, 5, 6, 7]]
    labels = np.zeros((2, 8), int)
    labels[0, 7] = 1
    matched = np.full((2, 8), BELOW)
    matched[0, 7], matched[1, 0] = 0, BETWEEN
    counted = small_ssd().counted(minidet.Tensor(logits), labels, matched)
    assert np.flatnonzero(counted[0]).tolist() == [1, 3, 5, 7]
    assert not counted[1].any()


def test_an_exponent_below_1_is_refused():
    small_ssd(focal=0.0)
    for focal in (0.5, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"expected focal 0 or from 1 on, got {focal}"):
            small_ssd(focal=focal)


def test_the_focal_loss_by_a_loop():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 3)), np.array([0, 2, 1, 0, 0])
    expected = 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        p = math.exp(-cross_entropy(row, label))
        expected -= (1 - p) ** 2 * math.log(p)
    assert focal_loss(minidet.Tensor(logits), labels, 2.0).item() == pytest.approx(expected, rel=1e-12)
    plain = sum(cross_entropy(row, label) for row, label in zip(logits.tolist(), labels, strict=True))
    assert focal_loss(minidet.Tensor(logits), labels, 0.0).item() == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"mining": False}, {"focal": 2.0}, {"bipartite": False}])
def test_every_parameter_learns(options):
    model, rng = small_ssd(**options), np.random.default_rng(0)
    images, targets = zip(*(scene(rng, 40, 48, objects) for objects in (2, 0, 3)), strict=True)
    targets[0]["boxes"][0] = [2, 2, 38, 36]  # for the coarse map
    losses = model(list(images), list(targets))
    sum(losses.values(), start=minidet.Tensor(np.float32(0))).backward()
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.grad.data).max() > 0, name


def test_without_objects_both_losses_are_0():
    model, rng = small_ssd(), np.random.default_rng(0)
    losses = model(*zip(*(scene(rng, 32, 32, 0) for _ in range(2)), strict=True))
    assert [losses[name].item() for name in LOSSES] == [0, 0]
    sum(losses.values(), start=minidet.Tensor(np.float32(0))).backward()
    assert all(np.isfinite(p.grad.data).all() for p in model.parameters() if p.grad is not None)


def test_detections_come_back_in_the_pixels_of_an_image_of_any_shape():
    model, heard = small_ssd(detections_per_image=20).eval(), {}
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        (found,) = model([scene(np.random.default_rng(0), 24, 60, 0)[0]])
    assert heard["image_batch.images"].shape == (1, 3, 32, 32)
    assert heard["ssd.default_boxes"].shape == (8 * 8 * 2 + 4 * 4 * 4, 4)
    assert len(found["boxes"]) == 20
    assert (found["boxes"][:, 2:] <= (60, 24)).all()
    assert found["boxes"][:, 2].max() > 32
    assert (np.diff(found["scores"]) <= 0).all()


def test_of_a_class_the_best_go_into_suppression_and_of_all_classes_the_best_remain():
    model = small_ssd(candidates=2, detections_per_image=3, score_threshold=0.1)
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60], [80, 80, 90, 90]])
    scores = np.float32([[0.9, 0.3, 0.0], [0.8, 0.05, 0.0], [0.7, 0.4, 0.0], [0.6, 0.5, 0.2]])
    found = model.choose(boxes, scores)
    # Of class 1 the first two are looked at, and the second is suppressed by the first; of class 2 the last two.
    assert found["labels"].tolist() == [1, 2, 2]
    np.testing.assert_allclose(found["scores"], [0.9, 0.5, 0.4])
    np.testing.assert_array_equal(found["boxes"], boxes[[0, 3, 2]])
