"""Why does the network say so? The lecture's heat maps, side by side, and how far to trust them.

A small classifier ending in global average pooling is trained on images with one object each. Then

1. every method draws its heat map of the same images, for the class that is there: 1-methods.png. CAM and Grad-CAM
   differ by the ReLU only, because the network is built as CAM wants it; plain gradients are sharp and noisy;
2. the table says what each is worth: do the pixels that it lights up make the score (insertion, deletion, average
   drop), does it point at the object, of which the network was never told where it is, does it tell one class from
   another, and does it look at what was learned at all.

    python examples/heatmaps.py --out heatmaps-example
    python examples/heatmaps.py --quick          # seconds, to see it run; too short for good numbers
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.arguments import parse_arguments
from minidet import Tensor, heatmaps, no_grad
from minidet.backbones import TinyBackbone
from minidet.data import Dataset, collate, make_dataset, open_dataset
from minidet.drawing import compare_heatmaps, save_png
from minidet.evaluation import (
    area,
    average_drop,
    deletion_curve,
    insertion_curve,
    parameter_randomization,
    pointing_game,
    rank_correlation,
)
from minidet.models.classifier import Classifier
from minidet.training.fit import fit
from minidet.training.recipes.classifier import SYSTEM

CHANNELS = (32, 64, 128)  # one stage less than the recipe's: a map of 8 x 8 for images of 64 x 64
DRAWN = 5  # images on the sheet

CLASSIFIER = replace(SYSTEM, build=lambda classes, config, rng: Classifier(TinyBackbone(CHANNELS), len(classes) - 1))
COLUMNS = ("insertion", "deletion", "average_drop", "increase", "pointing", "other_class", "randomized", "ms")


def main() -> None:
    arguments = parse_arguments(__doc__, "heatmaps-example")
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    counts = {"train": 800, "test": 8} if arguments.quick else {"train": 8000, "test": 100}
    folder = make_dataset(out / "data", sum(counts.values()), "localization", seed=arguments.seed, splits=counts)
    train, test = open_dataset(folder, "train", masks=False), open_dataset(folder, "test", masks=False)
    settings = {"epochs": 4, "warmup": 10} if arguments.quick else {"epochs": 8}
    model = fit(CLASSIFIER, train, settings, seed=arguments.seed, title="training the classifier").eval()

    batch = collate([test[i] for i in range(len(test))], np.arange(len(test)))
    labels = np.array([target["labels"][0] for target in batch.targets]) - 1  # positions in the scores
    boxes = [target["boxes"] for target in batch.targets]
    with no_grad():
        scores = model.logits(Tensor(batch.images)).data
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    others = np.where(np.arange(scores.shape[1]) == labels[:, None], -np.inf, scores).argmax(axis=1)
    print(f"\naccuracy on {len(test)} held-out images: {accuracy:.3f}")

    methods = {name: method(model) for name, method in heatmaps.METHODS.items()}
    print("\n1. Every method on the same images: 1-methods.png")
    draw(out / "1-methods.png", methods, test, batch.images[:DRAWN], labels[:DRAWN])

    print("\n2. What they are worth\n")
    print(f"{'':12}" + "".join(f"{column:>14}" for column in COLUMNS))
    steps = 16 if arguments.quick else 64
    results = {}
    for name, method in methods.items():
        results[name] = measure(model, method, batch.images, labels, others, boxes, steps, arguments.quick)
        print(f"{name:12}" + "".join(f"{results[name][column]:14.3f}" for column in COLUMNS), flush=True)
    print(
        "\ninsertion, increase, pointing: large is good; deletion, average drop: small is good. Rank correlation with\n"
        "the map of the second best class (other_class: near 1, it does not tell classes apart) and with that of the\n"
        "same network with random weights (randomized: near 1, it shows the image, not what was learned). ms an image."
    )
    (out / "results.json").write_text(json.dumps({"accuracy": accuracy, "methods": results}, indent=1) + "\n")
    print(f"\nThe picture is {out / '1-methods.png'}, the numbers are in {out / 'results.json'}")


def draw(path: Path, methods: dict, test: Dataset, images: np.ndarray, labels: np.ndarray) -> None:
    """One row an image, one column a method, the true box dashed."""
    maps = {name: method(images, labels) for name, method in methods.items()}
    of_cam = np.maximum(maps["cam"], 0) / maps["cam"][0].size
    difference = np.abs(of_cam - maps["gradcam"]).max() / maps["gradcam"].max()
    print(f"   Grad-CAM and CAM / (h w), cut off at 0, differ by {difference:.1g} of the largest value")
    samples = [test[i] for i in range(len(images))]
    names = [test.classes[int(sample.labels[0])] for sample in samples]
    layer = methods["gradcam"].layer_name
    title = f"Heat maps of the layer {layer}, of the true class; under each the range of its colours"
    save_png(path, compare_heatmaps([s.image for s in samples], maps, names, None, [s.boxes for s in samples], title))


def measure(model, method, images, labels, others, boxes, steps: int, quick: bool) -> dict[str, float]:
    """The trust metrics of one method, of the true classes. Pixels come into the mean colour and give way to it:
    blurred, these large and simple shapes could still be recognised."""
    start = time.perf_counter()
    maps = heatmaps.resize_map(method(images, labels), images.shape[2:])
    milliseconds = 1000 * (time.perf_counter() - start) / len(images)
    drop = average_drop(model, images, maps, labels)
    inserted = insertion_curve(model, images, maps, labels, "mean", steps)
    deleted = deletion_curve(model, images, maps, labels, "mean", steps)
    few = 2 if quick else 8  # every map of these is made again for every layer
    forgotten = parameter_randomization(method, images[:few], labels[:few])
    return {
        "insertion": float(area(*inserted).mean()),
        "deletion": float(area(*deleted).mean()),
        "average_drop": drop["average_drop"],
        "increase": drop["increase_in_confidence"],
        "pointing": pointing_game(maps, boxes),
        "other_class": rank_correlation(method(images[:few], labels[:few]), method(images[:few], others[:few])),
        "randomized": forgotten[-1][1],
        "ms": milliseconds,
    }


if __name__ == "__main__":
    main()
