"""minidet compare's chart: its bars, measured in the pixels of the picture."""

import numpy as np
import pytest

from minidet.drawing import draw_comparison, draw_speed_and_accuracy
from minidet.drawing.canvas import PALETTE
from minidet.drawing.comparison import METRIC_COLORS, STAGE_COLORS


def row(name="R-CNN", seconds=(0.1, 0.2, 0.3, 0.4), metrics=(0.5, 0.75, 0.25), proposals=0):
    parts = dict(zip(("proposals", "features", "heads", "rest"), seconds, strict=True))
    return {
        "name": name,
        "seconds": parts | {"all": sum(seconds)},
        "train_seconds": 61.0,
        "search_seconds": 130.0 if proposals else 0.0,
        "bytes": {"proposals": proposals, "features": 0, "weights": 2_000_000},
        "metrics": dict(zip(("map", "map_50", "map_75"), metrics, strict=True)),
    }


def lengths(picture, color):
    """Of the longest stretch of a colour in each line of pixels that has one of 10 or more."""
    found = []
    for line in (picture == color).all(axis=2):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
        stretch = max(edges[1::2] - edges[::2], default=0)
        if stretch >= 20:
            found.append(int(stretch))
    return found


def test_the_parts_are_as_long_as_their_times():
    picture = draw_comparison([row(seconds=(0.2, 0.3, 0.4, 0.1))])
    longest = {stage: max(lengths(picture, color)) for stage, color in STAGE_COLORS.items() if stage != "rest"}
    assert longest["features"] / longest["proposals"] == pytest.approx(1.5, abs=0.1)
    assert longest["heads"] / longest["proposals"] == pytest.approx(2, abs=0.1)  # white edges


def test_metrics_are_as_long_as_their_values():
    picture = draw_comparison([row(metrics=(0.5, 0.75, 0.25))])
    longest = {name: max(lengths(picture, color)) for name, color in METRIC_COLORS.items()}
    assert longest["map"] / longest["map_75"] == pytest.approx(2, abs=0.05)
    assert longest["map_50"] / longest["map_75"] == pytest.approx(3, abs=0.05)


def test_ten_times_the_time_is_as_far_again():
    """The dots of 1, 10 and 100 ms are equally far apart; each is black and the only large thing that is."""
    rows = [row(seconds=(0, total, 0, 0)) for total in (0.001, 0.01, 0.1)]
    picture = draw_comparison(rows)
    black = (picture < 40).all(axis=2)
    dots = []
    height = len(picture)
    for line in range(height):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], black[line].astype(int), [0]])))
        dots += [(line, (a + b) / 2) for a, b in zip(edges[::2], edges[1::2], strict=True) if 10 <= b - a <= 14]
    centres = [np.median([x for y, x in dots if abs(y - line) < 8]) for line in sorted({y for y, _ in dots})]
    columns = sorted({round(x) for x in centres})
    steps = np.diff([column for column, after in zip(columns, [*columns[1:], 1e9], strict=True) if after - column > 3])
    assert len(steps) == 2
    assert steps[0] == pytest.approx(steps[1], abs=3)


def test_faster_is_to_the_left_and_more_is_up():
    """Ten times the time is as far again, and AP is even; only dots have these colours."""
    rows = [
        row(name, (0, t, 0, 0), (ap, 0, 0)) for name, t, ap in (("a", 1e-3, 0.2), ("b", 0.01, 0.4), ("c", 0.1, 0.8))
    ]
    picture = draw_speed_and_accuracy(rows)
    picture = picture[:, : picture.shape[1] - 65]  # without the names' own dots
    centers = [np.argwhere((picture == PALETTE[n]).all(axis=2)).mean(axis=0) for n in range(3)]
    (first, second, third) = centers
    assert second[1] - first[1] == pytest.approx(third[1] - second[1], abs=2)
    assert second[1] > first[1] + 50
    assert 2 * (first[0] - second[0]) == pytest.approx(second[0] - third[0], abs=2)
    assert first[0] > second[0] + 20


@pytest.mark.parametrize("count", [1, 4, 7])
def test_every_detector_has_its_row(count):
    picture = draw_comparison([row(f"detector {k}", proposals=10**6) for k in range(count)], "300 images")
    assert picture.dtype == np.uint8
    bars = lengths(picture, METRIC_COLORS["map"])
    lines = np.flatnonzero([(line == METRIC_COLORS["map"]).all(axis=1).sum() >= 20 for line in picture])
    assert len(np.flatnonzero(np.diff(lines) > 1)) + 1 == count
    assert len(set(bars)) == 1


def test_what_could_not_be_measured_is_no_bar():
    nothing = row(metrics=(-1.0, -1.0, 0.0)) | {"train_seconds": None}
    assert not any(lengths(draw_comparison([nothing]), color) for color in METRIC_COLORS.values())
