"""The lecture's Fast R-CNN slides, trained and measured.

1. Region proposals from Selective Search, which are projected into the feature map and pooled there to one size.
2. What its training brings: both losses against the class alone, end to end against a backbone that stays as it is;
   and RoIAlign, which came later, against RoIPool.
3. What is slow now: most of the time goes into the proposals. Fully connected layers of a lower rank make the rest
   faster still.

    python examples/fast_rcnn.py --out fast-rcnn-example
    python examples/fast_rcnn.py --quick          # a minute, to see it run; too short for good numbers

The pictures and the table of numbers are in --out. All numbers are of images that were not trained on.
"""

import json
import time
from typing import Any

import numpy as np

from common.arguments import parse_arguments
from minidet import no_grad, watch
from minidet.data import make_dataset, open_dataset
from minidet.data.loader import collate_list
from minidet.drawing import draw_boxes, grid, save_png
from minidet.drawing.heatmaps import overlay
from minidet.evaluation import mean_stage_seconds, proposal_recall
from minidet.models.fast_rcnn import compressed
from minidet.training.fit import fit
from minidet.training.recipes import detection
from minidet.training.recipes.fast_rcnn import SYSTEM, prepare
from minidet.training.step import as_tensors

VARIANTS: dict[str, dict[str, Any]] = {
    "as in the paper": {},
    "class loss alone": {"box_loss": False},
    "backbone frozen": {"freeze_backbone": True},
    "RoIAlign": {"pooling": "align"},
}
RANKS = (64, 32, 16)
TIMED_IMAGES = 30
PICTURES = 12
BIN = 16  # pixels a bin of the pooled grid is drawn in


def main() -> None:
    arguments = parse_arguments(__doc__, "fast-rcnn-example")
    out, quick, seed = arguments.out, arguments.quick, arguments.seed
    out.mkdir(parents=True, exist_ok=True)
    counts = {"train": 60, "test": 20} if quick else {"train": SYSTEM.defaults["images"], "test": 300}
    settings = {"epochs": 1, "warmup": 2} if quick else {}
    folder = make_dataset(out / "data", sum(counts.values()), "detection", seed=seed, splits=counts)
    train, test = open_dataset(folder, "train", masks=False), open_dataset(folder, "test", masks=False)

    print("\n1. Proposals, projected into the feature map")
    for dataset, split in ((train, "train"), (test, "test")):
        dataset.verify()
        prepare(dataset, SYSTEM.configure(), out, split)
    proposals = [record.proposals for record in test.records]
    truth = [record.boxes[~record.iscrowd] for record in test.records]
    (recall,) = proposal_recall(proposals, truth, [0.5]).ravel()
    print(
        f"  {np.mean([len(p) for p in proposals]):.0f} an image; {recall:.1%} of the objects overlap with one by half"
    )

    print("\n2. Losses, layers that learn, and pooling")
    results: dict[str, Any] = {"recall_50": float(recall)}
    models = {}
    for name, changes in VARIANTS.items():
        start = time.monotonic()
        models[name] = fit(SYSTEM, train, settings | changes, seed=seed, title=name)
        seconds = time.monotonic() - start
        metrics, predictions = detection.evaluate(models[name], test)
        results[name] = metrics | {"seconds": seconds}
        tell(name, metrics, f"trained in {seconds:.0f} s")
        if name == "as in the paper":
            shown = range(min(PICTURES, len(test)))
            save_png(
                out / "2-detections.png",
                detection.draw([test[i] for i in shown], predictions[: len(shown)], test.classes),
            )
    model = models["as in the paper"]
    save_png(out / "1-regions.png", draw_regions(model, test))

    print("\n3. Where the time goes, an image")
    results["seconds"] = measure(model, test)
    layer = model.roi_heads.box_head.fc6
    for rank in RANKS:
        model.roi_heads.box_head.fc6 = compressed(layer, rank)
        metrics, _ = detection.evaluate(model, test)
        timed = measure(model, test, f"fc6 of rank {rank}")
        results[f"rank {rank}"] = metrics | timed
        tell(f"fc6 of rank {rank}", metrics)

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-regions.png, 2-detections.png; the numbers in results.json")


def tell(name: str, metrics: dict[str, float], more: str = "") -> None:
    """One line of the story."""
    print(f"  {name:18s} AP {metrics['map']:.3f}  AP50 {metrics['map_50']:.3f}  AP75 {metrics['map_75']:.3f}  {more}")


def measure(model: Any, dataset: Any, name: str = "full rank") -> dict[str, float]:
    """Seconds of Selective Search, of the backbone, of the regions and of the rest, one image at a time."""
    indices = np.arange(min(TIMED_IMAGES, len(dataset)))
    timed = collate_list([dataset[i] for i in indices], indices)
    seconds = mean_stage_seconds(model, as_tensors(timed.images, "cpu"))
    print(f"  {name:18s} " + ", ".join(f"{stage} {1e3 * taken:.1f} ms" for stage, taken in seconds.items()))
    return seconds


def draw_regions(model: Any, dataset: Any) -> np.ndarray:
    """An image with the regions that are taken for objects; the same on the strongest channel of the feature map; and
    what RoI pooling makes of each in that channel."""
    index = next(i for i, r in enumerate(dataset.records) if len(r.boxes) >= 3 and not r.iscrowd.any())
    sample, heard = dataset[index], {}
    sample.proposals = sample.boxes
    batch = collate_list([sample], np.arange(1))
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        model(as_tensors(batch.images, "cpu"), batch.targets)
    (level,), regions = heard["backbone.maps"], heard["roi.regions"].data  # (1, C, h, w), (R, C, 7, 7)
    channel = int(level.data[0].std(axis=(1, 2)).argmax())
    limits = 0.0, float(level.data[0, channel].max())
    dark = np.zeros((BIN * 7, BIN * 7, 3), np.uint8)
    pictures = [
        draw_boxes(picture, sample.boxes, sample.labels, names=dataset.classes)
        for picture in (sample.image, overlay(sample.image, level.data[0, channel], limits, factor=1))
    ]
    pictures += [overlay(dark, region[channel].repeat(BIN, 0).repeat(BIN, 1), limits, factor=1) for region in regions]
    captions = ["the image", "one channel of its map", *(f"{dataset.classes[k]}, 7 x 7" for k in sample.labels)]
    return grid(pictures, columns=len(pictures), captions=captions, least_side=256)


if __name__ == "__main__":
    main()
