"""Pictures of detections show the numbers and the places they are of."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from minidet.drawing import detections, draw_confusion, draw_error_counts, draw_precision_recall, draw_worst_errors
from minidet.drawing.canvas import PALETTE, WHITE
from minidet.evaluation import coco_curves, detection_errors, worst_errors

CLASSES = ("__background__", "cat", "dog", "bird")
CAT, DOG, FAR = [4, 4, 14, 14], [24, 4, 34, 14], [40, 20, 50, 30]


def detections_of(boxes: list, labels: list, scores: list | None = None) -> dict:
    result = {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.array(labels, int)}
    return result | ({} if scores is None else {"scores": np.array(scores, np.float32)})


PREDICTIONS = [detections_of([CAT, FAR, DOG], [1, 2, 1], [0.9, 0.8, 0.7]), detections_of([], [], [])]
TARGETS = [detections_of([CAT, DOG], [1, 2]), detections_of([CAT], [2])]
IMAGES = [np.full((40, 60, 3), 128, np.uint8), np.full((40, 60, 3), 90, np.uint8)]


@pytest.fixture
def figure(monkeypatch) -> dict:
    """The figure that was drawn last."""
    drawn, pixels = {}, detections._pixels

    def spy(figure):
        drawn["figure"] = figure
        return pixels(figure)

    monkeypatch.setattr(detections, "_pixels", spy)
    return drawn


def test_each_class_with_objects_has_its_curve_and_its_average_precision(figure) -> None:
    curves = coco_curves(PREDICTIONS, TARGETS, 3)
    picture = draw_precision_recall(curves, CLASSES)
    assert picture.dtype == np.uint8
    assert picture.shape[0] < picture.shape[1]
    left, right = figure["figure"].axes
    assert (left.get_title(), right.get_title()) == ("IoU 0.5", "IoU 0.75")
    lines = {line.get_label(): line.get_ydata() for line in left.get_lines()}
    assert list(lines) == ["1.00  cat", "0.00  dog", "0.50  all 2 classes"]
    np.testing.assert_allclose(lines["1.00  cat"], curves.precision[0, :, 0, 0, -1])
    np.testing.assert_allclose(lines["0.50  all 2 classes"], curves.precision[0, :, :2, 0, -1].mean(axis=1))
    colors = [[line.get_color() for line in panel.get_lines()] for panel in (left, right)]
    assert colors[0] == colors[1], "a class has one colour"


def test_of_joints_it_is_another_overlap(figure) -> None:
    draw_precision_recall(coco_curves(PREDICTIONS, TARGETS, 3), CLASSES, measure="OKS")
    assert [panel.get_title() for panel in figure["figure"].axes] == ["OKS 0.5", "OKS 0.75"]


def test_of_many_classes_the_best_and_the_worst_are_named(figure) -> None:
    """Class k is found by its first k of 30 objects: the larger k, the better."""
    many = 30
    places = np.arange(many)[:, None] * [20, 0, 20, 0] + [0, 0, 10, 10]
    targets = [detections_of(places, [k] * many) for k in range(1, many + 1)]
    predictions = [detections_of(places[:k], [k] * k, [0.5] * k) for k in range(1, many + 1)]
    names = ("__background__", *(f"class {k}" for k in range(1, many + 1)))
    draw_precision_recall(coco_curves(predictions, targets, many), names)
    panel = figure["figure"].axes[0]
    assert len(panel.get_lines()) == many + 1
    named = [text.get_text().split("  ")[1] for text in panel.get_legend().get_texts()]
    assert named == [f"class {k}" for k in (30, 29, 28, 27, 26, 5, 4, 3, 2, 1)] + ["all 30 classes"]


def test_no_objects_are_said_to_be_none(figure) -> None:
    assert draw_precision_recall(coco_curves([], [], 3), CLASSES, ious=[0.5], title="empty").ndim == 3
    assert [text.get_text() for text in figure["figure"].axes[0].texts] == ["no objects"]


def test_the_matrix_stands_with_its_background_last(figure) -> None:
    matrix = np.array([[0, 5, 0, 0], [2, 7, 1, 0], [0, 0, 9, 0], [0, 0, 0, 0]])
    picture = draw_confusion(matrix, CLASSES)
    panel = figure["figure"].axes[0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["cat", "dog", "bird", "missed"]
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["cat", "dog", "bird", "no object"]
    numbers = {(int(y), int(x)): text.get_text() for text in panel.texts for x, y in [text.get_position()]}
    assert numbers == {(0, 0): "7", (0, 1): "1", (0, 3): "2", (1, 1): "9", (3, 0): "5"}
    parts = panel.images[0].get_array()
    np.testing.assert_allclose(parts, [[0.7, 0.1, 0, 0.2], [0, 1, 0, 0], [0] * 4, [1, 0, 0, 0]])
    assert picture.shape[2] == 3


def test_a_matrix_of_many_classes_is_legible_by_its_colours(figure) -> None:
    names = [f"class {k}" for k in range(81)]
    assert draw_confusion(np.eye(81, dtype=int), names).shape[0] > 1000
    assert len(figure["figure"].axes[0].texts) == 0


def test_bars_are_as_long_as_there_are_errors(figure) -> None:
    draw_error_counts(detection_errors(PREDICTIONS, TARGETS, 3))
    panel = figure["figure"].axes[0]
    lengths = dict(
        zip(
            [tick.get_text() for tick in panel.get_yticklabels()],
            [bar.get_width() for bar in panel.patches],
            strict=True,
        )
    )
    assert lengths == {"localization": 0, "confusion": 1, "duplicate": 0, "both": 0, "background": 1, "missed": 1}
    assert figure["figure"].get_suptitle() == "1 of 3 objects found, by 3 detections"
    assert panel.texts[0].get_text() == "0   right class, box fits badly"
    ends = [text.get_window_extent().x1 for text in panel.texts]
    assert max(ends) <= figure["figure"].bbox.x1, "nothing is cut off"


def count(picture: np.ndarray, color) -> int:
    return int((picture == color).all(axis=2).sum())


def test_a_wrong_box_is_drawn_in_its_classs_colour_and_the_truth_in_white() -> None:
    wrong, missed = worst_errors(PREDICTIONS, TARGETS, 3)
    assert [error.kind for error in wrong] == ["background", "confusion"]
    background, confusion = (detections._draw_error(IMAGES[0], error, CLASSES) for error in wrong)
    assert background.shape == confusion.shape == (detections.CELL, detections.CELL, 3)
    assert count(background, PALETTE[2]) > 300 > count(background, WHITE)
    assert min(count(confusion, PALETTE[1]), count(confusion, WHITE)) > 300
    of_missed = detections._draw_error(IMAGES[1], missed[0], CLASSES)
    assert count(of_missed, WHITE) > 300
    assert not any(count(of_missed, color) for color in PALETTE)
    assert (of_missed == 90).all(axis=2).any()


def test_a_picture_shows_what_is_around_the_box() -> None:
    """A bright square of 10 pixels, drawn 13 times as large and in the middle of its cell."""
    image = np.zeros((100, 100, 3), np.uint8)
    image[40:50, 60:70] = 200
    found, nothing = detections_of([[60, 40, 70, 50]], [1], [1]), detections_of([], [])
    (error,), _ = worst_errors([found], [nothing], 1)
    rows, columns = np.nonzero((detections._draw_error(image, error, CLASSES) == 200).all(axis=2))
    assert np.ptp(rows) == pytest.approx(13 * 10, abs=8)  # the box's line covers its border
    assert (rows.mean(), columns.mean()) == pytest.approx((120, 120), abs=13)


@pytest.mark.parametrize("size", [(5, 8), (40, 60), (3000, 2000)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_and_boxes_of_any_size_fit(size: tuple[int, int], dtype) -> None:
    height, width = size
    boxes = [[0, 0, width, height], [-5, -5, 3, 3], [width - 1, height - 1, width + 4, height + 4], [1, 1, 1, 1]]
    predictions = [detections_of(boxes, [1, 2, 3, 1], [0.9] * 4)]
    wrong, missed = worst_errors(predictions, [detections_of([[1, 1, 3, 2]], [1])], 3)
    sheet = draw_worst_errors([np.zeros((height, width, 3), dtype)], wrong, CLASSES, columns=2, title="all of them")
    assert len(wrong) == 4
    assert sheet.shape[1] == 2 * detections.CELL + 3 * 8
    assert draw_worst_errors({0: np.zeros((height, width, 3), dtype)}, missed, CLASSES).ndim == 3
    with pytest.raises(ValueError, match="at least one error"):
        draw_worst_errors([], [], CLASSES)
