"""The small YOLOs, SSD, Mask R-CNN and Keypoint R-CNN of the recipes in torch, for detection: rivals in speed.

The same layers with the same keys and the same rules, written from the papers with none of minidet's code; RoIAlign and
suppression as in torch_faster_rcnn.py.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.torch_faster_rcnn import (
    BOX_WEIGHTS,
    CHANNELS,
    LEAST_DETECTION,
    LOG_LIMIT,
    Backbone,
    TorchSmallFasterRCNN,
    block,
    clip,
    decode,
    is_large,
    nms,
    roi_align,
)


def suppressed(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    threshold: float,
    most: int,
    least: float = LEAST_DETECTION,
) -> dict[str, Tensor]:
    """The best of each class among boxes (R, 4), best first; classes far from one another do not overlap."""
    order = scores.argsort(descending=True, stable=True)
    order = order[is_large(boxes[order], least)]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    kept = nms(boxes + labels[:, None] * 2.0 * max(size), threshold)[:most]
    return {"boxes": boxes[kept], "labels": labels[kept] + 1, "scores": scores[kept]}


class TorchYOLO(nn.Module):
    """images (N, 3, H, W) -> detections. anchors (B, 2), width and height."""

    def __init__(self, anchors: np.ndarray, num_classes: int, channels: int, stride: int) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.from_numpy(np.array(anchors, np.float32)))
        self.backbone, self.stride, self.numbers = Backbone(stride), stride, 4 + num_classes
        self.head = nn.Sequential(unit(CHANNELS[-1], channels), unit(channels, channels))
        self.outputs = nn.Conv2d(channels, len(anchors) * self.numbers, 1)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        outputs = self.outputs(self.head(self.backbone(images))).permute(0, 2, 3, 1)
        count, rows, columns, _ = outputs.shape
        outputs = outputs.reshape(count, rows, columns, -1, self.numbers)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centers = (outputs[..., :2].sigmoid() + torch.stack([x, y], 2)[:, :, None]) * self.stride
        halves = outputs[..., 2:4].clamp(max=LOG_LIMIT).exp() * self.anchors / 2
        size = tuple(images.shape[2:])
        boxes = clip(torch.cat([centers - halves, centers + halves], 4).reshape(-1, 4), size).reshape(count, -1, 4)
        found = []
        for of_image, numbers in zip(boxes, outputs.flatten(1, 3), strict=True):
            confidence = numbers[:, 4].sigmoid()
            likely = (confidence > 0.05).nonzero()[:, 0]
            scores = confidence[likely, None] * numbers[likely, 5:].softmax(1)
            box, label = (scores > 0.05).nonzero().T
            found.append(suppressed(of_image[likely[box]], scores[box, label], label, size, 0.45, 100))
        return found


def unit(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return nn.Sequential(nn.Sequential(convolution, nn.BatchNorm2d(after)), nn.LeakyReLU(0.1, inplace=True))


class TorchYOLOv1(nn.Module):
    """images (N, 3, size, size) -> detections, without fully connected layers. predictors: boxes of a cell."""

    def __init__(
        self, num_classes: int, size: int, predictors: int, channels: int, convolutions: int, stride: int
    ) -> None:
        super().__init__()
        self.backbone, self.cells, self.predictors, self.size = Backbone(stride), size // stride, predictors, size
        self.head = nn.Sequential(*(unit(channels if n else CHANNELS[-1], channels) for n in range(convolutions)))
        self.outputs = nn.Conv2d(channels, 5 * predictors + num_classes - 1, 1)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        before = tuple(images.shape[2:])
        images = F.interpolate(images, (self.size, self.size), mode="bilinear")
        outputs = self.outputs(self.head(self.backbone(images))).permute(0, 2, 3, 1)
        places = outputs[..., : 5 * self.predictors].unflatten(3, (self.predictors, 5))
        y, x = torch.meshgrid(torch.arange(self.cells), torch.arange(self.cells), indexing="ij")
        centers = (places[..., :2] + torch.stack([x, y], 2)[:, :, None]) * (self.size / self.cells)
        halves = places[..., 2:4] ** 2 * (self.size / 2)
        boxes = clip(torch.cat([centers - halves, centers + halves], 4).reshape(-1, 4), (self.size, self.size))
        scores = places[..., 4:].clamp(0, 1) * outputs[..., None, 5 * self.predictors :].clamp(0, 1)
        back = torch.tensor([before[1], before[0]] * 2) / self.size
        found = []
        for of_image, its_scores in zip(boxes.reshape(len(images), -1, 4), scores.flatten(1, 3), strict=True):
            box, label = (its_scores > 0.05).nonzero().T
            one = suppressed(of_image[box], its_scores[box, label], label, (self.size, self.size), 0.5, 100)
            found.append(one | {"boxes": one["boxes"] * back})
        return found


class Pyramid(nn.Module):
    def __init__(self, levels: int, stride: int) -> None:
        super().__init__()
        self.body = Backbone(stride)
        self.extra = nn.ModuleList(block(CHANNELS[-1], CHANNELS[-1], 2) for _ in range(levels - 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.body(images)]
        for one in self.extra:
            maps.append(one(maps[-1]))
        return maps


class LevelHeads(nn.Module):
    def __init__(self, levels: int, boxes: int, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.module_list = nn.ModuleList(nn.Conv2d(CHANNELS[-1], boxes * numbers, 3, padding=1) for _ in range(levels))

    def forward(self, maps: list[Tensor]) -> Tensor:
        said = [layer(level).permute(0, 2, 3, 1) for layer, level in zip(self.module_list, maps, strict=True)]
        return torch.cat([one.reshape(len(one), -1, self.numbers) for one in said], 1)


class TorchSSD(nn.Module):
    """images (N, 3, S, S) -> detections. default_boxes (A, 4) of all levels; boxes: of a cell."""

    def __init__(self, default_boxes: np.ndarray, num_classes: int, levels: int, boxes: int, stride: int) -> None:
        super().__init__()
        self.default_boxes, self.backbone = torch.from_numpy(default_boxes), Pyramid(levels, stride)
        self.head = nn.Module()
        self.head.classification_head = LevelHeads(levels, boxes, num_classes)
        self.head.regression_head = LevelHeads(levels, boxes, 4)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        maps, size, found = self.backbone(images), tuple(images.shape[2:]), []
        probabilities = self.head.classification_head(maps).softmax(2)[..., 1:]
        for scores, deltas in zip(probabilities, self.head.regression_head(maps), strict=True):
            boxes = clip(decode(deltas, self.default_boxes, BOX_WEIGHTS), size)
            rows, labels = [], []
            for label in range(scores.shape[1]):
                above = (scores[:, label] > 0.01).nonzero()[:, 0]
                best = scores[above, label].argsort(descending=True, stable=True)[:400]
                rows.append(above[best])
                labels.append(torch.full((len(best),), label))
            row, label = torch.cat(rows), torch.cat(labels)
            found.append(suppressed(boxes[row], scores[row, label], label, size, 0.45, 200, least=0.0))
        return found


def closer_look(model: TorchSmallFasterRCNN, images: Tensor, cells: int) -> tuple[list[dict], list[Tensor], Tensor]:
    """What is detected, its boxes (D, 4) of each image, and these cut out of the feature map, cells x cells each."""
    heard = []
    hook = model.backbone.register_forward_hook(lambda _, __, features: heard.append(features))
    found = TorchSmallFasterRCNN.forward(model, images)
    hook.remove()
    boxes = [torch.from_numpy(one["boxes"]) for one in found]
    return found, boxes, roi_align(heard[0], boxes, model.stride, bins=cells)


class TorchSmallMaskRCNN(TorchSmallFasterRCNN):
    """TorchSmallFasterRCNN whose detections have masks (D, H, W). channels, convolutions: of the mask's head."""

    def __init__(self, *arguments, channels: int, convolutions: int) -> None:
        super().__init__(*arguments)
        self.roi_heads.mask_head = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(channels if n else CHANNELS[-1], channels, 3, padding=1), nn.ReLU(inplace=True))
                for n in range(convolutions)
            )
        )
        self.roi_heads.mask_predictor = nn.Module()
        self.roi_heads.mask_predictor.conv5_mask = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.roi_heads.mask_predictor.mask_fcn_logits = nn.Conv2d(channels, self.num_classes, 1)

    def forward(self, images: Tensor) -> list[dict]:
        found, boxes, regions = closer_look(self, images, 14)
        predictor = self.roi_heads.mask_predictor
        logits = predictor.mask_fcn_logits(F.relu(predictor.conv5_mask(self.roi_heads.mask_head(regions))))
        labels = torch.cat([torch.from_numpy(one["labels"]) for one in found])
        masks = logits[torch.arange(len(labels)), labels].sigmoid().split([len(these) for these in boxes])
        for one, its_masks, its_boxes in zip(found, masks, boxes, strict=True):
            one["masks"] = paste(its_masks, its_boxes, tuple(images.shape[2:]))
        return found


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(D, H, W) bool: each mask at the centres of the pixels that its box covers."""
    pasted, side = torch.zeros(len(masks), *size, dtype=torch.bool), masks.shape[1]
    for target, mask, (x1, y1, x2, y2) in zip(pasted, masks, boxes.tolist(), strict=True):
        spans, weights = [], []
        for low, high, pixels in ((y1, y2, size[0]), (x1, x2, size[1])):
            cell = (high - low) / side
            first, last = max(math.floor(low - cell), 0), min(math.ceil(high + cell), pixels)
            places = (torch.arange(first, last) + 0.5 - low) / cell - 0.5
            spans.append(slice(first, last))
            weights.append((1 - (places[:, None] - torch.arange(side)).abs()).clamp(min=0))
        target[spans[0], spans[1]] = weights[0] @ mask @ weights[1].T > 0.5
    return pasted


class TorchSmallKeypointRCNN(TorchSmallFasterRCNN):
    """TorchSmallFasterRCNN whose detections have keypoints (D, joints, 3). cells, channels, convolutions: of their
    head. detection_iou: TorchSmallFasterRCNN's."""

    def __init__(
        self, *arguments, joints: int, cells: int, channels: int, convolutions: int, detection_iou: float
    ) -> None:
        super().__init__(*arguments)
        self.detection_iou, self.cells = detection_iou, cells
        layers = []
        for number in range(convolutions):
            before = channels if number else CHANNELS[-1]
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
        self.roi_heads.keypoint_head = nn.Sequential(*layers)
        self.roi_heads.keypoint_predictor = nn.Module()
        self.roi_heads.keypoint_predictor.kps_score_lowres = nn.ConvTranspose2d(channels, joints, 4, 2, padding=1)

    def forward(self, images: Tensor) -> list[dict]:
        found, boxes, regions = closer_look(self, images, self.cells)
        maps = self.roi_heads.keypoint_predictor.kps_score_lowres(self.roi_heads.keypoint_head(regions))
        maps = F.interpolate(maps, scale_factor=2, mode="bilinear")
        for one, its_maps, its_boxes in zip(found, maps.split([len(these) for these in boxes]), boxes, strict=True):
            one["keypoints"] = read_joints(its_maps, its_boxes, 8 * self.cells)
        return found


def read_joints(maps: Tensor, boxes: Tensor, least: int) -> Tensor:
    """(D, joints, 3): where each map (D, joints, M, M), resized to its box's pixels, or `least`, is highest."""
    joints = torch.ones(len(maps), maps.shape[1], 3)
    for person, of_person, (x1, y1, x2, y2) in zip(joints, maps, boxes.tolist(), strict=True):
        width, height = max(x2 - x1, 1), max(y2 - y1, 1)
        rows, columns = max(math.ceil(height), least), max(math.ceil(width), least)
        fine = F.interpolate(of_person[None], (rows, columns), mode="bicubic")[0]
        best = fine.flatten(1).argmax(1)
        person[:, 0] = x1 + (best % columns + 0.5) * (width / columns)
        person[:, 1] = y1 + (best // columns + 0.5) * (height / rows)
    return joints
