"""minidet eval RUN: the metrics of a trained network on a data set, and pictures of what it found.

minidet eval RESULTS.json --data DIR: the same of detections that any program has written in COCO's format.
"""

import argparse
import json
from pathlib import Path

from minidet.cli.common import (
    add_machine_options,
    add_out_option,
    claim_folder,
    class_map,
    default_split,
    load_trained,
    names_in,
    open_measured,
    print_table,
    use_machine,
)

EPILOG = """example:
  minidet eval runs/first
  minidet eval runs/first --data other-scenes --split val --out runs/first-on-others
  minidet eval runs/first/eval-test/detections.json --data scenes
  minidet eval runs/masks/eval-test/masks.json --kind masks --data scenes

A detector's evaluation has precision-recall curves, of masks and joints, too, confused classes, kinds of errors and
the worst of them, and detections.json, in COCO's format for results."""

SAMPLES_DRAWN = 36


NOTHING_MATCHES = (
    "  (no detection overlaps with an object of its class by half: are the results those of these images, are their\n"
    "  places in pixels, a bbox x, y, width, height, and are their category_ids the data set's?)"
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument(
        "run_folder", metavar="RUN", type=Path, help="folder that `minidet train` wrote, or results.json"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="data set (default: the run's own)")
    parser.add_argument("--split", help="part of the data set (default: test, or val if there is no test)")
    parser.add_argument("--weights", choices=("best", "last"), help="which weights (default: best)")
    parser.add_argument(
        "--kind", choices=("boxes", "masks", "keypoints"), help="what is measured of RESULTS.json (default: boxes)"
    )
    parser.add_argument("--classes", metavar="A,B", help="what was looked for in RESULTS.json (default: all classes)")
    add_out_option(parser, "RUN/eval-SPLIT, with --data RUN/eval-DIR-SPLIT", "metrics and pictures")
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    device = use_machine(args)
    from minidet.data.files import write_atomic
    from minidet.training import evaluate
    from minidet.training.run import encode_png

    if args.run_folder.suffix == ".json" and not args.run_folder.is_dir():
        return evaluate_results(args)
    for option, value in (("--kind", args.kind), ("--classes", args.classes)):
        if value is not None:
            raise ValueError(f"{option}: of {args.run_folder}, a run, all that it detects is measured; leave it out")
    weights = args.weights or "best"
    system, trained, model = load_trained(args.run_folder, weights, device)
    data = args.data or trained.data
    split = args.split or default_split(data)
    dataset, settings = open_measured(system, trained, data, split), trained.config["settings"]
    others = f"-{data.resolve().name}" if args.data else ""  # so that the run's own evaluation is kept
    others += "-last" if weights == "last" else ""
    out = args.out or trained.path(f"eval{others}-{split}")
    measured = {"data": str(data.resolve()), "split": split, "weights": weights}
    claim_evaluation(out, measured)
    if system.prepare is not None:
        system.prepare(dataset, settings, trained.folder, split)
    metrics, predictions = evaluate(system, model, dataset, settings["batch_size"])
    result = metrics | measured | {"images": len(dataset)}
    samples = dataset.subset(range(min(SAMPLES_DRAWN, len(dataset))))
    picture = system.draw(samples, predictions[: len(samples)], dataset.classes)
    write_atomic(out / "metrics.json", json.dumps(result, indent=2) + "\n")
    write_atomic(out / "predictions.png", encode_png(picture))
    plots = [] if system.report is None else system.report(dataset, predictions, dataset.classes, out)
    print(f"{args.run_folder} on {len(dataset)} images of {data} ({split}):")
    print(class_map(dataset))
    print_table(metrics, system.metrics_note)
    tell_paths(out / "predictions.png", *plots, out / "metrics.json")
    return 0


def evaluate_results(args: argparse.Namespace) -> int:
    """The metrics of a file of results, and what they do not say."""
    from minidet.data import open_dataset
    from minidet.data.files import write_atomic
    from minidet.evaluation import read_results
    from minidet.training.recipes import detection

    if args.data is None:
        raise ValueError(f"{args.run_folder}: expected --data DIR, the data set whose objects were to be detected")
    if args.weights is not None:
        raise ValueError("--weights: expected a run with it, results have none; leave it out")
    split = args.split or default_split(args.data)
    kind = args.kind or "boxes"
    whole = dataset = open_dataset(args.data, split, masks=kind == "masks", joints=kind == "keypoints")
    if args.classes is not None:
        dataset = whole.of_classes(names_in(args.classes))
    dataset.verify()
    detection.check_kind(dataset, kind)
    ids, chosen = (one.category_ids or range(1, len(one.classes)) for one in (whole, dataset))
    others = set(ids) - set(chosen)  # of detections that are not to be measured
    predictions = read_results(args.run_folder, dataset, kind=kind, passed_over=others)
    measured = {"data": str(args.data.resolve()), "split": split, "kind": kind}
    out = args.out or args.run_folder.with_name(f"{args.run_folder.stem}-eval-{split}")
    claim_evaluation(out, measured)
    metrics = detection.metrics_of(predictions, dataset, kind)
    result = metrics | measured | {"images": len(dataset)}
    write_atomic(out / "metrics.json", json.dumps(result, indent=2) + "\n")
    drawn = dataset, predictions, dataset.classes, out
    plots = detection.report(*drawn) if kind == "boxes" else [detection.save_curves(*drawn, kind)]
    print(f"{args.run_folder} on {len(dataset)} images of {args.data} ({split}):")
    print(class_map(dataset))
    print_table(metrics, detection.METRICS_NOTE)
    (overall,) = (value for name, value in metrics.items() if name.endswith("map_50"))
    if not any(len(found["labels"]) for found in predictions):
        print("  (there is no detection at all)")
    elif overall == 0:
        print(NOTHING_MATCHES)
    tell_paths(*plots, out / "metrics.json")
    return 0


def claim_evaluation(out: Path, measured: dict[str, str | None]) -> None:
    """claim_folder, unless what lies there is the evaluation of something else: raises ValueError then."""
    try:
        before = json.loads((out / "metrics.json").read_text())
    except (OSError, ValueError):
        before = {}
    for key, value in measured.items():
        if isinstance(before, dict) and before.get(key, value) != value:
            raise ValueError(
                f"--out: {out} holds the evaluation of {key} {before[key]}, which that of {value} would overwrite; "
                "name another folder"
            )
    claim_folder(out, "eval")


def tell_paths(*paths: Path) -> None:
    print("\nto look at:")
    for path in paths:
        print(f"  {path}")
