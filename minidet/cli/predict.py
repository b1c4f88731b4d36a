"""minidet predict RUN IMAGE...: pictures with what the network found, and the same as JSON."""

import argparse
import json
from pathlib import Path

import numpy as np

from minidet.cli.common import add_machine_options, add_out_option, use_machine

EPILOG = """example:
  minidet predict runs/first photo.jpg drawing.png --out found

PNG and JPEG files are read. found/predictions.json lists boxes as x1, y1, x2, y2 in pixels of each image."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder that `minidet train` wrote")
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="PNG or JPEG files")
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="which weights (default: best)")
    add_out_option(parser, "RUN/predictions", "pictures and predictions.json")
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    use_machine(args)
    from minidet.autograd import no_grad
    from minidet.cli.evaluate import load_trained
    from minidet.data import Sample, read_image
    from minidet.data.files import write_atomic
    from minidet.training.run import encode_png

    system, trained, model = load_trained(args.run_folder, args.weights)
    classes = tuple(trained.config["classes"])
    nothing = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, np.int64)}  # the truth is not known here
    samples = [Sample(read_image(path), name=str(path), **nothing) for path in args.images]
    with no_grad():
        predictions = system.predict(model, samples, trained.config["settings"]["batch_size"])
    out = args.out or trained.path("predictions")
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for sample, prediction, name in zip(samples, predictions, picture_names(args.images), strict=True):
        write_atomic(out / name, encode_png(system.draw([sample], [prediction], classes)))
        found.append({"image": sample.name, "picture": name, "objects": as_json(prediction, classes)})
        for thing in found[-1]["objects"]:
            box = ", ".join(f"{value:.1f}" for value in thing["box"])
            print(f"{sample.name}: {thing['class']} {thing['score']:.2f} at {box}")
    write_atomic(out / "predictions.json", json.dumps(found, indent=2) + "\n")
    print(f"\nto look at: {out}")
    return 0


def picture_names(paths: list[Path]) -> list[str]:
    """A PNG name for each image: its own, with a number where two are alike."""
    names: list[str] = []
    for path in paths:
        name, number = f"{path.stem}.png", 1
        while name in names:
            number += 1
            name = f"{path.stem}-{number}.png"
        names.append(name)
    return names


def as_json(prediction: dict, classes: tuple[str, ...]) -> list[dict]:
    """One dictionary an object: class, score, box."""
    columns = zip(prediction["labels"], prediction["scores"], prediction["boxes"], strict=True)
    return [
        {"class": classes[int(label)], "score": float(score), "box": [float(value) for value in box]}
        for label, score, box in columns
    ]
