"""minidet predict RUN IMAGE...: pictures with what the network found, and the same as JSON."""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from minidet.cli.common import add_machine_options, add_out_option, claim_folder, load_trained, use_machine

EPILOG = """example:
  minidet predict runs/first photo.jpg drawing.png --out found

PNG and JPEG files are read. found/predictions.json lists boxes as x1, y1, x2, y2 in pixels of each image, none where
nothing was found; what an earlier call found in other images stays in it. An image that cannot be read is named and
passed over; the exit code is then 2."""


LONGEST_STEM = 50  # characters, at most 200 bytes: file systems allow 255, and ending, number and writing add some


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder that `minidet train` wrote")
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="PNG or JPEG files")
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="which weights (default: best)")
    add_out_option(parser, "RUN/predictions", "pictures and predictions.json")
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    device = use_machine(args)
    from minidet.data import ImageError
    from minidet.data.files import write_atomic

    system, trained, model = load_trained(args.run_folder, args.weights, device)
    classes = tuple(trained.config["classes"])
    out = args.out or trained.path("predictions")
    if any(path.resolve().is_relative_to(out.resolve()) for path in args.images):
        raise ValueError(f"--out: expected a folder without the images to look at, got {out}; name another")
    claim_folder(out, "predict")
    earlier = read_list(out / "predictions.json")
    if system.predict_note:
        print(f"note: {system.predict_note}")
    found, broken, hidden = [], 0, 0
    try:
        for path, name in zip(args.images, picture_names(args.images), strict=True):
            try:
                objects, picture = look_at(path, system, model, classes)
                write_atomic(out / name, picture)
            except (ImageError, OSError) as error:  # tell it, and go on with the others
                print(f"error: {error}", file=sys.stderr)
                broken += 1
                continue
            found.append({"image": str(path), "picture": name, "objects": objects})
            told = [thing for thing in objects if thing.get("score", math.inf) > system.score_drawn]
            hidden += len(objects) - len(told)
            if not told:
                print(f"{path}: nothing found" + f" that scores above {system.score_drawn}" * bool(objects))
            for thing in told:
                score = f" {thing['score']:.2f}" if "score" in thing else ""
                place = " at " + ", ".join(f"{value:.1f}" for value in thing["box"]) if "box" in thing else ""
                print(f"{path}: {thing['class']}{score}{place}")
    finally:  # also after Ctrl-C: the list says which of the pictures are these images'
        new = {entry["picture"] for entry in found}
        kept = [entry for entry in earlier if entry["picture"] not in new]
        write_atomic(out / "predictions.json", json.dumps(kept + found, indent=2) + "\n")
    if found:
        print(f"\nto look at: {out}")
        if hidden:
            print(f"(detections that score above {system.score_drawn}; predictions.json has the others, too)")
    return 2 if broken else 0


def read_list(path: Path) -> list[dict]:
    """What an earlier call found in other images, whose pictures lie there. Raises ValueError for another list."""
    try:
        entries = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    except ValueError:
        entries = None
    if not isinstance(entries, list) or not all(isinstance(one, dict) and "picture" in one for one in entries):
        raise ValueError(
            f"{path}: expected the list of an earlier `minidet predict`, got something else; name another --out"
        )
    return entries


def look_at(path: Path, system, model, classes: tuple[str, ...]) -> tuple[list[dict], bytes]:
    """One image: what is found in it, and a PNG that shows it."""
    from minidet.autograd import no_grad
    from minidet.data import Sample, read_image
    from minidet.training.run import encode_png

    nothing = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, np.int64)}  # the truth is not known here
    sample = Sample(read_image(path), name=str(path), **nothing)
    with no_grad():
        (prediction,) = system.predict(model, [sample], 1)
    return as_json(prediction, classes), encode_png(system.draw([sample], [prediction], classes))


def picture_names(paths: list[Path]) -> list[str]:
    """A PNG name for each image: its own, cut where it is long, with a number where two are alike."""
    names: list[str] = []
    for path in paths:
        stem = path.stem[:LONGEST_STEM]
        name, number = f"{stem}.png", 1
        while name in names:
            number += 1
            name = f"{stem}-{number}.png"
        names.append(name)
    return names


def as_json(prediction: dict, classes: tuple[str, ...]) -> list[dict]:
    """One dictionary an object: class, and what the system says of it: score, box, a person's joints as x, y, v, and
    the mask as COCO's packed run lengths."""
    from minidet.data.masks import mask_to_counts, pack_counts

    objects = [{"class": classes[int(label)]} for label in prediction["labels"]]
    for found, name in (("scores", "score"), ("boxes", "box"), ("keypoints", "keypoints")):
        for thing, value in zip(objects, prediction.get(found, ()), strict=found in prediction):
            thing[name] = np.asarray(value, float).tolist()
    for thing, mask in zip(objects, prediction.get("masks", ()), strict="masks" in prediction):
        thing["mask"] = {"size": list(mask.shape), "counts": pack_counts(mask_to_counts(mask))}
    return objects
