"""SSD (Liu et al. 2016, "SSD: Single Shot MultiBox Detector"): default boxes on maps of several sizes, in one look.

    image, resized to a square -> backbone -> maps, each about half as fine as the one before
          -> on each map a 3 x 3 convolution: in each cell, for each of its default boxes, K + 1 scores and 4 offsets

Fine maps find small objects, coarse ones large ones: it is a region proposal network on a pyramid that says the class
at once. Nearly all of its thousands of boxes are background, and would be all that it learns. So of each image only the
hardest of them count, three for each box that has an object.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..boxes import (
    BELOW,
    BETWEEN,
    batched_nms,
    best_first,
    box_iou,
    clip_boxes_to_image,
    decode_boxes,
    default_boxes,
    encode_boxes,
    inside_crowds,
    match_bipartite,
    match_boxes,
)
from ..device import on_device_of, to_numpy
from .image_batch import ImageBatch, batch_images, detection_targets, unchanged

# The authors' code, "variances": one over (0.1, 0.1, 0.2, 0.2).
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
MATCHED_IOU = 0.5  # a default box is an object's from this IoU on (section 2.2); lower: more boxes learn, less exact
# How likely an object is before training with the focal loss (Lin et al. 2017, section 4.1).
PRIOR = 0.01
NEGATIVES = 3  # background boxes for each box with an object (section 2.2, "hard negative mining")


@dataclass(frozen=True)
class DefaultBoxes:
    """Which default boxes a cell of each level has: see boxes.default_boxes."""

    steps: Sequence[float]
    scales: Sequence[float]
    ratios: Sequence[Sequence[float]]

    def counts(self) -> list[int]:
        """How many boxes a cell of each level has."""
        return [2 + 2 * len(of_level) for of_level in self.ratios]

    def over(self, maps: Sequence[Any], size: int) -> np.ndarray:
        """Those of maps (N, C, H, W), for images of `size` x `size` pixels: (A, 4)."""
        return default_boxes([level.shape[2:] for level in maps], self.steps, self.scales, self.ratios, size)


class LevelHeads(nn.Module):
    """Maps (N, C_l, H_l, W_l) -> (N, A, numbers), one 3 x 3 convolution a level; keys as torchvision's."""

    def __init__(self, in_channels: Sequence[int], boxes: Sequence[int], numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.module_list = nn.ModuleList(
            nn.Conv2d(channels, count * numbers, 3, padding=1)
            for channels, count in zip(in_channels, boxes, strict=True)
        )
        for convolution in self.module_list:
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)

    def forward(self, maps: Sequence[Any]) -> Any:
        levels = []
        for level, convolution in zip(maps, self.module_list, strict=True):
            x = convolution(level).transpose(0, 2, 3, 1)  # (N, H, W, B numbers)
            levels.append(x.reshape(len(level), -1, self.numbers))
        return F.concatenate(levels, 1)


class SSD(nn.Module):
    """images -> detections.

    backbone      images (N, 3, size, size) -> maps, finest first, with out_channels, of each
    num_classes   K + 1, with the background, class 0
    size          pixels of the square that every image is resized to, whatever its shape
    boxes         the default boxes
    bipartite     objects get different best boxes, as in the paper; False: each its best one, which another may have
                  too, as in torchvision
    mining        NEGATIVES hard ones an image; False: all background boxes count
    focal         exponent of the focal loss (Lin et al. 2017, equation 4), which takes the place of mining; None: none.
                  The larger, the less easy boxes count; 2 in the paper
    normalize     what is done to images (1, 3, h, w) first; a TinyBackbone centres them itself
    score_threshold, candidates, nms_threshold, detections_per_image   of what is found; candidates: the best of a class
                  that go into suppression

    Training: model(images, targets) -> {"bbox_regression", "classification"}. targets: dicts with boxes (R, 4), labels
    (R,) in 1..K and iscrowd (R,), on the CPU, in pixels of their image; R may be 0. Evaluation: model(images) -> a dict
    an image with boxes (D, 4), labels (D,) and scores (D,), on the CPU.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        size: int,
        boxes: DefaultBoxes,
        bipartite: bool = True,
        mining: bool = True,
        focal: float | None = None,
        normalize: Callable[[Any], Any] = unchanged,
        score_threshold: float = 0.01,
        candidates: int = 400,
        nms_threshold: float = 0.45,
        detections_per_image: int = 200,
    ) -> None:
        super().__init__()
        if focal is not None and not (focal == 0 or focal >= 1):
            raise ValueError(f"SSD: expected focal 0 or from 1 on, got {focal}: the gradient of a sure box is infinite")
        self.num_classes, self.size, self.boxes = num_classes, size, boxes
        self.bipartite, self.mining, self.focal = bipartite, mining, focal
        self.normalize = normalize
        self.score_threshold, self.candidates = score_threshold, candidates
        self.nms_threshold, self.detections_per_image = nms_threshold, detections_per_image
        self.backbone = backbone
        self.head = nn.Module()
        self.head.classification_head = LevelHeads(backbone.out_channels, boxes.counts(), num_classes)
        self.head.regression_head = LevelHeads(backbone.out_channels, boxes.counts(), 4)
        if focal is not None:  # without mining the many that are background would drown all others at first
            background = math.log((num_classes - 1) * (1 - PRIOR) / PRIOR)
            for convolution in self.head.classification_head.module_list:
                convolution.bias.data.reshape(-1, num_classes)[:, 0] = background

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        batch = batch_images(images, self.normalize, None, None, 1, fixed_size=(self.size, self.size))
        truth = detection_targets(targets, batch, self.num_classes - 1) if self.training else []
        maps = self.backbone(batch.tensor)
        watch.emit("backbone.maps", maps)
        logits, deltas = self.head.classification_head(maps), self.head.regression_head(maps)
        watch.emit("ssd.logits", logits)  # (N, A, K + 1)
        watch.emit("ssd.deltas", deltas)  # (N, A, 4)
        boxes = self.boxes.over(maps, self.size)
        watch.emit("ssd.default_boxes", boxes)
        if not self.training:
            return self.detections(to_numpy(logits.data), to_numpy(deltas.data), boxes, batch)
        matched = [self.match(boxes, target) for target in truth]
        watch.emit("ssd.matched", matched)
        return self.losses(logits, deltas, boxes, matched, truth)

    # ---- training

    def match(self, boxes: np.ndarray, target: dict) -> np.ndarray:
        """The object of each default box, BELOW for background, BETWEEN for background that lies in a crowd: (A,)."""
        iou = box_iou(target["boxes"], boxes)  # (R, A)
        matched = match_boxes(iou, MATCHED_IOU, MATCHED_IOU)
        own = match_bipartite(iou) if self.bipartite else np.where(iou.max(axis=1) > 0, iou.argmax(axis=1), BELOW)
        (found,) = np.nonzero(own != BELOW)
        matched[own[found]] = found
        matched[(matched == BELOW) & inside_crowds(boxes, target["crowds"])] = BETWEEN
        return matched

    def losses(
        self, logits: Any, deltas: Any, boxes: np.ndarray, matched: list[np.ndarray], truth: list[dict]
    ) -> dict[str, Any]:
        """Equation 1: both terms over the number of boxes with an object in the batch; 0 where there is none.

        With mining no box of an image without objects counts, as three times none are none."""
        count = sum(int((of_image >= 0).sum()) for of_image in matched)
        labels, goals = [], []
        for of_image, target in zip(matched, truth, strict=True):
            positive = of_image >= 0
            labels.append(np.where(positive, np.append(target["labels"], 0)[np.maximum(of_image, -1)], 0))
            goals.append(encode_boxes(target["boxes"][of_image[positive]], boxes[positive], BOX_WEIGHTS))
        labels, matched = np.stack(labels), np.stack(matched)  # (N, A)
        mine = deltas[matched >= 0]  # (P, 4)
        goals = on_device_of(np.concatenate(goals).astype(deltas.dtype, copy=False), deltas.data)
        box_loss = F.smooth_l1_loss(mine, goals, reduction="sum")
        counted = self.counted(logits, labels, matched)
        chosen, wanted = logits[counted], labels[counted]
        if self.focal is None:
            class_loss = F.cross_entropy(chosen, wanted, reduction="sum")
        else:
            class_loss = focal_loss(chosen, wanted, self.focal)
        return {"bbox_regression": box_loss / max(count, 1), "classification": class_loss / max(count, 1)}

    def counted(self, logits: Any, labels: np.ndarray, matched: np.ndarray) -> np.ndarray:
        """Which boxes' classes are learned: (N, A) bool."""
        positive, negative = matched >= 0, matched == BELOW
        if not positive.any():
            return positive
        if self.focal is not None or not self.mining:
            return positive | negative
        log_probabilities = F.log_softmax(to_numpy(logits.data), dim=2)
        hardness = np.where(negative, -log_probabilities[..., 0], -np.inf)  # how wrong "background" is found
        wanted = np.minimum(NEGATIVES * positive.sum(axis=1), negative.sum(axis=1))
        for of_image, kept, number in zip(hardness, positive, wanted, strict=True):  # positive is a new array
            kept[best_first(of_image, int(number))] = True
        return positive

    # ---- detection

    def detections(self, logits: np.ndarray, deltas: np.ndarray, boxes: np.ndarray, batch: ImageBatch) -> list[dict]:
        """Of each image boxes (D, 4) in its own pixels, labels (D,) and scores (D,), best first."""
        probabilities = F.softmax(logits, dim=2)[..., 1:]  # (N, A, K)
        found = []
        for image, (scores, moves) in enumerate(zip(probabilities, deltas, strict=True)):
            decoded = clip_boxes_to_image(decode_boxes(moves, boxes, BOX_WEIGHTS), batch.sizes[image])
            found.append(self.choose(decoded, scores))
        return batch.to_original(found)

    def choose(self, boxes: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
        """The detections among boxes (A, 4) with scores (A, K)."""
        rows, classes = [], []
        for k in range(scores.shape[1]):
            (above,) = np.nonzero(scores[:, k] > self.score_threshold)
            rows.append(above[best_first(scores[above, k], self.candidates)])
            classes.append(np.full(len(rows[-1]), k))
        rows, classes = np.concatenate(rows), np.concatenate(classes)
        scores = scores[rows, classes]
        kept = batched_nms(boxes[rows], scores, classes, self.nms_threshold)[: self.detections_per_image]
        return {"boxes": boxes[rows[kept]], "labels": classes[kept] + 1, "scores": scores[kept]}


def focal_loss(logits: Any, labels: np.ndarray, gamma: float) -> Any:
    """The sum of -(1 - p)^gamma log p, p the probability of the right class (Lin et al. 2017, equation 4). logits
    (R, K), labels (R,)."""
    right = F.log_softmax(logits, dim=1)[np.arange(len(labels)), labels]
    return -((1 - F.exp(right)) ** gamma * right).sum()
