"""minidet train SYSTEM: from data to a folder with weights, curves, pictures and metrics."""

import argparse
import os
import shlex
from pathlib import Path

from minidet.cli.common import (
    add_machine_options,
    add_out_option,
    add_seed_option,
    add_set_option,
    check_there,
    class_map,
    make_training_data,
    names_in,
    open_splits,
    print_table,
    use_machine,
)

EPILOG = """systems:
  localizer       the class of an image's one object, and its box, learned from true boxes
  classifier      the class of an image's one object: pretraining for a backbone
  pose            the joints of people, in their boxes
  wsol            as localizer, but learned from the classes alone, without boxes
  sliding_window  any number of objects: a classifier at every position and scale
  rcnn            regions from Selective Search, warped and classified one by one
  fast_rcnn       the same regions, cut out of one feature map
  faster_rcnn     regions that a network proposes, on the same feature map
  faster_rcnn_four_steps  the same, trained in four steps, as the lecture draws it
  yolo            no regions: boxes of every cell of a grid, by anchors
  yolo_v1         the first YOLO, without anchors
  ssd             boxes on maps of several sizes, the hardest background alone is learned
  mask_rcnn       as faster_rcnn, and each object's pixels; needs masks (COCO)
  keypoint_rcnn   as faster_rcnn, and each person's joints
  openpose        the joints of everybody at once, and which belong together

example:
  minidet train localizer --out runs/first
  minidet train wsol --set help=                            no such setting: lists those of wsol with their defaults
  minidet data make scenes --task localization --images 5000        data of your own look like these
  minidet train localizer --data scenes --set epochs=30 --set learning_rate=0.001 --out runs/longer
  minidet train faster_rcnn --data scenes --out runs/detector       COCO, VOC or YOLO folders, images of any size
  minidet train ssd --data coco --classes "dog,traffic light"       COCO's own folder: annotations, train2017, val2017
  minidet train localizer --out runs/longer --resume        after Ctrl-C, a crash or a power cut
  minidet train localizer --device cuda --out runs/gpu      on a GPU; with --resume on either device"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("system", metavar="SYSTEM", help="what to train: one of the systems below")
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="data set (default: generated scenes in OUT/data); with --resume where it lies now, if it was moved",
    )  # fmt: skip
    parser.add_argument("--classes", metavar="A,B", help="learn these of the data set's classes alone (default: all)")
    add_set_option(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in OUT where it was stopped")
    add_out_option(parser, "runs/SYSTEM", "everything that is written")
    add_seed_option(parser, default=None)
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    device = use_machine(args)
    from minidet.training import load_system, open_run

    system = load_system(args.system)
    out = args.out or Path("runs") / system.name
    if not args.resume:
        if args.data is not None:
            note_unused(args.set)
        if args.classes is not None and args.data is None:
            raise ValueError("--classes: expected --data DIR with it, the data set whose classes they are")
        run, splits = start_run(system, out, args.data, args.seed or 0, args.set, device, names_in(args.classes))
        return train_and_tell(system, run, splits, resume=False, device=device)
    started = open_run(out)
    refuse_other_settings(args, system, started)
    refuse_other_classes(args.classes, started)
    if started.finished:
        print(f"{out}: the run is finished, nothing to resume; `minidet eval {shlex.quote(str(out))}` measures it")
        return 0
    started.lock()
    return train_and_tell(system, started, reopen_splits(system, started, args.data), resume=True, device=device)


def note_unused(overrides: list[str]) -> None:
    """Says which settings are those of generated scenes, where others are given."""
    keys = {override.partition("=")[0] for override in overrides}
    for key in ("images", "val_images", "test_images"):
        if key in keys:
            print(f"note: {key} says how many scenes are generated; with --data none are, and all of DIR is used")


def start_run(
    system,
    out: Path,
    data: Path | None,
    seed: int,
    overrides: list[str],
    device: str = "cpu",
    classes: list[str] | None = None,
):
    """(run, splits): a new run in `out`, on the data given or on generated ones. device: "cpu" or "cuda"; classes: as
    in open_splits."""
    import minidet_kernels
    from minidet.training import create_run
    from minidet.training.run import check_free, claim_run_folder

    settings = system.configure(overrides)
    check_free(out)  # before data are made for nothing
    if data is not None:
        check_there(data)
    try_patiently(system, settings, device)
    if data is None:
        claim_run_folder(out)
        data = make_training_data(out / "data", system, settings)
    splits = open_splits(data, system, settings, classes)
    config = {
        "system": system.name,
        "data": place_of(data, out),
        "digests": {name: split.digest() for name, split in splits.items()},
        "kernels": minidet_kernels.current(),
        "seed": seed,
        "classes": list(splits["train"].classes),
        "chosen_classes": classes,
        "settings": settings,
    }
    return create_run(out, config, device), splits


def try_patiently(system, settings: dict, device: str) -> None:
    """try_settings, with word of why it may take a minute."""
    from minidet.training import try_settings
    from minidet.training.report import waiting

    with waiting("trying the settings; the first time the kernels are compiled"):
        try_settings(system, settings, device)


def place_of(data: Path, out: Path) -> str:
    """The data set's folder as config.json has it: relative where it lies in the run's, so that both can be moved."""
    data, out = data.resolve(), out.resolve()
    return os.path.relpath(data, out) if data.is_relative_to(out) else str(data)


def reopen_splits(system, run, data: Path | None = None):
    """The data that the run began with; `data`: where they lie now, if they were moved, which config.json then says.
    Raises ValueError if they have changed since: the run would not be itself."""
    moved = data is not None and data.resolve() != run.data.resolve()
    data, digests = (data if moved else run.data), run.config.get("digests", {})
    if moved and not digests:
        raise ValueError(f"{run.folder}: the run trains on {run.data}, got --data {data}; leave it out")
    splits = open_splits(data, system, run.config["settings"], run.config.get("chosen_classes"))
    for name, digest in digests.items():
        if name not in splits or splits[name].digest() != digest:
            raise ValueError(
                f"{run.folder}: expected {data} as it was when the run began, but its split {name} has changed; "
                "put it back, or start a new run"
            )
    if moved:
        run.config["data"] = place_of(data, run.folder)
        run.write_json("config.json", run.config)
    return splits


def refuse_other_settings(args: argparse.Namespace, system, run) -> None:
    """A resumed run goes on as it began: options that would change it are errors."""
    import minidet_kernels

    if run.config["system"] != system.name:
        raise ValueError(f"{run.folder}: is a run of {run.config['system']}, not of {system.name}")
    if args.seed not in (None, run.config["seed"]):
        raise ValueError(f"{run.folder}: the run has seed {run.config['seed']}, got --seed {args.seed}; leave it out")
    kernels = run.config.get("kernels")
    if kernels not in (None, minidet_kernels.current()):
        raise ValueError(
            f"{run.folder}: the run computes with the kernels {kernels}, not {minidet_kernels.current()}, which round "
            f"differently; go on with --kernels {kernels}"
        )
    wanted, settings = system.configure(args.set), run.config["settings"]
    for key in (override.partition("=")[0] for override in args.set):
        if wanted[key] != settings.get(key):
            raise ValueError(
                f"{run.folder}: the run has {key}={settings.get(key)}, got {wanted[key]}; leave it out or start a new "
                "run"
            )


def refuse_other_classes(classes: str | None, run) -> None:
    """A resumed run goes on with the classes that it began with."""
    if classes is not None and names_in(classes) != run.config["classes"][1:]:
        told = ",".join(run.config["classes"][1:])
        raise ValueError(f"{run.folder}: the run has the classes {told}, got --classes {classes}; leave it out")


def train_and_tell(system, run, splits, resume: bool, device: str) -> int:
    """Trains, and says what came out and where it lies."""
    from minidet.training import Interrupted, train

    print(f"training {system.name} on {len(splits['train'])} images, {len(splits['val'])} to validate")
    print(class_map(splits["train"]))
    for change in run.environment_changes(device) if resume else ():
        print(f"note: {change} since the run began; its last bits may differ from those of an uninterrupted run")
    try:
        data = (splits["train"], splits["val"], splits.get("test"))
        metrics = train(system, run, *data, resume=resume, device=device)
    except (Interrupted, KeyboardInterrupt) as stop:
        print(str(stop) or "stopped at once; the state of the last checkpoint is kept")
        print(f"continue with: minidet train {system.name} --out {shlex.quote(str(run.folder))} --resume")
        return 130
    images = len(splits[metrics["split"]])
    print(f"\nthe best weights by val_{system.metric}, on the {images} images of {metrics['split']}:")
    print_table(metrics, system.metrics_note)
    print("\nto look at:")
    for name in ("predictions.png", "losses.png"):
        print(f"  {run.path(name)}")
    return 0
