"""minidet heatmap IMAGE... --weights RUN: where in the image the score of a class comes from."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minidet.cli.common import add_machine_options, add_out_option, claim_folder, load_trained, use_machine
from minidet.cli.predict import picture_names

EPILOG = """example:
  minidet heatmap photo.jpg drawing.png --weights runs/first --method gradcam --out maps
  minidet heatmap photo.jpg --weights runs/first --method all --class star
  minidet heatmap photo.jpg --weights runs/first --copies 100

Of each image a picture: the map in colour over the image in grey, with class, score, method and layer. `--method all`
puts all methods side by side. `--copies` makes the maps sharp out of those of many rotated and shifted copies
(Augmented Grad-CAM). maps/heatmaps.json holds scores, layers and the number of copies."""

# minidet.heatmaps.METHODS has the classes; the names are written again because `--help` is to import nothing slow.
METHODS = (
    "cam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "scorecam", "eigencam", "ablationcam",
    "gradient", "guided", "smoothgrad",
)  # fmt: skip
OF_THE_IMAGE = ("gradient", "guided", "smoothgrad")  # these have no layer
COPIES_HELP = "sharp maps out of L copies (default: coarse ones); few, as 20, leave speckles, the article takes 100"
COLUMNS = 5  # of the sheet of all methods


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="PNG or JPEG files")
    parser.add_argument("--weights", metavar="RUN", type=Path, required=True, help="folder that `minidet train` wrote")
    parser.add_argument(
        "--method", choices=(*METHODS, "all"), default="gradcam", metavar="METHOD",
        help=f"{', '.join(METHODS)}, or all (default: gradcam)",
    )  # fmt: skip
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="class to explain (default: the predicted)")
    parser.add_argument("--layer", metavar="PATH", help="layer to look at, as backbone.stages.1 (default: found)")
    parser.add_argument("--copies", type=int, metavar="L", help=COPIES_HELP)
    add_out_option(parser, "RUN/heatmaps", "pictures and heatmaps.json")
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    device = use_machine(args)
    from minidet.data import ImageError
    from minidet.data.files import write_atomic

    if args.layer is not None and args.method in OF_THE_IMAGE:
        raise ValueError(f"--layer: {args.method} makes a map of the image itself; leave --layer out")
    if args.copies is not None and args.method in OF_THE_IMAGE:
        raise ValueError(f"--copies: {args.method}'s map is as fine as the image; leave --copies out")
    if args.copies is not None and args.copies < 1:
        raise ValueError(f"--copies: expected 1 or more, got {args.copies}")
    system, trained, model = load_trained(args.weights, "best", device)
    if not hasattr(model, "logits"):
        raise ValueError(
            f"--weights: expected a run of a network that gives scores of classes, got one of {system.name}, which "
            "gives none to explain; `minidet predict` shows what it finds"
        )
    classes = trained.config["classes"][1:]
    names = METHODS if args.method == "all" else (args.method,)
    methods = make_methods(model, names, args.layer, args.copies)
    class_index = None if args.class_name is None else position_of(args.class_name, classes)
    out = args.out or trained.path("heatmaps")
    if any(path.resolve().is_relative_to(out.resolve()) for path in args.images):
        raise ValueError(f"--out: expected a folder without the images to look at, got {out}; name another")
    claim_folder(out, "heatmap")
    told, broken = [], 0
    try:
        for path, name in zip(args.images, picture_names(args.images), strict=True):
            try:
                result, picture = look_at(path, model, methods, trained.config, class_index)
                write_atomic(out / name, picture)
            except (ImageError, OSError) as error:  # tell it, and go on with the others
                print(f"error: {error}", file=sys.stderr)
                broken += 1
                continue
            copies = {} if args.copies is None else {"copies": args.copies}
            told.append({"image": str(path), "picture": name} | result | copies)
            asked = "" if class_index is None else ", the class asked for"
            print(f"{path}: {result['class']} {result['score']:.2f}{asked}")
            for method, reason in result["left_out"].items():
                print(f"  {method} left out: {reason}")
            for method in result["empty"]:
                where = "the image" if method in OF_THE_IMAGE else f"layer {result['layer']}"
                print(f"  {method}: nothing in {where} speaks for {result['class']}")
            print(f"  layer {result['layer']}, written to {out / name}")
    finally:
        write_atomic(out / "heatmaps.json", json.dumps(told, indent=2) + "\n")
    if told:
        print(f"\nto look at: {out}")
    return 2 if broken else 0


def make_methods(model: Any, names: tuple[str, ...], layer: str | None, copies: int | None) -> dict[str, Any]:
    """{name: heat map}; those of a layer all look at the same one, and are made sharp out of copies, if asked for."""
    from minidet import heatmaps

    methods = {name: heatmaps.METHODS[name](model, None if name in OF_THE_IMAGE else layer) for name in names}
    if copies is None:
        return methods
    return {n: m if n in OF_THE_IMAGE else heatmaps.AugmentedCAM(m, copies) for n, m in methods.items()}


def made_how(name: str, method: Any) -> str:
    """`gradcam of backbone`, for under the class and its score."""
    from minidet.heatmaps import AugmentedCAM

    sharp = f", sharp from {method.copies} copies" if isinstance(method, AugmentedCAM) else ""
    return f"{name} of {method.layer_name}{sharp}"


def position_of(name: str, classes: list[str]) -> int:
    """Of the class in the network's scores. Raises ValueError for one that the run was not trained on."""
    if name not in classes:
        raise ValueError(f"--class: expected one of the run's classes, {', '.join(classes)}, got {name!r}")
    return classes.index(name)


def look_at(
    path: Path, model: Any, methods: dict[str, Any], config: dict[str, Any], class_index: int | None
) -> tuple[dict[str, Any], bytes]:
    """One image: class, score and layer, and a PNG of the map or, of several methods, of all.

    Among several, a method that this network is not built for (CAM) is left out; alone it is an error.
    """
    from minidet import functional as F
    from minidet.autograd import Tensor, no_grad
    from minidet.data import Sample, read_image
    from minidet.device import to_numpy
    from minidet.drawing import compare_heatmaps, draw_heatmap
    from minidet.heatmaps.scores import at_rest, logits_of
    from minidet.training.recipes.one_object import as_images
    from minidet.training.run import encode_png

    image = read_image(path)
    nothing = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, np.int64)}  # the truth is not known here
    x = as_images([Sample(image, **nothing)], config["settings"]["size"])
    with at_rest(model), no_grad():
        probabilities = F.softmax(to_numpy(logits_of(model, Tensor(x).to(model.device)).data), dim=1)[0]
    index = int(probabilities.argmax()) if class_index is None else class_index
    maps: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    for name, method in methods.items():
        try:
            maps[name] = method(x, index)
        except ValueError as error:
            if len(methods) == 1 or name != "cam":
                raise
            left_out[name] = str(error)
    layer = next((methods[name].layer_name for name in maps if name not in OF_THE_IMAGE), "image")
    class_name, score = config["classes"][1 + index], float(probabilities[index])
    result = {"class": class_name, "score": score, "layer": layer, "methods": list(maps), "left_out": left_out}
    result["empty"] = [name for name, heat in maps.items() if heat.max() <= 0]
    headline = f"{class_name} {score:.2f}"
    if len(methods) == 1:
        (name,) = maps
        picture = draw_heatmap(image, maps[name][0], [headline, made_how(name, methods[name])])
    else:
        picture = compare_heatmaps([image], maps, [headline], COLUMNS, title=f"{path.name}: {headline}, layer {layer}")
    return result, encode_png(picture)
