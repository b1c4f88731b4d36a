"""Weakly supervised localization: how well do boxes fit that are drawn around heat maps.

A box depends on the threshold, and the best threshold differs from network to network: at a fixed one, networks are
compared by luck. Choe et al. 2020, "Evaluating Weakly Supervised Object Localization Methods Right", therefore take
each network at its best one:

    BoxAcc(tau, delta) = fraction of images whose box at threshold tau overlaps the true one with IoU >= delta
    MaxBoxAcc          = max over tau of BoxAcc(tau, 0.5), the box that of the largest component
    MaxBoxAccV2        = mean over delta of max over tau of BoxAcc(tau, delta), delta = 0.3, 0.5, 0.7;
                         of the boxes of all components, the one that fits best

The second version is of their longer article, "Evaluation for Weakly Supervised Object Localization: Protocol, Metrics,
and Datasets" (arXiv 2007.04178).

The maximum is over thresholds of the very images that are reported, which flatters. To say what a user would get, fix
the threshold on images of their own: `best_threshold` of those, and `box_accuracy` at it.
"""

from typing import Any

import numpy as np

from ..boxes import component_boxes, paired_iou
from ..heatmaps.boxes import threshold_maps
from .localization import CORRECT_IOU

# Choe et al. try 1000 thresholds, on maps rounded to 255 values. A hundred find a maximum that is lower by less than
# 0.002 on the demos' maps, ten times as fast.
THRESHOLDS = np.arange(100) / 100
V2_IOUS = (0.3, 0.5, 0.7)


def box_accuracy(
    maps: Any,
    truth: Any,
    thresholds: Any = THRESHOLDS,
    ious: Any = (CORRECT_IOU,),
    mode: str = "minmax",
    components: str = "largest",
) -> np.ndarray:
    """BoxAcc (D, T): for each overlap of ious (D,) and each of thresholds (T,), the fraction of images found.

    maps     (N, H, W) float, resized to the images before: a box's coordinates are pixels of the map
    truth    (N, 4) true boxes, x1 y1 x2 y2
    mode     what a threshold means, heatmaps.MODES; always strictly above
    components  "largest": the box around the component with the most pixels, as MaxBoxAcc; "all": whichever of the
             components' boxes overlaps the true one most, as MaxBoxAccV2

    An image without a box, because nothing is above the threshold or the map has NaN in it, is not found. Choe's code
    differs in small things: it rounds maps to 8 bits, takes the component with the largest outline, holes included, and
    counts pixels to compute overlaps, inclusive of both ends. Cost: about 10 milliseconds for a map of 64x64 at 100
    thresholds. Raises ValueError for shapes that do not fit and unknown names.
    """
    if components not in ("largest", "all"):
        raise ValueError(f"box_accuracy: expected components 'largest' or 'all', got {components!r}")
    overlaps = box_overlaps(maps, truth, thresholds, mode)[components]  # (N, T)
    return (overlaps >= np.reshape(ious, (-1, 1, 1))).mean(axis=1)


def box_overlaps(maps: Any, truth: Any, thresholds: Any = THRESHOLDS, mode: str = "minmax") -> dict[str, np.ndarray]:
    """IoU (N, T) of the true box with the one at each threshold, 0 where there is none: "largest", of the component
    with the most pixels, and "all", the best of all components'. Arguments: `box_accuracy`."""
    maps, truth, thresholds = np.asarray(maps), np.asarray(truth, np.float64), np.asarray(thresholds, np.float64)
    if maps.ndim != 3 or truth.shape != (len(maps), 4) or not len(maps):
        raise ValueError(
            f"box_accuracy: expected maps (N, H, W) and as many true boxes (N, 4), not 0, got {maps.shape} and "
            f"{truth.shape}"
        )
    overlaps = {name: np.zeros((len(maps), len(thresholds))) for name in ("largest", "all")}
    for n, (heat_map, true_box) in enumerate(zip(maps, truth, strict=True)):
        masks = threshold_maps(heat_map[None], thresholds, mode)[0]  # (T, H, W)
        boxes, pixels, threshold = component_boxes(masks)
        iou = paired_iou(boxes.astype(np.float64), np.broadcast_to(true_box, boxes.shape))
        largest = largest_of_each(pixels, threshold)
        overlaps["largest"][n, threshold[largest]] = iou[largest]
        np.maximum.at(overlaps["all"][n], threshold, iou)
    return overlaps


def largest_of_each(pixels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Positions of the largest of each group; of equal ones the first. pixels (C,), group (C,) ascending."""
    order = np.lexsort((np.arange(len(pixels)), -pixels, group))  # by group, then size descending, then position
    return order[np.flatnonzero(np.diff(group[order], prepend=-1))]


def max_box_acc(maps: Any, truth: Any, thresholds: Any = THRESHOLDS) -> float:
    """MaxBoxAcc, Choe et al. 2020: maps (N, H, W) resized to the images, truth (N, 4)."""
    return float(box_accuracy(maps, truth, thresholds).max())


def max_box_acc_v2(maps: Any, truth: Any, thresholds: Any = THRESHOLDS) -> float:
    """MaxBoxAccV2, Choe et al., arXiv 2007.04178: maps (N, H, W) resized to the images, truth (N, 4)."""
    return float(box_accuracy(maps, truth, thresholds, V2_IOUS, components="all").max(axis=1).mean())


def best_threshold(maps: Any, truth: Any, thresholds: Any = THRESHOLDS, mode: str = "minmax") -> float:
    """The threshold with the best BoxAcc at IoU 0.5, to be fixed for other images; the middle one of equally good ones,
    which is the safest of them."""
    return float(np.asarray(thresholds)[best_position(box_accuracy(maps, truth, thresholds, mode=mode)[0])])


def best_position(accuracy: np.ndarray) -> int:
    """Where the largest of accuracy (T,) is; of equal ones, the middle one."""
    best = np.flatnonzero(accuracy == accuracy.max())
    return int(best[len(best) // 2])


def box_accuracy_metrics(overlaps: dict[str, np.ndarray], thresholds: Any = THRESHOLDS) -> dict[str, float]:
    """max_box_acc with its best_threshold_minmax, and max_box_acc_v2, from `box_overlaps`: for data sets whose maps
    do not fit into memory together."""
    accuracy = (overlaps["largest"] >= CORRECT_IOU).mean(axis=0)
    return {
        "max_box_acc": float(accuracy.max()),
        "max_box_acc_v2": float(np.mean([(overlaps["all"] >= iou).mean(axis=0).max() for iou in V2_IOUS])),
        "best_threshold_minmax": float(np.asarray(thresholds)[best_position(accuracy)]),
    }


def weak_localization_metrics(
    scores: Any, top_boxes: Any, known_boxes: Any, labels: Any, truth: Any
) -> dict[str, float]:
    """Metrics of the boxes that a network draws around the maps of its classes, at its own threshold.

    scores (N, K) of the classes; top_boxes (N, n, 4) around the maps of the n best classes, best first; known_boxes
    (N, 4) around the map of the true class; labels (N,) true classes 0..K-1; truth (N, 4) true boxes. An image is
    localized by a box with IoU >= 0.5.

    accuracy                  the fraction of images whose best class is the true one
    top1_error, top5_error    the localization errors of ILSVRC: 1 - the fraction of images localized by the box of the
                              true class, if that is the best one, or among the five best
    gt_known_loc              the fraction localized by the box of the true class, whatever was predicted
    gt_known_error            1 - gt_known_loc
    mean_iou                  of the true class's box
    """
    scores, top_boxes, known_boxes, labels, truth = map(np.asarray, (scores, top_boxes, known_boxes, labels, truth))
    count = len(scores)
    shapes = scores.shape[:1], top_boxes.shape[:1], known_boxes.shape, labels.shape, truth.shape
    if not count or shapes != ((count,), (count,), (count, 4), (count,), (count, 4)):
        raise ValueError(f"weak_localization_metrics: expected one row an image in all arrays, not 0, got {shapes}")
    best = np.argsort(-scores, axis=1, kind="stable")[:, : top_boxes.shape[1]]  # (N, n)
    true_class = best == labels[:, None]
    spread = np.broadcast_to(truth[:, None], top_boxes.shape).reshape(-1, 4)
    overlaps = paired_iou(top_boxes.reshape(-1, 4).astype(np.float64), spread.astype(np.float64)).reshape(best.shape)
    localized = true_class & (overlaps >= CORRECT_IOU)
    known = paired_iou(known_boxes.astype(np.float64), truth.astype(np.float64))
    return {
        "accuracy": float(true_class[:, 0].mean()),
        "top1_error": float(1 - localized[:, 0].mean()),
        "top5_error": float(1 - localized[:, :5].any(axis=1).mean()),
        "gt_known_loc": float((known >= CORRECT_IOU).mean()),
        "gt_known_error": float((known < CORRECT_IOU).mean()),
        "mean_iou": float(known.mean()),
    }
