"""The lecture's straightforward solution, sliding window: what it finds, and what it costs.

1. A classifier of crops is trained, on windows that show an object and on windows that show none.
2. How many crops does it take? The more positions and sizes, the more objects fit a window, and the longer it takes:
   one crop at a time, in batches, and as a fully convolutional network, which shares what crops have in common and
   gives the very same scores.
3. From windows to boxes: the pyramid, the scores at each size, what is above the threshold, and what is left of it.

    python examples/sliding_window.py --out sliding-window-example
    python examples/sliding_window.py --quick           # within a minute, to see it run; too short for good numbers

The pictures and the numbers are in --out. All numbers are of images that were not trained on.
"""

import json
import time
from pathlib import Path

import numpy as np

from common.arguments import parse_arguments
from minidet import Tensor
from minidet import functional as F
from minidet.boxes import box_iou, filter_detections
from minidet.data import make_dataset, open_dataset
from minidet.data.loader import collate_list
from minidet.drawing import draw_boxes, grid, save_png
from minidet.drawing.heatmaps import overlay
from minidet.models.sliding_window import Level, SlidingWindow
from minidet.training.fit import fit
from minidet.training.recipes.detection import SCORE_DRAWN, metrics_of
from minidet.training.recipes.sliding_window import SYSTEM, object_sizes

# (levels of the pyramid, windows from one that is looked at to the next): first more positions, then more sizes.
SEARCHES = ((4, 4), (4, 2), (4, 1), (1, 1), (2, 1), (7, 1))
USUAL = SEARCHES[2]
BATCH = 64  # crops at once
TIMED_CROPS = 256  # one by one; the whole image takes so much longer as it has more
TIMED_IMAGES = 3
PICTURES = 4


def main() -> None:
    arguments = parse_arguments(__doc__, "sliding-window-example")
    out, quick = arguments.out, arguments.quick
    out.mkdir(parents=True, exist_ok=True)
    counts = {"train": 100 if quick else 2000, "test": 20 if quick else 100}
    make_dataset(out / "data", sum(counts.values()), "detection", seed=arguments.seed, splits=counts)
    data = {split: open_dataset(out / "data", split, masks=False) for split in counts}

    print("\n1. A classifier of crops, and of the background")
    start = time.perf_counter()
    epochs = 1 if quick else SYSTEM.defaults["epochs"]
    model = fit(SYSTEM, data["train"], {"epochs": epochs}, seed=arguments.seed, title="training").eval()
    print(
        f"  {time.perf_counter() - start:.0f} seconds for {epochs} epochs of {len(data['train'])} images; windows of "
        f"{model.window} x {model.window} pixels around objects of {model.side}, every {model.stride} pixels"
    )

    print("\n2. Crops, and what they cost")
    searches = SEARCHES[1:4] if quick else SEARCHES
    rows = [measure(model, data["test"], *search) for search in searches]
    draw_costs(out / "1-costs.png", rows)
    model.object_sizes = sizes_of(USUAL[0])

    print("\n3. From windows to boxes")
    draw_pyramid(out / "2-pyramid.png", model, data["test"][0])
    draw_scores(out / "3-scores.png", model, data["test"])

    (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-costs.png, 2-pyramid.png, 3-scores.png; the numbers in results.json")


def sizes_of(levels: int) -> list[tuple[float, float]]:
    """The sizes of objects of a pyramid with so many levels; with one, that of the middle."""
    settings = SYSTEM.defaults | {"levels": levels}
    if levels == 1:
        middle = (settings["smallest"] * settings["largest"]) ** 0.5
        settings |= {"smallest": middle, "largest": middle}
    return object_sizes(settings)


def image_of(sample) -> Tensor:
    """(3, H, W) float32 in [0, 1]."""
    return Tensor(collate_list([sample], np.arange(1)).images[0])


# ---- 2 ---------------------------------------------------------------------------------------------------------------


def looked_at(level: Level, step: int) -> np.ndarray:
    """The numbers of every step-th window, along rows and columns."""
    return np.arange(len(level.boxes)).reshape(level.grid)[::step, ::step].ravel()


def measure(model: SlidingWindow, dataset, levels: int, step: int) -> dict:
    """One row of the table: a search over so many sizes, at every step-th position."""
    model.object_sizes = sizes_of(levels)
    predictions, fits, found = [], [], []
    for number in range(len(dataset)):
        pyramid = model.pyramid(image_of(dataset[number]))
        chosen = [looked_at(level, step) for level in pyramid]
        boxes = np.concatenate([level.boxes[windows] for level, windows in zip(pyramid, chosen, strict=True)])
        logits = [model.scores(level)[windows] for level, windows in zip(pyramid, chosen, strict=True)]
        scores = F.softmax(np.concatenate(logits), dim=1)[:, 1:]
        predictions.append(
            filter_detections(boxes, scores, model.score_threshold, model.nms_threshold, model.detections_per_image)
        )
        record = dataset.records[number]
        truth, labels = record.boxes[~record.iscrowd].astype(np.float32), record.labels[~record.iscrowd]
        fits += (box_iou(truth, boxes) >= 0.5).any(axis=1).tolist()
        found += recalled(truth, labels, predictions[-1]).tolist()
    row = {
        "levels": levels,
        "step": step,
        "stride": model.stride,
        "windows": len(boxes),
        "best_recall": float(np.mean(fits)),
        "recall": float(np.mean(found)),
        "map_50": metrics_of(predictions, dataset)["map_50"],
    } | seconds(model, dataset, step)
    report(row)
    return row


def recalled(truth: np.ndarray, labels: np.ndarray, prediction: dict) -> np.ndarray:
    """Which objects (R, 4) of classes (R,) a detection of their class above SCORE_DRAWN overlaps with by half: (R,)."""
    good = (box_iou(truth, prediction["boxes"]) >= 0.5) & (labels[:, None] == prediction["labels"])
    return (good & (prediction["scores"] > SCORE_DRAWN)).any(axis=1)


def seconds(model: SlidingWindow, dataset, step: int) -> dict:
    """Seconds an image, the best of a few, of the scores of all windows in three ways, and how far two of them differ.

    A fully convolutional network gives the scores of all positions, whether they are asked for or not.
    """
    one_by_one, batched, slid, difference, largest = [], [], [], 0.0, 0.0
    for number in range(TIMED_IMAGES):
        pyramid = model.pyramid(image_of(dataset[number]))
        chosen = [looked_at(level, step) for level in pyramid]
        few = [(level, w) for level, windows in zip(pyramid, chosen, strict=True) for w in windows[:TIMED_CROPS, None]]
        few = few[:: max(len(few) // TIMED_CROPS, 1)]
        start = time.perf_counter()
        for level, window in few:
            model.crop_scores(level, window, 1)
        one_by_one.append((time.perf_counter() - start) / len(few) * sum(map(len, chosen)))
        start = time.perf_counter()
        cropped = [model.crop_scores(level, windows, BATCH) for level, windows in zip(pyramid, chosen, strict=True)]
        batched.append(time.perf_counter() - start)
        start = time.perf_counter()
        whole = [model.scores(level)[windows] for level, windows in zip(pyramid, chosen, strict=True)]
        slid.append(time.perf_counter() - start)
        largest = max(largest, *(float(np.abs(scores).max()) for scores in whole))
        difference = max(difference, *(float(np.abs(a - b).max()) for a, b in zip(cropped, whole, strict=True)))
    return {
        "one_by_one_seconds": min(one_by_one),
        "batched_seconds": min(batched),
        "slid_seconds": min(slid),
        "largest_difference": difference,
        "largest_score": largest,
    }


def report(row: dict) -> None:
    """One row of the table."""
    print(
        f"  {row['levels']} sizes, every {row['step'] * row['stride']:2d} pixels: {row['windows']:6d} windows; "
        f"one of IoU 0.5 for {row['best_recall']:.3f} of the objects, {row['recall']:.3f} found, AP50 "
        f"{row['map_50']:.3f}\n    seconds an image: one by one {row['one_by_one_seconds']:.2f}, in batches "
        f"{row['batched_seconds']:.2f}, fully convolutional {row['slid_seconds']:.3f}, "
        f"{row['batched_seconds'] / row['slid_seconds']:.0f} times faster than batches; its scores, up to "
        f"{row['largest_score']:.0f}, differ from theirs by at most {row['largest_difference']:.1e}"
    )


def draw_costs(path: Path, rows: list[dict]) -> None:
    """What is found with more positions, and with more sizes; and seconds against the number of windows."""
    import matplotlib.pyplot as plt

    rows = sorted(rows, key=lambda row: row["windows"])
    figure, (positions, sizes, cost) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    for axes, title, key, usual, name in (
        (positions, f"More positions, of {USUAL[0]} sizes", "levels", USUAL[0], "every {0} px\n{1} windows"),
        (sizes, "More sizes, at every position", "step", USUAL[1], "sizes: {2}\n{1} windows"),
    ):
        shown = [row for row in rows if row[key] == usual]
        names = [name.format(row["step"] * row["stride"], row["windows"], row["levels"]) for row in shown]
        for measure, label, marker in (
            ("best_recall", "objects with a window of IoU 0.5", "s"),
            ("recall", f"objects found, score above {SCORE_DRAWN}", "o"),
            ("map_50", "AP50", "^"),
        ):
            axes.plot(names, [row[measure] for row in shown], marker, linestyle="-", label=label)
        axes.set(ylim=(0, 1.03), title=title)
    for key, label, marker in (
        ("one_by_one_seconds", "crops one by one", "s"),
        ("batched_seconds", f"crops, {BATCH} at once", "o"),
        ("slid_seconds", "fully convolutional: the same scores", "^"),
    ):
        at_all = [row for row in rows if row["step"] == 1]
        cost.plot([row["windows"] for row in at_all], [row[key] for row in at_all], marker, linestyle="-", label=label)
    cost.set(xscale="log", yscale="log", title="What all positions cost")
    cost.set(xlabel="windows an image", ylabel="seconds an image")
    for axes in (positions, sizes, cost):
        axes.legend(fontsize=8, loc="lower right")
        axes.grid(alpha=0.3)
        axes.margins(x=0.15)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# ---- 3 ---------------------------------------------------------------------------------------------------------------


def draw_pyramid(path: Path, model: SlidingWindow, sample) -> None:
    """The levels of an image as the network sees them, each with one window and its inner square, and their number."""
    pictures, captions = [], []
    mean = sample.image.mean(axis=(0, 1)) / 255
    for level in model.pyramid(image_of(sample)):
        shown = np.clip(level.image[0].transpose(1, 2, 0) + mean, 0, 1)
        row, column = level.grid[0] // 2, level.grid[1] // 2
        x, y, margin = column * model.stride, row * model.stride, model.context
        window = np.array([x, y, x + model.window, y + model.window])
        inner = window + np.array([margin, margin, -margin, -margin])
        pictures.append(
            draw_boxes(shown, inner[None], labels=np.ones(1, int), names=["", ""], truth=window[None], factor=2)
        )
        captions.append(f"{shown.shape[1]} x {shown.shape[0]}: {len(level.boxes)} windows")
    save_png(
        path,
        grid(
            pictures,
            columns=len(pictures),
            captions=captions,
            title="Each size of the image with one of its windows, dashed, and the box that it stands for",
        ),
    )


def draw_scores(path: Path, model: SlidingWindow, dataset) -> None:
    """A row for each image: how much each window of each level looks like an object, what is above the threshold, and
    what non-maximum suppression leaves of it."""
    pictures, captions = [], []
    order = np.argsort([-len(record.boxes) for record in dataset.records], kind="stable")  # those with much to see
    for sample in (dataset[int(number)] for number in order[:PICTURES]):
        pyramid = model.pyramid(image_of(sample))
        scores = [F.softmax(model.scores(level), dim=1)[:, 1:] for level in pyramid]
        for level, of_level, (side, _) in zip(pyramid, scores, model.object_sizes, strict=True):
            heat = spread(model, level, of_level.sum(axis=1).reshape(level.grid), sample.image.shape[:2])
            pictures.append(overlay(sample.image, heat, (0.0, 1.0)))
            captions.append(f"objects of {side:.0f} pixels")
        boxes, scores = np.concatenate([level.boxes for level in pyramid]), np.concatenate(scores)
        above = filter_detections(boxes, scores, SCORE_DRAWN, 1.0, len(boxes))
        pictures.append(draw_boxes(sample.image, above["boxes"], above["labels"], names=[""] * len(dataset.classes)))
        captions.append(f"{len(above['boxes'])} windows above {SCORE_DRAWN}")
        left = filter_detections(boxes, scores, SCORE_DRAWN, model.nms_threshold, model.detections_per_image)
        pictures.append(draw_boxes(sample.image, **left, truth=sample.boxes, names=dataset.classes))
        captions.append("after NMS; the truth is dashed")
    save_png(
        path, grid(pictures, columns=len(model.object_sizes) + 2, captions=captions, title="From windows to boxes")
    )


def spread(model: SlidingWindow, level: Level, scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scores of windows (rows, columns) as a map (H, W) of the image: each pixel has that of the window whose centre is
    near, and near the border, where no window has its centre, 0."""
    y, x = (level.boxes[:, axis] + level.boxes[0, axis + 2] / 2 for axis in (1, 0))
    centres = y.reshape(level.grid)[:, 0], x.reshape(level.grid)[0]
    away = [np.abs(np.arange(pixels)[:, None] + 0.5 - each) for pixels, each in zip(size, centres, strict=True)]
    step = model.stride * level.boxes[0, 2] / model.side  # from one window to the next, in pixels of the image
    near = np.logical_and.outer(*(distances.min(axis=1) <= step / 2 for distances in away))
    return np.where(near, scores[np.ix_(*(distances.argmin(axis=1) for distances in away))], 0)


if __name__ == "__main__":
    main()
