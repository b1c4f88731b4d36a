"""DeepPose on people that it never saw, over several seeds: python -m benchmarks.pose --out DIR

Trains as `minidet train pose` does, once a seed, on the same generated files, and measures the 300 test images once, by
stages: weights are chosen on the validation images. Some four minutes a seed on two cores.

PCKh's head is the figures' own head segment, 0.18 of their standing height; pckh_50_small measures the same errors by a
head of 0.15 of it, which is stricter. mean_error is in pixels of the network's input, the person's crop of 64 x 64.
"""

import argparse
from pathlib import Path
from statistics import fmean

import numpy as np

from minidet.cli.common import make_training_data
from minidet.cli.train import start_run
from minidet.data.figures import HEAD
from minidet.evaluation.pose import fraction_within, head_segments, joint_errors, pose_metrics
from minidet.random import manual_seed
from minidet.training import load_system, train
from minidet.training.recipes.pose import predict

SMALL_HEAD = 0.15  # of the standing height
THRESHOLDS = (0.1, 0.2, 0.3, 0.5)  # of the head segment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("pose-benchmark"), help="folder for data and runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    arguments = parser.parse_args()

    system = load_system("pose")
    data = make_training_data(arguments.out / "data", system, system.configure(arguments.set))
    results = []
    for seed in range(arguments.seeds):
        run, splits = start_run(system, arguments.out / f"seed-{seed}", data, seed, arguments.set)
        metrics = train(system, run, *splits.values())
        model = system.build(splits["train"].classes, run.config["settings"], manual_seed(0))
        model.load_state_dict(run.read_weights("best"))
        results.append(measure(model, splits["test"]) | {"train_seconds": metrics["train_seconds"]})
        print(f"seed {seed}:", told(results[-1]), flush=True)
    print("mean:  ", told({name: fmean(result[name] for result in results) for name in results[0]}))


def measure(model, dataset) -> dict[str, float]:
    """Metrics of the whole cascade, of its first stage, and both at several thresholds."""
    predictions = predict(model, dataset)
    truth = np.concatenate([record.keypoints for record in dataset.records])
    stages = np.concatenate([prediction["stage_keypoints"] for prediction in predictions], axis=1)
    scale = model.input_size / np.concatenate([prediction["regions"] for prediction in predictions])[:, 2]
    heads, result = head_segments(truth, model.joints), {}
    for name, found in (("", stages[-1]), ("stage1_", stages[0])):
        errors = joint_errors(found, truth)
        metrics = pose_metrics(found, truth, model.joints, scale)
        metrics["pckh_50_small"] = fraction_within(errors, heads * (SMALL_HEAD / HEAD), 0.5)
        metrics |= {f"pckh_{100 * t:.0f}": fraction_within(errors, heads, t) for t in THRESHOLDS}
        result |= {name + key: value for key, value in metrics.items()}
    return result


def told(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


if __name__ == "__main__":
    main()
