"""Faster R-CNN with a feature pyramid, in torch: the oracle of ours, and its rival in the benchmarks.

Written from the papers (Ren et al. 2015, Lin et al. 2017, He et al. 2017) and the constants of torchvision's
`fasterrcnn_resnet50_fpn`, with its keys, and with none of minidet's code. Evaluation only. Each stage is a method of
its own, so that a test can give two implementations the same input of any of them:

    prepare -> features -> head_outputs -> proposals -> roi_features -> box_outputs -> detections
              anchors ----------------------^

Everything that repeats over boxes is a matrix operation: a rival in loops would be none.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.torch_resnet import Body
from tests.models.random_weights import random_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ANCHOR_SIZES = (32, 64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)
LOG_LIMIT = math.log(1000 / 16)


class Pyramid(nn.Module):
    def __init__(self, in_channels: list[int], channels: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(c, channels, 1)) for c in in_channels)
        self.layer_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1)) for _ in in_channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        merged = [self.inner_blocks[-1](maps[-1])]
        for i in reversed(range(len(maps) - 1)):
            lateral = self.inner_blocks[i](maps[i])
            lateral += F.interpolate(merged[0], size=lateral.shape[2:], mode="nearest")
            merged.insert(0, lateral)
        levels = [block(x) for block, x in zip(self.layer_blocks, merged, strict=True)]
        return [*levels, levels[-1][:, :, ::2, ::2]]


class Backbone(nn.Module):
    def __init__(self, counts: tuple[int, ...], bottleneck: bool, channels: int) -> None:
        super().__init__()
        self.body = Body(counts, bottleneck)
        self.fpn = Pyramid(self.body.channels, channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.fpn(self.body(x))


class RPNHead(nn.Module):
    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU(inplace=True)))
        self.cls_logits = nn.Conv2d(channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * anchors, 1)


class TwoLayers(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc6, self.fc7 = nn.Linear(inputs, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc7(self.fc6(x.flatten(1)).relu_()).relu_()


class Predictor(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.cls_score, self.bbox_pred = nn.Linear(width, classes), nn.Linear(width, 4 * classes)


class TorchFasterRCNN(nn.Module):
    """images, list of (3, H, W) in [0, 1] -> list of dicts: boxes (D, 4), labels (D,), scores (D,), best first.

    counts, bottleneck    the ResNet: (3, 4, 6, 3), True is ResNet-50
    channels              of every level of the pyramid; width: of the two fully connected layers
    num_classes           with the background, which is class 0
    min_size, max_size    an image's short side becomes min_size, unless the long one would pass max_size
    anchor_sizes          in pixels, one for each of the five levels
    """

    def __init__(
        self,
        counts: tuple[int, ...] = (3, 4, 6, 3),
        bottleneck: bool = True,
        channels: int = 256,
        width: int = 1024,
        num_classes: int = 91,
        min_size: int = 800,
        max_size: int = 1333,
        anchor_sizes: tuple[int, ...] = ANCHOR_SIZES,
        proposals: int = 1000,
    ) -> None:
        super().__init__()
        self.min_size, self.max_size, self.anchor_sizes = min_size, max_size, anchor_sizes
        self.most_proposals, self.num_classes = proposals, num_classes
        self.backbone = Backbone(counts, bottleneck, channels)
        self.rpn, self.roi_heads = nn.Module(), nn.Module()
        self.rpn.head = RPNHead(channels, len(RATIOS))
        self.roi_heads.box_head = TwoLayers(channels * 49, width)
        self.roi_heads.box_predictor = Predictor(width, num_classes)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        batch, sizes = self.prepare(images)
        features = self.backbone(batch)
        logits, deltas = self.head_outputs(features)
        anchors = self.anchors(batch, features)
        proposals = [
            self.proposals([x[n] for x in logits], [x[n] for x in deltas], anchors, size)
            for n, size in enumerate(sizes)
        ]
        rois = self.roi_features(features, proposals, sizes)
        scores, box_deltas = self.box_outputs(rois)
        counts = [len(boxes) for boxes in proposals]
        found = []
        for image, size, boxes, s, d in zip(
            images, sizes, proposals, scores.split(counts), box_deltas.split(counts), strict=True
        ):
            result = self.detections(s, d, boxes, size)
            height, width = (full / resized for full, resized in zip(image.shape[1:], size, strict=True))
            result["boxes"] = result["boxes"] * result["boxes"].new_tensor([width, height, width, height])
            found.append(result)
        return found

    def prepare(self, images: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """The batch (N, 3, H, W), sides multiples of 32, and the (height, width) of each image in it."""
        prepared = []
        for image in images:
            mean, std = (image.new_tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
            image = (image - mean) / std
            height, width = image.shape[1:]
            sides = torch.tensor([height, width], dtype=torch.float32)  # a float32 decides at the edge of a pixel
            scale = min(self.min_size / sides.min(), self.max_size / sides.max()).item()
            size = (math.floor(height * scale), math.floor(width * scale))
            if size != (height, width):
                image = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
            prepared.append(image)
        sizes = [tuple(image.shape[1:]) for image in prepared]
        height, width = (-(-max(size[axis] for size in sizes) // 32) * 32 for axis in (0, 1))
        batch = prepared[0].new_zeros((len(images), 3, height, width))
        for n, (image, (h, w)) in enumerate(zip(prepared, sizes, strict=True)):
            batch[n, :, :h, :w] = image
        if self.backbone.body.conv1.weight.is_contiguous(memory_format=torch.channels_last):
            batch = batch.contiguous(memory_format=torch.channels_last)
        return batch, sizes

    def anchors(self, batch: Tensor, features: list[Tensor]) -> list[Tensor]:
        """Of each level (H*W*3, 4): by rows, columns, ratios (height by width)."""
        result = []
        for size, level in zip(self.anchor_sizes, features, strict=True):
            (rows, columns), roots = level.shape[2:], torch.tensor(RATIOS).sqrt()
            halves = torch.stack([size / roots, size * roots], dim=1) / 2  # (3, 2): half the width and the height
            base = torch.cat([-halves, halves], dim=1).round()
            y = torch.arange(rows) * (batch.shape[2] // rows)
            x = torch.arange(columns) * (batch.shape[3] // columns)
            corners = torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], dim=2).reshape(-1, 1, 2)
            result.append((corners.repeat(1, 1, 2) + base).reshape(-1, 4))
        return result

    def head_outputs(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each level: objectness logits (N, H*W*3), deltas (N, H*W*3, 4), in the order of the anchors."""
        logits, deltas, head = [], [], self.rpn.head
        for x in features:
            x = head.conv(x)
            n = len(x)
            logits.append(head.cls_logits(x).permute(0, 2, 3, 1).reshape(n, -1))
            deltas.append(head.bbox_pred(x).permute(0, 2, 3, 1).reshape(n, -1, 4))
        return logits, deltas

    def proposals(
        self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], size: tuple[int, int]
    ) -> Tensor:
        """Of one image, given each level's (A,), (A, 4), (A, 4): the best boxes (P, 4), best first."""
        kept_boxes, kept_scores = [], []
        for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
            best = level_logits.argsort(descending=True, stable=True)[: self.most_proposals]
            boxes = clip(decode(level_deltas[best], level_anchors[best]), size)
            large = is_large(boxes, 1e-3)
            boxes, scores = boxes[large], level_logits[best][large].sigmoid()
            keep = nms(boxes, 0.7)
            kept_boxes.append(boxes[keep])
            kept_scores.append(scores[keep])
        boxes, scores = torch.cat(kept_boxes), torch.cat(kept_scores)
        return boxes[scores.argsort(descending=True, stable=True)[: self.most_proposals]]

    def roi_features(
        self, features: list[Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]], bins: int = 7
    ) -> Tensor:
        """(sum of P, C, bins, bins): every box from the level that suits its size."""
        boxes = torch.cat(proposals)
        image = torch.repeat_interleave(torch.arange(len(proposals)), torch.tensor([len(p) for p in proposals]))
        sides = boxes[:, 2:] - boxes[:, :2]
        levels = (4 + torch.log2(sides.prod(1).sqrt() / 224) + 1e-6).floor().clamp(2, 5).long() - 2
        height = max(size[0] for size in sizes)
        result = features[0].new_zeros((len(boxes), features[0].shape[1], bins, bins))
        for level, x in enumerate(features[:4]):
            which = (levels == level).nonzero()[:, 0]
            if len(which):
                scale = 2.0 ** round(math.log2(x.shape[2] / height))
                result[which] = roi_align(x, boxes[which], image[which], scale, bins)
        return result

    def box_outputs(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, 7, 7) -> logits (R, K), deltas (R, K, 4); class 0 is the background."""
        x, predictor = self.roi_heads.box_head(rois), self.roi_heads.box_predictor
        return predictor.cls_score(x), predictor.bbox_pred(x).reshape(len(x), self.num_classes, 4)

    def detections(self, logits: Tensor, deltas: Tensor, proposals: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """Of one image, in the coordinates of the batch: the best 100."""
        scores = logits.softmax(1)[:, 1:]
        roi, label = (scores > 0.05).nonzero().T
        scores = scores[roi, label]
        boxes = clip(decode(deltas[roi, label + 1], proposals[roi], (10.0, 10.0, 5.0, 5.0)), size)
        large = is_large(boxes, 1e-2).nonzero()[:, 0]
        order = large[scores[large].argsort(descending=True, stable=True)]
        boxes, scores, labels = boxes[order], scores[order], label[order] + 1
        kept = torch.zeros(len(boxes), dtype=torch.bool)
        for one in labels.unique():
            those = (labels == one).nonzero()[:, 0]
            kept[those[nms(boxes[those], 0.5)]] = True
        best = kept.nonzero()[:100, 0]
        return {"boxes": boxes[best], "labels": labels[best], "scores": scores[best]}


def decode(deltas: Tensor, anchors: Tensor, weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """deltas (R, 4) = ((x - xa)/wa, (y - ya)/ha, log w/wa, log h/ha) * weights, of boxes' centres and sides."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + sides / 2
    deltas = deltas / deltas.new_tensor(weights)
    centres = centres + deltas[:, :2] * sides
    sides = sides * deltas[:, 2:].clamp(max=LOG_LIMIT).exp()
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def is_large(boxes: Tensor, least: float) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2] >= least).all(1)


def nms(boxes: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes (R, 4), best first, that stay when the better ones have removed what overlaps them.

    Whether a box stays depends on whether better ones do: started with all of them and repeated, the rule settles the
    best box in the first round, and at least one more in every other.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    low, high = boxes[:, None, :2].maximum(boxes[:, :2]), boxes[:, None, 2:].minimum(boxes[:, 2:])
    common = (high - low).clamp_(min=0).prod(2)
    removes = (common / (areas[:, None] + areas - common) > threshold).triu(diagonal=1)
    worse, better = removes.T.nonzero().T  # only pairs that overlap: few of all
    stays = torch.ones(len(boxes), dtype=torch.bool)
    while True:
        removed = torch.zeros_like(stays)
        removed[worse[stays[better]]] = True
        if torch.equal(~removed, stays):
            return stays.nonzero()[:, 0]
        stays = ~removed


def roi_align(x: Tensor, boxes: Tensor, image: Tensor, scale: float, bins: int = 7) -> Tensor:
    """x (N, C, H, W), boxes (R, 4) of the images `image` (R,) -> (R, C, bins, bins): the means of 2 x 2 samples a bin.

    A sample is the mean of the four pixels around it, weighted by nearness: in all a bin is a sum of 16 pixels with
    weights, an embedding bag of the list of pixels.
    """
    (channels, height, width), count = x.shape[1:], len(boxes)
    starts = boxes[:, :2] * scale
    sides = (boxes[:, 2:] * scale - starts).clamp(min=1)  # no half pixel less: the older of RoIAlign's conventions
    places = (torch.arange(2 * bins) + 0.5) / (2 * bins)  # two samples in each bin
    low_x, high_x, share_x, inside_x = around(starts[:, :1] + places * sides[:, :1], width)
    low_y, high_y, share_y, inside_y = around(starts[:, 1:] + places * sides[:, 1:], height)
    rows = torch.stack([low_y, high_y], dim=2)  # (R, 2 bins, 2)
    columns = torch.stack([low_x, high_x], dim=2)
    row_weights = torch.stack([1 - share_y, share_y], dim=2) * inside_y[:, :, None] / 2
    column_weights = torch.stack([1 - share_x, share_x], dim=2) * inside_x[:, :, None] / 2

    def by_bin(of_rows: Tensor, of_columns: Tensor, join) -> Tensor:
        """(R, 2 bins, 2) each -> (R bins bins, 16): the four rows and four columns that a bin meets, each with each."""
        four_rows, four_columns = of_rows.reshape(count, bins, 1, 4, 1), of_columns.reshape(count, 1, bins, 1, 4)
        return join(four_rows, four_columns).reshape(count * bins * bins, 16)

    first = image.reshape(-1, 1, 1) * height
    pixels = by_bin(first + rows, columns, lambda y, x: y * width + x)
    weights = by_bin(row_weights, column_weights, torch.mul)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    sums = F.embedding_bag(pixels, table, mode="sum", per_sample_weights=weights)
    return sums.reshape(count, bins, bins, channels).permute(0, 3, 1, 2)


def around(at: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pixels before and after a place along an axis, the share of the latter, and whether the place is inside."""
    inside = (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    low = at.floor().long()
    return low, (low + 1).clamp(max=size - 1), at - low, inside


def with_random_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    state = random_weights({key: tuple(value.shape) for key, value in model.state_dict().items()}, seed)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    return model.eval()
