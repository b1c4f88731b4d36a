"""The lecture's weakly supervised localization, trained and measured: boxes from labels that only say what is there.

1. A classifier with global average pooling has learned where the object is. Thresholds, and the curve over them.
2. GAP against GMP: the mean over a map rewards finding the whole object, the maximum its most telling part.
3. A larger map ("anticipating" the pooling) localizes better than a smaller one.
4. GAP is slow to begin with, most of all on a large map: each place has a small share in the mean.
5. A patch in the background goes with the class. The network takes it for the object, and its map shows that.

    python examples/weak_localization.py --out weak-localization-example
    python examples/weak_localization.py --quick          # within a minute, to see it run; too short for good numbers

The pictures and the numbers are in --out. Weights are trained on one split, thresholds are fixed on a second, and all
numbers are of a third.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.arguments import parse_arguments
from minidet import nn
from minidet.backbones.tiny import ConvBlock
from minidet.boxes import paired_iou
from minidet.data import CLASSES, make_dataset, open_dataset
from minidet.data.background import CUE_SIDE
from minidet.drawing import draw_localization, grid, save_png
from minidet.drawing.localization import BOX_COLORS
from minidet.evaluation import best_threshold, box_accuracy
from minidet.evaluation.weak_localization import THRESHOLDS
from minidet.heatmaps.boxes import ZHOU_THRESHOLD
from minidet.training.fit import fit
from minidet.training.recipes.wsol import SYSTEM, caption, evaluate, predict, true_class_maps

NETWORKS = {  # settings that differ from the recipe's
    "GAP, 16x16": {},
    "GMP, 16x16": {"pooling": "gmp"},
    "GAP, 8x8": {"stride": 8},
}
PICTURES = 12


def main() -> None:
    arguments = parse_arguments(__doc__, "weak-localization-example")
    out, seed, quick = arguments.out, arguments.seed, arguments.quick
    out.mkdir(parents=True, exist_ok=True)
    data = {name: open_or_make(out / name, quick, seed, cue=name == "cue") for name in ("plain", "cue")}
    epochs = 1 if quick else SYSTEM.defaults["epochs"]

    print("\n1. to 3. From labels alone: GAP and GMP on a large map, GAP on a small one")
    results = {"a box in the centre": centre_box(data["plain"])}
    report("a box in the centre", results["a box in the centre"])
    models = {}
    for name, settings in NETWORKS.items():
        models[name] = fit(SYSTEM, data["plain"]["train"], settings | {"epochs": epochs}, seed=seed, title=name)
        results[name] = measure(models[name], data["plain"])
        report(name, results[name])
    draw_curves(out / "1-thresholds.png", {name: results[name] for name in models}, len(data["plain"]["test"]))
    draw_networks(out / "2-boxes.png", models, data["plain"]["test"])
    print("  GAP against GMP: the same network, but for the pooling. Of GMP's maps only the highest place was trained.")

    print("\n4. The beginning of training")
    results["beginning"] = compare_beginnings(data["plain"], 1 if quick else 2, seed)

    print("\n5. A patch in the background that goes with the class in 95 % of the training images")
    results["cue"] = look_at_the_cue(out / "5-cue.png", models["GAP, 16x16"], data["cue"], epochs, seed)

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-thresholds.png, 2-boxes.png, 5-cue.png; the numbers in results.json")


def open_or_make(folder: Path, quick: bool, seed: int, cue: bool) -> dict:
    """The splits train, val and test."""
    train = 600 if quick else 4000 if cue else 8000
    counts = {"train": train, "val": 60 if quick else 300, "test": 60 if quick else 300}
    make_dataset(folder, sum(counts.values()), "localization", seed=seed, splits=counts, cue=cue)
    return {split: open_dataset(folder, split, masks=False) for split in counts}


# ---- 1 to 3 ----------------------------------------------------------------------------------------------------------


def measure(model, data: dict) -> dict:
    """Metrics on the test images; two thresholds, Zhou's 20 % of the maximum and the best one of the val images."""
    metrics, _ = evaluate(model, data["test"])
    threshold = best_threshold(*true_class_maps(model, data["val"]), mode="fraction_of_max")
    maps, truth = true_class_maps(model, data["test"])
    curve = box_accuracy(maps, truth, [*THRESHOLDS, threshold], mode="fraction_of_max")[0]
    return metrics | {"threshold": threshold, "at_threshold": float(curve[-1]), "curve": curve[:-1].tolist()}


def centre_box(data: dict) -> dict:
    """What anybody gets who never looks: a square in the centre, its side the best one of the val images."""

    def found(split: str, side: float) -> float:
        size = SYSTEM.defaults["size"]
        truth = np.concatenate([record.boxes for record in data[split].records])
        box = np.array([[size - side, size - side, size + side, size + side]]) / 2
        return float((paired_iou(np.repeat(box, len(truth), axis=0), truth) >= 0.5).mean())

    side = max(range(8, 64), key=lambda side: found("val", side))
    return {"side": side, "at_threshold": found("test", side)}


def report(name: str, metrics: dict) -> None:
    """One row of the table."""
    if "accuracy" not in metrics:
        print(f"  {name:20s} GT-known localization {metrics['at_threshold']:.3f}, {metrics['side']} pixels wide")
        return
    print(
        f"  {name:20s} GT-known localization at 20 % {metrics['gt_known_loc']:.3f}, at val's best threshold "
        f"({metrics['threshold']:.2f}) {metrics['at_threshold']:.3f}; MaxBoxAcc {metrics['max_box_acc']:.3f}, "
        f"V2 {metrics['max_box_acc_v2']:.3f}; accuracy {metrics['accuracy']:.3f}, "
        f"top-1 error {metrics['top1_error']:.3f}, top-5 {metrics['top5_error']:.3f}"
    )


def draw_curves(path: Path, results: dict[str, dict], images: int) -> None:
    """GT-known localization against the threshold, with the one that the val images chose."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for name, metrics in results.items():
        (line,) = axes.plot(THRESHOLDS, metrics["curve"], label=name)
        axes.plot(metrics["threshold"], metrics["at_threshold"], "o", color=line.get_color())
    axes.axvline(ZHOU_THRESHOLD, color="0.6", linestyle="--", label=f"{ZHOU_THRESHOLD:.0%} (Zhou et al. 2016)")
    axes.set(xlabel="threshold, a fraction of the map's maximum", ylabel="boxes with IoU >= 0.5")
    axes.set(title=f"{images} test images; dots: thresholds fixed on other images")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_networks(path: Path, models: dict, test) -> None:
    """A row of test images for each network: true box green, estimated one red, beside the map that it comes from."""
    samples, pictures, captions = [test[i] for i in range(6)], [], []
    for name, model in models.items():
        for sample, found in zip(samples, predict(model, samples), strict=True):
            pictures.append(draw_localization(sample.image, found["boxes"][0], sample.boxes[0], found["maps"][0]))
            captions.append(f"{name}: {caption(sample, found, test.classes)}")
    save_png(path, grid(pictures, columns=6, captions=captions, title=BOX_COLORS))


# ---- 4 ---------------------------------------------------------------------------------------------------------------


def compare_beginnings(data: dict, epochs: int, seed: int) -> dict:
    """Accuracy after a short training from scratch: how long the poolings take to find out what to look at."""
    results, chance = {}, 1 / len(CLASSES)
    for normed in (True, False):
        for name, settings in NETWORKS.items():
            system = SYSTEM if normed else replace(SYSTEM, build=build_without_batch_norm)
            model = fit(system, data["train"], settings | {"epochs": epochs}, seed=seed, title=name)
            title = f"{name}, {'with' if normed else 'without'} batch norm"
            results[title] = evaluate(model, data["test"])[0]["accuracy"]
            print(f"  {title:32s} accuracy {results[title]:.3f} after {epochs} epochs; chance is {chance:.3f}")
    return results


def build_without_batch_norm(classes: tuple, config: dict, rng: np.random.Generator) -> nn.Module:
    """The recipe's network, with nothing in the place of each batch norm."""
    model = SYSTEM.build(classes, config, rng)
    for block in model.modules():
        if isinstance(block, ConvBlock):
            setattr(block, "1", nn.Sequential())
    return model


# ---- 5 ---------------------------------------------------------------------------------------------------------------


def look_at_the_cue(path: Path, honest, data: dict, epochs: int, seed: int) -> dict:
    """Trains on images whose background tells the class, and says where the network looks."""
    fooled = fit(SYSTEM, data["train"], {"epochs": epochs}, seed=seed, title="with the patch")
    results = {}
    for name, model, split in (
        ("trained with the patch; images where it goes with the class", fooled, "val"),
        ("trained with the patch; images where it says nothing", fooled, "test"),
        ("trained without it; images where it says nothing", honest, "test"),
    ):
        metrics, _ = evaluate(model, data[split])
        maps, truth = true_class_maps(model, data[split])
        places = pointed_at(maps, truth)
        results[name] = metrics | places
        print(
            f"  {name}:\n    accuracy {metrics['accuracy']:.3f}, GT-known localization {metrics['gt_known_loc']:.3f}, "
            f"MaxBoxAcc {metrics['max_box_acc']:.3f}; the map is highest in the patch in {places['patch']:.0%} of the "
            f"images, in the object in {places['object']:.0%}"
        )
    samples = [data["test"][i] for i in range(PICTURES)]
    pictures, captions = [], []
    for sample, found in zip(samples, predict(fooled, samples), strict=True):
        pictures.append(draw_localization(sample.image, found["boxes"][0], sample.boxes[0], found["maps"][0]))
        captions.append(caption(sample, found, data["test"].classes))
    title = f"Trained with a patch that goes with the class; shown where it says nothing: {BOX_COLORS}"
    save_png(path, grid(pictures, columns=4, captions=captions, title=title))
    return results


def pointed_at(maps: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How often the highest place of maps (N, S, S) lies in the patch, and in the true box, of truth (N, 4)."""
    size = maps.shape[1]
    side = round(CUE_SIDE * size)
    rows, columns = np.divmod(maps.reshape(len(maps), -1).argmax(axis=1), size)
    places = np.column_stack([columns, rows]) + 0.5
    corners = np.where((truth[:, :2] + truth[:, 2:]) / 2 < size / 2, size - side, 0)  # the farthest from the object
    in_patch = ((places >= corners) & (places < corners + side)).all(axis=1)
    in_object = ((places >= truth[:, :2]) & (places < truth[:, 2:])).all(axis=1)
    return {"patch": float(in_patch.mean()), "object": float(in_object.mean())}


if __name__ == "__main__":
    main()
