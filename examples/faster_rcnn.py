"""The lecture's Faster R-CNN slides, trained and measured.

1. Anchors: k boxes at every cell of the map, and which of them are an object's.
2. Joint training by four losses; what the region proposal network proposes, and what Fast R-CNN makes of it.
3. Its proposals against Selective Search's: how many objects are among the first 1, 3, 10, ... of them.
4. The four-step training of the slide, against the joint one.
5. Other anchors: nothing is designed anew, the network is trained with other labels.

    python examples/faster_rcnn.py --out faster-rcnn-example
    python examples/faster_rcnn.py --quick          # a minute, to see it run; too short for good numbers

The pictures and the table of numbers are in --out. All numbers are of images that were not trained on.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.arguments import parse_arguments
from common.training import QUICK, make_and_open, train_and_tell
from minidet import no_grad, watch
from minidet.boxes import base_anchors, box_iou, grid_anchors, match_boxes
from minidet.data.loader import collate_list
from minidet.drawing import draw_boxes, draw_recall, grid, save_png
from minidet.evaluation import proposal_recall
from minidet.proposals import selective_search
from minidet.training.recipes import detection
from minidet.training.recipes.faster_rcnn import SYSTEM, numbers
from minidet.training.recipes.faster_rcnn_four_steps import SYSTEM as FOUR_STEPS
from minidet.training.step import as_tensors

OTHER_ANCHORS = {"anchor_sizes": "16,28", "anchor_ratios": "1"}
COUNTS = (1, 3, 10, 30, 100, 300)
IOUS = np.arange(0.5, 1.0, 0.05)
PICTURES = 12


def main() -> None:
    arguments = parse_arguments(__doc__, "faster-rcnn-example")
    out, quick, seed = arguments.out, arguments.quick, arguments.seed
    out.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = QUICK if quick else {}
    train, test = make_and_open(SYSTEM, out / "data", quick, seed)
    shown = range(min(PICTURES, len(test)))

    print("\n1. Anchors")
    save_png(out / "1-anchors.png", draw_anchors(test))

    print("\n2. Joint training")
    joint, results = train_and_tell("joint", SYSTEM, train, test, settings, seed)
    proposals = proposals_of(joint, test)
    _, predictions = detection.evaluate(joint, test.subset(shown))
    samples = [test[i] for i in shown]
    save_png(out / "2-detections.png", detection.draw(samples, predictions, test.classes))
    save_png(out / "2-proposals.png", draw_proposals(samples, proposals))

    print(f"\n3. Proposals: of {len(test)} images, the part of the objects that the first of them overlap with by half")
    results["recall"] = compare_proposals(out / "3-recall.png", test, proposals)

    print("\n4. Four steps")
    _, more = train_and_tell("four steps", FOUR_STEPS, train, test, settings | ({"epochs": 4} if quick else {}), seed)
    results |= more

    print("\n5. Other anchors: two squares, by other labels")
    _, more = train_and_tell("two anchors", SYSTEM, train, test, settings | OTHER_ANCHORS, seed)
    results |= more

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-anchors.png to 3-recall.png; the numbers in results.json")


def proposals_of(model: Any, dataset: Any, batch_size: int = 8) -> list[np.ndarray]:
    """What the RPN proposes for each image, (P, 4), best first."""
    found: list[np.ndarray] = []
    for start in range(0, len(dataset), batch_size):
        samples = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
        heard: dict[str, Any] = {}
        with no_grad(), watch.listen(lambda event, heard=heard: heard.setdefault(event.name, event.value)):
            model(as_tensors(collate_list(samples, np.arange(len(samples))).images, "cpu"))
        found += heard["rpn.proposals"]
    return found


def compare_proposals(path: Path, dataset: Any, proposals: list[np.ndarray]) -> dict[str, list[float]]:
    """Recall against the number of boxes, of the RPN and of Selective Search; the curves are drawn."""
    truth = [record.boxes[~record.iscrowd] for record in dataset.records]
    found = {
        "RPN": proposals,
        "Selective Search": [selective_search(dataset[i].image, "fast", limit=max(COUNTS)) for i in range(len(truth))],
    }
    recall = {name: proposal_recall(boxes, truth, [0.5], COUNTS)[0] for name, boxes in found.items()}
    by_iou = {name: proposal_recall(boxes, truth, IOUS, [COUNTS[-1]])[:, 0] for name, boxes in found.items()}
    print(f"  {'first':18s}" + "".join(f"{count:>8d}" for count in COUNTS))
    for name, of_counts in recall.items():
        print(f"  {name:18s}" + "".join(f"{value:8.3f}" for value in of_counts))
    save_png(path, draw_recall(COUNTS, recall, IOUS, by_iou))
    return {name: of_counts.tolist() for name, of_counts in recall.items()}


def draw_anchors(dataset: Any) -> np.ndarray:
    """An image with the anchors of one cell, and with those of all cells that are its objects'."""
    sample = next(dataset[i] for i, r in enumerate(dataset.records) if len(r.boxes) >= 3 and not r.iscrowd.any())
    base = base_anchors(*(numbers(SYSTEM.defaults, key) for key in ("anchor_sizes", "anchor_ratios")))
    side, stride = sample.image.shape[0], SYSTEM.defaults["rpn_stride"]
    cells = side // stride
    anchors = grid_anchors(base, (cells, cells), (stride, stride))
    middle = len(anchors) // 2 + cells // 2 * len(base)
    iou = box_iou(sample.boxes.astype(np.float32), anchors)
    iou[:, (anchors < 0).any(axis=1) | (anchors > side).any(axis=1)] = 0  # not trained on: they leave the image
    matched = match_boxes(iou, 0.7, 0.3, allow_low_quality=True)
    labels = sample.labels[matched[matched >= 0]]
    pictures = [
        draw_boxes(sample.image, anchors[middle : middle + len(base)]),
        draw_boxes(sample.image, anchors[matched >= 0], labels, truth=sample.boxes, names=dataset.classes),
    ]
    print(f"  {len(anchors)} anchors, of which {int((matched >= 0).sum())} are one of {len(sample.boxes)} objects'")
    return grid(pictures, captions=[f"the {len(base)} anchors of one cell", "those of objects"], least_side=480)


def draw_proposals(samples: list[Any], proposals: list[np.ndarray], count: int = 20) -> np.ndarray:
    """The first proposals of each image, the true boxes dashed beside them."""
    return grid(
        [draw_boxes(s.image, boxes[:count], truth=s.boxes) for s, boxes in zip(samples, proposals, strict=False)]
    )


if __name__ == "__main__":
    main()
