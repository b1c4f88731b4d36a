"""COCO's metrics: average precision and average recall of boxes, masks and keypoints.

A detection is right if it overlaps with an object of its class by enough, and no better detection has taken that
object; `minidet_kernels.match_detections` says exactly how. Precision, the right ones' part of the detections, and
recall, the part of the objects that are found, follow from going through the detections of a class by their scores.

    AP   the mean over 101 recalls of the best precision at that recall or a higher one
    AR   the recall of the best 1, 10 or 100 detections of each image and class
    both averaged over the classes that have objects, and over ten thresholds of overlap, 0.50 to 0.95

What counts as overlap depends on the kind:

    boxes      intersection over union; of a crowd intersection over the detection's area: it is enough to be inside
    masks      the same, of pixels
    keypoints  OKS = mean over the labelled joints of exp(-d^2 / (2 area (2 sigma)^2)): 1 where all joints are exact

Source: cocodataset.org, "Detection evaluation" and "Keypoint evaluation"; pycocotools, whose numbers these are, to
1e-12, where it leaves a choice: ties, crowds, objects outside the range of sizes, joints that nobody has labelled.

Predictions are one dictionary an image: boxes (D, 4) x1 y1 x2 y2, labels (D,) from 1, scores (D,); for their kinds
masks (D, H, W) bool, keypoints (D, J, 2 or more) x, y first. Targets likewise: boxes (R, 4), labels (R,), and masks
(R, H, W) or keypoints (R, J, 3) x, y, v; further, where they are known,

    iscrowd        (R,) bool: a crowd is not to be found, and detections of it are not wrong. None by default
    areas          (R,) what makes an object small or large, COCO's "area", that of its mask. By default the box's,
                   or the mask's pixels
    num_keypoints  (R,) objects with 0 are not to be found. By default the joints with v > 0

A detection's size is its box's area, its mask's, or that of the box around its keypoints. Detections of the same score
are taken in the order in which they are given; pycocotools goes through the images by ascending ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import minidet_kernels as kernels
from minidet_kernels.detection_matching import FALSE, LEFT_OUT, TRUE

from .groups import Groups, group
from .overlaps import KEYPOINTS, KINDS, overlaps

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# Squares of pixels, both ends included: an object of 32 x 32 is small and medium.
SMALL, LARGE, ENDLESS = 32.0**2, 96.0**2, 1e5**2
AREAS = {"all": (0.0, ENDLESS), "small": (0.0, SMALL), "medium": (SMALL, LARGE), "large": (LARGE, ENDLESS)}
MOST_DETECTIONS = (1, 10, 100)  # of an image and class, for recall; precision is that of the last
MOST_PEOPLE = (20,)  # the same for keypoints; and nobody has labelled the joints of small people
ABSENT = -1.0  # in place of a mean over nothing, as pycocotools has it


@dataclass(frozen=True)
class CocoCurves:
    """What COCO's numbers are means of: T thresholds, R recalls, K classes, A ranges of sizes, M counts of detections.

    precision (T, R, K, A, M): the best at that recall or a higher one. recall (T, K, A, M): after all detections.
    scores (T, R, K, A, M): of the detection with which the recall is reached, 0 where it is not: the score from which
    on one would take detections. All are -1 for classes without objects.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    iou_thresholds: np.ndarray
    recalls: np.ndarray
    areas: tuple[str, ...]
    most_detections: tuple[int, ...]

    def average_precision(self, iou: float | None = None, area: str = "all") -> float:
        """The mean over recalls and classes, at one of the thresholds or, None, at all; -1 where there is nothing."""
        return _mean(self.precision[..., self.areas.index(area), -1][self._at(iou)])

    def average_recall(self, most: int, iou: float | None = None, area: str = "all") -> float:
        """The same of the recalls of the best `most` detections of each image and class."""
        return _mean(self.recall[..., self.areas.index(area), self.most_detections.index(most)][self._at(iou)])

    def by_class(self, iou: float | None = None) -> np.ndarray:
        """(K,) average precision of each class, all sizes together; -1 for classes without objects."""
        return np.array([_mean(of_class) for of_class in self.precision[..., 0, -1][self._at(iou)].transpose(2, 0, 1)])

    def _at(self, iou: float | None) -> np.ndarray:
        chosen = np.ones(len(self.iou_thresholds), bool) if iou is None else np.isclose(self.iou_thresholds, iou)
        if not chosen.any():
            raise ValueError(f"expected iou among {np.round(self.iou_thresholds, 4).tolist()}, got {iou}")
        return chosen


def evaluate_coco(
    predictions: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    num_classes: int,
    kind: str = "boxes",
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """The numbers of COCO's tables, -1 where there is nothing to measure.

    num_classes: K, without the background; labels are 1 to K. kind, predictions and targets: as the module says.
    sigmas (J,): how precisely people place each joint, as a fraction of the object's size; by default those of
    `overlaps.oks_sigmas`.

    map, map_50, map_75                  over all thresholds, at IoU (or OKS) 0.50 and 0.75
    map_small, map_medium, map_large     of objects below 32^2, up to 96^2 and above; keypoints have no small ones
    mar_1, mar_10, mar_100               recall of so many detections an image and class; keypoints: mar_20
    mar_small, mar_medium, mar_large     of the largest such number

    Raises ValueError as `coco_curves`.
    """
    curves = coco_curves(predictions, targets, num_classes, kind, sigmas)
    sizes, last = curves.areas[1:], curves.most_detections[-1]
    return {
        "map": curves.average_precision(),
        "map_50": curves.average_precision(0.5),
        "map_75": curves.average_precision(0.75),
        **{f"map_{area}": curves.average_precision(area=area) for area in sizes},
        **{f"mar_{most}": curves.average_recall(most) for most in curves.most_detections},
        **{f"mar_{area}": curves.average_recall(last, area=area) for area in sizes},
    }


def coco_curves(
    predictions: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    num_classes: int,
    kind: str = "boxes",
    sigmas: Sequence[float] | None = None,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    most_detections: Sequence[int] | None = None,
) -> CocoCurves:
    """Precision, recall and scores, for plots and for other means than COCO's.

    iou_thresholds: ascending or not, from 0 to 1. most_detections: ascending; of each image and class so many count, by
    default 1, 10 and 100, for keypoints 20. Other arguments: as evaluate_coco. Raises ValueError for an unknown kind,
    numbers of detections in another order, and for images with other shapes, labels outside 1 to K, scores that are
    NaN, or boxes inside out, each with the number of the image.
    """
    if kind not in KINDS:
        raise ValueError(f"coco_curves: expected kind {', '.join(KINDS)}, got {kind!r}")
    if most_detections is None:
        most_detections = MOST_PEOPLE if kind == KEYPOINTS else MOST_DETECTIONS
    most = tuple(most_detections)
    if not most or min(most) < 1 or sorted(most) != list(most):
        raise ValueError(f"coco_curves: expected most_detections ascending from 1 on, got {most}")
    areas = {name: limits for name, limits in AREAS.items() if kind != KEYPOINTS or name != "small"}
    groups = group(predictions, targets, num_classes, kind, most[-1])
    outcomes, positives = _outcomes(groups, overlaps(groups, kind, sigmas), list(areas.values()), iou_thresholds)
    parts = [_curves_of_the_best(groups, number, outcomes, positives) for number in most]
    # pycocotools' order of axes, as views: (M, A, T, K, R) in memory are copied and averaged much faster.
    precision, recall, scores = (np.stack(arrays) for arrays in zip(*parts, strict=True))
    precision, scores = precision.transpose(2, 4, 3, 1, 0), scores.transpose(2, 4, 3, 1, 0)
    recall = recall.transpose(2, 3, 1, 0)
    return CocoCurves(precision, recall, scores, np.asarray(iou_thresholds), RECALLS, tuple(areas), most)


def _outcomes(
    groups: Groups, common: np.ndarray, areas: list[tuple[float, float]], thresholds: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """What becomes of each detection (A, T, D), int8, class after class and there the best score first; and how many
    objects of each class there are to be found (A, K)."""
    too_small, too_large = np.array(areas).T[..., None]  # (A, 1) each
    ignored = groups.not_sought | (groups.truths.areas < too_small) | (groups.truths.areas > too_large)
    matches = kernels.match_detections(
        common, groups.detection_counts, groups.truth_counts, ignored, groups.crowd, thresholds
    )
    outside = (groups.detections.areas < too_small) | (groups.detections.areas > too_large)  # (A, D)
    outcomes = np.empty(matches.shape, np.int8)
    for of_range, match, is_ignored, is_outside in zip(outcomes, matches, ignored, outside, strict=True):
        by_object = np.append(np.where(is_ignored, LEFT_OUT, TRUE), FALSE).astype(np.int8)
        of_range[:] = by_object[match]  # the last one, FALSE, where the match is -1
        of_range[(of_range == FALSE) & is_outside] = LEFT_OUT
    positives = [np.bincount(groups.truths.labels[~of_range], minlength=groups.classes) for of_range in ignored]
    return outcomes[..., groups.by_class], np.array(positives, np.int64)


def _curves_of_the_best(
    groups: Groups, most: int, outcomes: np.ndarray, positives: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """precision (A, T, K, R), recall (A, T, K), scores (A, T, K, R) of the best `most` detections of each group."""
    ranges, thresholds, _ = outcomes.shape
    (counted,) = np.nonzero(groups.ranks[groups.by_class] < most)
    counted_at = groups.by_class[counted]
    precision, recall, reached = kernels.precision_at_recalls(
        outcomes[..., counted].reshape(ranges * thresholds, len(counted)),
        np.bincount(groups.detections.labels[counted_at], minlength=groups.classes),
        np.repeat(positives, thresholds, axis=0),
        RECALLS,
    )
    scores = np.append(groups.scores[counted_at], 0)[reached]  # 0 where it is -1
    scores[precision == ABSENT] = ABSENT
    shape = ranges, thresholds, groups.classes
    precision, scores = (array.reshape(*shape, len(RECALLS)) for array in (precision, scores))
    return precision, recall.reshape(shape), scores


def _mean(values: np.ndarray) -> float:
    """Of what is not absent."""
    known = values[values > ABSENT]
    return float(known.mean()) if known.size else ABSENT
