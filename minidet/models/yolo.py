"""YOLO with anchors (Redmon and Farhadi 2017, "YOLO9000", section 2): all boxes at once, from one look at the image.

    image -> backbone -> feature map, S x S cells -> 3 x 3 convolutions -> 1 x 1 convolution
          -> in each cell, for each of B anchors, 5 + C numbers: S x S x B x (5 + C)

It is a region proposal network that says the class, too: nothing is cut out and looked at again. Of anchor b, with the
sides pw, ph, in the cell with the corner cx, cy, the numbers tx, ty, tw, th, to mean the box

    x = (sigmoid(tx) + cx) stride     y = (sigmoid(ty) + cy) stride     w = pw exp(tw)     h = ph exp(th)

whose centre cannot leave its cell, and sigmoid(to), its confidence: how much it overlaps with an object. A softmax over
the other C says of which class. The first YOLO, without anchors, is in yolo_v1.py.

An object is found by one anchor of one cell: that which its centre lies in, and of these the one of the most similar
shape. That one is trained on the object's place and class, and to be as confident as it overlaps; all others are
trained to a confidence of 0, unless they happen to overlap with an object by more than 0.6.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..backbones.tiny import centred
from ..boxes import LEAST_SIDE, box_iou, clip_boxes_to_image, filter_detections, inside_crowds, shape_iou
from ..boxes.coder import LOG_CLIP
from ..device import on_device_of, to_numpy
from ..random import generator
from .image_batch import ImageBatch, batch_images, detection_targets

# The authors' configuration (darknet, yolo-voc.cfg). Objects are few, and all other boxes are to say that there is
# none: so the confidence of an object's box counts five times. The other terms count once.
OBJECT_SCALE = 5.0
# Boxes that overlap with an object by more are nobody's, but not wrong: their confidence is not trained.
IGNORED_IOU = 0.6
# The confidence before training, about the part of the boxes that have an object: at 0.5 the thousands of negatives
# would rule the first steps (Lin et al. 2017, "Focal Loss", section 4.1).
PRIOR = 0.01
SLOPE = 0.1  # of leaky ReLUs below 0 (Redmon et al. 2016, equation 2)


class Assigned(NamedTuple):
    """What one image teaches: indices (P,) of the boxes that find its objects, with the targets (P, 4) of tx, ty, tw
    and th, the first two after the sigmoid, their labels (P,), their confidences (P,), and how much their places matter
    (P,); and indices (Q,) of boxes whose confidence should be 0."""

    positives: np.ndarray
    targets: np.ndarray
    labels: np.ndarray
    confidences: np.ndarray
    scales: np.ndarray
    negatives: np.ndarray


class YOLO(nn.Module):
    """images -> detections.

    backbone      images (N, 3, H, W) -> a feature map, with out_channels and stride
    num_classes   C + 1, with the background: it has a number, 0, but no output
    anchors       (B, 2), width and height in pixels; a buffer, so that it is saved with the weights
    channels      of the head's 3 x 3 convolutions
    sizes         in training each batch is resized so that its images' shorter sides are one of these, drawn by chance:
                  then objects of other sizes are found, too; none: always min_size
    normalize, min_size, max_size   how images are prepared: batch_images
    score_threshold, nms_threshold, detections_per_image   of what is found

    Training: model(images, targets) -> losses. targets: dicts with boxes (R, 4), labels (R,) in 1..C and iscrowd (R,),
    on the CPU, in pixels of their image; R may be 0. Evaluation: model(images) -> a dict an image with boxes (D, 4),
    labels (D,) and scores (D,), on the CPU.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        anchors: np.ndarray,
        channels: int = 128,
        sizes: Sequence[int] = (),
        normalize: Callable[[Any], Any] = centred,
        min_size: int | None = None,
        max_size: int | None = None,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.45,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__()
        self.num_classes, self.sizes = num_classes, tuple(sizes)
        self.normalize, self.min_size, self.max_size = normalize, min_size, max_size
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.detections_per_image = detections_per_image
        self.backbone = backbone
        self.register_buffer("anchors", np.asarray(anchors, np.float32))
        self.head = nn.Sequential(unit(backbone.out_channels, channels), unit(channels, channels))
        self.outputs = nn.Conv2d(channels, len(self.anchors) * (4 + num_classes), 1)
        nn.init.normal_(self.outputs.weight, std=0.01)
        nn.init.zeros_(self.outputs.bias)
        self.outputs.bias.data.reshape(len(self.anchors), -1)[:, 4] = -math.log((1 - PRIOR) / PRIOR)

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        min_size, max_size = self.min_size, self.max_size
        if self.training and self.sizes:
            min_size = int(generator().choice(self.sizes))
            if self.min_size and max_size:  # in proportion: of wide images it is the longer side that decides
                max_size = round(max_size * min_size / self.min_size)
        batch = batch_images(images, self.normalize, min_size, max_size, self.backbone.stride)
        truth = detection_targets(targets, batch, self.num_classes - 1) if self.training else []
        maps = self.backbone(batch.tensor)
        watch.emit("backbone.maps", maps)
        grid = maps.shape[2:]
        outputs = self.boxes_last(self.outputs(self.head(maps)))  # (N, S S B, 5 + C)
        watch.emit("yolo.outputs", outputs)
        boxes = self.decode(to_numpy(outputs.data), grid)  # (N, S S B, 4)
        watch.emit("yolo.boxes", boxes)
        if not self.training:
            return self.detections(to_numpy(outputs.data), boxes, batch)
        assigned = [self.assign(*of_image, grid) for of_image in zip(boxes, truth, batch.sizes, strict=True)]
        watch.emit("yolo.assigned", assigned)
        return yolo_losses(outputs, assigned)

    # ---- from outputs to boxes

    def boxes_last(self, outputs: Any) -> Any:
        """(N, B (5 + C), S, S) -> (N, S S B, 5 + C): cell by cell, anchor by anchor."""
        count, _, height, width = outputs.shape
        outputs = outputs.transpose(0, 2, 3, 1)
        return outputs.reshape(count, height * width * len(self.anchors), 4 + self.num_classes)

    def decode(self, outputs: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """The boxes (N, S S B, 4), in pixels of the batch, that outputs (N, S S B, 5 + C) say."""
        stride, anchors = np.float32(self.backbone.stride), to_numpy(self.anchors)
        cells = np.stack(np.meshgrid(np.arange(grid[1]), np.arange(grid[0])), axis=-1).reshape(-1, 2)
        cells = np.repeat(cells.astype(np.float32), len(anchors), axis=0)  # (S S B, 2), x and y
        centers = (F.sigmoid(outputs[..., :2]) + cells) * stride
        half_sides = np.exp(np.minimum(outputs[..., 2:4], LOG_CLIP)) * np.tile(anchors, (grid[0] * grid[1], 1)) / 2
        return np.concatenate([centers - half_sides, centers + half_sides], axis=-1)

    def detections(self, outputs: np.ndarray, boxes: np.ndarray, batch: ImageBatch) -> list[dict]:
        """Of each image boxes (D, 4) in its own pixels, labels (D,) and scores (D,), best first. A score is the
        confidence times the class's probability."""
        confidences = F.sigmoid(outputs[..., 4:5])  # (N, S S B, 1)
        found = []
        for image, size in enumerate(batch.sizes):
            # A score is not above its confidence: most boxes are nobody's, and need no class.
            (likely,) = np.nonzero(confidences[image, :, 0] > self.score_threshold)
            scores = confidences[image, likely] * F.softmax(outputs[image, likely, 5:], dim=1)
            clipped = clip_boxes_to_image(boxes[image, likely], size)
            limits = self.score_threshold, self.nms_threshold, self.detections_per_image
            found.append(filter_detections(clipped, scores, *limits, LEAST_SIDE))
        return batch.to_original(found)

    # ---- training

    def assign(self, boxes: np.ndarray, target: dict, size: tuple[int, int], grid: tuple[int, int]) -> Assigned:
        """boxes (S S B, 4): what is predicted now. size: the image's, (height, width) in the batch. Of two objects with
        the same cell and shape the first is taken."""
        stride, anchors, truth = self.backbone.stride, to_numpy(self.anchors), target["boxes"]
        sides = truth[:, 2:] - truth[:, :2]
        centers, cells = centers_and_cells(truth, stride, size)
        anchor = shape_iou(sides, anchors).argmax(axis=1)
        positives, first = np.unique((cells[:, 1] * grid[1] + cells[:, 0]) * len(anchors) + anchor, return_index=True)
        # What is not finite overlaps with nothing here; the losses are not finite either, and the step is refused.
        iou = box_iou(truth, np.where(np.isfinite(boxes), boxes, 0).astype(truth.dtype, copy=False))  # (R, S S B)
        negative = (iou.max(axis=0, initial=0) <= IGNORED_IOU) & ~inside_crowds(boxes, target["crowds"])
        negative[positives] = False
        targets = np.concatenate([centers - cells, np.log(sides / anchors[anchor])], axis=1)[first]
        area = np.minimum(sides.prod(axis=1)[first] / (size[0] * size[1]), 1)
        return Assigned(
            positives,
            targets.astype(np.float32),
            target["labels"][first],
            iou[first, positives],
            (2 - area).astype(np.float32),  # the same error matters more on a small box (darknet's region layer)
            np.flatnonzero(negative),
        )


def centers_and_cells(boxes: np.ndarray, stride: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Of boxes (R, 4), in pixels of an image of that (height, width), the centres (R, 2), x and y in cells of stride
    pixels, and the cells (R, 2) int64 that they lie in. A box which goes far beyond the image has its centre at the
    border's nearest point; the right and lower border are in the last cells."""
    border = np.array(size[::-1]) / stride
    centers = np.clip((boxes[:, :2] + boxes[:, 2:]) / (2 * stride), 0, border)
    return centers, np.minimum(np.floor(centers), np.ceil(border) - 1).astype(np.int64)


def unit(in_channels: int, out_channels: int) -> nn.Sequential:
    """3 x 3 convolution, batch norm, leaky ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(nn.ConvNormReLU(convolution, nn.BatchNorm2d(out_channels)), nn.LeakyReLU(SLOPE))


def yolo_losses(outputs: Any, assigned: Sequence[Assigned]) -> dict[str, Any]:
    """Four sums of squared errors and one of cross-entropies, over the number of images. outputs (N, A, 5 + C)."""
    images, boxes, numbers = outputs.shape
    positives, negatives = (
        np.concatenate([boxes * n + getattr(one, name) for n, one in enumerate(assigned)])
        for name in ("positives", "negatives")
    )
    outputs = outputs.reshape(-1, numbers)
    found = outputs[positives]  # (P, 5 + C)
    targets, confidences, scales = (
        on_device_of(np.concatenate([getattr(one, name) for one in assigned]), outputs.data)
        for name in ("targets", "confidences", "scales")
    )
    labels = np.concatenate([one.labels for one in assigned]) - 1
    center_errors = (F.sigmoid(found[:, :2]) - targets[:, :2]) ** 2
    side_errors = (found[:, 2:4] - targets[:, 2:]) ** 2
    return {
        "loss_xy": (center_errors.sum(axis=1) * scales).sum() / images,
        "loss_wh": (side_errors.sum(axis=1) * scales).sum() / images,
        "loss_objectness": ((F.sigmoid(found[:, 4]) - confidences) ** 2).sum() * (OBJECT_SCALE / images),
        "loss_noobj": (F.sigmoid(outputs[negatives, 4]) ** 2).sum() / images,
        "loss_classifier": F.cross_entropy(found[:, 5:], labels, reduction="sum") / images,
    }
