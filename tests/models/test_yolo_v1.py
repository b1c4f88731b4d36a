"""The first YOLO: cells and their predictors, who is responsible, and equation 3."""

import math

import numpy as np
import pytest

import minidet
from minidet import no_grad, watch
from minidet.models.yolo_v1 import Responsible, YOLOv1, yolo_v1_losses
from minidet.random import manual_seed
from tests.models.detector_helpers import TwoConvolutions, assert_runs_in_double, scene, target_of

LOSSES = ["loss_xy", "loss_wh", "loss_objectness", "loss_noobj", "loss_classifier"]


def small_yolo(**options) -> YOLOv1:
    """Three classes; 3 x 3 cells of 4 pixels, two predictors each."""
    manual_seed(0)
    return YOLOv1(TwoConvolutions(), 4, size=12, predictors=2, convolutions=1, channels=8, hidden=16, **options)


fully_or_not = pytest.mark.parametrize("fully_connected", [True, False])


def test_numbers_become_boxes_and_no_root_is_ever_taken():
    predicted = np.random.default_rng(0).normal(size=(2, 9, 2, 5)).astype(np.float32)  # roots below 0, too
    boxes = small_yolo().decode(predicted)
    for n, cell, b in np.ndindex(2, 9, 2):
        x, y, u, v, _ = predicted[n, cell, b].tolist()
        row, column = divmod(cell, 3)
        x, y, w, h = (column + x) * 4, (row + y) * 4, u**2 * 12, v**2 * 12
        np.testing.assert_allclose(boxes[n, cell, b], [x - w / 2, y - h / 2, x + w / 2, y + h / 2], atol=1e-4)


def far_away() -> np.ndarray:
    """Boxes (9, 2, 4) that overlap with nothing; the second predictors' are a little less far away."""
    return np.tile(np.float32([[900, 900, 901, 901], [800, 800, 801, 801]]), (9, 1, 1))


def test_the_predictor_that_overlaps_most_is_responsible_in_pixels():
    """The object's centre is (7, 2), in the cell of column 1 and row 0. The first predictor's box is a quarter of it,
    the second's is moved by a pixel. Were centres counted in cells, beside sides in images, that would be far away."""
    boxes = far_away()
    boxes[1] = [[6, 1, 8, 3], [6, 1, 10, 5]]
    found = small_yolo().assign(boxes, target_of([[5, 0, 9, 4]], [3]))
    assert found.cells.tolist() == [1]
    assert found.predictors.tolist() == [1]
    np.testing.assert_allclose(found.confidences, [9 / 23], rtol=1e-6)  # and not 1
    np.testing.assert_allclose(found.targets, [[0.75, 0.5, math.sqrt(4 / 12), math.sqrt(4 / 12)]], atol=1e-6)
    assert found.labels.tolist() == [3]


def test_where_none_overlaps_centre_and_sides_decide():
    """Squared, by corners the second box is nearer, 234.1 to 239.3; by centre and sides the first, 119.9 to 123.6."""
    boxes = np.zeros((9, 2, 4), np.float32)
    boxes[4] = [[13.3, 12.5, 16.8, 16.3], [13.8, 11.5, 19.0, 12.8]]
    found = small_yolo().assign(boxes, target_of([[5, 5, 9, 9]], [1]))
    assert found.cells.tolist() == [4]
    assert found.predictors.tolist() == [0]


def test_where_none_overlaps_the_nearest_is_responsible():
    found = small_yolo().assign(far_away(), target_of([[5, 0, 9, 4]], [3]))
    assert found.predictors.tolist() == [1]
    assert found.confidences.tolist() == [0]


def test_an_object_far_beyond_the_image_is_found_at_the_border():
    """Its centre is (20, -6) of 12 x 12 pixels."""
    found = small_yolo().assign(far_away(), target_of([[11, -16, 29, 4]], [1]))
    assert found.cells.tolist() == [2]
    np.testing.assert_allclose(found.targets[0, :2], [1, 0])


def test_a_cell_has_one_object():
    found = small_yolo().assign(far_away(), target_of([[4, 4, 8, 8], [5, 5, 7, 7], [8, 8, 16, 16]], [2, 1, 3]))
    assert found.cells.tolist() == [4, 8]  # a centre on the border is in the last cell
    assert found.labels.tolist() == [2, 3]


def test_boxes_inside_a_crowd_are_not_told_that_there_is_nothing():
    """Of the two that lie in it one is responsible for an object, which counts."""
    boxes = far_away()
    boxes[0, 0], boxes[8, 1] = [1, 1, 3, 3], [9, 9, 11, 11]
    found = small_yolo().assign(boxes, target_of([[9, 9, 11, 11]], [1], [[0, 0, 12, 12]]))
    assert np.argwhere(found.ignored).tolist() == [[0, 0], [8, 1]]
    predicted = np.zeros((1, 9, 2, 5))
    predicted[..., 4] = 2.0
    losses = yolo_v1_losses(minidet.Tensor(predicted), minidet.Tensor(np.zeros((1, 9, 3))), [found])
    assert losses["loss_noobj"].item() == 0.5 * 2**2 * (18 - 2)
    assert losses["loss_objectness"].item() == pytest.approx((2 - 1) ** 2)


@fully_or_not
@pytest.mark.parametrize("training", [True, False])
def test_in_double_precision(training, fully_connected):
    assert_runs_in_double(small_yolo(fully_connected=fully_connected), 24, training)


def test_a_convolution_says_of_each_cell_what_lies_at_its_place():
    """And says it as the fully connected layers do: the predictors' numbers, one after the other, then the classes."""
    model, heard = small_yolo(fully_connected=False).eval(), {}
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value.data)):
        model([scene(np.random.default_rng(0), 12, 12, 1)[0]])
        said = model.head(minidet.Tensor(heard["backbone.maps"])).data
    weight, bias = model.outputs.weight.data[:, :, 0, 0], model.outputs.bias.data
    for cell in range(9):
        numbers = weight @ said[0, :, cell // 3, cell % 3] + bias
        np.testing.assert_allclose(heard["yolo.predicted"][0, cell], numbers[:10].reshape(2, 5), atol=1e-5)
        np.testing.assert_allclose(heard["yolo.classes"][0, cell], numbers[10:], atol=1e-5)


def test_equation_3_by_a_loop():
    rng = np.random.default_rng(0)
    predicted, classes = rng.normal(size=(2, 9, 2, 5)), rng.normal(size=(2, 9, 3))
    whole = np.zeros((9, 2), bool)
    some = Responsible(np.array([4, 7]), np.array([1, 0]), rng.random((2, 4)), rng.random(2), np.array([3, 1]), whole)
    none = Responsible(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), whole)
    expected = dict.fromkeys(LOSSES, 0.0)
    for n, one in enumerate((some, none)):
        for cell, b in np.ndindex(9, 2):
            (which,) = np.nonzero((one.cells == cell) & (one.predictors == b))
            if not len(which):  # also the neighbour of the responsible one is punished
                expected["loss_noobj"] += 0.5 * predicted[n, cell, b, 4] ** 2
                continue
            (p,) = which
            difference = predicted[n, cell, b, :4] - one.targets[p]
            expected["loss_xy"] += 5 * (difference[0] ** 2 + difference[1] ** 2)
            expected["loss_wh"] += 5 * (difference[2] ** 2 + difference[3] ** 2)
            expected["loss_objectness"] += (predicted[n, cell, b, 4] - one.confidences[p]) ** 2
            for c in range(3):
                expected["loss_classifier"] += (classes[n, cell, c] - (c + 1 == one.labels[p])) ** 2
    losses = yolo_v1_losses(minidet.Tensor(predicted), minidet.Tensor(classes), [some, none])
    assert list(losses) == LOSSES
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name] / 2, rel=1e-6), name


@fully_or_not
def test_every_parameter_learns(fully_connected):
    model, rng = small_yolo(fully_connected=fully_connected), np.random.default_rng(0)
    images, targets = zip(*(scene(rng, 40, 48, objects) for objects in (2, 0, 3)), strict=True)
    losses = model(list(images), list(targets))
    assert list(losses) == LOSSES
    sum(losses.values(), start=minidet.Tensor(np.float32(0))).backward()
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.grad.data).max() > 0, name


def test_without_objects_all_that_is_learned_is_that_there_is_nothing():
    model, rng = small_yolo(), np.random.default_rng(0)
    losses = model(*zip(*(scene(rng, 32, 32, 0) for _ in range(2)), strict=True))
    assert losses["loss_noobj"].item() > 0
    assert all(losses[name].item() == 0 for name in LOSSES if name != "loss_noobj")
    sum(losses.values(), start=minidet.Tensor(np.float32(0))).backward()
    assert all(np.isfinite(p.grad.data).all() for p in model.parameters())


def test_detections_come_back_in_the_pixels_of_an_image_of_any_shape():
    model, heard = small_yolo(score_threshold=0.0, nms_threshold=1.0).eval(), {}
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        (found,) = model([scene(np.random.default_rng(0), 24, 60, 0)[0]])
    assert heard["image_batch.images"].shape == (1, 3, 12, 12)
    expected = []
    for cell, b, c in np.ndindex(9, 2, 3):
        x1, y1, x2, y2 = heard["yolo.boxes"][0, cell, b].clip(0, 12).tolist()
        if min(x2 - x1, y2 - y1) >= 0.01:
            confidence, of_class = heard["yolo.predicted"].data[0, cell, b, 4], heard["yolo.classes"].data[0, cell, c]
            if min(confidence, of_class) <= 0:  # two that are below 0 make no detection
                continue
            score = min(confidence, 1) * min(of_class, 1)
            expected.append((-score, c + 1, [x1 * 5, y1 * 2, x2 * 5, y2 * 2]))
    expected.sort(key=lambda one: one[0])
    np.testing.assert_allclose(found["scores"], [-score for score, _, _ in expected], rtol=1e-5)
    assert found["labels"].tolist() == [label for _, label, _ in expected]
    np.testing.assert_allclose(found["boxes"], [box for *_, box in expected], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [0, -4, 13])
def test_a_size_that_cells_do_not_divide_is_refused(size):
    with pytest.raises(ValueError, match=f"multiple of the backbone's stride 4, got {size}"):
        YOLOv1(TwoConvolutions(), 4, size=size)
