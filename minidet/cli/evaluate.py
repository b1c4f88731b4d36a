"""minidet eval RUN: the metrics of a trained network on a data set, and pictures of what it found."""

import argparse
import json
from pathlib import Path

from minidet.cli.common import (
    add_machine_options,
    add_out_option,
    claim_folder,
    class_map,
    load_trained,
    print_table,
    use_machine,
)

EPILOG = """example:
  minidet eval runs/first
  minidet eval runs/first --data other-scenes --split val --out runs/first-on-others"""

SAMPLES_DRAWN = 36


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder that `minidet train` wrote")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data set (default: the run's own)")
    parser.add_argument("--split", help="part of the data set (default: test, or val if there is no test)")
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="which weights (default: best)")
    add_out_option(parser, "RUN/eval-SPLIT, with --data RUN/eval-DIR-SPLIT", "metrics and pictures")
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    device = use_machine(args)
    from minidet.data import find_splits, open_dataset
    from minidet.data.files import write_atomic
    from minidet.training import evaluate
    from minidet.training.run import encode_png

    system, trained, model = load_trained(args.run_folder, args.weights, device)
    data = args.data or trained.data
    split = args.split or ("test" if "test" in find_splits(data) else "val")
    dataset = open_dataset(data, split, masks=system.masks)
    if len(dataset) == 0:
        raise ValueError(f"{data}: expected images to measure on, found none in the split {split}; add some")
    if list(dataset.classes) != trained.config["classes"]:
        raise ValueError(
            f"{data}: expected the classes that the run was trained on, {', '.join(trained.config['classes'][1:])}, "
            f"got {', '.join(dataset.classes[1:])}"
        )
    settings = trained.config["settings"]
    dataset.verify()
    system.check(dataset, settings)
    others = f"-{data.resolve().name}" if args.data else ""  # so that the run's own evaluation is kept
    out = args.out or trained.path(f"eval{others}-{split}")
    claim_folder(out, "eval")
    if system.prepare is not None:
        system.prepare(dataset, settings, trained.folder, split)
    metrics, predictions = evaluate(system, model, dataset, settings["batch_size"])
    result = metrics | {"split": split, "images": len(dataset), "weights": args.weights}
    samples = dataset.subset(range(min(SAMPLES_DRAWN, len(dataset))))
    picture = system.draw(samples, predictions[: len(samples)], dataset.classes)
    write_atomic(out / "metrics.json", json.dumps(result, indent=2) + "\n")
    write_atomic(out / "predictions.png", encode_png(picture))
    plots = [] if system.report is None else system.report(dataset, predictions, dataset.classes, out)
    print(f"{args.run_folder} on {len(dataset)} images of {data} ({split}):")
    print(class_map(dataset))
    print_table(metrics, system.metrics_note)
    print("\nto look at:")
    for path in (out / "predictions.png", *plots, out / "metrics.json"):
        print(f"  {path}")
    return 0
