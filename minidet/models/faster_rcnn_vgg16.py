"""Faster R-CNN as the paper has it (Ren et al. 2015): VGG16, its map of stride 16, and nine anchors a cell.

VGG16's five blocks without the last pooling make the map; its two fully connected layers read each region, which RoI
pooling makes as large as what they were trained on, 7 x 7. So all but the RPN and the two last layers can come from a
classifier's weights:

    vgg = vgg16(init_weights=False)
    load_weights(vgg, "vgg16.safetensors")
    model = fasterrcnn_vgg16(num_classes=21, vgg=vgg)
"""

from .. import nn
from ..backbones.surgery import cut
from ..backbones.vgg import VGG, vgg16
from ..backbones.weights import normalize
from ..boxes import classic_base_anchors
from .fast_rcnn import FastRCNNPredictor, RoIHeads
from .faster_rcnn import RPN_BETA, FasterRCNN, RegionProposalNetwork, RPNHead
from .roi_pooling import RoIPooling

LAST = "features.29"  # conv5_3 and its ReLU; one layer further is the pooling that RoI pooling takes the place of
# conv1_1 to conv2_2, which see edges and colours: training them takes memory and finds no more (Girshick 2015, 4.5).
FROZEN = range(10)
RPN_CHANNELS = 512  # of its 3 x 3 convolution; 256 on a smaller network (section 3.1)


def fasterrcnn_vgg16(
    num_classes: int = 21, min_size: int = 600, max_size: int = 1000, vgg: VGG | None = None
) -> FasterRCNN:
    """The paper's network; 137 million weights, of which fc6 has 102 million.

    num_classes         with the background, class 0; VOC has 20
    min_size, max_size  an image's short side becomes min_size, unless its long one would be more than max_size
    vgg                 a VGG16, whose parts become this model's; by default a new one with random weights
    """
    vgg = vgg or vgg16()
    backbone = cut(vgg, LAST)
    for number in FROZEN:
        backbone.features[number].requires_grad_(False)
    anchors = classic_base_anchors()
    rpn = RegionProposalNetwork(RPNHead(backbone.out_channels, len(anchors), RPN_CHANNELS), [anchors])
    # fc6 and fc7, each with its ReLU and its dropout; fc8, the last, told ImageNet's classes apart.
    box_head = nn.Sequential(nn.Flatten(), *[vgg.classifier[number] for number in range(6)])
    roi_heads = RoIHeads(
        RoIPooling(7, "pool"),
        box_head,
        FastRCNNPredictor(vgg.classifier[3].out_features, num_classes),
        num_classes,
        batch_size_per_image=128,
        bg_iou=0.0,
        beta=RPN_BETA,
    )
    return FasterRCNN(backbone, rpn, roi_heads, normalize, min_size, max_size)
