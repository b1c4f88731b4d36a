"""From maps to people: OpenPose's second half (Cao et al. 2017, sections 2.3 and 2.4), as array functions.

    confidence maps -> peaks: joints, of nobody yet
    for each limb, each pair of its two joints' peaks -> how much the field between them points along the line
                                                      -> the best pairs, no peak twice -> limbs
    limbs that share a joint -> people

People are joined limb by limb along a tree, not all at once: that would be a hard problem, and this is nearly as good.
Places are x, y in pixels, whole numbers at pixel centres.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# The authors' code: a joint is seen where its map is at least so high; lower finds more joints, and more that are none.
PEAK = 0.1
# A line between two joints is looked at in so many places, at each of which the field has to point along it by at least
# AGREEMENT, at this part of them: the limb may be hidden in between, but not mostly.
SAMPLES, AGREEMENT, AGREEING = 10, 0.05, 0.8
# Fewer joints, or a lower mean of what speaks for them, are no person.
LEAST_JOINTS, LEAST_SCORE = 4, 0.4


class Peaks(NamedTuple):
    """The joints of one kind that an image shows: places (n, 2) x, y, and scores (n,), the map's heights."""

    places: np.ndarray
    scores: np.ndarray


class Limbs(NamedTuple):
    """Connections of one kind: which peak of its first joint (m,), which of its second, and how sure (m,)."""

    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray


def find_peaks(confidence: np.ndarray) -> Peaks:
    """The pixels of a map (H, W) that are higher than their four neighbours and PEAK, in reading order; of two equal
    neighbours the first."""
    framed = np.pad(confidence, 1, constant_values=-np.inf)
    middle = framed[1:-1, 1:-1]
    higher = (middle > framed[:-2, 1:-1]) & (middle > framed[1:-1, :-2])
    higher &= (middle >= framed[2:, 1:-1]) & (middle >= framed[1:-1, 2:])
    rows, columns = np.nonzero(higher & (middle > PEAK))
    return Peaks(np.stack([columns, rows], axis=1).astype(np.float64), confidence[rows, columns].astype(np.float64))


def score_pairs(field: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(a, b): how much speaks for a limb between each place of first (a, 2) and of second (b, 2); -inf: it is none.

    The line integral of the field (2, H, W), x and y, along the unit vector between them (equation 10), less the longer
    the line is beyond half the image's height: such limbs are rare.
    """
    between = dx, dy = (second[None] - first[:, None]).transpose(2, 0, 1)  # (a, b) each
    lengths = np.hypot(dx, dy)
    longer = np.maximum(lengths, 1e-9)
    steps = np.linspace(0, 1, SAMPLES)[:, None, None]
    columns, rows = (
        np.rint(first[:, axis, None] + steps * apart).astype(np.int64) for axis, apart in enumerate(between)
    )  # (s, a, b) each
    along = field[0, rows, columns] * (dx / longer) + field[1, rows, columns] * (dy / longer)
    scores = along.mean(axis=0) + np.minimum(field.shape[1] / (2 * longer) - 1, 0)
    agreeing = np.count_nonzero(along > AGREEMENT, axis=0) >= AGREEING * SAMPLES
    return np.where(agreeing & (scores > 0) & (lengths > 0), scores, -np.inf)


def match_pairs(scores: np.ndarray) -> Limbs:
    """Of scores (a, b) the best pair, then the best of what is left, and so on: each peak is in one limb at most."""
    scores, chosen = scores.copy(), []
    while scores.size and (best := scores.max()) > -np.inf:
        first, second = np.unravel_index(scores.argmax(), scores.shape)
        chosen.append((first, second, best))
        scores[first], scores[:, second] = -np.inf, -np.inf
    first, second, best = zip(*chosen, strict=True) if chosen else ((), (), ())
    return Limbs(np.array(first, np.int64), np.array(second, np.int64), np.array(best, np.float64))


def join_limbs(peaks: Sequence[Peaks], limbs: Sequence[Limbs], tree: Sequence[tuple[int, int]]) -> list[dict]:
    """People: for each its joints, {joint: peak}, and `total`, the sum of what speaks for them: heights of their peaks
    and scores of their limbs.

    A limb whose first or second joint belongs to somebody already is that person's, too; where both do, they are one.
    """
    people: list[dict] = []
    owner_of: dict[tuple[int, int], dict] = {}  # of each joint's peak
    for (start, end), found in zip(tree, limbs, strict=True):
        for first, second, score in zip(*(column.tolist() for column in found), strict=True):
            ends = (start, first), (end, second)
            owners = [owner_of[one] for one in ends if one in owner_of]
            if len(owners) == 2 and owners[0] is not owners[1]:  # in a tree their other joints lie on different sides
                owner, other = owners
                people = [one for one in people if one is not other]
                owner["joints"] |= other["joints"]
                owner["total"] += other["total"]
            elif owners:
                owner = owners[0]
            else:
                people.append(owner := {"joints": {}, "total": 0.0})
            new = {joint: peak for joint, peak in ends if joint not in owner["joints"]}
            owner["total"] += score + sum(peaks[joint].scores[peak] for joint, peak in new.items())
            owner["joints"] |= new
            owner_of |= dict.fromkeys(owner["joints"].items(), owner)
    return people


def people_of(confidence: np.ndarray, fields: np.ndarray, tree: Sequence[tuple[int, int]]) -> dict:
    """The people that maps (J, H, W) and fields (L, 2, H, W), of the tree's L limbs, show: keypoints (P, J, 3) x, y, v,
    with v 1 or, where no joint was found, all 0, and scores (P,) in [0, 1], best first.

    A score is the mean of what speaks for the person, over all joints and limbs that a whole one has.
    """
    peaks = [find_peaks(of_joint) for of_joint in confidence]
    limbs = [
        match_pairs(score_pairs(field, peaks[start].places, peaks[end].places))
        for field, (start, end) in zip(fields, tree, strict=True)
    ]
    found = [
        person
        for person in join_limbs(peaks, limbs, tree)
        if len(person["joints"]) >= LEAST_JOINTS and person["total"] / len(person["joints"]) >= LEAST_SCORE
    ]
    found.sort(key=lambda person: -person["total"])
    keypoints = np.zeros((len(found), len(confidence), 3), np.float32)
    for joints, person in zip(keypoints, found, strict=True):
        for joint, peak in person["joints"].items():
            joints[joint] = *peaks[joint].places[peak], 1
    totals = np.array([person["total"] for person in found])
    return {"keypoints": keypoints, "scores": (totals / (len(confidence) + len(tree))).clip(0, 1).astype(np.float32)}


def spanning_tree(limbs: Sequence[tuple[int, int]], joints: int) -> tuple[tuple[int, int], ...]:
    """The limbs in their order, without those that close a circle: a joint is reached in one way only. Raises
    ValueError where they do not connect all joints, which have the numbers 0 to joints - 1."""
    group = list(range(joints))
    tree = []
    for start, end in limbs:
        if not (0 <= start < joints and 0 <= end < joints):
            raise ValueError(f"expected limbs of joints from 0 to {joints - 1}, got {(start, end)}")
        if group[start] != group[end]:
            tree.append((start, end))
            old, new = group[end], group[start]
            group = [new if of_joint == old else of_joint for of_joint in group]
    if len(tree) != joints - 1:
        raise ValueError(f"expected limbs that connect all {joints} joints, got {list(limbs)}")
    return tuple(tree)
