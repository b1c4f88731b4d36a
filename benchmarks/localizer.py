"""The localizer on images that it never saw, over several seeds: python -m benchmarks.localizer --out DIR

Trains as `minidet train localizer` does, once a seed, on the same generated files, and prints what metrics.json says of
the 300 test images: weights are chosen on the validation images, the test images are looked at once. About three
minutes a seed on two cores.
"""

import argparse
from pathlib import Path
from statistics import fmean

from minidet.cli.common import make_training_data
from minidet.cli.train import start_run
from minidet.training import load_system, train

COLUMNS = ("accuracy", "mean_iou", "top1_error", "gt_known_loc", "best_epoch", "train_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("localizer-benchmark"), help="folder for data and runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    arguments = parser.parse_args()

    system = load_system("localizer")
    data = make_training_data(arguments.out / "data", system, system.configure(arguments.set))
    results = []
    for seed in range(arguments.seeds):
        run, splits = start_run(system, arguments.out / f"seed-{seed}", data, seed, arguments.set)
        results.append(train(system, run, *splits.values()))
        print(f"seed {seed}: " + ", ".join(f"{name} {results[-1][name]:.4g}" for name in COLUMNS), flush=True)
    print("mean:   " + ", ".join(f"{name} {fmean(result[name] for result in results):.4g}" for name in COLUMNS))


if __name__ == "__main__":
    main()
