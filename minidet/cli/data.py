"""minidet data make DIR, minidet data check DIR."""

import argparse
import shlex
from pathlib import Path

from minidet.cli.common import add_debug_option, add_out_option, add_seed_option, claim_folder

EPILOG = """example:
  minidet data make scenes --images 1000 --level textured --seed 0
  minidet data check scenes --out scenes-check"""

MAKE_EPILOG = """example:
  minidet data make scenes --images 1000 --level textured --seed 0

Writes PNG files with their annotations as COCO JSON, VOC XML, YOLO text and, for figures, LSP."""

CHECK_EPILOG = """example:
  minidet data check scenes --out scenes-check

Lists every faulty annotation and image by file and field, counts classes and sizes, and with --out draws samples
and keeps the list as report.txt.
The exit code is 1 if there are problems."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    commands = parser.add_subparsers(metavar="make|check", required=True)
    make = commands.add_parser(
        "make", help="write generated scenes", epilog=MAKE_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    make.add_argument("folder", metavar="DIR", type=Path, help="a new or empty folder")
    make.add_argument("--images", type=int, default=1000, metavar="N", help="in all splits together (default: 1000)")
    make.add_argument("--task", default="detection", help="detection (default), localization, pose or people")
    make.add_argument("--level", default="textured", help="textured or flat (default: textured)")
    make.add_argument("--size", type=int, metavar="PIXELS", help="height and width (default: the task's own)")
    make.add_argument("--image-format", default="png", help="png or jpg (default: png)")
    make.add_argument("--cue", action="store_true", help="a patch in the background that goes with the class")
    add_seed_option(make)
    add_debug_option(make)
    make.set_defaults(action=make_data)
    check = commands.add_parser(
        "check", help="find what is wrong", epilog=CHECK_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    check.add_argument("folder", metavar="DIR", type=Path, help="the data set")
    check.add_argument("--format", help="coco, coco-keypoints, voc, yolo or lsp (default: the first that is there)")
    add_out_option(check, "none", "pictures of samples")
    add_debug_option(check)
    check.set_defaults(action=check_data)


def run(args: argparse.Namespace) -> int:
    return args.action(args)


def make_data(args: argparse.Namespace) -> int:
    from minidet.data import make_dataset

    folder = make_dataset(
        args.folder,
        images=args.images,
        task=args.task,
        level=args.level,
        seed=args.seed,
        size=args.size,
        format=args.image_format,
        cue=args.cue,
    )
    check = shlex.join(["minidet", "data", "check", str(folder), "--out", f"{folder}-check"])
    print(f"the data set is in {folder}; look at it with: {check}")
    return 0


def check_data(args: argparse.Namespace) -> int:
    from minidet.data.check import check_dataset

    if args.out is not None:
        claim_folder(args.out, "check")
    report = check_dataset(args.folder, out=args.out, format=args.format)
    print(report)
    return 0 if report.ok else 1
