"""The lecture's "region proposal algorithm": how many boxes does Selective Search need to hold nearly every object?

There is no learning in it. An image is cut into crumbs of even colour; the two most similar neighbours become one,
again and again, and the box around every region that there ever was is a proposal. The paper has three modes: one such
hierarchy ("single"), 8 ("fast") and 80 ("quality").

    python examples/selective_search.py --out selective-search-example
    python examples/selective_search.py --quick      # 30 images, seconds

The tables are printed; the pictures, hierarchy.png and recall.png, are in --out. All constants are the paper's, though
its images are ten times as large: nothing was chosen by looking at these.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from common.arguments import parse_arguments
from minidet.cli.common import DATA_SEED
from minidet.data import Dataset, make_dataset, open_dataset
from minidet.drawing import draw_hierarchy, draw_recall, save_png
from minidet.evaluation import mean_average_best_overlap, proposal_recall
from minidet.proposals import MODES, build_hierarchies, proposals_for, selective_search

COUNTS = (10, 20, 50, 100, 200, 500, 1000, 2000)  # boxes of an image; R-CNN takes about 2000
IOUS = np.arange(0.5, 1, 0.05)
STRIPS = 3  # images whose hierarchies are drawn
TIMED = 10  # images


def main() -> None:
    arguments = parse_arguments(__doc__, "selective-search-example")
    data = open_or_make(arguments.out / "data", 30 if arguments.quick else 300)
    truth = [record.boxes[~record.iscrowd] for record in data.records]
    labels = [record.labels[~record.iscrowd] for record in data.records]
    print(f"{sum(map(len, truth))} objects in {len(data)} images of 128 x 128\n")

    print_times(data)
    folder = arguments.out / "proposals"
    proposals = {mode: proposals_for(data, folder, mode, arguments.seed, COUNTS[-1]) for mode in MODES}
    print_table(proposals, truth, labels, data.classes)
    by_count = {mode: proposal_recall(found, truth, [0.5], COUNTS)[0] for mode, found in proposals.items()}
    by_iou = {mode: proposal_recall(found, truth, IOUS, COUNTS[-1:])[:, 0] for mode, found in proposals.items()}

    save_png(arguments.out / "recall.png", draw_recall(COUNTS, by_count, IOUS, by_iou))
    save_png(arguments.out / "hierarchy.png", draw_strips(data))
    print(f"\nThe pictures are in {arguments.out}: hierarchy.png, recall.png")


def open_or_make(folder: Path, images: int) -> Dataset:
    """The test split of the data set that detectors are trained on, or the beginning of it."""
    make_dataset(folder, task="detection", level="textured", seed=DATA_SEED, size=128, splits={"test": images})
    return open_dataset(folder, "test", masks=False)


def print_times(data: Dataset) -> None:
    """Of the first images; the others may come from a file of an earlier run."""
    images = [data[index].image for index in range(TIMED)]
    selective_search(images[0], "single")  # compiles the kernels, if nobody has yet
    for mode in MODES:
        start = time.perf_counter()
        for image in images:
            selective_search(image, mode)
        print(f"{mode:8s} {1e3 * (time.perf_counter() - start) / TIMED:6.1f} ms an image")


def print_table(proposals: dict[str, list[np.ndarray]], truth: list, labels: list, classes: tuple[str, ...]) -> None:
    print(f"\n{'recall at IoU 0.5':18s} {'boxes':>7s} " + " ".join(f"{f'in {count}':>8s}" for count in COUNTS))
    for mode, found in proposals.items():
        recall = proposal_recall(found, truth, [0.5], COUNTS)[0]
        mean = np.mean([len(boxes) for boxes in found])
        print(f"{mode:18s} {mean:7.0f} " + " ".join(f"{value:8.4f}" for value in recall))
    print(f"\n{'best overlap':18s} {'MABO':>7s} " + " ".join(f"{name:>8s}" for name in classes[1:]))
    for mode, found in proposals.items():
        mean, of_classes = mean_average_best_overlap(found, truth, labels, len(classes) - 1)
        print(f"{mode:18s} {mean:7.4f} " + " ".join(f"{value:8.4f}" for value in of_classes))


def draw_strips(data: Dataset) -> np.ndarray:
    """The first hierarchy of mode "fast" (HSV, k = 50, all similarities), of the images with the most objects."""
    most = sorted(range(len(data)), key=lambda index: -len(data.records[index].boxes))[:STRIPS]
    strips = []
    for sample in (data[index] for index in most):
        hierarchy = next(build_hierarchies(sample.image, "fast"))
        strips.append(draw_hierarchy(sample.image, hierarchy, sample.boxes[~sample.iscrowd]))
    width = max(strip.shape[1] for strip in strips)  # one of few regions has fewer pictures
    padded = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    return np.concatenate(padded)


if __name__ == "__main__":
    main()
