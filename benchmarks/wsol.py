"""Weakly supervised localization on images that it never saw, over several seeds: python -m benchmarks.wsol --out DIR

Trains as `minidet train wsol` does, once a seed, on the same generated files. Weights are chosen on the validation
images, by accuracy, which needs no box; the threshold "at val's" on their boxes; the test images are looked at once.
About four minutes a seed on two cores.
"""

import argparse
from pathlib import Path
from statistics import fmean

from minidet.cli.common import load_trained, make_training_data
from minidet.cli.train import start_run
from minidet.evaluation import best_threshold, box_accuracy
from minidet.training import load_system, train
from minidet.training.recipes.wsol import true_class_maps

COLUMNS = (
    "accuracy", "gt_known_loc", "at_vals_threshold", "max_box_acc", "max_box_acc_v2", "top1_error", "top5_error",
    "best_epoch", "train_seconds",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("wsol-benchmark"), help="folder for data and runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    arguments = parser.parse_args()

    system = load_system("wsol")
    data = make_training_data(arguments.out / "data", system, system.configure(arguments.set))
    results = []
    for seed in range(arguments.seeds):
        run, splits = start_run(system, arguments.out / f"seed-{seed}", data, seed, arguments.set)
        results.append(train(system, run, *splits.values()) | at_vals_threshold(run.folder, splits))
        print(f"seed {seed}: " + ", ".join(f"{name} {results[-1][name]:.4g}" for name in COLUMNS), flush=True)
    print("mean:   " + ", ".join(f"{name} {fmean(result[name] for result in results):.4g}" for name in COLUMNS))


def at_vals_threshold(folder: Path, splits: dict) -> dict[str, float]:
    """GT-known localization of the test images at the threshold, a fraction of the maximum, that suits val best."""
    _, _, model = load_trained(folder, "best")
    threshold = best_threshold(*true_class_maps(model, splits["val"]), mode="fraction_of_max")
    accuracy = box_accuracy(*true_class_maps(model, splits["test"]), [threshold], mode="fraction_of_max")
    return {"vals_threshold": threshold, "at_vals_threshold": float(accuracy[0, 0])}


if __name__ == "__main__":
    main()
