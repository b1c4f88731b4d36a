"""Keypoint R-CNN (He et al. 2017, section 5): Mask R-CNN's way of looking closer, at a person's joints.

    feature maps and people's boxes -> RoIAlign 14 x 14 -> 3 x 3 convolutions -> deconvolution, twice as fine
                                    -> twice as fine again, bilinearly: of each joint a map of 56 x 56 logits

A joint is a mask of one pixel: a softmax over the map's cells is trained to say which.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..boxes.keypoints import heatmaps_to_keypoints, keypoints_to_cells
from ..device import to_numpy
from .fast_rcnn import AT_ONCE, ChosenRegions, RoIHeads, Strides, by_image, in_parts
from .faster_rcnn import FasterRCNN, small_faster_rcnn
from .image_batch import with_keypoints
from .mask_rcnn import he_initialized
from .roi_pooling import RoIPooling


class KeypointRCNNHeads(nn.Sequential):
    """Regions (R, C, S, S) -> (R, layers[-1], S, S): 3 x 3 convolutions with as many channels as `layers` says."""

    def __init__(self, in_channels: int, layers: Sequence[int]) -> None:
        parts: list[nn.Module] = []
        for before, after in zip([in_channels, *layers], layers, strict=False):
            parts += [he_initialized(nn.Conv2d(before, after, 3, padding=1)), nn.ReLU()]
        super().__init__(*parts)


class KeypointRCNNPredictor(nn.Module):
    """Features (R, C, S, S) -> logits (R, num_keypoints, 4 S, 4 S)."""

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.kps_score_lowres = he_initialized(nn.ConvTranspose2d(in_channels, num_keypoints, 4, 2, padding=1))

    def forward(self, features: Any) -> Any:
        logits = self.kps_score_lowres(features)
        size = 2 * logits.shape[2], 2 * logits.shape[3]
        return F.interpolate(logits, size, mode="bilinear")


class KeypointRoIHeads(RoIHeads):
    """RoIHeads whose detections have keypoints (D, J, 3), x, y, 1, and keypoints_scores (D, J), the maps' maxima.

    keypoint_pooling, keypoint_head, keypoint_predictor   regions -> features -> a map of logits for each joint
    keypoint_iou   joints are learned in regions that are an object's from this IoU on. By default fg_iou, those that
                   boxes are learned from, as in the paper; where people overlap, a tighter box says better who is meant
    keypoint_places   a map is read in so many places a side at least: heatmaps_to_keypoints' least
    Other arguments: RoIHeads'.
    """

    def __init__(
        self,
        *arguments: Any,
        keypoint_pooling: RoIPooling,
        keypoint_head: nn.Module,
        keypoint_predictor: nn.Module,
        keypoint_iou: float | None = None,
        keypoint_places: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        keypoint_iou = self.fg_iou if keypoint_iou is None else keypoint_iou
        if not self.fg_iou <= keypoint_iou <= 1:
            raise ValueError(f"keypoint_iou: expected a number from fg_iou, {self.fg_iou:g}, to 1, got {keypoint_iou}")
        self.keypoint_pooling = keypoint_pooling
        self.keypoint_iou, self.keypoint_places = keypoint_iou, keypoint_places
        self.keypoint_head, self.keypoint_predictor = keypoint_head, keypoint_predictor

    def learn(
        self, maps: Sequence[Any], strides: Strides, chosen: list[ChosenRegions], targets: list[dict]
    ) -> dict[str, Any]:
        losses = super().learn(maps, strides, chosen, targets)
        tight = [regions.overlaps >= self.keypoint_iou for regions in chosen]
        boxes = [regions.shown[kept] for regions, kept in zip(chosen, tight, strict=True)]
        logits = self.point(maps, strides, boxes)
        keypoints = [
            target["keypoints"][regions.objects[kept]]
            for target, regions, kept in zip(with_keypoints(targets, logits.shape[1]), chosen, tight, strict=True)
        ]
        return losses | {"loss_keypoint": keypoint_loss(logits, np.concatenate(keypoints), np.concatenate(boxes))}

    def find(
        self, maps: Sequence[Any], strides: Strides, proposals: list[np.ndarray], sizes: Sequence[tuple[int, int]]
    ) -> list[dict]:
        found = super().find(maps, strides, proposals, sizes)
        boxes = [one["boxes"] for one in found]
        parts = in_parts(boxes, AT_ONCE)
        logits = np.concatenate([to_numpy(self.point(maps, strides, part).data) for part in parts])
        keypoints, scores = heatmaps_to_keypoints(logits, np.concatenate(boxes), self.keypoint_places)
        of_images = zip(found, by_image(keypoints, boxes), by_image(scores, boxes), strict=True)
        return [one | {"keypoints": joints, "keypoints_scores": heights} for one, joints, heights in of_images]

    def point(self, maps: Sequence[Any], strides: Strides, boxes: list[np.ndarray]) -> Any:
        """Logits (R, J, M, M) of the boxes of all images, one after the other."""
        regions = self.keypoint_pooling(maps, boxes, strides)
        watch.emit("keypoint.regions", regions)
        logits = self.keypoint_predictor(self.keypoint_head(regions))
        watch.emit("keypoint.logits", logits)
        return logits


def keypoint_loss(logits: Any, keypoints: np.ndarray, boxes: np.ndarray) -> Any:
    """The mean cross-entropy over labelled joints within their boxes of a softmax over the cells of each one's map; 0
    without such a joint. logits (P, J, M, M), keypoints (P, J, 3), boxes (P, 4)."""
    cells, valid = keypoints_to_cells(keypoints, boxes, logits.shape[2])
    of_joints = logits.reshape(cells.size, logits.shape[2] ** 2)
    true = np.where(valid, cells, -1).reshape(-1)
    return F.cross_entropy(of_joints, true, ignore_index=-1, reduction="sum") / max(int(valid.sum()), 1)


def small_keypoint_rcnn(
    backbone: nn.Module,
    num_classes: int,
    num_keypoints: int,
    base_anchors: np.ndarray,
    cells: int = 14,
    channels: int = 64,
    convolutions: int = 4,
    keypoint_iou: float = 0.5,
    positive_fraction: float = 0.5,
    nms_threshold: float = 0.6,
    **options: Any,
) -> FasterRCNN:
    """A Keypoint R-CNN on one map of a small backbone. Objects of all its classes have the same joints: usually there
    is one class, people, and num_classes is 2.

    cells                    S, of the S x S cells of a region that the keypoints' head sees, and of its maps 4 S x 4 S
    channels, convolutions   of the keypoints' head
    keypoint_iou             KeypointRoIHeads'
    positive_fraction        of regions: one class is soon told from the background, its boxes take more to learn
    nms_threshold            of detections: people stand before one another more than other things do
    options                  small_faster_rcnn's
    """
    heads = partial(
        KeypointRoIHeads,
        keypoint_pooling=RoIPooling(cells, "align", sampling_ratio=2),
        keypoint_head=KeypointRCNNHeads(backbone.out_channels, [channels] * convolutions),
        keypoint_predictor=KeypointRCNNPredictor(channels, num_keypoints),
        keypoint_iou=keypoint_iou,
        keypoint_places=8 * cells,  # twice as fine as the maps: people of 20 pixels are smaller than theirs
        positive_fraction=positive_fraction,
    )
    return small_faster_rcnn(backbone, num_classes, base_anchors, heads=heads, nms_threshold=nms_threshold, **options)
