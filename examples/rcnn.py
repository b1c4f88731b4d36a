"""The lecture's R-CNN slides, trained and measured: what each of its stages brings, and what it costs.

1. Region proposals: Selective Search learns nothing, and nearly every object is among its boxes.
2. Warping: each region is stretched to one size, with a little of what is around it.
3. Fine-tuning: a fully connected layer and a softmax with a background class on a backbone that knows the classes from
   pictures of single objects; first with the backbone as it is, then all of it trained.
4. Linear SVMs, post hoc, on features kept on disk, their negatives found by hard-negative mining; and
5. box regressors, post hoc, by least squares.
6. What it costs: hours in the paper, minutes here; and the network looks at every region of every image.

    python examples/rcnn.py --out rcnn-example
    python examples/rcnn.py --quick          # a minute or two, to see it run; too short for good numbers

The pictures and the table of numbers are in --out.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import minidet_kernels as kernels
from common.arguments import parse_arguments
from minidet import no_grad
from minidet.data import make_dataset, open_dataset
from minidet.drawing import grid, save_png
from minidet.evaluation import proposal_recall
from minidet.proposals import selective_search
from minidet.random import manual_seed
from minidet.training.fit import fit
from minidet.training.recipes import detection, rcnn_stages
from minidet.training.recipes.rcnn import SYSTEM, prepare

TIMED = 20  # images that Selective Search is timed on
STAGES = {  # (svm, box regression)
    "softmax": (False, False),
    "softmax + boxes": (False, True),
    "SVM": (True, False),
    "SVM + boxes": (True, True),
}
BACKBONES = {"backbone as it is": False, "fine-tuned": True}  # is it trained?
PICTURES = 12  # images in 2-detections.png
SHOWN = 48  # regions in 1-regions.png


def main() -> None:
    arguments = parse_arguments(__doc__, "rcnn-example")
    out, seed = arguments.out, arguments.seed
    out.mkdir(parents=True, exist_ok=True)
    counts = {"train": 60, "test": 20} if arguments.quick else {"train": SYSTEM.defaults["images"], "test": 300}
    settings = SYSTEM.configure(["epochs=2", "warmup=2"] if arguments.quick else [])
    folder = make_dataset(out / "data", task="detection", seed=seed, splits=counts)
    train, test = open_dataset(folder, "train", masks=False), open_dataset(folder, "test", masks=False)
    results = {}

    print("\n1. Proposals: Selective Search")
    for dataset, split in ((train, "train"), (test, "test")):
        dataset.verify()
        prepare(dataset, settings, out, split)
    results["proposals"] = report_proposals(test) | {"seconds_an_image": search_seconds(test)}

    print("\n2. Warping")
    save_png(out / "1-regions.png", draw_regions(test[first_with_objects(test)], settings))
    print(f"  1-regions.png: {SHOWN} regions of an image, {settings['region_size']} x {settings['region_size']} pixels")

    for name, tuned in BACKBONES.items():
        print(f"\n3 to 5. {name}: fine-tuning, SVMs, box regression")
        model, results[name] = train_all(train, settings, seed, tuned, out)
        results[name] |= compare_stages(model, test)
    _, predictions = detection.evaluate(model, test.subset(range(min(PICTURES, len(test)))))
    shown = [test[i] for i in range(len(predictions))]
    save_png(out / "2-detections.png", detection.draw(shown, predictions, test.classes))

    print("\n6. What it costs")
    seconds = results["proposals"]["seconds_an_image"]
    print(f"  {1e3 * seconds:.0f} ms for the proposals of an image, {seconds * len(train):.0f} s for all to train on")
    for name in BACKBONES:
        report_costs(name, results[name])

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-regions.png, 2-detections.png; the numbers in results.json")


def report_proposals(dataset) -> dict[str, float]:
    """How many there are, and how many of the objects have one that overlaps by half."""
    proposals = [record.proposals for record in dataset.records]
    truth = [record.boxes[~record.iscrowd] for record in dataset.records]
    (recall,) = proposal_recall(proposals, truth, [0.5]).ravel()
    count = np.mean([len(boxes) for boxes in proposals])
    print(f"  {count:.0f} an image; {recall:.1%} of the objects overlap with one by half")
    return {"an_image": float(count), "recall_50": float(recall)}


def search_seconds(dataset) -> float:
    """Of Selective Search for one image, the mean over some: those that are kept on disk are searched once."""
    images = [dataset[i].image for i in range(min(TIMED, len(dataset)))]
    start = time.perf_counter()
    for image in images:
        selective_search(image)
    return (time.perf_counter() - start) / len(images)


def first_with_objects(dataset) -> int:
    return next(number for number, record in enumerate(dataset.records) if len(record.boxes))


def draw_regions(sample, settings) -> np.ndarray:
    """What the network sees: the regions that Selective Search is surest of."""
    image = np.float32(sample.image.transpose(2, 0, 1)) / 255
    boxes = sample.proposals[:SHOWN].astype(np.float32)
    regions = kernels.region_warp(image, boxes, settings["region_size"], settings["context"])
    return grid([np.uint8(np.rint(region.transpose(1, 2, 0) * 255)) for region in regions])


def train_all(train, settings, seed: int, tuned: bool, out: Path):
    """The network by softmax, with its backbone or with the head alone; then the stages after it. And their cost."""
    model = SYSTEM.build(train.classes, settings, manual_seed(seed))
    model.backbone.requires_grad_(tuned)
    start = time.monotonic()
    fit(replace(SYSTEM, complete=None), train, settings, model, seed, "fine-tuning" if tuned else "head alone")
    costs = {"network_seconds": time.monotonic() - start}
    start = time.monotonic()
    model.eval()
    with no_grad():
        costs |= rcnn_stages.complete(model, train.subset(range(min(len(train), settings["stage_images"]))), out)
    costs["stages_seconds"] = time.monotonic() - start
    return model, costs


def compare_stages(model, test) -> dict[str, dict[str, float]]:
    """The metrics with each stage switched on; the model is left with all of them."""
    results = {}
    for name, (svm, box_regression) in STAGES.items():
        model.svm, model.box_regression = svm, box_regression
        start = time.monotonic()
        metrics, _ = detection.evaluate(model, test)
        metrics["milliseconds_an_image"] = (time.monotonic() - start) / len(test) * 1000
        results[name] = metrics
        told = f"AP50 {metrics['map_50']:.3f}, AP75 {metrics['map_75']:.3f}, AP {metrics['map']:.3f}"
        print(f"  {name:16s} {told}   {metrics['milliseconds_an_image']:.0f} ms an image")
    return results


def report_costs(name: str, costs: dict) -> None:
    """Of one backbone: training, the features' files, and detection, for which proposals are there already."""
    print(
        f"  {name + ':':18s} network {costs['network_seconds']:.0f} s, SVMs and boxes {costs['stages_seconds']:.0f} s "
        f"on {costs['regions']:,} regions, whose features took {costs['bytes'] / 1e6:.0f} MB of disk; then "
        f"{costs['SVM + boxes']['milliseconds_an_image']:.0f} ms an image"
    )


if __name__ == "__main__":
    main()
