"""Faster R-CNN on a feature pyramid (Lin et al. 2017, sections 4.1 and 4.2), with torchvision's keys and constants.

Every level of the pyramid has anchors of one size; one RPN looks at all of them. A proposal is cut out of the level
that suits its size. Weights of torchvision's model, converted as `backbones/weights.py` says, give its detections:

    model = fasterrcnn_resnet50_fpn(norm_layer=nn.FrozenBatchNorm2d).eval()
    load_weights(model, "fasterrcnn_resnet50_fpn.safetensors")
"""

from collections.abc import Callable, Sequence
from typing import Any

from .. import nn
from ..backbones.fpn import ResNetFPN, resnet_fpn_backbone
from ..backbones.weights import normalize
from ..boxes import base_anchors
from .fast_rcnn import FastRCNNPredictor, RoIHeads, TwoMLPHead
from .faster_rcnn import RPN_BETA, FasterRCNN, RegionProposalNetwork, RPNHead
from .roi_pooling import RoIPooling

# Section 4.1: the square roots of the areas of the five levels' anchors, in pixels of the resized image. Smaller ones
# find smaller objects, on images as large as these networks expect.
ANCHOR_SIZES = (32, 64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)  # height by width
HIDDEN = 1024  # units of the two fully connected layers (section 4.2)


def fasterrcnn_resnet50_fpn(
    num_classes: int = 91,
    min_size: int = 800,
    max_size: int = 1333,
    norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    trainable_backbone_layers: int = 5,
    **options: Any,
) -> FasterRCNN:
    """torchvision's function of this name: ResNet-50, a pyramid, Faster R-CNN; 41.8 million weights, from random ones.

    num_classes                 with the background, class 0; COCO's 80 classes have numbers up to 90
    min_size, max_size          an image's short side becomes min_size, unless its long one would be more than max_size
    norm_layer                  nn.FrozenBatchNorm2d for weights trained so, or for training from a classifier's weights
    trainable_backbone_layers   3 to start from a classifier's weights: see backbones.fpn.ResNetFPN
    options                     as pyramid_faster_rcnn's
    """
    backbone = resnet_fpn_backbone("resnet50", norm_layer, trainable_backbone_layers)
    return pyramid_faster_rcnn(backbone, num_classes, min_size, max_size, **options)


def pyramid_faster_rcnn(
    backbone: ResNetFPN,
    num_classes: int,
    min_size: int = 800,
    max_size: int = 1333,
    anchor_sizes: Sequence[float] = ANCHOR_SIZES,
    hidden: int = HIDDEN,
    rpn_pre_nms_top_n_train: int = 2000,
    rpn_pre_nms_top_n_test: int = 1000,
    rpn_post_nms_top_n_train: int = 2000,
    rpn_post_nms_top_n_test: int = 1000,
    rpn_nms_thresh: float = 0.7,
    box_score_thresh: float = 0.05,
    box_nms_thresh: float = 0.5,
    box_detections_per_img: int = 100,
    box_batch_size_per_image: int = 512,
    box_positive_fraction: float = 0.25,
    heads: Callable[..., RoIHeads] = RoIHeads,
) -> FasterRCNN:
    """Faster R-CNN on a pyramid of any ResNet; the arguments that torchvision has bear its names and values.

    anchor_sizes        one for each level
    rpn_pre_nms_top_n   proposals of each level that go into suppression; rpn_post_nms_top_n: of all that come out
    heads               called as RoIHeads, for those that look for more than boxes
    """
    rpn = RegionProposalNetwork(
        RPNHead(backbone.out_channels, len(RATIOS), backbone.out_channels, scores=1),
        [base_anchors([size], RATIOS) for size in anchor_sizes],
        inside_only=False,
        pre_nms=(rpn_pre_nms_top_n_train, rpn_pre_nms_top_n_test),
        post_nms=(rpn_post_nms_top_n_train, rpn_post_nms_top_n_test),
        nms_threshold=rpn_nms_thresh,
        min_size=1e-3,
    )
    # The coarsest level, made for the RPN's largest anchors, is not read: a 7 x 7 grid would meet few cells of it.
    pooling = RoIPooling(7, "align", sampling_ratio=2, aligned=False, levels=len(anchor_sizes) - 1)
    roi_heads = heads(
        pooling,
        TwoMLPHead(backbone.out_channels * pooling.output_size**2, hidden),
        FastRCNNPredictor(hidden, num_classes),
        num_classes,
        batch_size_per_image=box_batch_size_per_image,
        positive_fraction=box_positive_fraction,
        bg_iou=0.0,
        beta=RPN_BETA,
        score_threshold=box_score_thresh,
        nms_threshold=box_nms_thresh,
        detections_per_image=box_detections_per_img,
    )
    return FasterRCNN(backbone, rpn, roi_heads, normalize, min_size, max_size)
