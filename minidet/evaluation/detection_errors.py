"""What a detector does wrong: which kinds of errors, which classes it takes for which, and the worst of them.

Of the detections with at least a given score, COCO's matching (see `coco.py`) at one IoU says which are right and which
lie in a crowd, and so do not count. Each other one is wrong in the first way that fits, as in Bolya et al., "TIDE: A
General Toolbox for Identifying Object Detection Errors" (ECCV 2020), section 2.2 and their program's order:

    localization   it overlaps with an object of its class, but by too little
    confusion      it overlaps by enough, but with an object of another class
    duplicate      it overlaps by enough with an object of its class that a better detection has found
    both           it overlaps by too little, with an object of another class
    background     it overlaps with nothing

"By enough" is IoU >= iou, "with nothing" is IoU < BACKGROUND_IOU with every object, and "too little" is in between.
An object is missed if no detection found it. TIDE counts as missed only what no localization error or confusion
explains; here `explained` says which those are.
"""

from dataclasses import dataclass

import numpy as np

import minidet_kernels as kernels

from .groups import Groups, Images, group
from .overlaps import BOXES, areas_of, overlaps

RIGHT, IN_CROWD = "right", "in a crowd"
LOCALIZATION, CONFUSION, DUPLICATE, BACKGROUND, BOTH = "localization", "confusion", "duplicate", "background", "both"
ERRORS = (LOCALIZATION, CONFUSION, DUPLICATE, BOTH, BACKGROUND)
MISSED = "missed"

IOU = 0.5  # from here on a detection has found an object, TIDE's t_f
BACKGROUND_IOU = 0.1  # below it a detection has nothing to do with an object, TIDE's t_b
SCORE = 0.5  # of detections that one would show; with all of them, most errors are background that nobody would see


@dataclass(frozen=True)
class DetectionErrors:
    """What became of D detections, image after image and there the best score first, and of G objects, image after
    image; a crowd is never missed.

    kinds (D,) of RIGHT, IN_CROWD and ERRORS; images (D,); boxes (D, 4); labels (D,) from 1; scores (D,); nearest (D,):
    the object or crowd that the kind speaks of, or -1 for background.
    truth_images (G,), truth_boxes (G, 4), truth_labels (G,); missed (G,) bool; explained (G,) bool: missed, but a
    localization error or a confusion speaks of it.
    """

    kinds: np.ndarray
    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    nearest: np.ndarray
    truth_images: np.ndarray
    truth_boxes: np.ndarray
    truth_labels: np.ndarray
    missed: np.ndarray
    explained: np.ndarray

    def counts(self) -> dict[str, int]:
        """How many detections there are of each kind of error, and how many objects are missed and not explained."""
        return {kind: int((self.kinds == kind).sum()) for kind in ERRORS} | {
            MISSED: int((self.missed & ~self.explained).sum())
        }


@dataclass(frozen=True)
class Error:
    """One detection that is wrong, or one missed object, whose box and label then are the object's and score is 0.

    kind: of ERRORS, or MISSED. image: its number. box (4,), label from 1, score. truth_box (4,), truth_label: of the
    object that a wrong detection overlaps with; None for background.
    """

    kind: str
    image: int
    box: np.ndarray
    label: int
    score: float
    truth_box: np.ndarray | None = None
    truth_label: int | None = None


def detection_errors(
    predictions: Images, targets: Images, num_classes: int, iou: float = IOU, score: float = SCORE
) -> DetectionErrors:
    """predictions, targets, num_classes: as for `evaluate_coco`, boxes. Detections with a lower score are left out.
    Raises ValueError as it does, and for iou not above BACKGROUND_IOU."""
    _check_iou(iou)
    groups = group(predictions, targets, num_classes, score=score, by_label=False)
    overlap = overlaps(groups, BOXES)
    found = _match(groups, overlap, _is_of_its_class(groups), iou)
    of_object = ~groups.crowd[groups.pairs()[1]]  # pairs
    own, own_iou = groups.nearest(overlap, of_object & _is_of_its_class(groups))
    other, other_iou = groups.nearest(overlap, of_object & ~_is_of_its_class(groups))
    in_crowd = np.append(groups.crowd, False)[found]  # False where nothing was found
    localization = (own_iou >= BACKGROUND_IOU) & (own_iou < iou)
    confusion, duplicate, both = other_iou >= iou, own_iou >= iou, other_iou >= BACKGROUND_IOU
    kinds = np.select(
        [in_crowd, found >= 0, localization, confusion, duplicate, both],
        [IN_CROWD, RIGHT, LOCALIZATION, CONFUSION, DUPLICATE, BOTH],
        BACKGROUND,
    )
    nearest = np.select(
        [found >= 0, np.isin(kinds, (LOCALIZATION, DUPLICATE)), kinds != BACKGROUND], [found, own, other], -1
    )
    missed = ~groups.crowd
    missed[found[found >= 0]] = False
    explained = np.zeros(len(missed), bool)
    explained[nearest[np.isin(kinds, (LOCALIZATION, CONFUSION))]] = True
    found_side, true_side = groups.detections, groups.truths
    return DetectionErrors(
        kinds=kinds,
        images=found_side.images,
        boxes=found_side.shapes,
        labels=found_side.labels + 1,
        scores=groups.scores,
        nearest=nearest,
        truth_images=true_side.images,
        truth_boxes=true_side.shapes,
        truth_labels=true_side.labels + 1,
        missed=missed,
        explained=explained & missed,
    )


def _check_iou(iou: float) -> None:
    if not BACKGROUND_IOU < iou <= 1:
        raise ValueError(f"expected iou above {BACKGROUND_IOU} and at most 1, got {iou}")


def confusion_matrix(
    predictions: Images, targets: Images, num_classes: int, iou: float = IOU, score: float = SCORE
) -> np.ndarray:
    """(K + 1, K + 1) int64: how many objects of the class in the row were detected as the class in the column.

    On the diagonal are the detections that COCO's matching calls right. Those that are left take the objects that are
    left, of whatever class, the best score first and each the object it overlaps with most. What then remains has no
    partner: column 0 has objects that were not detected, row 0 detections of what is no object; [0, 0] is 0. Crowds,
    and detections of them, do not count. Arguments and errors: as detection_errors.
    """
    _check_iou(iou)
    groups = group(predictions, targets, num_classes, score=score, by_label=False)
    overlap, (detection, truth) = overlaps(groups, BOXES), groups.pairs()
    found = _match(groups, overlap, _is_of_its_class(groups), iou)
    in_crowd, is_free = np.append(groups.crowd, False)[found], ~groups.crowd
    is_free[found[found >= 0]] = False
    others = _match(groups, overlap, (found[detection] < 0) & is_free[truth], iou)
    partner = np.where(found < 0, others, found)
    rows = np.append(groups.truths.labels + 1, 0)[partner]
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(matrix, (rows[~in_crowd], groups.detections.labels[~in_crowd] + 1), 1)
    is_free[others[others >= 0]] = False
    np.add.at(matrix, (groups.truths.labels[is_free] + 1, 0), 1)
    return matrix


def worst_errors(
    predictions: Images, targets: Images, num_classes: int, count: int = 12, iou: float = IOU, score: float = SCORE
) -> tuple[list[Error], list[Error]]:
    """The `count` wrong detections with the highest scores, and the `count` largest missed objects.

    Arguments and errors: as detection_errors. Of equal scores, or sizes, the first image's comes first.
    """
    errors = detection_errors(predictions, targets, num_classes, iou, score)
    (wrong,) = np.nonzero(np.isin(errors.kinds, ERRORS))
    (missed,) = np.nonzero(errors.missed)
    wrong = wrong[np.argsort(-errors.scores[wrong], kind="stable")][:count]
    missed = missed[np.argsort(-areas_of(errors.truth_boxes[missed]), kind="stable")][:count]
    return [_wrong(errors, place) for place in wrong], [
        Error(MISSED, int(errors.truth_images[g]), errors.truth_boxes[g], int(errors.truth_labels[g]), 0.0)
        for g in missed
    ]


def _wrong(errors: DetectionErrors, d: int) -> Error:
    nearest = errors.nearest[d]
    truth = (errors.truth_boxes[nearest], int(errors.truth_labels[nearest])) if nearest >= 0 else (None, None)
    kind, label, score = str(errors.kinds[d]), int(errors.labels[d]), float(errors.scores[d])
    return Error(kind, int(errors.images[d]), errors.boxes[d], label, score, *truth)


def _is_of_its_class(groups: Groups) -> np.ndarray:
    """(P,) bool: whether the pair's detection has the label of its object."""
    detection, truth = groups.pairs()
    return groups.detections.labels[detection] == groups.truths.labels[truth]


def _match(groups: Groups, overlap: np.ndarray, possible: np.ndarray, iou: float) -> np.ndarray:
    """(D,): the object each detection takes, -1 for none; only pairs (P,) that are possible."""
    counts = groups.detection_counts, groups.truth_counts
    overlap = np.where(possible, overlap, 0)
    return kernels.match_detections(overlap, *counts, groups.crowd[None], groups.crowd, (iou,))[0, 0]
