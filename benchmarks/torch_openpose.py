"""The small OpenPose of the recipe in torch, for detection: a rival in speed.

The same layers with the same keys and the same rules, written from the paper with none of minidet's code. Maps are made
as fine as the image and searched for peaks by torch; people are put together from the few peaks in Python.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.torch_faster_rcnn import CHANNELS, Backbone, block

PEAK, SAMPLES, ALONG, PART = 0.1, 10, 0.05, 0.8
FEWEST_JOINTS, LEAST_MEAN = 4, 0.4


class TorchOpenPose(nn.Module):
    """images (N, 3, H, W) -> keypoints (P, joints, 3) and scores (P,) of each. tree: pairs of joints."""

    def __init__(
        self, joints: int, tree: Sequence[tuple[int, int]], stages: int, channels: int, convolutions: int, stride: int
    ) -> None:
        super().__init__()
        self.joints, self.tree, self.stride, self.backbone = joints, tree, stride, Backbone(stride)
        outputs = joints + 2 * len(tree)
        self.stages = nn.ModuleList()
        for number in range(stages):
            stage = nn.Module()
            before = CHANNELS[-1] + outputs * (number > 0)
            for name, maps in (("confidence", joints), ("fields", 2 * len(tree))):
                blocks = [block(channels if n else before, channels, 1) for n in range(convolutions)]
                setattr(stage, name, nn.Sequential(*blocks, nn.Conv2d(channels, maps, 1)))
            self.stages.append(stage)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        features = seen = self.backbone(images)
        for stage in self.stages:
            confidence, fields = stage.confidence(seen), stage.fields(seen)
            seen = torch.cat([features, confidence, fields], 1)
        confidence, fields = (
            F.interpolate(maps, scale_factor=self.stride, mode="bicubic") for maps in (confidence, fields)
        )
        return [self.people(*maps) for maps in zip(confidence, fields, strict=True)]

    def people(self, confidence: Tensor, fields: Tensor) -> dict[str, Tensor]:
        """confidence (J, H, W), fields (2 L, H, W) of one image."""
        kind, row, column = peaks(confidence).nonzero().T
        heights = confidence[kind, row, column].tolist()
        places = torch.stack([column, row], 1)
        of_kind = [(kind == joint).nonzero()[:, 0] for joint in range(self.joints)]
        people: list[dict] = []
        owner_of: dict[int, dict] = {}
        for field, (start, end) in zip(fields.unflatten(0, (-1, 2)), self.tree, strict=True):
            first, second = of_kind[start], of_kind[end]
            pairs = best_pairs(support(field, places[first], places[second])) if len(first) and len(second) else []
            for a, b, score in pairs:
                join(people, owner_of, {start: int(first[a]), end: int(second[b])}, score, heights)
        people = [
            one
            for one in people
            if len(one["joints"]) >= FEWEST_JOINTS and one["total"] >= LEAST_MEAN * len(one["joints"])
        ]
        people.sort(key=lambda one: -one["total"])
        keypoints = torch.zeros(len(people), self.joints, 3)
        for person, one in zip(keypoints, people, strict=True):
            for joint, peak in one["joints"].items():
                person[joint, :2], person[joint, 2] = places[peak], 1
        totals = torch.tensor([one["total"] for one in people])
        return {"keypoints": keypoints, "scores": (totals / (self.joints + len(self.tree))).clamp(0, 1)}


def peaks(maps: Tensor) -> Tensor:
    """Where maps (J, H, W) are above PEAK and above their four neighbours; of equal ones the first."""
    found = maps > PEAK
    found[:, 1:] &= maps[:, 1:] > maps[:, :-1]
    found[:, :, 1:] &= maps[:, :, 1:] > maps[:, :, :-1]
    found[:, :-1] &= maps[:, :-1] >= maps[:, 1:]
    found[:, :, :-1] &= maps[:, :, :-1] >= maps[:, :, 1:]
    return found


def support(field: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(a, b): the line integral of a field (2, H, W) between places (a, 2) and (b, 2); -inf: no limb."""
    apart = (second[None] - first[:, None]).float()
    length = apart.norm(dim=2)
    unit = apart / length.clamp(min=1e-9)[..., None]
    x, y = (first[:, None] + torch.linspace(0, 1, SAMPLES)[:, None, None, None] * apart).round().long().unbind(3)
    along = (field[:, y, x] * unit.permute(2, 0, 1)[:, None]).sum(0)
    scores = along.mean(0) + (field.shape[1] / 2 / length.clamp(min=1e-9) - 1).clamp(max=0)
    good = ((along > ALONG).sum(0) >= PART * SAMPLES) & (scores > 0) & (length > 0)
    return scores.masked_fill(~good, -torch.inf)


def best_pairs(scores: Tensor) -> list[tuple[int, int, float]]:
    """The pairs of scores (a, b), the best first, no row and no column twice."""
    rows, columns, found = set(), set(), []
    values, order = scores.flatten().sort(descending=True, stable=True)
    count = int((values > -torch.inf).sum())
    for value, at in zip(values[:count].tolist(), order[:count].tolist(), strict=True):
        row, column = divmod(at, scores.shape[1])
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            found.append((row, column, value))
    return found


def join(
    people: list[dict], owner_of: dict[int, dict], ends: dict[int, int], score: float, heights: list[float]
) -> None:
    """One limb, {joint: peak} of both ends, becomes somebody's, joins two, or begins a new person."""
    owners = [owner_of[peak] for peak in ends.values() if peak in owner_of]
    person = owners[0] if owners else {"joints": {}, "total": 0.0}
    for other in owners[1:]:
        people[:] = [one for one in people if one is not other]
        person["joints"].update(other["joints"])
        person["total"] += other["total"]
    if not owners:
        people.append(person)
    for joint, peak in ends.items():
        if joint not in person["joints"]:
            person["joints"][joint] = peak
            person["total"] += heights[peak]
    person["total"] += score
    owner_of.update(dict.fromkeys(person["joints"].values(), person))
