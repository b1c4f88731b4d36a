"""Detectors beside each other: how long an image takes, what the time goes into, and what is found for it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidet.drawing.canvas import PALETTE, ink_on
from minidet.drawing.curves import DOTS_PER_INCH

STAGE_COLORS = {"proposals": PALETTE[5], "features": PALETTE[1], "heads": PALETTE[3], "rest": (190, 190, 190)}
METRIC_COLORS = {"map": PALETTE[6], "map_50": (168, 205, 232), "map_75": (12, 60, 100)}  # light: asks for less overlap
METRIC_NAMES = {"map": "AP", "map_50": "AP50", "map_75": "AP75"}
GREY = (110, 110, 110)
LEAST_PART = 0.09  # of a bar: a narrower part has no room for its number
TITLE_PAD = 26  # points: the legend's line is between title and bars
WIDTH, ROW, AROUND = 12.5, 1.05, 1.9  # inches: of the figure, a detector's row, titles and axes


def draw_comparison(rows: Sequence[dict[str, Any]], title: str = "") -> np.ndarray:
    """compare.json's runs as (H, W, 3) uint8, a row each.

    Left the seconds an image on a logarithmic axis, because one detector may take a hundred times as long as another.
    On such an axis parts cannot be stacked: as lengths they would say nothing. So they have bars of their own, all of
    one length, with the parts' own milliseconds. Right what is found.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, ROW * len(rows) + AROUND), DOTS_PER_INCH, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.get_layout_engine().set(wspace=0.04, w_pad=0.1)
    if title:
        figure.suptitle(title, fontsize=12)
    panels = figure.subplots(1, 3, sharey=True, width_ratios=(1.0, 1.3, 1.0))
    _draw_seconds(panels[0], rows)
    _draw_parts(panels[1], rows)
    _draw_metrics(panels[2], rows)
    _name_rows(panels[0], rows)
    for panel in panels:
        panel.set_ylim(len(rows) - 0.5, -0.5)  # the first one at the top
        panel.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
        panel.set_axisbelow(True)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_speed_and_accuracy(rows: Sequence[dict[str, Any]], title: str = "") -> np.ndarray:
    """compare.json's runs as (H, W, 3) uint8: AP against the milliseconds of an image. Better is up and to the left;
    the line joins those for which no other is as fast and finds more."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((7.5, 5.0), DOTS_PER_INCH, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panel = figure.subplots()
    points = [(row["seconds"]["all"] * 1e3, max(row["metrics"]["map"], 0)) for row in rows]
    front = [point for point in sorted(points) if all(t > point[0] or ap <= point[1] for t, ap in points)]
    panel.plot(*zip(*front, strict=True), color=_color(STAGE_COLORS["rest"]), linewidth=2, zorder=1)
    for number, (row, point) in enumerate(zip(rows, points, strict=True)):
        color = _color(PALETTE[number % len(PALETTE)])
        panel.plot(*point, "o", color=color, markersize=10, markeredgecolor="black", label=row["name"])
    panel.set_xscale("log")
    milliseconds, found = zip(*points, strict=True)
    panel.set(
        xlim=(min(milliseconds) / 1.5, max(milliseconds) * 1.5),
        ylim=(max(min(found) - 0.1, 0), min(max(found) + 0.1, 1)),
        xlabel="milliseconds an image, logarithmic",
        ylabel="AP",
        title=title,
    )
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)  # beside: names of close dots would overlap
    _mark_milliseconds(panel, (1, 2, 5))
    panel.grid(alpha=0.3)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_seconds(panel: Any, rows: Sequence[dict[str, Any]]) -> None:
    """A dot a row, with its milliseconds and how many times those of the fastest they are."""
    totals = [row["seconds"]["all"] * 1e3 for row in rows]
    fastest = min(totals)
    panel.set_xscale("log")
    panel.set_xlim(fastest / 2.5, max(totals) * 5)  # room for the last number
    for place, total in enumerate(totals):
        panel.plot([panel.get_xlim()[0], total], [place, place], color=_color(STAGE_COLORS["rest"]), linewidth=2)
        panel.plot(total, place, "o", color="black", markersize=8)
        times = "" if total == fastest else f"{total / fastest:.{0 if total > 10 * fastest else 1}f} x"
        panel.annotate(
            _milliseconds(total) + " ms", (total, place), xytext=(8, 0), textcoords="offset points", va="center",
            weight="bold",
        )  # fmt: skip
        panel.annotate(
            times, (total, place), xytext=(8, -13), textcoords="offset points", va="center",
            fontsize="small", color=_color(GREY),
        )  # fmt: skip
    panel.set_title("time of an image", pad=TITLE_PAD)
    panel.set_xlabel("milliseconds, logarithmic")
    _mark_milliseconds(panel, (1, 2, 5) if max(totals) < 100 * fastest else (1,))
    panel.grid(axis="x", alpha=0.3)


def _mark_milliseconds(panel: Any, digits: Sequence[int]) -> None:
    """Numbers on a logarithmic axis: those that begin with one of these digits."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    panel.xaxis.set_major_locator(LogLocator(subs=digits))
    panel.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    panel.xaxis.set_minor_locator(NullLocator())


def _draw_parts(panel: Any, rows: Sequence[dict[str, Any]]) -> None:
    """The stages' parts of the time, side by side from 0 to 100 %."""
    for place, row in enumerate(rows):
        left = 0.0
        for stage, color in STAGE_COLORS.items():
            part = row["seconds"][stage] / row["seconds"]["all"]
            panel.barh(place, part, left=left, height=0.5, color=_color(color), edgecolor="white", linewidth=1)
            if part >= LEAST_PART:
                panel.text(
                    left + part / 2, place, _milliseconds(row["seconds"][stage] * 1e3), ha="center", va="center",
                    color=_color(ink_on(color)), fontsize=9,
                )  # fmt: skip
            left += part
    panel.set_title("what it goes into", pad=TITLE_PAD)
    panel.set(xlim=(0, 1), xlabel="part of the time; numbers are milliseconds")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _legend(panel, STAGE_COLORS)


def _draw_metrics(panel: Any, rows: Sequence[dict[str, Any]]) -> None:
    height = 0.24
    for place, row in enumerate(rows):
        for number, (metric, color) in enumerate(METRIC_COLORS.items()):
            y, value = place + (number - 1) * height, max(row["metrics"][metric], 0)  # -1: nothing to find
            panel.barh(y, value, height=height * 0.9, color=_color(color))
            panel.annotate(
                f"{value:.2f}", (value, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
            )
    panel.set_title("what is found", pad=TITLE_PAD)
    panel.set(xlim=(0, 1.12), xlabel="average precision", xticks=np.linspace(0, 1, 6))
    panel.grid(axis="x", alpha=0.3)
    _legend(panel, {METRIC_NAMES[metric]: color for metric, color in METRIC_COLORS.items()})


def _name_rows(panel: Any, rows: Sequence[dict[str, Any]]) -> None:
    """The detectors' names, and under each what it cost before the first image."""
    panel.set_yticks(range(len(rows)), [""] * len(rows))
    at = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    for place, row in enumerate(rows):
        panel.annotate(row["name"], (0, place), xytext=(-10, 9), va="center", weight="bold", fontsize=11, **at)
        panel.annotate(
            "\n".join(_costs(row)), (0, place), xytext=(-10, 0), va="top", fontsize=8, color=_color(GREY), **at
        )


def _costs(row: dict[str, Any]) -> list[str]:
    """Training time and disk, in words."""
    told = [] if row["train_seconds"] is None else [f"trained in {_seconds(row['train_seconds'])}"]
    if row["bytes"]["proposals"]:
        told.append(f"after a search of {_seconds(row['search_seconds'])}")
    megabytes = sum(row["bytes"].values()) / 1e6
    return [*told, f"{megabytes:.1f} MB on disk" if megabytes < 10 else f"{megabytes:.0f} MB on disk"]


def _legend(panel: Any, colors: dict[str, tuple[int, int, int]]) -> None:
    from matplotlib.patches import Patch

    panel.legend(
        handles=[Patch(color=_color(color), label=name) for name, color in colors.items()], ncols=len(colors),
        loc="lower center", bbox_to_anchor=(0.5, 0.99), frameon=False, handlelength=1, columnspacing=1.2,
    )  # fmt: skip


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"


def _color(color: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(part / 255 for part in color)
