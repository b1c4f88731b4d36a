"""minidet demo: pictures are made, a Faster R-CNN learns to find what they show, and draws what it found."""

import argparse
import shlex
from pathlib import Path

from minidet.cli.common import add_machine_options, add_out_option, add_seed_option, use_machine

EPILOG = """example:
  minidet demo
  minidet demo --out somewhere --seed 3

Started again it continues where it was stopped; when it had finished, it trains anew on the same pictures."""

SYSTEM = "faster_rcnn"

# Little enough for two minutes of training on two cores, enough to be good: more epochs and a finer map make the boxes
# tighter.
SETTINGS = ["images=2000", "val_images=100", "epochs=4", "stride=8"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    add_out_option(parser, "minidet-demo", "data and results")
    add_seed_option(parser)
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    device = use_machine(args)
    import minidet_kernels
    from minidet.cli.common import make_training_data
    from minidet.cli.train import reopen_splits, start_run, train_and_tell
    from minidet.cli.warmup import compile_kernels
    from minidet.training import load_system
    from minidet_kernels.warmup import SMALL_DETECTOR

    out = args.out or Path("minidet-demo")
    system = load_system(SYSTEM)
    if device == "cpu" and minidet_kernels.current() == "cpu":
        print("Once: the kernels are compiled for this machine")
        compile_kernels(SMALL_DETECTOR)
    print("\n1. Pictures: scenes with one to five objects, as files like those of any data set")
    data = make_training_data(out / "data", system, system.configure(SETTINGS))
    print(f"   in {data}\n\n2. A Faster R-CNN learns to find what is in them")
    unfinished, folder = find_run(out)
    if unfinished is not None:
        demo, splits = unfinished, reopen_splits(system, unfinished)
    else:
        demo, splits = start_run(system, folder, data, args.seed, SETTINGS, device)
    code = train_and_tell(system, demo, splits, resume=unfinished is not None, device=device)
    if code == 0:
        folder = shlex.quote(str(demo.folder))
        print(f"\nnext: minidet predict {folder} YOUR-IMAGE.png, or read minidet/models/faster_rcnn.py")
    return code


def find_run(out: Path):
    """(the unfinished run to continue or None, the folder for a new one): run, run-2, run-3, ..."""
    from minidet.training import open_run

    number = 1
    while True:
        folder = out / ("run" if number == 1 else f"run-{number}")
        if not (folder / "config.json").is_file():
            return None, folder
        found = open_run(folder)
        if not found.finished:
            return found, folder
        number += 1
