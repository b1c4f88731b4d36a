"""The lecture's YOLO slides, trained and measured.

1. The grid: what each of S x S cells says, all boxes at once, and what is left of them (the first YOLO). The paper's
   fully connected layers learn each cell by itself; a convolution, the same for all cells, learns far sooner.
2. Anchors: the shapes that objects have, by clusters of their boxes; the lecture's S x S x B x (5 + C).
3. Images of many sizes: trained on one, or on another one for each batch.
4. One look or two: YOLO against Faster R-CNN on the same images, what each takes, and what is wrong with the best
   detections of each class, as many as it has objects.

    python examples/yolo.py --out yolo-example
    python examples/yolo.py --quick          # a minute, to see it run; too short for good numbers

The pictures and the table of numbers are in --out. All numbers are of images that were not trained on.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.arguments import parse_arguments
from common.training import QUICK, as_tensor, make_and_open, train_and_tell
from minidet import Tensor, no_grad, watch
from minidet.boxes import kmeans_anchors, shape_iou
from minidet.data.loader import collate_list
from minidet.drawing import draw_boxes, draw_cells, draw_confidences, grid, save_png
from minidet.evaluation import detection_errors, mean_stage_seconds
from minidet.training.recipes import detection, faster_rcnn, yolo, yolo_v1

SHOWN = 4  # images of 1-grid.png
ANCHORS = (1, 2, 3, 5, 9)
SIZES = (96, 128, 160)  # of the images' sides, in part 3
TIMED = 50
KEYS = ("boxes", "labels", "scores")


def main() -> None:
    arguments = parse_arguments(__doc__, "yolo-example")
    out, quick, seed = arguments.out, arguments.quick, arguments.seed
    out.mkdir(parents=True, exist_ok=True)
    settings = QUICK if quick else {}
    train, test = make_and_open(yolo.SYSTEM, out / "data", quick, seed)
    results: dict[str, Any] = {}

    print("\n1. The grid")
    first, more = train_and_tell("YOLO v1", yolo_v1.SYSTEM, train, test, settings, seed)
    results |= more
    # Steps of 0.001 in each of a thousand weights move their sum too far.
    connected = settings | {"fully_connected": True, "learning_rate": 1e-4}
    results |= train_and_tell("YOLO v1, connected", yolo_v1.SYSTEM, train, test, connected, seed)[1]
    samples = [test[i] for i, r in enumerate(test.records) if len(r.boxes) >= 3 and not r.iscrowd.any()][:SHOWN]
    save_png(out / "1-grid.png", draw_grids(first, samples, test.classes))

    print("\n2. Anchors")
    results["anchors"] = compare_anchors(out / "2-anchors.png", train, seed)
    model, more = train_and_tell("YOLO", yolo.SYSTEM, train, test, settings, seed)
    results |= more
    samples = [test[i] for i in range(min(12, len(test)))]
    save_png(out / "3-detections.png", detection.draw(samples, detection.predict(model, samples), test.classes))

    print("\n3. Images of many sizes")
    many, more = train_and_tell("YOLO, many sizes", yolo.SYSTEM, train, test, settings | {"multi_scale": True}, seed)
    results |= more
    results["sizes"] = compare_sizes({"one size": model, "many sizes": many}, test)

    print("\n4. One look or two")
    two, more = train_and_tell("Faster R-CNN", faster_rcnn.SYSTEM, train, test, settings, seed)
    results |= more
    for name, one in (("YOLO v1", first), ("YOLO", model), ("Faster R-CNN", two)):
        results[name] |= tell_errors(name, one, test)

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-grid.png to 3-detections.png; the numbers in results.json")


def draw_grids(model: Any, samples: list[Any], classes: tuple[str, ...]) -> np.ndarray:
    """For each image a row: its grid with each cell's class, all boxes as strong as they are confident, and the
    detections."""
    pictures, heard = [], {}
    images = collate_list(samples, np.arange(len(samples))).images
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        found = model.eval()([Tensor(image) for image in images])
    classes_said, predicted = heard["yolo.classes"].data, heard["yolo.predicted"].data
    for n, (sample, one) in enumerate(zip(samples, found, strict=True)):
        labels = classes_said[n].argmax(axis=1) + 1
        confidences, boxes = predicted[n, :, :, 4], heard["yolo.boxes"][n] * sample.image.shape[0] / model.size
        shown = one["scores"] > detection.SCORE_DRAWN
        pictures += [
            draw_cells(sample.image, (model.cells, model.cells), labels, confidences.max(axis=1)),
            draw_confidences(
                sample.image, boxes.reshape(-1, 4), confidences.reshape(-1), labels.repeat(model.predictors).tolist()
            ),
            draw_boxes(sample.image, *(one[key][shown] for key in ("boxes", "labels", "scores")), names=classes),
        ]
    captions = ["each cell's class, as strong as its confidence", "all boxes", "detections"] * len(samples)
    return grid(pictures, columns=3, captions=captions, least_side=360)


def compare_anchors(path: Path, dataset: Any, seed: int) -> dict[int, float]:
    """How well so many anchors fit the training's boxes: the mean overlap of the best one; they are drawn."""
    boxes = np.concatenate([record.boxes[~record.iscrowd] for record in dataset.records])
    sizes, fits, pictures = boxes[:, 2:] - boxes[:, :2], {}, []
    side = int(sizes.max())
    for count in ANCHORS:
        anchors = kmeans_anchors(sizes, count, np.random.default_rng(seed))
        fits[count] = float(shape_iou(sizes, anchors).max(axis=1).mean())
        centered = np.concatenate([side / 2 - anchors / 2, side / 2 + anchors / 2], axis=1)
        pictures.append(draw_boxes(np.full((side, side, 3), 255, np.uint8), centered, np.arange(count)))
    print("  anchors " + "".join(f"{count:8d}" for count in ANCHORS))
    print("  overlap " + "".join(f"{fits[count]:8.3f}" for count in ANCHORS))
    save_png(path, grid(pictures, captions=[f"{count}: {fit:.3f}" for count, fit in fits.items()], least_side=240))
    return fits


def compare_sizes(models: dict[str, Any], dataset: Any) -> dict[str, dict[int, float]]:
    """AP of the same images, made so large before."""
    found: dict[str, dict[int, float]] = {}
    print("  pixels a side           " + "".join(f"{size:8d}" for size in SIZES))
    for name, model in models.items():
        usual = model.min_size
        found[name] = {}
        for size in SIZES:
            model.min_size = size
            found[name][size] = detection.evaluate(model, dataset)[0]["map"]
        model.min_size = usual
        print(f"  {name:24s}" + "".join(f"{value:8.3f}" for value in found[name].values()))
    return found


def tell_errors(name: str, model: Any, dataset: Any) -> dict[str, Any]:
    """Milliseconds an image, one at a time, and how many of the best detections are wrong in which way."""
    images = [as_tensor(dataset[i]) for i in range(min(TIMED, len(dataset)))]
    milliseconds = 1e3 * sum(mean_stage_seconds(model, images).values())
    best = as_many_as_objects(detection.predict(model, dataset), dataset)
    counts = detection_errors(best, detection.targets_of(dataset), len(dataset.classes) - 1, score=0).counts()
    told = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    print(f"  {name:24s} {milliseconds:.1f} ms an image; {told}")
    return {"milliseconds": milliseconds, "errors": counts}


def as_many_as_objects(predictions: list[dict], dataset: Any) -> list[dict]:
    """Of each class the detections that score highest in all images, as many as it has objects: so the paper counts
    errors (Redmon et al. 2016, section 4.2). At one score for all, a bold detector would seem worse than a shy one."""
    labels, scores = (np.concatenate([one[key] for one in predictions]) for key in ("labels", "scores"))
    objects = np.concatenate([record.labels[~record.iscrowd] for record in dataset.records])
    least = np.full(len(dataset.classes), np.inf)
    for label in np.unique(objects):
        of_class = np.sort(scores[labels == label])
        least[label] = of_class[-np.count_nonzero(objects == label) :].min(initial=np.inf)
    return [{key: one[key][one["scores"] >= least[one["labels"]]] for key in KEYS} for one in predictions]


if __name__ == "__main__":
    main()
