"""The lecture's pose slides, trained and measured: DeepPose on stick figures in textured pictures.

1. One network regresses 14 joints, 28 numbers; a second stage looks closer at each joint and corrects it. It helps most
   where a joint has to be hit exactly.
2. "This can be also defined when a few joints are not visible": a loss over labelled joints only beats one that is
   taught zeros for the others.
3. "Training problems can be alleviated by transfer learning of existing classification networks": with few pictures, a
   backbone that has learned to classify, the one that comes with minidet, is a better start than random weights: but
   for its last stage, which knows its classes too well.

    python examples/pose.py --out pose-example
    python examples/pose.py --quick          # some seconds, to see it run; too short for good numbers

The pictures and the table of numbers are in --out.
"""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.arguments import parse_arguments
from minidet.backbones import TinyBackbone
from minidet.backbones.tiny import PRETRAINED_CHANNELS
from minidet.data import Sample, make_dataset, open_dataset
from minidet.data.joints import NOT_LABELLED, VISIBLE
from minidet.drawing import save_png
from minidet.evaluation.pose import joint_table, pdj_curve, pose_metrics
from minidet.models.pose import DeepPose
from minidet.random import manual_seed
from minidet.training.fit import fit
from minidet.training.recipes.pose import SYSTEM, draw, predict

FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # of the torso's diameter
EPOCHS = {"cascade": 12, "masking": 15, "few": 40}
FEW, FEW_TRANSFER = 1500, 300  # pictures of parts 2 and 3
HIDDEN_JOINTS = 0.3  # of the labels are taken away in part 2: annotators leave out what they cannot see


def main() -> None:
    arguments = parse_arguments(__doc__, "pose-example")
    out, seed = arguments.out, arguments.seed
    out.mkdir(parents=True, exist_ok=True)
    counts = {"train": 200, "test": 40} if arguments.quick else {"train": 5000, "test": 300}
    data = make_dataset(out / "data", task="pose", seed=seed, splits=counts)
    train, test = open_dataset(data, "train", masks=False), open_dataset(data, "test", masks=False)
    epochs = dict.fromkeys(EPOCHS, 3) if arguments.quick else EPOCHS

    print("\n1. A cascade: 28 numbers, then a closer look at each joint")
    model = fit(SYSTEM, train, {"epochs": epochs["cascade"]}, seed=seed, title="cascade")
    results = {"cascade": compare_stages(model, test, out)}

    print(f"\n2. {HIDDEN_JOINTS:.0%} of the joints have no label: left out of the loss, or taught as zeros")
    some = train.subset(range(min(len(train), FEW)))
    results["masking"] = compare_masking(some, test, epochs["masking"], seed)

    few = train.subset(range(min(len(train), FEW_TRANSFER)))
    print(f"\n3. {len(few)} pictures: random weights, or those of a classifier")
    results["transfer"] = compare_starts(few, test, epochs["few"], seed)

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-skeletons.png, 1-stages.png; the numbers in results.json")


# ---- 1


def compare_stages(model, test, out: Path) -> dict:
    """Detected joints by stage and threshold, and the pictures."""
    predictions = predict(model, test)
    truth, names = np.concatenate([record.keypoints for record in test.records]), model.joints
    stages = np.concatenate([prediction["stage_keypoints"] for prediction in predictions], axis=1)  # (stages, P, J, 2)
    scale = model.input_size / np.concatenate([prediction["regions"] for prediction in predictions])[:, 2]
    curves = [pdj_curve(found, truth, FRACTIONS, names) for found in stages]
    metrics = [pose_metrics(found, truth, names, scale) for found in stages]
    print("  detected joints (PDJ) at a fraction of the torso's diameter of")
    print("           " + "".join(f"{fraction:8.2f}" for fraction in FRACTIONS))
    for stage, (curve, values) in enumerate(zip(curves, metrics, strict=True), start=1):
        told = f"   PCKh@0.5 {values['pckh_50']:.3f}, mean error {values['mean_error']:.2f} px of {model.input_size}"
        print(f"  stage {stage}  " + "".join(f"{value:8.3f}" for value in curve) + told)
    print("  gain     " + "".join(f"{value:8.3f}" for value in curves[-1] - curves[0]))
    table = joint_table(stages[-1], truth, names, scale)
    print("  joint       PCKh@0.5   mean error")
    for joint, row in table.items():
        print(f"  {joint:10s} {row['pckh_50']:9.3f} {row['mean_error']:12.2f}")
    shown = range(min(12, len(test)))
    save_png(out / "1-skeletons.png", draw(test.subset(shown), predictions[: len(shown)], test.classes))
    draw_curves(out / "1-stages.png", curves)
    return {"fractions": FRACTIONS, "pdj": [curve.tolist() for curve in curves], "metrics": metrics, "joints": table}


def draw_curves(path: Path, curves: list[np.ndarray]) -> None:
    """PDJ of each stage."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for stage, curve in enumerate(curves, start=1):
        axes.plot(FRACTIONS, curve, marker="o", label=f"after stage {stage}")
    axes.set(xlabel="fraction of the torso's diameter", ylabel="detected joints", title="Joints detected by each stage")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


# ---- 2


def compare_masking(train, test, epochs: int, seed: int) -> dict:
    """The same data with labels missing, which the loss leaves out, or takes for joints at (0, 0)."""
    results = {}
    for name, spoil in (("masked", forget), ("taught zeros", teach_zeros)):
        system = replace(SYSTEM, transform=lambda config, spoil=spoil: spoiled(SYSTEM.transform(config), spoil))
        model = fit(system, train, {"epochs": epochs, "stages": 1}, seed=seed, title=name)
        results[name] = report(name, model, test)
    return results


def spoiled(augment, spoil):
    """An augmentation in which some joints of every picture, always the same ones, have no label."""

    def transform(sample: Sample, rng: np.random.Generator) -> Sample:
        hidden = (
            np.random.default_rng(zlib.crc32(sample.name.encode())).random(sample.keypoints.shape[:2]) < HIDDEN_JOINTS
        )
        keypoints = sample.keypoints.copy()
        keypoints[hidden] = NOT_LABELLED
        return spoil(augment(replace(sample, keypoints=keypoints), rng))

    return transform


def forget(sample: Sample) -> Sample:
    return sample


def teach_zeros(sample: Sample) -> Sample:
    """Every joint without a label becomes one in the picture's corner: what a loss sees that knows no labels."""
    keypoints = sample.keypoints.copy()
    keypoints[keypoints[..., 2] == NOT_LABELLED] = (0, 0, VISIBLE)
    return replace(sample, keypoints=keypoints)


# ---- 3


def compare_starts(train, test, epochs: int, seed: int) -> dict:
    """Stage 1 alone, its backbone new or from a classifier of miniscene's shapes; all else is equal.

    The lower a layer, the more general is what it has learned (Yosinski et al. 2014, "How transferable are features in
    deep neural networks?"): edges and corners are the same in stars and people. The last stage tells stars from rings
    wherever they are, which is not what a pose asks for, and is better learned anew.
    """
    learned = TinyBackbone.pretrained().state_dict()
    starts = {
        "from scratch": {},
        "whole backbone": learned,
        "lower stages": {key: array for key, array in learned.items() if not key.startswith("stages.2.")},
    }
    results = {}
    for name, weights in starts.items():
        manual_seed(seed)  # what is not learned yet is the same
        model = DeepPose(TinyBackbone(PRETRAINED_CHANNELS), stages=1)
        model.backbone.load_state_dict(weights, strict=False)
        model = fit(SYSTEM, train, {"epochs": epochs}, model, seed=seed, title=name)
        results[name] = report(name, model, test)
    return results


def report(title: str, model, test) -> dict[str, float]:
    """One line of the story."""
    metrics, _ = SYSTEM.evaluate(model.eval(), test, 64)
    print(f"  {title:14s} PCKh@0.5 {metrics['pckh_50']:.3f}   mean error {metrics['mean_error']:.2f} px")
    return metrics


if __name__ == "__main__":
    main()
