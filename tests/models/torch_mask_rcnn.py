"""What Mask and Keypoint R-CNN add to torch_faster_rcnn.py, in torch: written from He et al. 2017 and the constants of
torchvision's functions, with its keys. Evaluation only."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.torch_faster_rcnn import TorchFasterRCNN


class TorchMaskRCNN(TorchFasterRCNN):
    """mask_channels: of the mask head's convolutions. Other arguments: TorchFasterRCNN's."""

    def __init__(self, *arguments, mask_channels: tuple[int, ...] = (256, 256, 256, 256), **options) -> None:
        super().__init__(*arguments, **options)
        inputs, last = [self.backbone.fpn.layer_blocks[0][0].out_channels, *mask_channels], mask_channels[-1]
        self.roi_heads.mask_head = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU()) for a, b in pairwise(inputs))
        )
        self.roi_heads.mask_predictor = nn.Sequential(
            OrderedDict(
                conv5_mask=nn.ConvTranspose2d(last, last, 2, 2),
                relu=nn.ReLU(),
                mask_fcn_logits=nn.Conv2d(last, self.num_classes, 1),
            )
        )

    def mask_outputs(self, regions: Tensor) -> Tensor:
        """(R, C, 14, 14) -> logits (R, K, 28, 28)."""
        return self.roi_heads.mask_predictor(self.roi_heads.mask_head(regions))

    def masks(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(R, 28, 28): probabilities of each region's class."""
        return torch.stack([one[label] for one, label in zip(logits.sigmoid(), labels, strict=True)])


class TorchKeypointRCNN(TorchFasterRCNN):
    """keypoint_channels: of the keypoint head's convolutions; joints. Other arguments: TorchFasterRCNN's."""

    def __init__(
        self, *arguments, keypoint_channels: tuple[int, ...] = (512,) * 8, joints: int = 17, **options
    ) -> None:
        super().__init__(*arguments, **options)
        inputs = [self.backbone.fpn.layer_blocks[0][0].out_channels, *keypoint_channels]
        self.roi_heads.keypoint_head = nn.Sequential(
            *(part for a, b in pairwise(inputs) for part in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU()))
        )
        self.roi_heads.keypoint_predictor = nn.Module()
        self.roi_heads.keypoint_predictor.kps_score_lowres = nn.ConvTranspose2d(inputs[-1], joints, 4, 2, padding=1)

    def keypoint_outputs(self, regions: Tensor) -> Tensor:
        """(R, C, 14, 14) -> logits (R, J, 56, 56)."""
        logits = self.roi_heads.keypoint_predictor.kps_score_lowres(self.roi_heads.keypoint_head(regions))
        return F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)

    def keypoints(self, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(R, J, 2) x, y and (R, J): where each map, resized to its box, is highest, and how high."""
        places, heights = logits.new_zeros(*logits.shape[:2], 2), logits.new_zeros(logits.shape[:2])
        for r, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            width, height = max(x2 - x1, 1), max(y2 - y1, 1)
            size = math.ceil(height), math.ceil(width)
            maps = F.interpolate(logits[r : r + 1], size=size, mode="bicubic", align_corners=False)[0]
            for j, of_joint in enumerate(maps):
                best = int(of_joint.argmax())
                row, column = divmod(best, size[1])
                places[r, j, 0] = (column + 0.5) * width / size[1] + x1
                places[r, j, 1] = (row + 0.5) * height / size[0] + y1
                heights[r, j] = of_joint.reshape(-1)[best]
        return places, heights
