"""How good detections are: precision against recall, confused classes, kinds of errors, and the worst errors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidet.drawing.boxes import draw_boxes
from minidet.drawing.canvas import PALETTE, ink_on
from minidet.drawing.curves import DOTS_PER_INCH
from minidet.drawing.grid import grid

if TYPE_CHECKING:
    from minidet.evaluation import CocoCurves, DetectionErrors
    from minidet.evaluation.detection_errors import Error

MOST_NAMED = 10  # curves that can be told apart by colour and dashes; of more classes the best and the worst are named
GRAY = (170, 170, 170)
CONFUSION_COLORS = "Blues"  # Matplotlib's: white is none of a row, dark all of it
MOST_NUMBERED = 25  # classes whose numbers of confusions can be read
CELL = 240  # pixels of each error's picture
CONTEXT = 1.8  # sides of what is shown of an image, in sides of the boxes: what is around tells why
OUTSIDE = 225  # the grey beyond an image's border
ERROR_COLORS = {
    "localization": PALETTE[0], "confusion": PALETTE[1], "duplicate": PALETTE[4], "both": PALETTE[2],
    "background": PALETTE[5], "missed": PALETTE[6],
}  # fmt: skip
ERROR_MEANINGS = {
    "localization": "right class, box fits badly", "confusion": "right place, wrong class",
    "duplicate": "found a second time", "both": "box fits badly, wrong class", "background": "nothing is there",
    "missed": "objects nobody found",
}  # fmt: skip


def draw_precision_recall(
    curves: "CocoCurves",
    classes: Sequence[str],
    ious: Sequence[float] = (0.5, 0.75),
    title: str = "",
    measure: str = "IoU",
) -> np.ndarray:
    """Precision against recall of every class, a panel for each IoU, (H, W, 3) uint8; and each class's average
    precision, which is the area under its curve.

    curves: of `coco_curves`, which must have the ious. classes: names by label, the background first. Classes without
    objects have no curve. The thick black curve is the mean of all. measure: what the ious are of, "OKS" of keypoints.
    """
    for iou in ious:
        if not np.isclose(curves.iou_thresholds, iou).any():
            raise ValueError(f"draw_precision_recall: expected ious among {curves.iou_thresholds.tolist()}, got {iou}")
    at = [int(np.flatnonzero(np.isclose(curves.iou_thresholds, iou))[0]) for iou in ious]
    precision = curves.precision[at][..., 0, -1].transpose(0, 2, 1)  # (panels, K, R)
    named = _named(precision[0])
    figure, panels = _figure(4.7 * len(ious) + 1.6, 4.2, len(ious), title)
    for panel, iou, of_panel in zip(panels, ious, precision, strict=True):
        _plot_classes(panel, curves.recalls, of_panel, named, classes[1:])
        panel.set(title=f"{measure} {iou:g}", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        panel.grid(alpha=0.3)
    return _pixels(figure)


def _named(precision: np.ndarray) -> dict[int, tuple[tuple[int, int, int], str]]:
    """{class, from 0: the colour and the dashes of its curve}, by average precision (K, R), the best one first. Of few
    classes the colours are those of their boxes."""
    (known,) = np.nonzero(precision[:, 0] >= 0)
    ranked = known[np.argsort(-precision[known].mean(axis=1), kind="stable")]
    if len(known) > MOST_NAMED:
        ranked = np.concatenate([ranked[: MOST_NAMED // 2], ranked[-MOST_NAMED // 2 :]])
    styles = {}
    for place, k in enumerate(ranked):
        number = k + 1 if len(known) <= MOST_NAMED else place
        styles[int(k)] = PALETTE[number % len(PALETTE)], ("-", "--")[number // len(PALETTE) % 2]
    return styles


def _plot_classes(panel: Any, recalls: np.ndarray, precision: np.ndarray, named: dict, names: Sequence[str]) -> None:
    """precision (K, R), -1 where a class has no objects; named: as _named."""
    (known,) = np.nonzero(precision[:, 0] >= 0)
    if not len(known):
        panel.text(0.5, 0.5, "no objects", ha="center", va="center")
        return
    for k in known:
        if k not in named:
            panel.plot(recalls, precision[k], color=_color(GRAY), linewidth=0.7)
    for k, (color, style) in named.items():
        label = f"{precision[k].mean():.2f}  {names[k]}"
        panel.plot(recalls, precision[k], style, color=_color(color), linewidth=1.6, label=label)
    mean = precision[known].mean(axis=0)
    panel.plot(recalls, mean, color="black", linewidth=2.6, label=f"{mean.mean():.2f}  all {len(known)} classes")
    panel.legend(
        loc="upper left", bbox_to_anchor=(1, 1.02), fontsize="small", frameon=False, title="AP", alignment="left"
    )


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], title: str = "confused classes") -> np.ndarray:
    """What objects of each class (row) were detected as (column), (H, W, 3) uint8.

    matrix: (K + 1, K + 1) of `confusion_matrix`; classes: names by label, the background first, which here comes last.
    The colour is the part of the row: of the objects of that class or, in the last row, of the detections of nothing.
    """
    order = [*range(1, len(matrix)), 0]
    counts = np.asarray(matrix)[order][:, order]
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(3.0, 0.52 * len(counts)) if len(counts) <= MOST_NUMBERED + 1 else 0.16 * len(counts) + 2
    figure, (panel,) = _figure(side + 2.4, side + 1.2, 1)
    panel.set_title(title)
    picture = panel.imshow(parts, cmap=CONFUSION_COLORS, vmin=0, vmax=1)
    names = [classes[label] for label in order[:-1]]
    ticks = range(len(counts))
    slope = 45 if len(counts) <= MOST_NUMBERED + 1 else 90
    panel.set_xticks(ticks, [*names, "missed"], rotation=slope, ha="right", va="center", rotation_mode="anchor")
    panel.set_yticks(ticks, [*names, "no object"])
    panel.set(xlabel="detected as", ylabel="true class")
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    for at in np.arange(len(counts) - 1) + 0.5:
        border = at > len(counts) - 2
        panel.axhline(at, color="black" if border else "white", linewidth=1.5 if border else 1)
        panel.axvline(at, color="black" if border else "white", linewidth=1.5 if border else 1)
    if len(counts) <= MOST_NUMBERED + 1:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                shade = tuple(int(255 * part) for part in picture.cmap(parts[row, column])[:3])
                panel.text(column, row, str(count), ha="center", va="center", color=_color(ink_on(shade)), fontsize=9)
    bar = figure.colorbar(picture, ax=panel, shrink=0.7, label="part of the row")
    bar.outline.set_visible(False)
    return _pixels(figure)


def draw_error_counts(errors: "DetectionErrors", title: str = "", score: float | None = None) -> np.ndarray:
    """How many errors there are of each kind, as bars, (H, W, 3) uint8. errors: of `detection_errors`; score: what was
    asked of them there."""
    counts, above = errors.counts(), "" if score is None else f" that score above {score}"
    right = int((errors.kinds == "right").sum())
    of = right + int(errors.missed.sum())
    title = title or f"{right} of {of} objects found, by {len(errors.kinds)} detections{above}"
    figure, (panel,) = _figure(7.6, 3.4, 1, title)
    kinds = list(counts)
    values = [counts[kind] for kind in kinds]
    panel.barh(kinds, values, color=[_color(ERROR_COLORS[kind]) for kind in kinds], height=0.68)
    for place, (kind, value) in enumerate(zip(kinds, values, strict=True)):
        text = f"{value}   {ERROR_MEANINGS[kind]}"
        panel.annotate(text, (value, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
    panel.invert_yaxis()
    panel.set_xlim(0, 1.65 * max(*values, 1))  # room for what the last kind means
    panel.set_xlabel("errors")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    return _pixels(figure)


def draw_worst_errors(
    images: Sequence[np.ndarray] | Mapping[int, np.ndarray],
    errors: Sequence["Error"],
    classes: Sequence[str],
    columns: int = 4,
    title: str = "",
) -> np.ndarray:
    """What is around each error, a picture each: the wrong box in its class's colour, the true one white and dashed,
    (H, W, 3) uint8.

    images: (h, w, 3) uint8, or float in [0, 1], by number; errors: of `worst_errors`, one of its two lists. classes:
    names by label, the background first. Raises ValueError where there are no errors to draw.
    """
    if not errors:
        raise ValueError("draw_worst_errors: expected at least one error, got none; a sheet of none says nothing")
    pictures = [_draw_error(images[error.image], error, classes) for error in errors]
    captions = [f"{error.kind}, image {error.image}" for error in errors]
    return grid(pictures, columns, captions, title, least_side=1)


def _draw_error(image: np.ndarray, error: "Error", classes: Sequence[str]) -> np.ndarray:
    """(CELL, CELL, 3): a square of the image around the error's boxes."""
    is_missed = error.kind == "missed"
    truth, truth_label = (error.box, error.label) if is_missed else (error.truth_box, error.truth_label)
    sides = np.tile(image.shape[1::-1], 2)
    boxes = np.array([box for box in (error.box, truth) if box is not None], float).clip(-sides, 2 * sides)
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    needed = max(1, int(np.ceil(CONTEXT * (high - low).max())))
    factor = CELL // needed if needed <= CELL else 1 / -(-needed // CELL)
    side = int(np.ceil(CELL / factor))
    room = np.maximum(np.array(image.shape[1::-1]) - side, 0)  # so that no more is beyond the border than must be
    corner = np.clip(np.floor((low + high) / 2 - side / 2), 0, room).astype(int)
    crop = _cut_out(image, corner, side)
    offset = np.tile(corner, 2)
    picture = draw_boxes(
        crop,
        np.zeros((0, 4)) if is_missed else np.clip(error.box[None] - offset, 0, side),
        None if is_missed else np.array([error.label]),
        None if is_missed else np.array([error.score]),
        None if truth is None else truth[None] - offset,
        None if truth is None else np.array([truth_label]),
        classes,
        factor,
    )
    return picture[:CELL, :CELL]


def _cut_out(image: np.ndarray, corner: np.ndarray, side: int) -> np.ndarray:
    """The square of the image (side, side, 3) whose first pixel is corner x, y, both >= 0; grey beyond the border."""
    x, y = corner
    part = image[y : y + side, x : x + side]
    square = np.full((side, side, 3), OUTSIDE if image.dtype == np.uint8 else OUTSIDE / 255, image.dtype)
    square[: part.shape[0], : part.shape[1]] = part
    return square


def _figure(width: float, height: float, panels: int, title: str = "") -> tuple[Any, np.ndarray]:
    """A figure of so many inches, and its panels side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _pixels(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _color(color: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(part / 255 for part in color)
