"""The curves of a training: legible at its beginning, and where two of them end at the same value."""

from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minidet.drawing import curves


def panel(x: list[int], values: dict[str, list[float]]):
    """The axes of one panel, drawn."""
    figure = Figure(curves.INCHES, curves.DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)[1]
    curves._plot(axes, x, values, "validation", "epoch", "metric")
    figure.canvas.draw()
    curves._part_last_values(axes)
    figure.canvas.draw()
    return axes


@pytest.mark.parametrize("last", [(0.823, 0.807), (0.25, 0.25, 0.25, 0.25), (0.3, 0.9, 0.31, 0.305)])
def test_no_last_value_covers_another(last):
    axes = panel([1, 2], {f"metric {i}": [0.0, value] for i, value in enumerate(last)})
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == len(last)
    for one, other in combinations(boxes, 2):
        assert max(one.y0, other.y0) >= min(one.y1, other.y1) - 0.1  # pixels, for rounding


def test_last_values_with_room_between_them_stay_at_their_curves():
    axes = panel([1, 2], {"low": [0.0, 0.2], "high": [0.0, 0.8]})
    assert [text.xyann for text in axes.texts] == [(4, 0), (4, 0)]


@pytest.mark.parametrize("x", [[1], [10], [1, 2], list(range(10, 760, 10))])
def test_epochs_and_steps_are_whole_numbers(x):
    ticks = panel(x, {"accuracy": [0.5] * len(x)}).get_xticks()
    assert len(ticks)
    assert np.array_equal(ticks, np.round(ticks))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 0.5])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_log_can_be_drawn_one_that_diverged_too(value, count):
    rows = [{"event": "step", "step": 10 * i, "class": value, "box": 0.5} for i in range(1, count + 1)]
    rows += [{"event": "epoch", "epoch": i, "step": 10 * i, "val_a": value, "val_b": 0.5} for i in range(1, count + 1)]
    assert curves.draw_training(rows).shape == (420, 1100, 3)


@pytest.fixture
def panels(monkeypatch) -> dict:
    """What draw_training plots: {title: (x, curves by name)}."""
    drawn, plot = {}, curves._plot

    def spy(axes, x, values, title, *labels):
        drawn[title] = (x, values)
        plot(axes, x, values, title, *labels)

    monkeypatch.setattr(curves, "_plot", spy)
    return drawn


def test_a_training_too_short_for_rows_of_steps_shows_the_losses_of_its_epochs(panels):
    curves.draw_training([{"event": "epoch", "epoch": 1, "step": 2, "class": 0.7, "val_accuracy": 0.5}])
    assert panels["training losses"] == ([2], {"class": [0.7]})


def test_neither_mirror_images_nor_pixels_are_drawn_among_the_fractions(panels):
    metrics = {"val_gt_known_loc": 0.7, "val_gt_known_error": 0.3, "val_mean_error": 12.0, "val_top1_error": 0.4}
    curves.draw_training([{"event": "epoch", "epoch": 1, "step": 2} | metrics])
    assert panels["validation"] == ([1], {"gt_known_loc": [0.7], "top1_error": [0.4]})


def test_the_legend_covers_no_curve():
    axes = panel([1, 2], {f"metric {i}": [0.0, i / 9] for i in range(9)})
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1
