"""Augmented Grad-CAM: the lecture's super-resolution of heat maps, on a network that was trained on labels alone.

A small classifier looks at images of 224 x 224 with one object each; its last map has 14 x 14 cells. Then

1. of some held-out images the coarse map, the same made sharp from 100 rotated and shifted copies, and the truth:
   1-maps.png;
2. for one of them, how the energy of the lecture's eq. (1) falls with each solver, and the certified optimum:
   2-energy.png;
3. which is better, in three ways: the box around what is above a share of the maximum against the true box (the share
   chosen on images of its own), the largest value on the object or not, and how fast the score comes back as pixels are
   inserted in the map's order.

    python examples/augmented_gradcam.py --out augmented-gradcam-example
    python examples/augmented_gradcam.py --quick     # small and short, to see it run; too short for good numbers
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minidet.boxes import paired_iou
from minidet.data import Dataset, collate, make_dataset, open_dataset
from minidet.drawing import compare_heatmaps, save_png
from minidet.evaluation import area, insertion_curve, pointing_game
from minidet.heatmaps import GradCAM
from minidet.heatmaps.augmented import AugmentedCAM, maps_of_copies, random_augmentations, super_resolution
from minidet.heatmaps.boxes import map_boxes
from minidet.training.fit import fit
from minidet.training.recipes.classifier import SYSTEM
from minidet_kernels.solvers import adam, diminishing_steps, primal_dual, subgradient_descent

METHODS = {"Grad-CAM": "single", "average": "average", "maximum": "max", "Augmented Grad-CAM": "subgradient"}
THRESHOLDS = np.arange(0.05, 0.96, 0.05)
USUAL_THRESHOLD = 0.15  # of the maximum: Grad-CAM's own, Selvaraju et al. 2017, section 4.1
DRAWN = 4


@dataclass
class Scale:
    """How much work."""

    size: int
    copies: int
    images: dict[str, int]
    epochs: int
    steps: int  # of an insertion curve


FULL = Scale(224, 100, {"train": 1600, "val": 100, "test": 300}, 8, 32)
QUICK = Scale(64, 10, {"train": 64, "val": 4, "test": 4}, 1, 4)


def main() -> None:
    arguments = parse_arguments()
    out, scale = arguments.out, QUICK if arguments.quick else FULL
    out.mkdir(parents=True, exist_ok=True)
    folder = make_dataset(out / "data", 0, "localization", seed=arguments.seed, splits=scale.images, size=scale.size)
    splits = {name: open_dataset(folder, name, masks=False) for name in scale.images}
    settings = {"epochs": scale.epochs, "size": scale.size, "batch_size": 16}
    model = fit(SYSTEM, splits["train"], settings, seed=arguments.seed, title="training the classifier").eval()
    matrices = random_augmentations(scale.copies, (scale.size, scale.size), seed=arguments.seed)
    method = GradCAM(model)

    maps = {name: all_maps(method, splits[name], matrices) for name in ("val", "test")}
    print(f"\n1. Maps of the layer {method.layer_name}, sharp from {scale.copies} copies: 1-maps.png")
    draw_maps(out / "1-maps.png", splits["test"], maps["test"])

    print("\n2. The energy of eq. (1) and its certified optimum: 2-energy.png")
    draw_energy(out / "2-energy.png", method, splits["test"][0], matrices)

    print(f"\n3. Which is better, on {len(splits['test'])} held-out images\n")
    thresholds = {name: best_threshold(maps["val"][name], splits["val"]) for name in METHODS}
    results = {
        name: measure(model, maps["test"][name], splits["test"], thresholds[name], scale.steps) for name in METHODS
    }
    print_table(results)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures and results.json are in {out}")


def classes_and_boxes(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Of images with one object each: classes (N,) from 0, boxes (N, 4)."""
    labels = np.array([record.labels[0] for record in dataset.records]) - 1
    return labels, np.concatenate([record.boxes for record in dataset.records])


def as_images(dataset: Dataset) -> np.ndarray:
    return collate([dataset[i] for i in range(len(dataset))], np.arange(len(dataset))).images


def all_maps(method: GradCAM, dataset: Dataset, matrices: np.ndarray) -> dict[str, np.ndarray]:
    """By each way to make one map of many, maps (N, H, W) of the true classes. The copies are the same for all."""
    images, (labels, _) = as_images(dataset), classes_and_boxes(dataset)
    size = images.shape[2:]
    maps = {name: np.zeros((len(images), *size), np.float32) for name in METHODS}
    spent = dict.fromkeys(("copies", *METHODS), 0.0)
    for n, image in enumerate(images):
        start = time.perf_counter()
        coarse = maps_of_copies(method, image, matrices, int(labels[n]))
        spent["copies"] += time.perf_counter() - start
        for name, combine in METHODS.items():
            start = time.perf_counter()
            maps[name][n] = AugmentedCAM(method, combine=combine).combined(coarse, matrices, size)
            spent[name] += time.perf_counter() - start
    told = ", ".join(f"{name} {seconds / len(images):.3f}" for name, seconds in spent.items())
    print(f"  seconds an image: {told}", flush=True)
    return maps


def localized(maps: np.ndarray, dataset: Dataset, threshold: float) -> float:
    """GT-known localization: the fraction of boxes around map > threshold * max with IoU >= 0.5."""
    _, boxes = classes_and_boxes(dataset)
    return float((paired_iou(map_boxes(maps, threshold).astype(np.float64), boxes) >= 0.5).mean())


def best_threshold(maps: np.ndarray, dataset: Dataset) -> float:
    """The one that localizes best; of equal ones the lowest."""
    return max(THRESHOLDS, key=lambda threshold: localized(maps, dataset, threshold))


def measure(model, maps: np.ndarray, dataset: Dataset, threshold: float, steps: int) -> dict[str, float]:
    labels, boxes = classes_and_boxes(dataset)
    inserted = insertion_curve(model, as_images(dataset), maps, labels, "mean", steps)
    return {
        "localized at 0.15": localized(maps, dataset, USUAL_THRESHOLD),
        "threshold": float(threshold),
        "localized": localized(maps, dataset, threshold),
        "pointing": pointing_game(maps, list(boxes[:, None]), tolerance=0),
        "insertion": float(area(*inserted).mean()),
    }


def print_table(results: dict[str, dict[str, float]]) -> None:
    columns = next(iter(results.values()))
    print(f"{'':20}" + "".join(f"{column:>20}" for column in columns))
    for name, values in results.items():
        print(f"{name:20}" + "".join(f"{value:20.3f}" for value in values.values()))
    print("\nlocalized: at the threshold that was best on images of its own. Large is good in all but the threshold.")


def draw_maps(path: Path, dataset: Dataset, maps: dict[str, np.ndarray]) -> None:
    """One row an image, the true box dashed."""
    samples = [dataset[i] for i in range(min(DRAWN, len(dataset)))]
    shown = {name: maps[name][: len(samples)] for name in METHODS}
    names = [dataset.classes[int(sample.labels[0])] for sample in samples]
    save_png(path, compare_heatmaps([s.image for s in samples], shown, names, None, [s.boxes for s in samples]))


def draw_energy(path: Path, method: GradCAM, sample, matrices: np.ndarray) -> None:
    """Best energy so far against iterations, of each solver, and the certified optimum as a line."""
    import matplotlib.pyplot as plt

    image = collate([sample], np.arange(1)).images[0]
    coarse = maps_of_copies(method, image, matrices, int(sample.labels[0]) - 1)
    seen = coarse.any(axis=(1, 2))
    energy = super_resolution(coarse[seen], matrices[seen], image.shape[1:])
    certified = primal_dual(energy, tolerance=1e-4)
    ways = {
        "subgradient descent, geometric steps": subgradient_descent(energy),
        "subgradient descent, diminishing steps": subgradient_descent(
            energy, step=diminishing_steps(1 / energy.smoothness)
        ),
        "Adam, the released recipe": adam(energy),
    }
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, way in ways.items():
        axes.plot(np.arange(len(way.energies)), np.minimum.accumulate(way.energies), label=name)
        above = way.energy / certified.lower_bound - 1
        print(f"  {name:40} {above:8.2%} above the optimum after {way.iterations} iterations")
    axes.axhline(certified.energy, color="black", linestyle="--", label=f"optimum, certified to {certified.gap:.1e}")
    axes.set(yscale="log", xlabel="iterations", ylabel="best energy so far", title="Eq. (1), one image")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("augmented-gradcam-example"), help="folder for the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small images, few copies, one epoch: shows that it runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
