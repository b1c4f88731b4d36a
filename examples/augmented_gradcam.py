"""Augmented Grad-CAM: the lecture's super-resolution of heat maps, on a network that was trained on labels alone.

A small VGG looks at images of 224 x 224 with one object each; its last map has 14 x 14 cells, as the article's. Then

1. of some held-out images the coarse map, the same made sharp from 100 turned and shifted copies, and the truth:
   1-maps.png;
2. for one of them, how the energy of the lecture's eq. (1) falls with each solver, and the certified optimum:
   2-energy.png;
3. which is better, in three ways: the box around what is above a share of the maximum against the true box, the largest
   value on the object or not, and how fast the score comes back as pixels are inserted in the map's order.

    python examples/augmented_gradcam.py --out augmented-gradcam-example    # a quarter of an hour on two cores
    python examples/augmented_gradcam.py --quick     # small and short, to see it run; too short for good numbers

Copies show the network an object from all sides, and what combines them localizes better than the image's own map. The
average blurs what eq. (1) keeps sharp. The maximum keeps each place that any copy saw: at a high threshold that
outlines an object well, but the largest value may be anywhere.

The network is trained on one split; the share of the maximum, and lambda, are fixed on a second; all numbers are of a
third.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.arguments import parse_arguments
from minidet import nn
from minidet.backbones.tiny import Centring, ConvBlock
from minidet.data import Dataset, make_dataset, open_dataset
from minidet.drawing import compare_heatmaps, save_png
from minidet.evaluation import area, best_threshold, box_accuracy, insertion_curve, pointing_game
from minidet.heatmaps import GradCAM
from minidet.heatmaps.augmented import (
    TV_WEIGHT,
    AugmentedCAM,
    maps_of_copies,
    random_augmentations,
    super_resolution,
)
from minidet.models.classifier import Classifier
from minidet.training.fit import fit
from minidet.training.recipes.classifier import SYSTEM
from minidet.training.recipes.one_object import as_images
from minidet_kernels.solvers import adam, diminishing_steps, primal_dual, subgradient_descent

# The article's photographs stand upright, and their copies are turned by 0.5 rad at most. These objects lie in any
# direction, and the network has seen them so: it may be asked in all of them. That helps because a network looks at one
# side of an object more than at the others, on all copies that are turned but a little.
MAX_ANGLE = np.pi

# lambda, per copy: the article's, and more. A larger one joins what the copies see of an object in different places.
TV_WEIGHTS = (TV_WEIGHT, 3 * TV_WEIGHT, 10 * TV_WEIGHT)

BASELINES = {"Grad-CAM": "single", "average": "average", "maximum": "max"}
THRESHOLDS = np.arange(1, 20) / 20  # shares of a map's maximum
USUAL_THRESHOLD = 0.15  # Grad-CAM's own, Selvaraju et al. 2017, section 4.1
DRAWN = 6


@dataclass
class Scale:
    """How much work."""

    size: int
    copies: int
    images: dict[str, int]
    epochs: int
    steps: int  # of an insertion curve


FULL = Scale(224, 100, {"train": 2400, "val": 100, "test": 300}, 9, 20)
QUICK = Scale(64, 10, {"train": 64, "val": 4, "test": 4}, 1, 4)


class SmallVGG(nn.Sequential):
    """images (N, 3, H, W) -> features (N, 128, H/16, W/16): VGG11's blocks up to where its map is 14 x 14, with a
    quarter of its channels and with batch norm. Pooling of 2 x 2 keeps each cell in the middle of its pixels, where a
    convolution of stride 2 would not: see `resize_map`."""

    out_channels = 128

    def __init__(self) -> None:
        super().__init__(
            Centring(),
            *(ConvBlock(3, 16), nn.MaxPool2d(2)),
            *(ConvBlock(16, 32), nn.MaxPool2d(2)),
            *(ConvBlock(32, 64), ConvBlock(64, 64), nn.MaxPool2d(2)),
            *(ConvBlock(64, 128), ConvBlock(128, 128), nn.MaxPool2d(2)),
            *(ConvBlock(128, 128), ConvBlock(128, self.out_channels)),
        )


def main() -> None:
    arguments = parse_arguments(__doc__, "augmented-gradcam-example")
    out, scale = arguments.out, QUICK if arguments.quick else FULL
    out.mkdir(parents=True, exist_ok=True)
    folder = make_dataset(out / "data", 0, "localization", seed=arguments.seed, splits=scale.images, size=scale.size)
    splits = {name: open_dataset(folder, name, masks=False) for name in scale.images}
    system = replace(SYSTEM, build=lambda classes, config, rng: Classifier(SmallVGG(), len(classes) - 1, scale.size))
    settings = {"epochs": scale.epochs, "size": scale.size, "batch_size": 16}
    model = fit(system, splits["train"], settings, seed=arguments.seed, title="training the classifier").eval()
    matrices = random_augmentations(scale.copies, (scale.size, scale.size), MAX_ANGLE, seed=arguments.seed)
    method = GradCAM(model)
    coarse = {name: all_maps(method, splits[name], matrices, name) for name in ("val", "test")}

    val = {name: combined(coarse["val"], matrices, scale.size, combine=way) for name, way in BASELINES.items()}
    val |= {weight: combined(coarse["val"], matrices, scale.size, tv_weight=weight) for weight in TV_WEIGHTS}
    thresholds = {
        name: best_threshold(maps, boxes_of(splits["val"]), THRESHOLDS, "fraction_of_max") for name, maps in val.items()
    }
    tv_weight = max(TV_WEIGHTS, key=lambda weight: localized(val[weight], splits["val"], THRESHOLDS).max())

    sharp = {"augmented, article": TV_WEIGHT, "augmented": tv_weight}
    test = {name: combined(coarse["test"], matrices, scale.size, combine=way) for name, way in BASELINES.items()}
    test |= {name: combined(coarse["test"], matrices, scale.size, tv_weight=weight) for name, weight in sharp.items()}
    print(f"\n1. Maps of the layer {method.layer_name}, sharp from {scale.copies} copies: 1-maps.png")
    draw_maps(out / "1-maps.png", splits["test"], test)

    print("\n2. The energy of eq. (1) and its certified optimum: 2-energy.png")
    draw_energy(out / "2-energy.png", coarse["test"][0], matrices, scale.size)

    print(f"\n3. Which is better, on {len(splits['test'])} held-out images\n")
    images = as_images(splits["test"], scale.size)
    table = {
        name: measure(model, images, maps, splits["test"], thresholds[sharp.get(name, name)], scale.steps)
        for name, maps in test.items()
    }
    accuracy = system.evaluate(model, splits["test"])[0]["accuracy"]
    print_table(table, accuracy, tv_weight)
    results = {"accuracy": accuracy, "lambda": tv_weight} | table
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures and results.json are in {out}")


def labels_of(dataset: Dataset) -> np.ndarray:
    """Classes (N,) from 0 of images with one object each."""
    return np.array([record.labels[0] for record in dataset.records]) - 1


def boxes_of(dataset: Dataset) -> np.ndarray:
    """(N, 4), of images with one object each."""
    return np.concatenate([record.boxes for record in dataset.records])


def all_maps(method: GradCAM, dataset: Dataset, matrices: np.ndarray, name: str) -> np.ndarray:
    """The coarse maps (N, L, h, w) of all copies of all images, for their true classes."""
    start = time.perf_counter()
    images = as_images(dataset, dataset[0].image.shape[0])
    pairs = zip(images, labels_of(dataset), strict=True)
    maps = np.stack([maps_of_copies(method, image, matrices, int(label)) for image, label in pairs])
    seconds = (time.perf_counter() - start) / len(images)
    print(f"  {len(images)} images of {name}: {seconds:.2f} s an image for its {len(matrices)} copies", flush=True)
    return maps


def combined(coarse: np.ndarray, matrices: np.ndarray, size: int, **options: Any) -> np.ndarray:
    """Maps (N, size, size), each from one image's (L, h, w)."""
    way = AugmentedCAM(None, **options)
    return np.stack([way.combined(maps, matrices, (size, size)) for maps in coarse])


def localized(maps: np.ndarray, dataset: Dataset, thresholds: Any) -> np.ndarray:
    """GT-known localization: the fraction of boxes around map > threshold * max with IoU >= 0.5, by threshold."""
    return box_accuracy(maps, boxes_of(dataset), thresholds, mode="fraction_of_max")[0]


def measure(
    model: Classifier, images: np.ndarray, maps: np.ndarray, dataset: Dataset, threshold: float, steps: int
) -> dict[str, float]:
    usual, chosen = localized(maps, dataset, (USUAL_THRESHOLD, threshold))
    inserted = insertion_curve(model, images, maps, labels_of(dataset), "mean", steps)
    return {
        f"localized at {USUAL_THRESHOLD}": float(usual),
        "threshold": threshold,
        "localized": float(chosen),
        "pointing": pointing_game(maps, list(boxes_of(dataset)[:, None]), tolerance=0),
        "insertion": float(area(*inserted).mean()),
    }


def print_table(table: dict[str, dict[str, float]], accuracy: float, tv_weight: float) -> None:
    print(f"{'':20}" + "".join(f"{column:>20}" for column in table["Grad-CAM"]))
    for name, values in table.items():
        print(f"{name:20}" + "".join(f"{value:20.3f}" for value in values.values()))
    print(
        f"\nThe classifier's accuracy is {accuracy:.3f}. localized: at the threshold that was best on other images.\n"
        f"lambda, {tv_weight:g} a copy, was chosen there too; `article` has {TV_WEIGHT:g}. Large is "
        "good in all but the threshold."
    )


def draw_maps(path: Path, dataset: Dataset, maps: dict[str, np.ndarray]) -> None:
    """One row an image, the true box dashed."""
    samples = [dataset[i] for i in range(min(DRAWN, len(dataset)))]
    shown = {name: of_way[: len(samples)] for name, of_way in maps.items()}
    names = [dataset.classes[int(sample.labels[0])] for sample in samples]
    save_png(path, compare_heatmaps([s.image for s in samples], shown, names, None, [s.boxes for s in samples]))


def draw_energy(path: Path, coarse: np.ndarray, matrices: np.ndarray, size: int) -> None:
    """Of one image's maps: best energy so far against iterations, by solver, and the certified optimum as a line."""
    import matplotlib.pyplot as plt

    seen = coarse.any(axis=(1, 2))
    energy = super_resolution(coarse[seen], matrices[seen], (size, size))
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


if __name__ == "__main__":
    main()
