"""The lecture's Mask R-CNN slides, trained and measured.

1. Masks beside boxes, end to end; what a region's classes draw.
2. What the paper compares: a softmax over the classes in place of sigmoids, RoIPool in place of RoIAlign, one map for
   all classes, fully connected layers in place of convolutions.
3. Do masks help boxes? Faster R-CNN on the same images, trained in the same way.

    python examples/mask_rcnn.py --out mask-rcnn-example
    python examples/mask_rcnn.py --quick          # a minute, to see it run; too short for good numbers

The pictures and the table of numbers are in --out. All numbers are of images that were not trained on.
"""

import json
from typing import Any

import numpy as np

import minidet.functional as F
from common.arguments import parse_arguments
from common.training import QUICK, as_tensor, make_and_open, train_and_tell
from minidet import no_grad, watch
from minidet.drawing import grid, save_png
from minidet.training.recipes import detection, faster_rcnn, mask_rcnn

VARIANTS = {
    "softmax": {"competing": True},
    "RoIPool": {"pooling": "pool"},
    "one map for all": {"agnostic": True},
    "fully connected": {"mlp": True},
}


def main() -> None:
    arguments = parse_arguments(__doc__, "mask-rcnn-example")
    out, quick, seed = arguments.out, arguments.quick, arguments.seed
    out.mkdir(parents=True, exist_ok=True)
    settings = QUICK if quick else {}
    train, test = make_and_open(mask_rcnn.SYSTEM, out / "data", quick, seed)

    print("\n1. Masks beside boxes")
    model, results = train_and_tell("Mask R-CNN", mask_rcnn.SYSTEM, train, test, settings, seed)
    samples = [test[i] for i in range(min(12, len(test)))]
    save_png(out / "1-detections.png", detection.draw(samples, detection.predict(model, samples), test.classes))
    save_png(out / "2-maps.png", draw_maps(model, samples[:3], test.classes))

    print("\n2. What the paper compares")
    for name, changes in VARIANTS.items():
        results |= train_and_tell(name, mask_rcnn.SYSTEM, train, test, settings | changes, seed)[1]

    print("\n3. Boxes without masks")
    same = {key: mask_rcnn.DEFAULTS[key] for key in ("epochs", "learning_rate", "regions")} | settings
    results |= train_and_tell("Faster R-CNN", faster_rcnn.SYSTEM, train, test, same, seed)[1]

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-detections.png and 2-maps.png; the numbers in results.json")


def draw_maps(model: Any, samples: list[Any], classes: tuple[str, ...]) -> np.ndarray:
    """Of the best box of each image the maps of all classes, as probabilities."""
    pictures, captions = [], []
    for sample in samples:
        heard: dict[str, Any] = {}
        image = as_tensor(sample)
        with no_grad(), watch.listen(lambda event, heard=heard: heard.setdefault(event.name, event.value)):
            (found,) = model.eval()([image])
        if not len(found["labels"]):
            continue
        maps = F.sigmoid(heard["mask.logits"].data[0])  # (K + 1, 28, 28)
        pictures += [np.repeat(of_class[..., None], 3, axis=2) for of_class in maps[1:]]
        best = found["labels"][0]
        captions += [name + (" (said)" if label == best else "") for label, name in enumerate(classes[1:], start=1)]
    return grid(pictures or [np.ones((28, 28, 3))], columns=len(classes) - 1, captions=captions or None)


if __name__ == "__main__":
    main()
