"""Faster R-CNN (Ren et al. 2015): a network proposes the regions, on the very feature map that they are cut out of.

    image -> backbone -> feature map -+-> RPN: 3 x 3 convolution -> at each cell, for each of k anchors,
                                      |        object or not (2k scores) and how to move it (4k offsets) -> proposals
                                      |                                                                        |
                                      `-----------------------> RoI pooling <----------------------------------'
                                                                    `-> Fast R-CNN: class and box

Four losses: the RPN's two, of object against no object and of its boxes, and Fast R-CNN's two. They are trained
jointly, as here, by their sum, or alternately (models/four_steps.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..backbones.tiny import centred
from ..boxes import (
    BELOW,
    best_first,
    box_iou,
    decode_boxes,
    encode_boxes,
    filter_proposals,
    grid_anchors,
    inside_crowds,
    match_boxes,
    sample_balanced,
)
from ..device import on_device_of, to_numpy
from ..random import generator
from .fast_rcnn import FastRCNNPredictor, RoIHeads, TwoMLPHead, as_levels
from .image_batch import ImageBatch, batch_images, detection_targets
from .roi_pooling import RoIPooling

RPN_BETA = 1 / 9  # where the RPN's smooth-l1 becomes a line (the authors' code: sigma = 3)


class RPNHead(nn.Module):
    """Maps (N, C, H, W) of each level -> objectness (N, H * W * k) and deltas (N, H * W * k, 4) of their anchors.

    scores: 2 a cell and anchor, "no object" and "object", as in the paper, or their difference alone, 1. The softmax of
    two scores is the sigmoid of their difference, so both train the same function; torchvision's layout has 1.
    stride: of the 3 x 3 convolution; 2 looks at every second cell, for a fine map that regions are cut out of, but that
    has more anchors than are needed to find them. H and W are those of the maps divided by it.
    """

    def __init__(self, in_channels: int, anchors: int, channels: int = 256, scores: int = 2, stride: int = 1) -> None:
        super().__init__()
        self.anchors, self.scores, self.stride = anchors, scores, stride
        convolution = nn.Conv2d(in_channels, channels, 3, stride, padding=1)
        self.conv = nn.Sequential(nn.ConvNormReLU(convolution, nn.ReLU()))
        self.cls_logits = nn.Conv2d(channels, scores * anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv[0][0], self.cls_logits, self.bbox_pred):  # section 3.1.3
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        objectness, deltas = [], []
        for level in maps:
            x = self.conv(level)  # (N, channels, H, W)
            scores, count = self.cls_logits(x), len(level)
            if self.scores == 2:
                scores = scores[:, self.anchors :] - scores[:, : self.anchors]
            objectness.append(scores.transpose(0, 2, 3, 1).reshape(count, -1))  # (N, H * W * k)
            deltas.append(self.bbox_pred(x).transpose(0, 2, 3, 1).reshape(count, -1, 4))  # (N, H * W * k, 4)
        return objectness, deltas


class RegionProposalNetwork(nn.Module):
    """Feature maps -> proposals (P_i, 4) of each image, best first, and in training two losses.

    head                  says of each anchor whether it is an object's, and how to move it
    base_anchors          of each level, (k, 4), those of the cell at pixel (0, 0); grid_anchors moves them to others
    inside_only           anchors that cross the image's border are not trained on, as in the paper (section 3.1.3)
    fg_iou, bg_iou        an anchor is an object's from fg_iou on, or if it is an object's best, background below bg_iou
    batch_size_per_image, positive_fraction   anchors of an image that are trained on
    pre_nms, post_nms     (training, evaluation): the best of each level that are looked at, and how many are left after
                          suppression
    min_size              proposals with a shorter side, in pixels of the batch, are dropped, after pre_nms as in
                          torchvision. The authors' code drops them before, and asks for 16 pixels of the original image
    """

    def __init__(
        self,
        head: RPNHead,
        base_anchors: Sequence[np.ndarray],
        inside_only: bool = True,
        fg_iou: float = 0.7,
        bg_iou: float = 0.3,
        batch_size_per_image: int = 256,
        positive_fraction: float = 0.5,
        pre_nms: tuple[int, int] = (12000, 6000),
        post_nms: tuple[int, int] = (2000, 300),
        nms_threshold: float = 0.7,
        min_size: float = 16.0,
    ) -> None:
        super().__init__()
        self.head, self.base_anchors, self.inside_only = head, list(base_anchors), inside_only
        self.fg_iou, self.bg_iou = fg_iou, bg_iou
        self.batch_size_per_image, self.positive_fraction = batch_size_per_image, positive_fraction
        self.pre_nms, self.post_nms = pre_nms, post_nms
        self.nms_threshold, self.min_size = nms_threshold, min_size

    def forward(
        self, maps: Sequence[Any], batch: ImageBatch, targets: list[dict] | None = None
    ) -> tuple[list[np.ndarray], dict[str, Any]]:
        objectness, deltas = self.head(maps)
        anchors = [
            grid_anchors(base, cells, strides)
            for base, cells, strides in zip(self.base_anchors, *self.grids(maps, batch), strict=True)
        ]
        watch.emit("rpn.objectness", objectness)
        watch.emit("rpn.deltas", deltas)
        watch.emit("rpn.anchors", anchors)
        proposals = self.proposals(objectness, deltas, anchors, batch)
        watch.emit("rpn.proposals", proposals)
        if targets is None:
            return proposals, {}
        anchors = np.concatenate(anchors)
        chosen = [self.sample(anchors, size, target) for size, target in zip(batch.sizes, targets, strict=True)]
        return proposals, rpn_losses(F.concatenate(objectness, 1), F.concatenate(deltas, 1), chosen)

    def grids(self, maps: Sequence[Any], batch: ImageBatch) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Of each level how many cells the head looks at, down and across, and the pixels from one to the next."""
        step = self.head.stride
        cells = [tuple(-(-side // step) for side in level.shape[2:]) for level in maps]
        return cells, [(step * down, step * across) for down, across in batch.strides(maps)]

    def proposals(
        self, objectness: list[Any], deltas: list[Any], anchors: list[np.ndarray], batch: ImageBatch
    ) -> list[np.ndarray]:
        """Proposals (P_i, 4) of each image. They are constants: no gradient flows through their coordinates."""
        before, after = (counts[0 if self.training else 1] for counts in (self.pre_nms, self.post_nms))
        boxes, scores = [], []
        for level_scores, moves, of_cells in zip(objectness, deltas, anchors, strict=True):
            level_scores, moves = to_numpy(level_scores.data), to_numpy(moves.data)
            # A score that is NaN is no proposal's. In training the losses are NaN, too, and their check explains it.
            level_scores = np.where(np.isnan(level_scores), np.float32(-np.inf), level_scores)
            best = np.stack([best_first(of_image, before) for of_image in level_scores])  # (N, B)
            moves = np.take_along_axis(moves, best[..., None], axis=1)
            decoded = decode_boxes(moves.reshape(-1, 4), of_cells[best].reshape(-1, 4))
            boxes.append(decoded.reshape(moves.shape))
            scores.append(np.take_along_axis(level_scores, best, axis=1))
        of_level = np.repeat(np.arange(len(boxes)), [level.shape[1] for level in boxes])
        boxes, scores = np.concatenate(boxes, axis=1), np.concatenate(scores, axis=1)
        return [
            filter_proposals(its_boxes, its_scores, of_level, size, after, self.nms_threshold, self.min_size)
            for its_boxes, its_scores, size in zip(boxes, scores, batch.sizes, strict=True)
        ]

    def sample(
        self, anchors: np.ndarray, size: tuple[int, int], target: dict
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Anchors of one image to train on: indices of those with an object, the deltas (P, 4) to its box, and indices
        of background."""
        usable = np.arange(len(anchors))
        if self.inside_only:
            x1, y1, x2, y2 = anchors.T
            (inside,) = np.nonzero((x1 >= 0) & (y1 >= 0) & (x2 <= size[1]) & (y2 <= size[0]))
            if len(inside):  # else the image is smaller than every anchor, and would teach nothing
                usable = inside
        candidates = anchors[usable]
        matched = match_boxes(box_iou(target["boxes"], candidates), self.fg_iou, self.bg_iou, allow_low_quality=True)
        background = (matched == BELOW) & ~inside_crowds(candidates, target["crowds"])
        positives, negatives = sample_balanced(
            matched >= 0, background, self.batch_size_per_image, self.positive_fraction, generator()
        )
        deltas = encode_boxes(target["boxes"][matched[positives]], candidates[positives])
        return usable[positives], deltas, usable[negatives]


def rpn_losses(objectness: Any, deltas: Any, chosen: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """The RPN's two losses (equation 1), both over the number of sampled anchors.

    objectness (N, A), deltas (N, A, 4); chosen: of each image what RegionProposalNetwork.sample says.
    """
    positives = np.concatenate([i * objectness.shape[1] + positive for i, (positive, _, _) in enumerate(chosen)])
    negatives = np.concatenate([i * objectness.shape[1] + negative for i, (_, _, negative) in enumerate(chosen)])
    goals = np.concatenate([goals for _, goals, _ in chosen]).astype(deltas.dtype, copy=False)
    sampled = np.concatenate([positives, negatives])
    is_object = np.zeros(len(sampled), objectness.dtype)
    is_object[: len(positives)] = 1
    scores = objectness.reshape(-1)[sampled]
    boxes = deltas.reshape(-1, 4)[positives]
    box_loss = F.smooth_l1_loss(boxes, on_device_of(goals, boxes.data), reduction="sum", beta=RPN_BETA)
    return {
        "loss_objectness": F.binary_cross_entropy_with_logits(scores, on_device_of(is_object, scores.data)),
        "loss_rpn_box_reg": box_loss * (1 / max(len(sampled), 1)),
    }


class FasterRCNN(nn.Module):
    """images -> detections.

    backbone       images (N, 3, H, W) -> one map or several, finest first, with out_channels and stride, the coarsest's
    rpn            proposes regions
    roi_heads      says what they are: Fast R-CNN's second half
    normalize, min_size, max_size   how images are prepared: batch_images

    Training: model(images, targets) -> the four losses. targets: dicts with boxes (R, 4), labels (R,) in 1..K and
    iscrowd (R,), on the CPU, in pixels of their image; R may be 0. Evaluation, model.eval(): model(images) -> a dict an
    image with boxes (D, 4), labels (D,) and scores (D,), on the CPU; targets are not looked at.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads,
        normalize: Callable[[Any], Any] = centred,
        min_size: int | None = None,
        max_size: int | None = None,
    ) -> None:
        super().__init__()
        self.normalize, self.min_size, self.max_size = normalize, min_size, max_size
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        batch = batch_images(images, self.normalize, self.min_size, self.max_size, self.backbone.stride)
        truth = detection_targets(targets, batch, self.roi_heads.num_classes - 1) if self.training else None
        maps = as_levels(self.backbone(batch.tensor))
        watch.emit("backbone.maps", maps)
        proposals, rpn_losses = self.rpn(maps, batch, truth)
        found = self.roi_heads(maps, proposals, batch, truth)
        return rpn_losses | found if self.training else found


def small_faster_rcnn(
    backbone: nn.Module,
    num_classes: int,
    base_anchors: np.ndarray,
    hidden: int = 256,
    rpn_stride: int = 1,
    pooling: str = "align",
    heads: Callable[..., RoIHeads] = RoIHeads,
    regions: int = 64,
    nms_threshold: float = 0.5,
    min_size: int | None = None,
    max_size: int | None = None,
) -> FasterRCNN:
    """A Faster R-CNN on one map of a small backbone.

    rpn_stride: cells from one that the RPN looks at to the next. pooling: RoIPooling's method. heads: called as
    RoIHeads, for those that look for more than boxes (models/mask_rcnn.py). regions: of each image that RoIHeads are
    trained on. nms_threshold: of detections.
    """
    rpn = RegionProposalNetwork(
        RPNHead(backbone.out_channels, len(base_anchors), stride=rpn_stride),
        [base_anchors],
        pre_nms=(1000, 1000),
        post_nms=(300, 300),
        min_size=2.0,
    )
    roi_pooling = RoIPooling(7, pooling, sampling_ratio=2)
    roi_heads = heads(
        roi_pooling,
        TwoMLPHead(backbone.out_channels * roi_pooling.output_size**2, hidden),
        FastRCNNPredictor(hidden, num_classes),
        num_classes,
        batch_size_per_image=regions,
        bg_iou=0.0,
        beta=RPN_BETA,
        nms_threshold=nms_threshold,
    )
    return FasterRCNN(backbone, rpn, roi_heads, min_size=min_size, max_size=max_size)
