"""The lecture's SSD slides, trained and measured.

1. Default boxes: fine maps have small ones, coarse maps large ones; which of them are an object's.
2. Several maps against one.
3. Nearly all boxes are background: the hardest of them, three for each object's, against all, and the focal loss.
4. Crops and canvases, for objects of all sizes.

    python examples/ssd.py --out ssd-example
    python examples/ssd.py --quick          # a minute, to see it run; too short for good numbers

The pictures and the table of numbers are in --out. All numbers are of images that were not trained on.
"""

import json
from typing import Any

import numpy as np

from common.arguments import parse_arguments
from common.training import QUICK, make_and_open, train_and_tell
from minidet.data import transforms
from minidet.drawing import draw_boxes, grid, save_png
from minidet.training.recipes import detection, ssd

VARIANTS = {
    "one map": {"levels": 1},
    "all background": {"mining": False},
    "focal loss": {"focal": 2.0},
}
CROPS = 12  # pictures of 3-crops.png


def main() -> None:
    arguments = parse_arguments(__doc__, "ssd-example")
    out, quick, seed = arguments.out, arguments.quick, arguments.seed
    out.mkdir(parents=True, exist_ok=True)
    settings = QUICK if quick else {}
    train, test = make_and_open(ssd.SYSTEM, out / "data", quick, seed)
    shown = next(test[i] for i, r in enumerate(test.records) if len(r.boxes) >= 3 and not r.iscrowd.any())

    print("\n1. Default boxes")
    save_png(out / "1-default-boxes.png", draw_defaults(shown, test.classes, seed))

    print("\n2 and 3. Several maps, hard background")
    model, results = train_and_tell("SSD", ssd.SYSTEM, train, test, settings, seed)
    samples = [test[i] for i in range(min(12, len(test)))]
    save_png(out / "2-detections.png", detection.draw(samples, detection.predict(model, samples), test.classes))
    for name, changes in VARIANTS.items():
        results |= train_and_tell(name, ssd.SYSTEM, train, test, settings | changes, seed)[1]

    print("\n4. Crops and canvases")
    save_png(out / "3-crops.png", draw_crops(shown, test.classes))
    results |= train_and_tell("crops", ssd.SYSTEM, train, test, settings | {"crops": True}, seed)[1]

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-default-boxes.png to 3-crops.png; the numbers in results.json")


def draw_defaults(sample: Any, classes: tuple[str, ...], seed: int) -> np.ndarray:
    """The boxes of the middle cell of each map, and those that are matched to an object."""
    settings = ssd.SYSTEM.configure()
    model = ssd.build(classes, settings, np.random.default_rng(seed))
    side, steps, counts = settings["size"], model.boxes.steps, model.boxes.counts()
    cells = [side // step for step in steps]
    boxes = model.boxes.over([np.zeros((1, 1, count, count)) for count in cells], side)
    levels = np.split(boxes, np.cumsum([count**2 * a for count, a in zip(cells, counts, strict=True)])[:-1])
    target = {"boxes": sample.boxes.astype(np.float32), "labels": sample.labels, "crowds": np.zeros((0, 4), np.float32)}
    matched = model.match(boxes, target)
    pictures, captions = [], []
    for of_level, count, a in zip(levels, cells, counts, strict=True):
        middle = (count // 2 * count + count // 2) * a
        pictures.append(draw_boxes(sample.image, of_level[middle : middle + a]))
        captions.append(f"{count} x {count} cells, {a} boxes each")
    objects = matched[matched >= 0]
    nameless = [""] * len(classes)  # a name on each of so many boxes would hide them
    pictures.append(
        draw_boxes(sample.image, boxes[matched >= 0], sample.labels[objects], truth=sample.boxes, names=nameless)
    )
    captions.append(f"{len(objects)} of {len(boxes)} are an object's")
    print(f"  {captions[-1]}")
    return grid(pictures, captions=captions, least_side=360)


def draw_crops(sample: Any, classes: tuple[str, ...]) -> np.ndarray:
    """What the augmentation makes of one image, each with its boxes, as the network sees it: in a square."""
    settings = ssd.SYSTEM.configure(["crops=true", "augment=false"])  # no flips: they would hide what crops do
    change, size = ssd.augmentation(settings), settings["size"]
    seen = [transforms.resize(change(sample, np.random.default_rng(n)), size, size) for n in range(CROPS)]
    return grid([draw_boxes(one.image, one.boxes, one.labels, names=classes) for one in seen])


if __name__ == "__main__":
    main()
