"""Human pose: how far joints are from the truth, measured by the person's own limbs, torso and head.

P people, J joints. predicted (P, J, 2 or more), x, y first; truth (P, J, 3), x, y, v. Joints that are not labelled
(v = 0) count nowhere. What cannot be measured - a joint that nobody has labelled, a person without a torso - is NaN and
left out of every mean; a mean of nothing is NaN. A predicted joint that is NaN is infinitely far away.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.joints import LSP_JOINTS, NOT_LABELLED, torso_diagonals
from ..models.pose import torso_diameter

# The eight limbs that DeepPose reports (table 1), by the names of their ends without the side.
LIMBS = {"upper arm": ("shoulder", "elbow"), "lower arm": ("elbow", "wrist"),
         "upper leg": ("hip", "knee"), "lower leg": ("knee", "ankle")}  # fmt: skip

PCP_FRACTION = 0.5  # of the limb's length (Ferrari et al. 2008; Eichner and Ferrari 2009)
PCKH_FRACTION = 0.5  # of the head's size: PCKh, "percentage of correct keypoints" (Andriluka et al. 2014)
# Of the torso's diameter: PDJ, "percentage of detected joints" (Sapp and Taskar 2013), is a curve over such fractions,
# and this is where DeepPose reads one number off it.
PDJ_FRACTION = 0.2
MPII_HEAD_FRACTION = 0.6  # of the head box's diagonal: MPII's own evaluation measures a head so


def joint_errors(predicted: Any, truth: Any) -> np.ndarray:
    """(P, J) distances in pixels, NaN where the truth is not labelled, infinite where the prediction is no number.
    Raises ValueError for other shapes."""
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if truth.ndim != 3 or truth.shape[2] != 3 or predicted.ndim != 3 or predicted.shape[:2] != truth.shape[:2]:
        advice = "; add v to the truth: 2 = visible" if truth.shape[2:] == (2,) else ""
        raise ValueError(
            f"joint_errors: expected predicted (P, J, 2 or more) and truth (P, J, 3), got {predicted.shape} and "
            f"{truth.shape}{advice}"
        )
    distances = np.linalg.norm(predicted[..., :2] - truth[..., :2], axis=2)
    distances = np.where(np.isnan(distances), np.inf, distances)
    return np.where(truth[..., 2] > NOT_LABELLED, distances, np.nan)


def fraction_within(errors: np.ndarray, sizes: np.ndarray, fraction: float) -> float:
    """The fraction of errors (P, J) that are at most `fraction` of the person's size (P,): each labelled joint of a
    person who has a size counts once."""
    sizes = np.asarray(sizes, np.float64)[:, None]
    ratio = np.divide(errors, sizes, out=np.full(errors.shape, np.nan), where=sizes > 0)
    return _mean(np.where(np.isnan(ratio), np.nan, ratio <= fraction))


def torso_diameters(truth: Any, names: Sequence[str] = LSP_JOINTS) -> np.ndarray:
    """(P,) length in pixels from shoulder to opposite hip, the mean of both diagonals or the one that is labelled."""
    truth = _of_joints(truth, names)
    return torso_diameter(truth[..., :2], truth[..., 2] > NOT_LABELLED, torso_diagonals(names))


def head_segments(truth: Any, names: Sequence[str] = LSP_JOINTS) -> np.ndarray:
    """(P,) length in pixels from neck to head top, NaN where either is not labelled: the head's size where no head
    boxes are annotated. Stick figures have one of 0.18 of their standing height (minidet/data/figures.py)."""
    truth = _of_joints(truth, names)
    if "neck" not in names or "head top" not in names:
        return np.full(len(truth), np.nan)
    neck, top = truth[:, names.index("neck")], truth[:, names.index("head top")]
    labelled = (neck[:, 2] > NOT_LABELLED) & (top[:, 2] > NOT_LABELLED)
    return np.where(labelled, np.linalg.norm(neck[:, :2] - top[:, :2], axis=1), np.nan)


def head_box_sizes(boxes: Any) -> np.ndarray:
    """(P,) MPII's head size, 0.6 of the diagonal, of head boxes (P, 4) x1 y1 x2 y2."""
    boxes = np.asarray(boxes, np.float64)
    return MPII_HEAD_FRACTION * np.hypot(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])


def pcp(predicted: Any, truth: Any, names: Sequence[str] = LSP_JOINTS, fraction: float = PCP_FRACTION) -> dict:
    """Percentage of correct parts, strict: *both* ends within half the limb's true length of their places.

    The lenient rule, the mean of both within it, is what some older tables have. {limb: fraction over both sides}, NaN
    for a limb that is never labelled whole.
    """
    errors, truth = joint_errors(predicted, truth), _of_joints(truth, names)
    result = {}
    for limb, ends in LIMBS.items():
        right = []
        for a, b in _both_sides(ends, names):
            length = np.linalg.norm(truth[:, a, :2] - truth[:, b, :2], axis=1)
            both = (errors[:, a] <= fraction * length) & (errors[:, b] <= fraction * length)
            right.append(np.where(np.isnan(errors[:, a] + errors[:, b]), np.nan, both))
        result[limb] = _mean(np.array(right, np.float64))
    return result


def pose_metrics(
    predicted: Any, truth: Any, names: Sequence[str] = LSP_JOINTS, scale: Any = 1.0, head_sizes: Any = None
) -> dict[str, float]:
    """The numbers of a run, each a mean over all labelled joints of all people, but for pcp_50.

    MPII's own total leaves out pelvis and thorax; here they count like all others.

    pckh_50      within half the head's size: head_segments', or the given head_sizes (P,) where heads have boxes
    pdj_20       within a fifth of the torso's diameter
    pcp_50       limbs, strict: the mean over the four kinds, as in DeepPose's table
    mean_error   in pixels times scale (P,). A run's scale makes them pixels of the network's input, 64 a side by
                 default: crops of one size make people of all sizes count alike

    A run's best weights are those of the best pdj_20.
    """
    errors = joint_errors(predicted, truth)
    heads = _heads(truth, names, head_sizes)
    parts = pcp(predicted, truth, names)
    scaled = errors * _by_person("scale", scale, len(errors))[:, None]
    return {
        "pckh_50": fraction_within(errors, heads, PCKH_FRACTION),
        "pdj_20": fraction_within(errors, torso_diameters(truth, names), PDJ_FRACTION),
        "pcp_50": _mean(np.array(list(parts.values()))),
        "mean_error": _mean(scaled),
    }


def pdj_curve(predicted: Any, truth: Any, fractions: Sequence[float], names: Sequence[str] = LSP_JOINTS) -> np.ndarray:
    """(T,) detected joints, all kinds together, against the fraction of the torso's diameter."""
    errors, diameters = joint_errors(predicted, truth), torso_diameters(truth, names)
    return np.array([fraction_within(errors, diameters, fraction) for fraction in fractions])


def joint_table(
    predicted: Any, truth: Any, names: Sequence[str] = LSP_JOINTS, scale: Any = 1.0, head_sizes: Any = None
) -> dict[str, dict[str, float]]:
    """{joint without its side: {"pckh_50", "pdj_20", "mean_error", "labelled"}}: which joints are hard.

    The numbers as pose_metrics has them; labelled: how many joints they are of.
    """
    errors = joint_errors(predicted, truth)
    heads = _heads(truth, names, head_sizes)
    diameters, scale = torso_diameters(truth, names), _by_person("scale", scale, len(errors))[:, None]
    table = {}
    for kind in dict.fromkeys(name.removeprefix("right ").removeprefix("left ") for name in names):
        columns = [k for k, name in enumerate(names) if name in (kind, f"right {kind}", f"left {kind}")]
        own = errors[:, columns]
        table[kind] = {
            "pckh_50": fraction_within(own, heads, PCKH_FRACTION),
            "pdj_20": fraction_within(own, diameters, PDJ_FRACTION),
            "mean_error": _mean(own * scale),
            "labelled": int((~np.isnan(own)).sum()),
        }
    return table


def _of_joints(truth: Any, names: Sequence[str]) -> np.ndarray:
    """truth (P, J, 3), float64. Raises ValueError unless it has as many joints as there are names: by the names of
    other joints, limbs that nobody has would be measured."""
    truth = np.asarray(truth, np.float64)
    if truth.shape[1:] != (len(names), 3):
        raise ValueError(
            f"expected truth (P, {len(names)}, 3), the joints that names={', '.join(names):.40}... lists, got "
            f"{truth.shape}; MPII's have names=MPII_JOINTS"
        )
    return truth


def _heads(truth: Any, names: Sequence[str], head_sizes: Any) -> np.ndarray:
    """(P,) the given sizes of heads, or else those of head_segments."""
    return head_segments(truth, names) if head_sizes is None else _by_person("head_sizes", head_sizes, len(truth))


def _by_person(name: str, values: Any, people: int) -> np.ndarray:
    """(P,), float64, of a number for each person or of one for all. Raises ValueError for another count."""
    values = np.asarray(values, np.float64)
    if values.shape not in ((), (people,)):
        raise ValueError(f"{name}: expected a number for each of {people} people, or one for all, got {values.shape}")
    return np.broadcast_to(values, people)


def _both_sides(ends: tuple[str, str], names: Sequence[str]) -> list[tuple[int, int]]:
    sides = [tuple(f"{side} {end}" for end in ends) for side in ("right", "left")]
    return [(names.index(a), names.index(b)) for a, b in sides if a in names and b in names]


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN, without a warning, where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan
