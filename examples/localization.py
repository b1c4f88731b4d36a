"""The lecture's localization slides, trained and measured.

1. One network, two heads: trained jointly from scratch, it says what the object is and where.
2. alpha changes the very loss that it is part of, so it cannot be chosen by that loss. Cross-validation on IoU can.
3. A pretrained backbone: the heads trained separately on it already work; joint fine-tuning is always better.

    python examples/localization.py --out localization-example
    python examples/localization.py --quick          # a minute, to see it run; too short for good numbers

The pictures and the table of numbers are in --out.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.arguments import parse_arguments
from minidet.backbones import TinyBackbone
from minidet.data import make_dataset, open_dataset
from minidet.drawing import save_png
from minidet.models.classifier import Classifier
from minidet.models.localizer import Localizer
from minidet.training.fit import fit
from minidet.training.recipes.localizer import SYSTEM, draw, evaluate

ALPHAS = (0.05, 0.2, 0.5, 0.8, 0.95)
FOLDS = 3

PRETRAINING = replace(SYSTEM, build=lambda classes, config, rng: Classifier(TinyBackbone(), len(classes) - 1))


def main() -> None:
    arguments = parse_arguments(__doc__, "localization-example")
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    counts = {"train": 600, "test": 100} if arguments.quick else {"train": 8000, "test": 300}
    folder = make_dataset(out / "data", sum(counts.values()), "localization", seed=arguments.seed, splits=counts)
    train, test = open_dataset(folder, "train", masks=False), open_dataset(folder, "test", masks=False)
    epochs = {"full": 1, "fold": 1, "pretraining": 1, "heads": 1, "tuning": 1}
    if not arguments.quick:
        epochs = {"full": 8, "fold": 6, "pretraining": 6, "heads": 3, "tuning": 6}

    print("\n1. One network, two heads, trained jointly from scratch")
    model = fit(SYSTEM, train, {"epochs": epochs["full"]}, seed=arguments.seed, title="joint training")
    metrics, predictions = evaluate(model, test)
    report("from scratch", metrics)
    save_png(out / "1-boxes.png", draw([test[i] for i in range(24)], predictions[:24], test.classes))

    print("\n2. alpha, chosen by cross-validation on IoU")
    validation = cross_validate(train.subset(range(min(len(train), 2400))), epochs["fold"], arguments.seed)
    best = max(ALPHAS, key=lambda alpha: validation[alpha]["mean_iou"])
    print(f"  best mean IoU on held-out folds: alpha = {best}")
    draw_alpha(out / "2-alpha.png", validation, best)

    print("\n3. A pretrained backbone: heads alone, then everything together")
    classifier = fit(PRETRAINING, train, {"epochs": epochs["pretraining"]}, seed=arguments.seed, title="pretraining")
    model = Localizer(classifier.backbone, len(train.classes) - 1, box_loss=SYSTEM.defaults["box_loss"])
    model.backbone.requires_grad_(False)
    fit(SYSTEM, train, {"epochs": epochs["heads"]}, model, arguments.seed, "heads only")
    heads_only, _ = evaluate(model, test)
    report("heads only", heads_only)
    model.backbone.requires_grad_(True)
    fit(SYSTEM, train, {"epochs": epochs["tuning"], "learning_rate": 5e-4}, model, arguments.seed, "fine-tuning")
    tuned, _ = evaluate(model, test)
    report("fine-tuned jointly", tuned)

    results = {"from_scratch": metrics, "heads_only": heads_only, "fine_tuned": tuned, "alpha": validation}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-boxes.png, 2-alpha.png; the numbers in results.json")


def cross_validate(dataset, epochs: int, seed: int) -> dict[float, dict[str, float]]:
    """For each alpha the metrics on the fold that was left out, averaged over the folds."""
    shuffled = np.random.default_rng(seed).permutation(len(dataset))
    folds = np.array_split(shuffled, FOLDS)
    results = {}
    for alpha in ALPHAS:
        of_folds = []
        for number, held_out in enumerate(folds):
            rest = np.concatenate([fold for other, fold in enumerate(folds) if other != number])
            title = f"alpha {alpha}, fold {number + 1} of {FOLDS}"
            model = fit(SYSTEM, dataset.subset(rest), {"epochs": epochs, "alpha": alpha}, seed=seed, title=title)
            of_folds.append(evaluate(model, dataset.subset(held_out))[0])
        results[alpha] = {name: float(np.mean([fold[name] for fold in of_folds])) for name in of_folds[0]}
        report(f"alpha {alpha}", results[alpha])
    return results


def report(title: str, metrics: dict[str, float]) -> None:
    """One line of the story."""
    print(f"  {title:20s} accuracy {metrics['accuracy']:.3f}   mean IoU {metrics['mean_iou']:.3f}")


def draw_alpha(path: Path, validation: dict[float, dict[str, float]], best: float) -> None:
    """Accuracy and IoU on held-out folds against alpha."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, label in (("mean_iou", "mean IoU (the choice is made on this)"), ("accuracy", "accuracy")):
        axes.plot(ALPHAS, [validation[alpha][name] for alpha in ALPHAS], marker="o", label=label)
    axes.axvline(best, color="0.6", linestyle="--", label=f"chosen: alpha = {best}")
    axes.set(xlabel="alpha, the weight of the class loss", ylabel="on held-out folds", title="Choosing alpha")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
