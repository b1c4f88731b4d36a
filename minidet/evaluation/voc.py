"""PASCAL VOC's average precision of boxes.

The detections of a class, of all images, choose one after the other, the best score first. Each goes to the object of
its class and image that it overlaps with most, and nowhere else:

    IoU below the threshold        wrong
    that object is difficult       neither right nor wrong, as if it had not been made
    that object is already taken   wrong: there is no second choice, even if another object would be free
    else                           right, and the object is taken

    precision = right / (right + wrong)        recall = right / objects that are not difficult

    "area"        the area under the precision, where each recall has the best one of that recall or a higher one (from
                  2010 on)
    "11_point"    the mean of the best precision at recalls of at least 0, 0.1, ... 1 (until 2009)

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective" (IJCV 2015) and the devkit's
VOCevaldet and VOCap. Of objects with the same overlap the first is meant, of detections with the same score the first
comes first, image after image, as there.

Boxes are continuous here, their width is x2 - x1. The devkit counts pixels from 1, both ends included, so that there it
is xmax - xmin + 1: the same number, where boxes were read from its files (x1 = xmin - 1, x2 = xmax), and the same IoU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .groups import Columns, group
from .overlaps import BOXES, overlaps

METRICS = "area", "11_point"
ABSENT = -1.0  # in place of a mean over nothing, as in COCO's metrics


@dataclass(frozen=True)
class VocCurve:
    """Of one class: precision (n,) and recall (n,) after each detection, the best score first, and its score (n,);
    objects: how many there are to be found. Without any, precision and recall mean nothing."""

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    objects: int

    def average_precision(self, metric: str = "area") -> float:
        """-1 where there is nothing to be found. metric: one of METRICS."""
        _check_metric(metric)
        if not self.objects:
            return ABSENT
        if metric == "11_point":
            levels = np.arange(11) / 10
            return float(np.mean([self.precision[self.recall >= level].max(initial=0) for level in levels]))
        envelope = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float((np.diff(self.recall, prepend=0) * envelope).sum())


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise ValueError(f"expected metric {' or '.join(METRICS)}, got {metric!r}")


def evaluate_voc(
    predictions: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    num_classes: int,
    iou_threshold: float = 0.5,
    metric: str = "area",
) -> dict[str, float]:
    """{"map": the mean of the classes' average precisions, of those that have objects; -1 where none has any}.

    predictions, targets: as for `evaluate_coco`; targets may have "difficult" (R,) bool, and a crowd is difficult too.
    num_classes: K, without the background; labels are 1 to K. metric: "area" or "11_point". Raises ValueError as
    `evaluate_coco`, and for another metric.
    """
    _check_metric(metric)
    curves = voc_curves(predictions, targets, num_classes, iou_threshold)
    known = [curve.average_precision(metric) for curve in curves if curve.objects]
    return {"map": float(np.mean(known)) if known else ABSENT}


def voc_curves(
    predictions: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    num_classes: int,
    iou_threshold: float = 0.5,
) -> list[VocCurve]:
    """The K classes' curves. Arguments and errors: as evaluate_voc."""
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"expected iou_threshold above 0 and at most 1, got {iou_threshold}")
    groups = group(predictions, [_without_crowds(target) for target in targets], num_classes)
    truths = Columns("targets", targets, num_classes)
    none = np.zeros(len(truths.labels), bool)
    difficult = truths.column("difficult", (), bool, none) | truths.column("iscrowd", (), bool, none)
    easy = ~difficult[groups.truths.rows]
    nearest, iou = groups.nearest(overlaps(groups, BOXES))
    found = np.where(iou >= iou_threshold, nearest, -1)
    counted = np.append(easy, True)[found]  # the last one where a detection found nothing
    curves = []
    for label in range(num_classes):
        of_class = groups.by_class[groups.detections.labels[groups.by_class] == label]
        of_class = of_class[counted[of_class]]
        right = np.cumsum(_first_of_each(found[of_class]))
        objects = int((easy & (groups.truths.labels == label)).sum())
        precision, recall = right / np.arange(1, len(right) + 1), right / max(objects, 1)
        curves.append(VocCurve(precision, recall, groups.scores[of_class], objects))
    return curves


def _without_crowds(target: Mapping[str, Any]) -> dict[str, Any]:
    """So that the overlap with a crowd is the IoU, as with every other object."""
    return {key: target[key] for key in target if key != "iscrowd"}


def _first_of_each(found: np.ndarray) -> np.ndarray:
    """(n,) bool: nobody before has found the same object; False where nothing was found."""
    first = np.zeros(len(found), bool)
    first[np.unique(found, return_index=True)[1]] = True
    return first & (found >= 0)
