"""YOLO with anchors: what a cell says, which box finds which object, and the five losses."""

import math

import numpy as np
import pytest

import minidet
from minidet import no_grad, watch
from minidet.models.yolo import LOG_CLIP, YOLO, Assigned, yolo_losses
from minidet.random import manual_seed
from tests.models.detector_helpers import TwoConvolutions, assert_runs_in_double, larger_heads, scene, target_of

ANCHORS = np.float32([[6, 6], [16, 8]])
LOSSES = ["loss_xy", "loss_wh", "loss_objectness", "loss_noobj", "loss_classifier"]


def small_yolo(**options) -> YOLO:
    """Three classes; cells of 4 pixels."""
    rng = manual_seed(0)
    model = YOLO(TwoConvolutions(), 4, ANCHORS, channels=6, **options)
    return larger_heads(model, rng)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_outputs_become_boxes_as_in_the_paper():
    model, rng = small_yolo(), np.random.default_rng(0)
    outputs = rng.normal(size=(2, 3 * 5 * 2, 8)).astype(np.float32)  # 3 rows and 5 columns of cells
    outputs[0, 0, 2:4] = 1e4, -1e4  # no overflow
    boxes = model.decode(outputs, (3, 5))
    for n in range(2):
        for row in range(3):
            for column in range(5):
                for b, (pw, ph) in enumerate(ANCHORS.tolist()):
                    index = (row * 5 + column) * 2 + b
                    tx, ty, tw, th = outputs[n, index, :4].tolist()
                    x, y = (sigmoid(tx) + column) * 4, (sigmoid(ty) + row) * 4
                    w, h = pw * math.exp(min(tw, LOG_CLIP)), ph * math.exp(min(th, LOG_CLIP))
                    expected = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                    np.testing.assert_allclose(boxes[n, index], expected, rtol=1e-4, atol=1e-3)


def test_the_convolutions_channels_are_anchor_by_anchor():
    """Output channel b (5 + C) + i of cell (row, column) is number i of its anchor b."""
    outputs = np.arange(2 * 8 * 3 * 5, dtype=np.float32).reshape(1, 16, 3, 5)
    found = small_yolo().boxes_last(minidet.Tensor(outputs)).data
    for row, column, b, i in ((0, 0, 0, 0), (2, 4, 1, 7), (1, 3, 0, 5), (1, 3, 1, 2)):
        assert found[0, (row * 5 + column) * 2 + b, i] == outputs[0, b * 8 + i, row, column]


def nothing_predicted(cells: int = 16) -> np.ndarray:
    """Boxes far away from everything."""
    return np.tile(np.float32([900, 900, 910, 910]), (cells * 2, 1))


def test_an_object_belongs_to_its_centres_cell_and_the_anchor_of_its_shape():
    """16 x 16 pixels, 4 x 4 cells. The first object's centre is (6, 9), in column 1 and row 2; it is small, as anchor
    0; the second's is (14, 2), column 3, row 0, and it is wide."""
    found = small_yolo().assign(
        nothing_predicted(), target_of([[3, 7, 9, 11], [6, -1, 22, 5]], [3, 1]), (16, 16), (4, 4)
    )
    small, wide = (2 * 4 + 1) * 2, 3 * 2 + 1
    assert found.positives.tolist() == [wide, small]
    assert found.labels.tolist() == [1, 3]
    np.testing.assert_allclose(found.targets[1], [0.5, 0.25, math.log(6 / 6), math.log(4 / 6)], atol=1e-6)
    np.testing.assert_allclose(found.targets[0], [0.5, 0.5, math.log(16 / 16), math.log(6 / 8)], atol=1e-6)
    np.testing.assert_allclose(found.scales, [2 - 16 * 6 / 256, 2 - 6 * 4 / 256], rtol=1e-6)
    np.testing.assert_array_equal(found.confidences, [0, 0])
    assert found.negatives.tolist() == [index for index in range(32) if index not in (wide, small)]


def test_the_confidence_to_learn_is_the_overlap_in_pixels_and_not_1():
    """The box that is responsible covers half of the object; one elsewhere covers it by 0.7, and is let alone."""
    boxes, true = nothing_predicted(), [[0, 0, 4, 4]]
    boxes[0], boxes[20], boxes[21] = [0, 0, 4, 2], [0, 0, 4, 2.8], [0, 0, 4, 2.2]
    found = small_yolo().assign(boxes, target_of(true, [2]), (16, 16), (4, 4))
    assert found.positives.tolist() == [0]
    np.testing.assert_allclose(found.confidences, [0.5])
    assert 20 not in found.negatives
    assert 21 in found.negatives  # 0.55


def test_of_two_objects_with_one_cell_and_shape_the_first_is_learned():
    found = small_yolo().assign(nothing_predicted(), target_of([[3, 3, 9, 9], [4, 3, 10, 9]], [3, 1]), (16, 16), (4, 4))
    assert found.labels.tolist() == [3]
    assert found.targets[0, 0] == 0.5


def test_a_centre_on_the_border_is_in_the_last_cell():
    found = small_yolo().assign(nothing_predicted(), target_of([[13, 13, 19, 19]], [1]), (16, 16), (4, 4))
    assert found.positives.tolist() == [(3 * 4 + 3) * 2]
    np.testing.assert_allclose(found.targets[0, :2], [1, 1])


def test_an_object_far_beyond_the_image_is_found_at_the_border_and_no_error_counts_below_zero():
    """Its centre is (40, -20) of 16 x 16 pixels, its area nine times the image's."""
    found = small_yolo().assign(nothing_predicted(), target_of([[16, -44, 64, 4]], [1]), (16, 16), (4, 4))
    assert found.positives.tolist() == [3 * 2 + 1]
    np.testing.assert_allclose(found.targets[0, :2], [1, 0])
    assert found.scales.tolist() == [1]
    in_a_larger_batch = small_yolo().assign(nothing_predicted(), target_of([[8, 0, 32, 8]], [1]), (16, 16), (4, 8))
    assert in_a_larger_batch.positives.tolist() == [(8 + 3) * 2 + 1]


def test_boxes_inside_a_crowd_are_not_told_that_there_is_nothing():
    boxes = nothing_predicted()
    boxes[5], boxes[6] = [1, 1, 5, 5], [9, 9, 12, 12]
    found = small_yolo().assign(boxes, target_of([], [], [[0, 0, 8, 8]]), (16, 16), (4, 4))
    assert found.negatives.tolist() == [index for index in range(32) if index != 5]


def test_the_losses_by_a_loop():
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(2, 6, 8))
    assigned = [
        Assigned(
            np.array([4, 1]), rng.random((2, 4)), np.array([3, 1]), rng.random(2), rng.random(2), np.array([0, 2])
        ),
        Assigned(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), np.zeros(0), np.array([5])),
    ]
    expected = dict.fromkeys(LOSSES, 0.0)
    for n, one in enumerate(assigned):
        for p, index in enumerate(one.positives):
            t = outputs[n, index]
            for i in (0, 1):
                expected["loss_xy"] += (sigmoid(t[i]) - one.targets[p, i]) ** 2 * one.scales[p]
            for i in (2, 3):
                expected["loss_wh"] += (t[i] - one.targets[p, i]) ** 2 * one.scales[p]
            expected["loss_objectness"] += 5 * (sigmoid(t[4]) - one.confidences[p]) ** 2
            expected["loss_classifier"] += math.log(sum(math.exp(x) for x in t[5:])) - t[5 + one.labels[p] - 1]
        for index in one.negatives:
            expected["loss_noobj"] += sigmoid(outputs[n, index, 4]) ** 2
    losses = yolo_losses(minidet.Tensor(outputs), assigned)
    assert list(losses) == LOSSES
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name] / 2, rel=1e-12), name


def test_every_parameter_learns():
    model, rng = small_yolo(), np.random.default_rng(0)
    images, targets = zip(*(scene(rng, 40, 48, objects) for objects in (2, 0, 3)), strict=True)
    losses = model(list(images), list(targets))
    assert list(losses) == LOSSES
    sum(losses.values(), start=minidet.Tensor(np.float32(0))).backward()
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.grad.data).max() > 0, name


def test_without_objects_all_that_is_learned_is_that_there_is_nothing():
    model, rng = small_yolo(), np.random.default_rng(0)
    images, targets = zip(*(scene(rng, 32, 32, 0) for _ in range(2)), strict=True)
    losses = model(list(images), list(targets))
    assert losses["loss_noobj"].item() > 0
    assert all(losses[name].item() == 0 for name in LOSSES if name != "loss_noobj")
    sum(losses.values(), start=minidet.Tensor(np.float32(0))).backward()
    assert all(np.isfinite(p.grad.data).all() for p in model.parameters())


def test_detections_come_back_in_the_pixels_of_the_image():
    model, rng = small_yolo(min_size=64, max_size=128).eval(), np.random.default_rng(0)
    heard = {}
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        (found,) = model([scene(rng, 32, 40, 0)[0]])
    assert heard["yolo.outputs"].shape == (1, 16 * 20 * 2, 8)
    assert len(found["boxes"]) > 1
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"][:, 2:] <= (40, 32)).all()
    assert found["boxes"][:, 2].max() > 20
    assert (np.diff(found["scores"]) <= 0).all()


def test_a_score_is_the_confidence_times_the_classs_probability():
    model = small_yolo(score_threshold=0.0, nms_threshold=1.0, detections_per_image=1000).eval()
    heard = {}
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        (found,) = model([scene(np.random.default_rng(0), 16, 16, 0)[0]])
    expected = []
    outputs, boxes = heard["yolo.outputs"].data[0].tolist(), heard["yolo.boxes"][0].clip(0, 16).tolist()
    for (*_, to, first, second, third), (x1, y1, x2, y2) in zip(outputs, boxes, strict=True):
        if min(x2 - x1, y2 - y1) >= 0.01:
            total = math.exp(first) + math.exp(second) + math.exp(third)
            expected += [sigmoid(to) * math.exp(x) / total for x in (first, second, third)]
    np.testing.assert_allclose(found["scores"], sorted(expected, reverse=True), rtol=1e-4)


def test_a_wide_image_grows_with_the_size_that_is_drawn():
    """Its longer side, 32 for a shorter one of at most 16, is what decides."""
    model, shapes = small_yolo(min_size=16, max_size=32, sizes=(8, 16, 24)), set()
    image, target = scene(np.random.default_rng(0), 12, 48, 1)
    with watch.listen(lambda event: event.name == "image_batch.images" and shapes.add(event.value.shape[2:])):
        for _ in range(30):
            model([image], [target])
    assert shapes == {(4, 16), (8, 32), (12, 48)}


def test_outputs_that_are_not_finite_reach_the_losses():
    """Where the step is refused, with a report; assigning does not mind."""
    model = small_yolo()
    model.outputs.bias.data[...] = np.nan
    losses = model(*zip(*(scene(np.random.default_rng(0), 16, 16, n) for n in (1, 0)), strict=True))
    assert all(np.isnan(loss.item()) for loss in losses.values())


@pytest.mark.parametrize("training", [True, False])
def test_in_double_precision(training):
    assert_runs_in_double(small_yolo(), 16, training)


def test_in_training_every_batch_gets_one_of_the_sizes():
    model, rng = small_yolo(sizes=(32, 48, 64), min_size=40), np.random.default_rng(0)
    image, target = scene(rng, 40, 40, 1)
    seen = set()
    with watch.listen(lambda event: seen.add(event.value.shape[2]) if event.name == "image_batch.images" else None):
        for _ in range(12):
            model([image], [target])
        assert seen == {32, 48, 64}
        seen.clear()
        with no_grad():
            model.eval()([image])
    assert seen == {40}
