"""Curves of a training, drawn with Matplotlib."""

from itertools import pairwise
from typing import Any

import numpy as np

_NOT_LOSSES = ("event", "epoch", "step", "seconds", "learning_rate")
# The mirror image of gt_known_loc; and pixels, beside which fractions would be a flat line.
_NOT_DRAWN = ("val_gt_known_error", "val_mean_error")
_ABSENT = -1  # COCO's metrics of what is not there, as of large objects: no curve
INCHES, DOTS_PER_INCH = (11.0, 4.2), 100  # 1100 x 420 pixels: two panels side by side, legible without zooming


def draw_training(rows: list[dict[str, Any]]) -> np.ndarray:
    """Losses (left) and validation metrics (right) of log.csv's rows as (H, W, 3) uint8.

    Losses come from the rows whose event is "step", or "epoch" where a training is too short for those; metrics from
    the columns val_... of those whose event is "epoch". The last value of each curve is written at its end.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(INCHES, DOTS_PER_INCH, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps = [row for row in rows if row["event"] == "step"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    trained = steps or epochs
    losses = _columns(trained, lambda name: name not in _NOT_LOSSES and not name.startswith("val_"))
    metrics = _columns(epochs, lambda name: name.startswith("val_") and name not in _NOT_DRAWN)
    metrics = {name: values for name, values in metrics.items() if set(values) != {_ABSENT}}
    _plot(left, [row["step"] for row in trained], losses, "training losses", "step", "loss (mean since the last point)")
    metrics = {name.removeprefix("val_"): values for name, values in metrics.items()}
    _plot(right, [row["epoch"] for row in epochs], metrics, "validation", "epoch", "metric")
    if losses and all(min(values) > 0 for values in losses.values()):
        _logarithmic(left)  # losses fall by orders of magnitude: the end would be a flat line otherwise
    canvas.draw()  # only now it is known where everything lies
    _part_last_values(left)
    _part_last_values(right)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 of each decade, as plain numbers."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())


def _columns(rows: list[dict[str, Any]], wanted: Any) -> dict[str, list[float]]:
    """{name: one value a row} of the wanted columns."""
    names = [name for name in (rows[0] if rows else {}) if wanted(name)]
    return {name: [float(row.get(name, np.nan)) for row in rows] for name in names}


def _plot(axes: Any, x: list[int], curves: dict[str, list[float]], title: str, x_label: str, y_label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    if not curves:
        axes.text(0.5, 0.5, "nothing yet", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    for name, values in curves.items():
        (line,) = axes.plot(x, values, marker="." if len(x) < 40 else "", label=name)
        axes.annotate(
            f"{values[-1]:.3g}", (x[-1], values[-1]), xytext=(4, 0), textcoords="offset points",
            color=line.get_color(), va="center",
        )  # fmt: skip
    if len(x) == 1:
        axes.set_xlim(x[0] - 1, x[0] + 1)
    else:
        axes.set_xlim(right=x[-1] + 0.2 * (x[-1] - x[0]))  # room for the last values
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    # Nine curves leave no room for a legend among them.
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")


def _part_last_values(axes: Any) -> None:
    """Moves last values that would cover each other apart, upwards from the lowest; in points, once drawn."""
    points = 72 / DOTS_PER_INCH
    texts = sorted(axes.texts, key=lambda text: text.get_window_extent().y0)
    for lower, upper in pairwise(texts):
        covered = lower.get_window_extent().y1 - upper.get_window_extent().y0
        if covered > 0:
            x, y = upper.xyann
            upper.xyann = (x, y + covered * points)
