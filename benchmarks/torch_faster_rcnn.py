"""The small Faster R-CNN of the recipe `faster_rcnn` in torch: its rival in speed.

The same layers with the same keys, anchors, numbers of samples, losses and rules, written from the papers with none of
minidet's code. What torch has no fast operation for is done as well as can be:

RoIAlign      is linear and separable: a bin is a weighted sum of rows of a weighted sum of columns, two small matrix
              products for each region, many times as fast as torchvision's loops
suppression   torchvision's algorithm, two nested loops over the sorted boxes, compiled by Numba for one thread
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (16, 32, 64, 64)  # of the backbone's stem and stages
BINS, SAMPLES = 7, 2
RPN_SAMPLES, RPN_POSITIVES, RPN_IOU = 256, 128, (0.3, 0.7)
ROI_SAMPLES, ROI_POSITIVES, ROI_IOU = 64, 16, 0.5
PRE_NMS, POST_NMS, NMS_IOU, LEAST_PROPOSAL = 1000, 300, 0.7, 2.0
BETA = 1 / 9
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
LOG_LIMIT = math.log(1000 / 16)
SCORE, DETECTION_IOU, DETECTIONS, LEAST_DETECTION = 0.05, 0.5, 100, 1e-2

Chosen = tuple[Tensor, Tensor, Tensor]


def block(before: int, after: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Backbone(nn.Module):
    """images (N, 3, H, W) -> (N, 64, H/stride, W/stride). Each image's mean colour is taken away first."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stem = block(3, CHANNELS[0], 2)
        stages = []
        for reached, (before, after) in zip((4, 8, 16), pairwise(CHANNELS), strict=True):
            stages += [nn.Sequential(block(before, after, 2 if reached <= stride else 1), block(after, after, 1))]
        self.stages = nn.Sequential(*stages)

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(self.stem(images - images.mean((2, 3), keepdim=True)))


class RPNHead(nn.Module):
    """map (N, C, H, W) -> objectness (N, A), deltas (N, A, 4); A = H/stride W/stride k."""

    def __init__(self, channels: int, anchors: int, stride: int, width: int = 256) -> None:
        super().__init__()
        self.anchors = anchors
        convolution = nn.Conv2d(channels, width, 3, stride, padding=1)
        self.conv = nn.Sequential(nn.Sequential(convolution, nn.ReLU(inplace=True)))
        self.cls_logits, self.bbox_pred = nn.Conv2d(width, 2 * anchors, 1), nn.Conv2d(width, 4 * anchors, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x)
        scores = self.cls_logits(x)
        objectness = scores[:, self.anchors :] - scores[:, : self.anchors]
        deltas = self.bbox_pred(x)
        return objectness.permute(0, 2, 3, 1).flatten(1), deltas.permute(0, 2, 3, 1).reshape(len(x), -1, 4)


class TorchSmallFasterRCNN(nn.Module):
    """images (N, 3, H, W) in [0, 1], targets -> four losses; in evaluation images -> dicts of boxes, labels, scores.

    targets: dicts with boxes (R, 4), float32, and labels (R,), int64, without crowds.
    detection_iou: where suppression of detections begins.
    base_anchors: (k, 4), around the corner of a cell. num_classes: with the background. rpn_stride: in cells.
    """

    detection_iou = DETECTION_IOU

    def __init__(
        self, base_anchors: np.ndarray, num_classes: int, hidden: int, stride: int, rpn_stride: int = 1
    ) -> None:
        super().__init__()
        self.base_anchors, self.num_classes = torch.from_numpy(np.asarray(base_anchors, np.float32)), num_classes
        self.backbone, self.stride, self.rpn_stride = Backbone(stride), stride, rpn_stride
        self.rpn, self.roi_heads = nn.Module(), nn.Module()
        self.rpn.head = RPNHead(CHANNELS[-1], len(base_anchors), rpn_stride)
        self.roi_heads.box_head, self.roi_heads.box_predictor = nn.Module(), nn.Module()
        self.roi_heads.box_head.fc6 = nn.Linear(CHANNELS[-1] * BINS**2, hidden)
        self.roi_heads.box_head.fc7 = nn.Linear(hidden, hidden)
        self.roi_heads.box_predictor.cls_score = nn.Linear(hidden, num_classes)
        self.roi_heads.box_predictor.bbox_pred = nn.Linear(hidden, 4 * num_classes)
        self.grids: dict[tuple[int, int], Tensor] = {}

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]] | None = None):
        features = self.backbone(images)
        objectness, deltas = self.rpn.head(features)
        grid = [-(-side // self.rpn_stride) for side in features.shape[2:]]
        anchors, size = self.anchors(grid), tuple(images.shape[2:])
        with torch.no_grad():
            proposals = self.proposals(objectness.detach(), deltas.detach(), anchors, size)
            if targets is not None:
                of_anchors = [self.sample_anchors(anchors, size, target) for target in targets]
                of_regions = [self.sample_regions(*pair) for pair in zip(proposals, targets, strict=True)]
        if targets is None:
            logits, moves = self.heads(features, proposals)
            return self.detections(logits, moves, proposals, size)
        logits, moves = self.heads(features, [boxes for boxes, _, _ in of_regions])
        return rpn_losses(objectness, deltas, of_anchors) | self.roi_losses(logits, moves, of_regions)

    def anchors(self, grid: Sequence[int]) -> Tensor:
        """(H W k, 4), kept for the next batch."""
        grid = tuple(grid)
        if grid not in self.grids:
            y, x = (torch.arange(cells) * self.stride * self.rpn_stride for cells in grid)
            corners = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], 2).reshape(-1, 1, 2)
            self.grids[grid] = (corners.repeat(1, 1, 2) + self.base_anchors).reshape(-1, 4)
        return self.grids[grid]

    def heads(self, features: Tensor, proposals: list[Tensor]) -> tuple[Tensor, Tensor]:
        """logits (R, K + 1), deltas (R, K + 1, 4)."""
        head, predictor = self.roi_heads.box_head, self.roi_heads.box_predictor
        x = roi_align(features, proposals, self.stride).flatten(1)
        x = F.relu(head.fc7(F.relu(head.fc6(x))))
        return predictor.cls_score(x), predictor.bbox_pred(x).reshape(len(x), self.num_classes, 4)

    def proposals(self, objectness: Tensor, deltas: Tensor, anchors: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Of each image (P, 4), best first: all images at once up to suppression."""
        scores, best = objectness.sort(dim=1, descending=True, stable=True)
        scores, best = scores[:, :PRE_NMS], best[:, :PRE_NMS]
        chosen = deltas.gather(1, best[..., None].expand(-1, -1, 4))
        boxes = clip(decode(chosen.reshape(-1, 4), anchors[best].reshape(-1, 4)), size).reshape(*best.shape, 4)
        large = is_large(boxes, LEAST_PROPOSAL)
        found = []
        for of_image, which in zip(boxes, large, strict=True):
            of_image = of_image[which]
            found.append(of_image[nms(of_image, NMS_IOU)[:POST_NMS]])
        return found

    def sample_anchors(self, anchors: Tensor, size: tuple[int, int], target: dict[str, Tensor]) -> Chosen:
        """Indices of anchors with an object, their deltas to it, indices of background."""
        inside = ((anchors[:, :2] >= 0) & (anchors[:, 2:] <= anchors.new_tensor(size[::-1]))).all(1).nonzero()[:, 0]
        if not len(target["boxes"]):
            return inside[:0], anchors[:0], draw(inside, RPN_SAMPLES)
        iou = box_iou(target["boxes"], anchors[inside])
        best, of = iou.max(0)
        most = iou.max(1, keepdim=True).values
        positive = (best >= RPN_IOU[1]) | ((iou == most) & (most > 0)).any(0)
        positives = draw(positive.nonzero()[:, 0], RPN_POSITIVES)
        negatives = draw(((best < RPN_IOU[0]) & ~positive).nonzero()[:, 0], RPN_SAMPLES - len(positives))
        deltas = encode(target["boxes"][of[positives]], anchors[inside[positives]])
        return inside[positives], deltas, inside[negatives]

    def sample_regions(self, proposals: Tensor, target: dict[str, Tensor]) -> Chosen:
        """Boxes (S, 4), their labels (S,), those of objects first, and the objects' deltas (P, 4)."""
        boxes = torch.cat([proposals, target["boxes"]])
        if not len(target["boxes"]):
            kept = draw(torch.arange(len(boxes)), ROI_SAMPLES)
            return boxes[kept], torch.zeros(len(kept), dtype=torch.long), boxes[:0]
        best, of = box_iou(target["boxes"], boxes).max(0)
        positives = draw((best >= ROI_IOU).nonzero()[:, 0], ROI_POSITIVES)
        negatives = draw((best < ROI_IOU).nonzero()[:, 0], ROI_SAMPLES - len(positives))
        labels = torch.cat([target["labels"][of[positives]], torch.zeros(len(negatives), dtype=torch.long)])
        deltas = encode(target["boxes"][of[positives]], boxes[positives], BOX_WEIGHTS)
        return boxes[torch.cat([positives, negatives])], labels, deltas

    def roi_losses(self, logits: Tensor, moves: Tensor, chosen: list[Chosen]) -> dict[str, Tensor]:
        labels = torch.cat([labels for _, labels, _ in chosen])
        positives = labels.nonzero()[:, 0]
        goals = torch.cat([deltas for _, _, deltas in chosen])
        box_loss = F.smooth_l1_loss(moves[positives, labels[positives]], goals, reduction="sum", beta=BETA)
        return {"loss_classifier": F.cross_entropy(logits, labels), "loss_box_reg": box_loss / max(len(labels), 1)}

    def detections(
        self, logits: Tensor, moves: Tensor, proposals: list[Tensor], size: tuple[int, int]
    ) -> list[dict[str, np.ndarray]]:
        counts, found = [len(boxes) for boxes in proposals], []
        of_images = zip(logits.softmax(1)[:, 1:].split(counts), moves.split(counts), proposals, strict=True)
        for scores, deltas, boxes in of_images:
            region, label = (scores > SCORE).nonzero().T
            boxes, scores = (
                clip(decode(deltas[region, label + 1], boxes[region], BOX_WEIGHTS), size),
                scores[region, label],
            )
            order = scores.argsort(descending=True, stable=True)
            order = order[is_large(boxes[order], LEAST_DETECTION)]
            boxes, scores, label = boxes[order], scores[order], label[order]
            # Classes far from one another do not overlap.
            kept = nms(boxes + label[:, None] * 2.0 * max(size), self.detection_iou)[:DETECTIONS]
            one = {"boxes": boxes[kept], "labels": label[kept] + 1, "scores": scores[kept]}
            found.append({key: value.numpy() for key, value in one.items()})
        return found


def rpn_losses(objectness: Tensor, deltas: Tensor, chosen: list[Chosen]) -> dict[str, Tensor]:
    anchors = objectness.shape[1]
    positives = torch.cat([i * anchors + positive for i, (positive, _, _) in enumerate(chosen)])
    negatives = torch.cat([i * anchors + negative for i, (_, _, negative) in enumerate(chosen)])
    sampled, goals = torch.cat([positives, negatives]), torch.cat([goals for _, goals, _ in chosen])
    is_object = torch.zeros(len(sampled))
    is_object[: len(positives)] = 1
    box_loss = F.smooth_l1_loss(deltas.reshape(-1, 4)[positives], goals, reduction="sum", beta=BETA)
    return {
        "loss_objectness": F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], is_object),
        "loss_rpn_box_reg": box_loss / max(len(sampled), 1),
    }


def roi_align(x: Tensor, boxes: Sequence[Tensor], stride: int, bins: int = BINS) -> Tensor:
    """x (N, C, H, W), boxes (R_i, 4) of each image -> (R, C, bins, bins), each bin the mean of 2 x 2 samples."""
    _, channels, height, width = x.shape
    counts, boxes = [len(these) for these in boxes], torch.cat(list(boxes))
    starts = boxes[:, :2] / stride
    sides = (boxes[:, 2:] / stride - starts).clamp(min=1)
    across, down = (weights_of(starts[:, axis], sides[:, axis], (width, height)[axis], bins) for axis in (0, 1))
    maps = x.permute(0, 2, 3, 1)  # (N, H, W, C), a view of channels-last memory
    of_rows = [
        these.reshape(-1, height) @ of_image.reshape(height, -1)
        for these, of_image in zip(down.split(counts), maps, strict=True)
    ]
    of_rows = torch.cat(of_rows).reshape(-1, width, channels)  # (7 R, W, C)
    means = torch.bmm(across.repeat_interleave(bins, 0), of_rows)  # (7 R, 7, W) (7 R, W, C) -> (7 R, 7, C)
    return means.reshape(-1, bins, bins, channels).permute(0, 3, 1, 2)


def weights_of(starts: Tensor, sides: Tensor, size: int, bins: int) -> Tensor:
    """Along one axis the part of each cell in each bin: (R, bins, size)."""
    places = starts[:, None] + (torch.arange(bins * SAMPLES) + 0.5) / (bins * SAMPLES) * sides[:, None]
    inside = (places >= -1) & (places <= size)
    near = (1 - (places.clamp(0, size - 1)[..., None] - torch.arange(size)).abs()).clamp(min=0) * inside[..., None]
    return near.reshape(len(starts), bins, SAMPLES, size).mean(2)


def draw(candidates: Tensor, count: int) -> Tensor:
    """At most count of them, at random."""
    return candidates if len(candidates) <= count else candidates[torch.randperm(len(candidates))[:count]]


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    low, high = boxes[:, None, :2].maximum(others[:, :2]), boxes[:, None, 2:].minimum(others[:, 2:])
    common = (high - low).clamp_(min=0).prod(2)
    area, other = ((x[:, 2:] - x[:, :2]).prod(1) for x in (boxes, others))
    return common / (area[:, None] + other - common)


def encode(boxes: Tensor, anchors: Tensor, weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    sides, anchor_sides = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    moved = (boxes[:, :2] + sides / 2 - anchors[:, :2] - anchor_sides / 2) / anchor_sides
    return torch.cat([moved, (sides / anchor_sides).log()], 1) * torch.tensor(weights)


def decode(deltas: Tensor, anchors: Tensor, weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    sides, deltas = anchors[:, 2:] - anchors[:, :2], deltas / torch.tensor(weights)
    centres = anchors[:, :2] + sides / 2 + deltas[:, :2] * sides
    half = sides * deltas[:, 2:].clamp(max=LOG_LIMIT).exp() / 2
    return torch.cat([centres - half, centres + half], 1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def is_large(boxes: Tensor, least: float) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] >= least).all(-1)


def nms(boxes: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes (R, 4), best first, that stay."""
    return torch.from_numpy(_suppress(np.ascontiguousarray(boxes.numpy().T), np.float32(threshold)))


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _suppress(boxes, threshold):
    x1, y1, x2, y2 = boxes
    areas, zero = (x2 - x1) * (y2 - y1), np.float32(0)
    suppressed, kept = np.zeros(len(x1), np.bool_), np.empty(len(x1), np.int64)
    count = 0
    for i in range(len(x1)):
        if suppressed[i]:
            continue
        kept[count] = i
        count += 1
        for j in range(i + 1, len(x1)):
            width = max(min(x2[i], x2[j]) - max(x1[i], x1[j]), zero)
            height = max(min(y2[i], y2[j]) - max(y1[i], y1[j]), zero)
            common = width * height
            if common / (areas[i] + areas[j] - common) > threshold:
                suppressed[j] = True
    return kept[:count]
