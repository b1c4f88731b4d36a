"""Mask and Keypoint R-CNN on ResNet-50 with a feature pyramid, with torchvision's keys and constants; see
faster_rcnn_fpn.py."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .. import nn
from ..backbones.fpn import resnet_fpn_backbone
from .faster_rcnn import FasterRCNN
from .faster_rcnn_fpn import pyramid_faster_rcnn
from .keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor, KeypointRoIHeads
from .mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor, MaskRoIHeads
from .roi_pooling import RoIPooling

CHANNELS = (256, 256, 256, 256)  # of the mask head's convolutions (figure 4, right)
KEYPOINT_CHANNELS = (512,) * 8  # section 5
LEVELS = 4  # of the pyramid, without its coarsest


def maskrcnn_resnet50_fpn(
    num_classes: int = 91,
    min_size: int = 800,
    max_size: int = 1333,
    norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    trainable_backbone_layers: int = 5,
    **options: Any,
) -> FasterRCNN:
    """torchvision's function of this name: 44.5 million weights, from random ones. Arguments: those of
    fasterrcnn_resnet50_fpn. What it finds has masks (D, H, W) bool, where torchvision's has probabilities (D, 1, H, W).
    """
    backbone = resnet_fpn_backbone("resnet50", norm_layer, trainable_backbone_layers)
    channels = backbone.out_channels
    heads = partial(
        MaskRoIHeads,
        mask_pooling=RoIPooling(14, "align", sampling_ratio=2, aligned=False, levels=LEVELS),
        mask_head=MaskRCNNHeads(channels, CHANNELS),
        mask_predictor=MaskRCNNPredictor(CHANNELS[-1], CHANNELS[-1], num_classes),
        aligned=False,
    )
    return pyramid_faster_rcnn(backbone, num_classes, min_size, max_size, heads=heads, **options)


def keypointrcnn_resnet50_fpn(
    num_classes: int = 2,
    num_keypoints: int = 17,
    min_size: int = 800,
    max_size: int = 1333,
    norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    trainable_backbone_layers: int = 5,
    **options: Any,
) -> FasterRCNN:
    """torchvision's function of this name: people and COCO's 17 joints; 59.2 million weights, from random ones.
    Arguments: those of fasterrcnn_resnet50_fpn."""
    backbone = resnet_fpn_backbone("resnet50", norm_layer, trainable_backbone_layers)
    heads = partial(
        KeypointRoIHeads,
        keypoint_pooling=RoIPooling(14, "align", sampling_ratio=2, aligned=False, levels=LEVELS),
        keypoint_head=KeypointRCNNHeads(backbone.out_channels, KEYPOINT_CHANNELS),
        keypoint_predictor=KeypointRCNNPredictor(KEYPOINT_CHANNELS[-1], num_keypoints),
    )
    return pyramid_faster_rcnn(backbone, num_classes, min_size, max_size, heads=heads, **options)
