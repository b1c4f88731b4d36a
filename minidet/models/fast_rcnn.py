"""Fast R-CNN (Girshick 2015): the image goes through the network once, its regions are cut out of the feature map.

    image -> backbone -> feature map ----.
    proposals (Selective Search) ---------+-> RoI pooling -> fully connected layers -> class, box
                                          (projection)

The whole is trained end to end by one multi-task loss. Of a region with true class u and true box v, a softmax over
K + 1 classes p and boxes t of each class,

    L(p, u, t^u, v) = -log p_u + lambda [u >= 1] smooth_l1(t^u - v)          (equation 1, lambda = 1)

so background regions, u = 0, have no box. The lecture calls it a convex combination of the two: it is their sum.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..autograd import Tensor
from ..backbones.tiny import centred
from ..boxes import (
    BELOW,
    LEAST_SIDE,
    box_iou,
    clip_boxes_to_image,
    decode_boxes,
    encode_boxes,
    filter_detections,
    inside_crowds,
    match_boxes,
    remove_small_boxes,
    sample_balanced,
)
from ..device import on_device_of, to_numpy
from ..proposals import selective_search
from ..random import generator
from .image_batch import ImageBatch, batch_images, detection_targets, proposals_of, with_targets
from .roi_pooling import RoIPooling

# One over the usual standard deviations of dx, dy, dw, dh, 0.1 and 0.2: targets that vary by 1 make the box loss count
# as much as the class loss (section 2.3's normalization, with the numbers that Faster R-CNN's code has for all data).
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)

# Regions that are cut out together in evaluation. Their grids are the largest arrays of all: with 256 channels 50 kB
# each for a box, 800 kB for a mask, and some copies on the way. Faster R-CNN's 300 proposals are one part; more would
# be no faster, and 1000 took 70 MB more in a picture of 600 x 800. Each part reads all fully connected weights again.
AT_ONCE = 300

Strides = Sequence[tuple[int, int]]  # pixels from one cell of each map to the next, down and across


class TwoMLPHead(nn.Module):
    """Regions (R, C, S, S) -> (R, hidden), through two fully connected layers: VGG's fc6 and fc7."""

    def __init__(self, in_features: int, hidden: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_features, hidden)
        self.fc7 = nn.Linear(hidden, hidden)

    def forward(self, regions: Any) -> Any:
        return F.relu(self.fc7(F.relu(self.fc6(regions.flatten(1)))))


class FastRCNNPredictor(nn.Module):
    """Features (R, hidden) -> logits (R, K + 1) and deltas (R, 4 (K + 1)), a box for each class."""

    def __init__(self, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(hidden, num_classes)
        self.bbox_pred = nn.Linear(hidden, 4 * num_classes)
        # Section 2.3: so small that at first all classes are about equally likely, and boxes stay at the proposals.
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Any) -> tuple[Any, Any]:
        return self.cls_score(features), self.bbox_pred(features)


class RoIHeads(nn.Module):
    """What is done with each region: feature maps and proposals -> losses, or detections.

    pooling                   cuts regions out of the maps
    box_head, box_predictor   regions -> features -> logits and deltas
    num_classes               K + 1, with the background, class 0
    batch_size_per_image      regions of each image that are trained on (section 2.3: 64)
    positive_fraction         of these at most this part are objects (a quarter)
    fg_iou                    a region is an object's from this IoU on
    bg_iou                    and background below fg_iou, but not below this: what overlaps a little teaches more than
                              what does not at all (0.1 in Fast R-CNN, 0 in Faster R-CNN)
    beta                      where smooth-l1 becomes a line
    box_loss                  whether boxes are learned; without, the class alone is, and proposals stay as they are
    score_threshold, nms_threshold, detections_per_image   of what is found
    """

    def __init__(
        self,
        pooling: RoIPooling,
        box_head: nn.Module,
        box_predictor: nn.Module,
        num_classes: int,
        batch_size_per_image: int = 64,
        positive_fraction: float = 0.25,
        fg_iou: float = 0.5,
        bg_iou: float = 0.1,
        beta: float = 1.0,
        box_loss: bool = True,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.3,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__()
        if not 0 <= bg_iou < fg_iou <= 1:
            raise ValueError(f"RoIHeads: expected 0 <= bg_iou < fg_iou <= 1, got {bg_iou} and {fg_iou}")
        if int(batch_size_per_image * positive_fraction) < 1:
            raise ValueError(
                f"RoIHeads: expected enough regions an image that {positive_fraction:g} of them are one or more, which "
                f"may be an object's, got batch_size_per_image (recipes: regions) {batch_size_per_image}"
            )
        self.pooling, self.num_classes = pooling, num_classes
        self.box_head, self.box_predictor = box_head, box_predictor
        self.batch_size_per_image, self.positive_fraction = batch_size_per_image, positive_fraction
        self.fg_iou, self.bg_iou, self.beta, self.box_loss = fg_iou, bg_iou, beta, box_loss
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.detections_per_image = detections_per_image

    def forward(
        self, maps: Sequence[Any], proposals: list[np.ndarray], batch: ImageBatch, targets: list[dict] | None = None
    ) -> Any:
        """proposals: (P_i, 4) of each image, in pixels of the batch; targets: as detection_targets makes them."""
        strides = batch.strides(maps)
        if targets is None:
            return batch.to_original(self.find(maps, strides, proposals, batch.sizes))
        chosen = [self.sample(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]
        return self.learn(maps, strides, chosen, targets)

    def learn(
        self, maps: Sequence[Any], strides: Strides, chosen: list["ChosenRegions"], targets: list[dict]
    ) -> dict[str, Any]:
        """The losses of the chosen regions."""
        logits, deltas = self.judge(maps, strides, [regions.boxes for regions in chosen])
        labels, goals = (np.concatenate([getattr(one, name) for one in chosen]) for name in ("labels", "deltas"))
        return self.losses(logits, deltas, labels, goals)

    def find(
        self, maps: Sequence[Any], strides: Strides, proposals: list[np.ndarray], sizes: Sequence[tuple[int, int]]
    ) -> list[dict]:
        """What there is among the proposals, in pixels of the batch. sizes: of its images."""
        judged = [self.judge(maps, strides, part) for part in in_parts(proposals, AT_ONCE)]
        logits, deltas = (F.concatenate(parts, 0) for parts in zip(*judged, strict=True))
        found = self.detections(logits, deltas, proposals, sizes)
        watch.emit("roi.found", found)
        return found

    def judge(self, maps: Sequence[Any], strides: Strides, boxes: list[np.ndarray]) -> tuple[Any, Any]:
        """Logits (R, K + 1) and deltas (R, 4 (K + 1)) of the regions of all images, one after the other."""
        watch.emit("roi.boxes", boxes)
        regions = self.pooling(maps, boxes, strides)  # (R, C, S, S)
        watch.emit("roi.regions", regions)
        logits, deltas = self.box_predictor(self.box_head(regions))
        watch.emit("roi.logits", logits)
        watch.emit("roi.deltas", deltas)
        return logits, deltas

    def sample(self, proposals: np.ndarray, target: dict) -> "ChosenRegions":
        """Regions of one image to train on. The true boxes are proposals, too."""
        boxes = np.concatenate([proposals, target["boxes"]]).astype(np.float32, copy=False)
        iou = box_iou(target["boxes"], boxes)  # (R, P)
        matched = match_boxes(iou, self.fg_iou, self.fg_iou)
        background = (matched == BELOW) & ~inside_crowds(boxes, target["crowds"])
        hard = background & (iou.max(axis=0, initial=0) >= self.bg_iou)
        if hard.any():  # else, as in an image without objects, all background is as good
            background = hard
        positives, negatives = sample_balanced(
            matched >= 0, background, self.batch_size_per_image, self.positive_fraction, generator()
        )
        kept = np.concatenate([positives, negatives])
        labels, deltas = np.zeros(len(kept), np.int64), np.zeros((len(kept), 4), np.float32)
        objects = matched[positives]
        labels[: len(positives)] = target["labels"][objects]
        deltas[: len(positives)] = encode_boxes(target["boxes"][objects], boxes[positives], BOX_WEIGHTS)
        watch.emit("roi.labels", labels)
        return ChosenRegions(boxes[kept], labels, deltas, objects, iou[objects, positives])

    def losses(self, logits: Any, deltas: Any, labels: np.ndarray, goals: np.ndarray) -> dict[str, Any]:
        """Both terms of equation 1, over all sampled regions: background counts in the divisor of the box loss."""
        losses = {"loss_classifier": F.cross_entropy(logits, labels)}
        if self.box_loss:
            (positives,) = np.nonzero(labels)
            of_class = deltas.reshape(len(labels), self.num_classes, 4)[positives, labels[positives]]  # (P, 4)
            goals = on_device_of(goals[positives].astype(deltas.dtype, copy=False), deltas.data)
            loss = F.smooth_l1_loss(of_class, goals, reduction="sum", beta=self.beta)
            losses["loss_box_reg"] = loss * (1 / max(len(labels), 1))
        return losses

    def detections(
        self, logits: Any, deltas: Any, proposals: list[np.ndarray], sizes: Sequence[tuple[int, int]]
    ) -> list[dict]:
        """Of each image boxes (D, 4) in pixels of the batch, labels (D,) and scores (D,), best first."""
        scores = F.softmax(to_numpy(logits.data), dim=1)[:, 1:]  # (R, K)
        deltas = to_numpy(deltas.data).reshape(len(scores), self.num_classes, 4)[:, 1:]
        if not self.box_loss:
            deltas = np.zeros_like(deltas)
        found, start = [], 0
        for boxes, size in zip(proposals, sizes, strict=True):
            these = slice(start, start := start + len(boxes))
            refined = clip_boxes_to_image(decode_boxes(deltas[these], boxes, BOX_WEIGHTS), size)
            limits = self.score_threshold, self.nms_threshold, self.detections_per_image
            found.append(filter_detections(refined, scores[these], *limits, LEAST_SIDE))
        return found


class ChosenRegions(NamedTuple):
    """Regions of one image to train on: boxes (S, 4), labels (S,), 0 for background; deltas (S, 4) to their objects'
    boxes, zeros for background; and which objects (P,) the first P regions show, with overlaps (P,), their IoU. The
    others are background."""

    boxes: np.ndarray
    labels: np.ndarray
    deltas: np.ndarray
    objects: np.ndarray
    overlaps: np.ndarray

    @property
    def shown(self) -> np.ndarray:
        """Boxes (P, 4) of those that show an object."""
        return self.boxes[: len(self.objects)]

    @property
    def shown_labels(self) -> np.ndarray:
        """Their labels (P,)."""
        return self.labels[: len(self.objects)]


def in_parts(boxes: Sequence[np.ndarray], most: int) -> Iterator[list[np.ndarray]]:
    """The boxes (R_i, 4) of all images, one after the other, at most so many at a time: lists of each image's, as
    before. Of no boxes one part."""
    counts = [len(of_image) for of_image in boxes]
    firsts = np.cumsum([0, *counts])
    for start in range(0, max(firsts[-1], 1), most):
        yield [
            of_image[max(start - first, 0) : max(start + most - first, 0)]
            for of_image, first in zip(boxes, firsts[:-1], strict=True)
        ]


def by_image(values: np.ndarray, boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Values (R, ...) of the boxes (R_i, 4) of all images, one after the other -> (R_i, ...) of each image."""
    return np.split(values, np.cumsum([len(of_image) for of_image in boxes])[:-1])


def compressed(layer: nn.Linear, rank: int) -> nn.Sequential:
    """A fully connected layer as two smaller ones, by the best approximation of that rank (section 3.1).

    W (out, in) is nearly U diag(s) V, with `rank` columns and rows, so that rank (in + out) multiplications do for
    in * out. A lower rank is faster and less exact.
    """
    weight = to_numpy(layer.weight.data)
    if not 1 <= rank <= min(weight.shape):
        raise ValueError(
            f"compressed: expected a rank from 1 to {min(weight.shape)} for weights {weight.shape}, got {rank}"
        )
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    first = nn.Linear(weight.shape[1], rank, bias=False)
    second = nn.Linear(rank, weight.shape[0], bias=layer.bias is not None)
    first.weight.data[...] = s[:rank, None] * v[:rank]
    second.weight.data[...] = u[:, :rank]
    if layer.bias is not None:
        second.bias.data[...] = to_numpy(layer.bias.data)
    return nn.Sequential(first, second).to(layer.device)


class FastRCNN(nn.Module):
    """images and proposals -> detections.

    backbone      images (N, 3, H, W) -> a feature map, with out_channels and stride
    num_classes   K + 1, with the background
    hidden        units of the two fully connected layers
    pooling       7 x 7 as in the paper, RoIPool or RoIAlign
    normalize     what is done to images (1, 3, h, w) first: less their mean colour, as a TinyBackbone likes them
    propose       an image (H, W, 3) uint8 -> regions (P, 4) in its pixels, for images whose targets have none
    options       RoIHeads'

    Training: model(images, targets) -> {"loss_classifier", "loss_box_reg"}. Evaluation: model(images), or with targets
    of which only the proposals are read, -> a dict an image with boxes (D, 4), labels (D,) and scores (D,), on the CPU.
    targets: dicts with proposals (P, 4), for training boxes (R, 4), labels (R,) and iscrowd (R,), on the CPU, in pixels
    of their image.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        hidden: int = 256,
        pooling: RoIPooling | None = None,
        propose: Callable[[np.ndarray], np.ndarray] = selective_search,
        normalize: Callable[[Any], Any] = centred,
        min_size: int | None = None,
        max_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        pooling = pooling or RoIPooling(7, "pool")
        self.propose = propose
        self.normalize, self.min_size, self.max_size = normalize, min_size, max_size
        self.backbone = backbone
        box_head = TwoMLPHead(backbone.out_channels * pooling.output_size**2, hidden)
        self.roi_heads = RoIHeads(pooling, box_head, FastRCNNPredictor(hidden, num_classes), num_classes, **options)

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        batch = batch_images(images, self.normalize, self.min_size, self.max_size, self.backbone.stride)
        truth = detection_targets(targets, batch, self.roi_heads.num_classes - 1) if self.training else None
        proposals = [
            self.proposals(image, target, batch, position)
            for position, (image, target) in enumerate(with_targets(images, targets))
        ]
        watch.emit("fast_rcnn.proposals", proposals)
        maps = as_levels(self.backbone(batch.tensor))
        watch.emit("backbone.maps", maps)
        return self.roi_heads(maps, proposals, batch, truth)

    def proposals(self, image: Any, target: dict, batch: ImageBatch, position: int) -> np.ndarray:
        """Regions (P, 4) of one image, in pixels of the batch and within the image."""
        boxes = batch.from_original(proposals_of(target, image, self.propose), position)
        boxes = clip_boxes_to_image(boxes, batch.sizes[position])
        return boxes[remove_small_boxes(boxes, LEAST_SIDE)]


def as_levels(maps: Any) -> list[Any]:
    """A backbone's maps, finest first, also where it has only one."""
    return [maps] if isinstance(maps, Tensor) else list(maps)
