"""Mask R-CNN (He et al. 2017): Faster R-CNN, and within each box which pixels are the object's.

    feature maps and regions -> RoIAlign 14 x 14 -> 3 x 3 convolutions -> deconvolution: twice as fine
                             -> 1 x 1 convolution: of each class a map of 28 x 28 logits over the region

Each class draws its own map without asking the others, by sigmoids: which class it is has been decided by the box's
head, so that classes need not compete for pixels (section 3). Only regions with an object are trained on, only the map
of its class, against the object's mask as the region cuts it out.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

import minidet_kernels as kernels

from .. import functional as F
from .. import nn, watch
from ..boxes import paste_masks
from ..device import on_device_of, to_numpy
from .fast_rcnn import AT_ONCE, ChosenRegions, RoIHeads, Strides, TwoMLPHead, by_image, in_parts
from .faster_rcnn import FasterRCNN, small_faster_rcnn
from .image_batch import ImageBatch
from .roi_pooling import RoIPooling

HIDDEN = 256  # units of small_mask_rcnn's fully connected layers, 1024 in table 2e; more draw finer and cost more


class MaskRCNNHeads(nn.Sequential):
    """Regions (R, C, S, S) -> (R, layers[-1], S, S): 3 x 3 convolutions with as many channels as `layers` says."""

    def __init__(self, in_channels: int, layers: Sequence[int]) -> None:
        inputs = [in_channels, *layers]
        super().__init__(
            *(
                nn.ConvNormReLU(he_initialized(nn.Conv2d(before, after, 3, padding=1)), nn.ReLU())
                for before, after in zip(inputs, layers, strict=False)
            )
        )


class MaskRCNNPredictor(nn.Module):
    """Features (R, C, S, S) -> logits (R, num_masks, 2 S, 2 S)."""

    def __init__(self, in_channels: int, channels: int, num_masks: int) -> None:
        super().__init__()
        self.conv5_mask = he_initialized(nn.ConvTranspose2d(in_channels, channels, 2, 2))
        self.mask_fcn_logits = he_initialized(nn.Conv2d(channels, num_masks, 1))

    def forward(self, features: Any) -> Any:
        return self.mask_fcn_logits(F.relu(self.conv5_mask(features)))


class MaskMLPPredictor(nn.Module):
    """Features (R, hidden) of a TwoMLPHead -> logits (R, num_masks, size, size): the rival of convolutions in table 2e.
    It has to learn anew at each place what a convolution learns once."""

    def __init__(self, hidden: int, num_masks: int, size: int) -> None:
        super().__init__()
        self.shape = (num_masks, size, size)
        self.mask_fc_logits = nn.Linear(hidden, num_masks * size * size)

    def forward(self, features: Any) -> Any:
        return self.mask_fc_logits(features).reshape(len(features), *self.shape)


def he_initialized(layer: nn.Module) -> nn.Module:
    """The layer, with weights that keep the size of gradients through ReLUs (torchvision's MaskRCNNHeads)."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    nn.init.zeros_(layer.bias)
    return layer


class MaskRoIHeads(RoIHeads):
    """RoIHeads whose detections have masks (D, H, W) bool.

    mask_pooling, mask_head, mask_predictor   regions -> features -> logits: a map for each class, the background's,
                                              which nobody looks at, first, or a single one for all classes
    competing   a softmax over the classes' maps in place of sigmoids, as networks for whole images have it; its first
                map is the background's (table 2b)
    aligned     masks are cut out and pasted without rounding; False: as torchvision does it, half a pixel off, and its
                weights have learned it
    Other arguments: RoIHeads'.
    """

    def __init__(
        self,
        *arguments: Any,
        mask_pooling: RoIPooling,
        mask_head: nn.Module,
        mask_predictor: nn.Module,
        competing: bool = False,
        aligned: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.mask_pooling, self.competing, self.aligned = mask_pooling, competing, aligned
        self.mask_head, self.mask_predictor = mask_head, mask_predictor

    def forward(
        self, maps: Sequence[Any], proposals: list[np.ndarray], batch: ImageBatch, targets: list[dict] | None = None
    ) -> Any:
        found = super().forward(maps, proposals, batch, targets)
        if targets is not None:
            return found
        return [
            one | {"masks": paste_masks(one["masks"], one["boxes"], size, aligned=self.aligned)}
            for one, size in zip(found, batch.original_sizes, strict=True)
        ]

    def learn(
        self, maps: Sequence[Any], strides: Strides, chosen: list[ChosenRegions], targets: list[dict]
    ) -> dict[str, Any]:
        losses = super().learn(maps, strides, chosen, targets)
        labels = np.concatenate([regions.shown_labels for regions in chosen])
        logits = self.draw(maps, strides, [regions.shown for regions in chosen])
        goals = [
            cut_out(target["masks"], regions.objects, regions.shown, logits.shape[2], self.aligned)
            for target, regions in zip(with_masks(targets), chosen, strict=True)
        ]
        return losses | {"loss_mask": self.mask_loss(logits, labels, np.concatenate(goals))}

    def find(
        self, maps: Sequence[Any], strides: Strides, proposals: list[np.ndarray], sizes: Sequence[tuple[int, int]]
    ) -> list[dict]:
        """With masks (D, M, M), probabilities over their boxes."""
        found = super().find(maps, strides, proposals, sizes)
        boxes = [one["boxes"] for one in found]
        parts = in_parts(boxes, AT_ONCE)
        logits = np.concatenate([to_numpy(self.draw(maps, strides, part).data) for part in parts])
        labels = np.concatenate([one["labels"] for one in found])
        mine = np.arange(len(labels)), self.map_of(labels, logits)
        own = F.softmax(logits, dim=1)[mine] if self.competing else F.sigmoid(logits[mine])
        return [one | {"masks": masks} for one, masks in zip(found, by_image(own, boxes), strict=True)]

    def draw(self, maps: Sequence[Any], strides: Strides, boxes: list[np.ndarray]) -> Any:
        """Logits (R, maps, M, M) of the boxes of all images, one after the other."""
        regions = self.mask_pooling(maps, boxes, strides)
        watch.emit("mask.regions", regions)
        logits = self.mask_predictor(self.mask_head(regions))
        watch.emit("mask.logits", logits)
        return logits

    def map_of(self, labels: np.ndarray, logits: Any) -> np.ndarray:
        """Which of the maps is each label's: the only one, where there is one for all."""
        return labels if logits.shape[1] > 1 else np.zeros_like(labels)

    def mask_loss(self, logits: Any, labels: np.ndarray, goals: np.ndarray) -> Any:
        """The mean over all pixels of the cross-entropy between the map of the region's class and its goal (section 3).

        logits (P, maps, M, M); labels (P,); goals (P, M, M) in [0, 1]. Without a region with an object it is 0.
        """
        pixels = max(goals.size, 1)
        if self.competing:
            classes = np.where(goals > 0.5, labels[:, None, None], 0)
            return F.cross_entropy(logits, classes, reduction="sum") / pixels
        own = logits[np.arange(len(labels)), self.map_of(labels, logits)]
        goals = on_device_of(goals.astype(own.dtype, copy=False), own.data)
        return F.binary_cross_entropy_with_logits(own, goals, reduction="sum") / pixels


def with_masks(targets: list[dict]) -> list[dict]:
    """The same targets; raises ValueError where one has no masks."""
    for position, target in enumerate(targets):
        if "masks" not in target:
            raise ValueError(f"expected masks (R, H, W) to train on, got none in image {position} of a batch")
    return targets


def cut_out(masks: np.ndarray, objects: np.ndarray, boxes: np.ndarray, size: int, aligned: bool = True) -> np.ndarray:
    """What each box (P, 4) shows of its object's mask: (P, size, size) float32, 0 to 1. masks (R, H, W); objects (P,).

    Pixels are averaged where the box is larger than the grid, by RoIAlign; aligned: as its.
    """
    if not len(boxes):
        return np.zeros((0, size, size), np.float32)
    used, objects = np.unique(objects, return_inverse=True)
    rois = np.concatenate([objects[:, None], boxes], axis=1, dtype=np.float32)
    planes = masks[used, None].astype(np.float32)
    return kernels.roi_align(planes, rois, (size, size), sampling_ratio=0, aligned=aligned)[:, 0]


def small_mask_rcnn(
    backbone: nn.Module,
    num_classes: int,
    base_anchors: np.ndarray,
    channels: int = 64,
    convolutions: int = 2,
    mlp: bool = False,
    agnostic: bool = False,
    competing: bool = False,
    pooling: str = "align",
    **options: Any,
) -> FasterRCNN:
    """A Mask R-CNN on one map of a small backbone, and what the paper compares it with.

    channels, convolutions   of the mask's head
    mlp          two fully connected layers in their place (table 2e)
    agnostic     one map for all classes (section 4.2, "Class-Specific vs. Class-Agnostic Masks")
    competing    a softmax over the classes' maps (table 2b)
    pooling      "pool": RoIPool, for boxes and masks (table 2c)
    options      small_faster_rcnn's
    """
    if agnostic and competing:
        raise ValueError("small_mask_rcnn: expected agnostic or competing, got both; one map has no rivals")
    masks, regions = 1 if agnostic else num_classes, RoIPooling(14, pooling, sampling_ratio=2)
    if mlp:
        head: nn.Module = TwoMLPHead(backbone.out_channels * regions.output_size**2, HIDDEN)
        predictor: nn.Module = MaskMLPPredictor(HIDDEN, masks, 2 * regions.output_size)
    else:
        head = MaskRCNNHeads(backbone.out_channels, [channels] * convolutions)
        predictor = MaskRCNNPredictor(channels, channels, masks)
    heads = partial(MaskRoIHeads, mask_pooling=regions, mask_head=head, mask_predictor=predictor, competing=competing)
    return small_faster_rcnn(backbone, num_classes, base_anchors, pooling=pooling, heads=heads, **options)
