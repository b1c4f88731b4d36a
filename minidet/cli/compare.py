"""minidet compare: what detectors find, and what they cost: seconds an image and where they go, training, disk."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from minidet.cli.common import (
    add_machine_options,
    add_out_option,
    add_seed_option,
    add_set_option,
    check_there,
    claim_folder,
    class_map,
    default_split,
    load_trained,
    make_training_data,
    open_measured,
    use_machine,
)

EPILOG = """example:
  minidet compare                                      trains the lecture's detectors first, on the same images
  minidet compare --set images=500 --set epochs=2      the same, shorter and worse
  minidet compare runs/rcnn runs/faster_rcnn           two that are trained already

Started again with the same options it continues where it was stopped, and takes runs as they are that are finished."""

SYSTEMS = "sliding_window,rcnn,fast_rcnn,faster_rcnn,yolo,ssd,mask_rcnn"
TITLES = {
    "sliding_window": "sliding window",
    "rcnn": "R-CNN",
    "fast_rcnn": "Fast R-CNN",
    "faster_rcnn": "Faster R-CNN",
    "faster_rcnn_four_steps": "Faster R-CNN, four steps",
    "yolo": "YOLO",
    "yolo_v1": "YOLO v1",
    "ssd": "SSD",
    "mask_rcnn": "Mask R-CNN",
}

IMAGES = 2000  # to train on, the same for all: R-CNN takes minutes with so many, the others learn a bit more from more
TIMED = 50  # images of the split, the first ones, that are timed one by one


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument(
        "run_folders", metavar="RUN", type=Path, nargs="*",
        help="folders that `minidet train` wrote (default: OUT/SYSTEM, which are trained if they are not there)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="data set to measure on, and to train on where there are no RUNs (default: the last RUN's own; OUT/data)",
    )  # fmt: skip
    parser.add_argument("--split", help="part of the data set (default: test, or val if there is no test)")
    usual = SYSTEMS.replace(",", ", ")  # so that the help's lines end between names
    parser.add_argument("--systems", metavar="A,B", help=f"what is trained where there are no RUNs (default: {usual})")
    add_set_option(parser)
    add_out_option(parser, "runs/compare", "the comparison, and what is trained for it")
    add_seed_option(parser, default=None)
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    device = use_machine(args)
    out, folders = args.out or Path("runs/compare"), args.run_folders
    if folders:
        refuse_training_options(args)
        detectors = [load_detector(folder, device) for folder in folders]
        data = args.data or detectors[-1][1].data
    else:
        settings = [f"images={IMAGES}", *args.set]
        systems = detectors_of((SYSTEMS if args.systems is None else args.systems).split(","), settings)
        if args.data is not None:
            check_there(args.data)
        try_new_ones(systems, settings, out, device)
        claim_folder(out, "compare")
        data = args.data or make_training_data(out / "data", systems[0], systems[0].configure(settings))
        for number, system in enumerate(systems, start=1):
            print(f"\n{number} of {len(systems)}: {TITLES.get(system.name, system.name)}")
            code = train_unless_finished(system, out / system.name, data, args, device)
            if code:
                return code
        detectors = [load_detector(out / system.name, device) for system in systems]
    split = args.split or default_split(data)
    datasets = [open_measured(system, trained, data, split) for system, trained, _ in detectors]
    claim_folder(out, "compare")  # now that nothing can be refused
    rows = []
    for name, dataset, detector in zip(names_of(detectors), datasets, detectors, strict=True):
        print(f"measuring {name} on {len(dataset)} images")
        rows.append({"name": name} | measure(*detector, dataset, split))
    write_and_tell(rows, datasets[0], data, split, out, device)
    for note in notes([trained for _, trained, _ in detectors]):
        print(note)
    return 0


# ---- the runs


def refuse_training_options(args: argparse.Namespace) -> None:
    """Runs are compared as they are."""
    for option, value in (("--set", args.set), ("--systems", args.systems), ("--seed", args.seed)):
        if value not in (None, []):
            raise ValueError(f"{option}: expected no such option with RUNs, which are trained already; leave it out")


def detectors_of(names: list[str], settings: list[str]) -> list[Any]:
    """The systems of these names, each of which has these settings."""
    from minidet.training import load_system

    systems = [load_system(name.strip()) for name in dict.fromkeys(names)]
    for system in systems:
        refuse_others(system, "--systems")
        system.configure(settings)
    return systems


def try_new_ones(systems: list[Any], settings: list[str], out: Path, device: str) -> None:
    """Before the first is trained for minutes: each of those that are still to begin can be trained so."""
    from minidet.cli.train import try_patiently

    for system in systems:
        if not (out / system.name / "config.json").is_file():
            try_patiently(system, system.configure(settings), device)


def refuse_others(system: Any, where: str) -> None:
    if system.task != "detection":
        raise ValueError(f"{where}: expected detectors of objects of several classes, got {system.name}")


def train_unless_finished(system: Any, folder: Path, data: Path, args: argparse.Namespace, device: str) -> int:
    """Begins a run, or goes on with it, until it is finished; returns `minidet train`'s exit code."""
    from minidet.cli.train import refuse_other_settings, reopen_splits, start_run, train_and_tell
    from minidet.training import open_run

    resume = (folder / "config.json").is_file()
    if resume:
        trained = open_run(folder)
        refuse_other_settings(args, system, trained)
        splits = reopen_splits(system, trained, data)
        if trained.finished:
            print(f"{folder} is finished")
            return 0
        trained.lock()
    else:
        settings = [f"images={IMAGES}", *args.set]
        trained, splits = start_run(system, folder, data, args.seed or 0, settings, device)
    code = train_and_tell(system, trained, splits, resume, device)
    if code:
        print("or the whole comparison with the same command as this one")
    return code


def load_detector(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """(system, run, model) of a finished run of a detector."""
    from minidet.training import load_system, open_run

    trained = open_run(folder)
    refuse_others(load_system(trained.config["system"]), str(folder))
    if not trained.finished:
        raise ValueError(
            f"{folder}: expected a finished run; continue it with `minidet train {trained.config['system']} --out "
            f"{shlex.quote(str(folder))} --resume`"
        )
    return load_trained(folder, "best", device)


def names_of(detectors: list[tuple[Any, Any, Any]]) -> list[str]:
    """What the runs are called: by their systems, and their folders where one system comes twice."""
    systems = [system.name for system, _, _ in detectors]
    return [
        TITLES.get(system, system) + (f" ({trained.folder})" if systems.count(system) > 1 else "")
        for system, (_, trained, _) in zip(systems, detectors, strict=True)
    ]


def notes(runs: list[Any]) -> list[str]:
    """What makes the comparison unfair."""
    digests = [trained.config.get("digests", {}).get("train") for trained in runs]
    return [] if len(set(digests)) == 1 else ["note: these runs were trained on different images"]


# ---- measuring


def measure(system: Any, trained: Any, model: Any, dataset: Any, split: str) -> dict[str, Any]:
    """One run's part of compare.json. The metrics are those of `minidet eval`, with proposals from the run's files; for
    the seconds proposals are made anew, and the search before the training took so many for each image."""
    import numpy as np

    from minidet.data.loader import collate_list
    from minidet.evaluation import mean_stage_seconds
    from minidet.proposals import kept_in
    from minidet.training import evaluate
    from minidet.training.recipes.rcnn import STAGES_FILE
    from minidet.training.step import as_tensors

    settings = trained.config["settings"]
    kept = kept_in(trained.folder, trained.config.get("digests", {}).values())
    result, stages = (read_numbers(trained.path(name)) for name in ("metrics.json", STAGES_FILE))
    first = np.arange(min(TIMED, len(dataset)))
    timed = collate_list([dataset[i] for i in first], first)
    seconds = mean_stage_seconds(model, as_tensors(timed.images, model.device))
    if system.prepare is not None:
        system.prepare(dataset, settings, trained.folder, split)
    metrics, _ = evaluate(system, model, dataset, settings["batch_size"])
    return {
        "run": str(trained.folder),
        "system": system.name,
        "seconds": seconds | {"all": sum(seconds.values())},
        "train_seconds": result.get("train_seconds"),
        "search_seconds": seconds["proposals"] * kept["images"],
        "bytes": {
            "proposals": kept["bytes"],
            "features": stages.get("bytes", 0),
            "weights": trained.path("best.safetensors").stat().st_size,
        },
        "metrics": metrics,
    }


def read_numbers(path: Path) -> dict[str, Any]:
    """A run's JSON file, {} where there is none."""
    from minidet.data.files import read_limited
    from minidet.training.run import MAX_CONFIG_BYTES

    if not path.is_file():
        return {}
    try:
        numbers = json.loads(read_limited(path, MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, but {error}; train the run anew") from error
    if not isinstance(numbers, dict):
        raise ValueError(f"{path}: expected a JSON object, got {numbers!r:.80}; train the run anew")
    return numbers


# ---- telling


def write_and_tell(rows: list[dict], dataset: Any, data: Path, split: str, out: Path, device: str) -> None:
    from minidet.data.files import write_atomic
    from minidet.drawing import draw_comparison, draw_speed_and_accuracy
    from minidet.training.run import describe_environment, encode_png

    timed = min(TIMED, len(dataset))
    result = {
        "data": str(data),
        "split": split,
        "images": len(dataset),
        "timed_images": timed,
        "environment": describe_environment(device),
        "runs": rows,
    }
    write_atomic(out / "compare.json", json.dumps(result, indent=2) + "\n")
    title = f"{len(dataset)} images of {data.resolve().name} ({split})"
    write_atomic(out / "compare.png", encode_png(draw_comparison(rows, title)))
    write_atomic(out / "speed-accuracy.png", encode_png(draw_speed_and_accuracy(rows, title)))
    print(f"\n{len(dataset)} images of {data} ({split}); seconds on {timed} of them, one at a time")
    print(class_map(dataset) + "\n")
    print(table(rows))
    print(
        "(search: for proposals of all the run's images, at this speed; features: while R-CNN's last stages are fitted)"
    )
    print("\nto look at:")
    for name in ("compare.png", "speed-accuracy.png", "compare.json"):
        print(f"  {out / name}")


def table(rows: list[dict]) -> str:
    """One line a run, under two lines of heads."""
    from minidet.evaluation import STAGES

    groups = {
        "milliseconds an image": {stage: [f"{row['seconds'][stage] * 1e3:.1f}" for row in rows] for stage in STAGES}
        | {"all": [f"{row['seconds']['all'] * 1e3:.1f}" for row in rows]},
        "seconds before": {
            "search": [f"{row['search_seconds']:.0f}" if row["bytes"]["proposals"] else "-" for row in rows],
            "training": ["-" if row["train_seconds"] is None else f"{row['train_seconds']:.0f}" for row in rows],
        },
        "megabytes on disk": {
            kind: [f"{row['bytes'][kind] / 1e6:.1f}" if row["bytes"][kind] else "-" for row in rows]
            for kind in ("proposals", "features", "weights")
        },
        "found": {
            name: [f"{row['metrics'][key]:.3f}" for row in rows]
            for name, key in (("AP", "map"), ("AP50", "map_50"), ("AP75", "map_75"))
        },
    }
    names = [row["name"] for row in rows]
    lines = ["", "", *names]
    lines = [line.ljust(max(map(len, names))) for line in lines]
    for title, columns in groups.items():
        block = ["", *([""] * len(rows))]
        for head, cells in columns.items():
            width = max(len(head), *map(len, cells))
            block = [line + "  " + cell.rjust(width) for line, cell in zip(block, [head, *cells], strict=True)]
        width = max(len(block[0]), len(title) + 2)
        block = [("  " + title).ljust(width), *(line.rjust(width) for line in block)]
        lines = [line + " " + cell for line, cell in zip(lines, block, strict=True)]
    return "\n".join(line.rstrip() for line in lines)
