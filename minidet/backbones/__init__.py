"""Networks that turn an image into a feature map, to put heads on.

AlexNet, VGG and ResNet are torchvision's classifiers, with its keys; `cut` makes backbones of them.
"""

from .alexnet import AlexNet, AlexNet2012, alexnet, alexnet_2012
from .resnet import ResNet, resnet18, resnet34, resnet50
from .surgery import FeatureExtractor, cut
from .tiny import TinyBackbone
from .vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from .weights import load_weights, normalize

__all__ = [
    "VGG", "AlexNet", "AlexNet2012", "FeatureExtractor", "ResNet", "TinyBackbone", "alexnet", "alexnet_2012", "cut",
    "load_weights", "normalize", "resnet18", "resnet34", "resnet50", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16",
    "vgg16_bn", "vgg19", "vgg19_bn",
]  # fmt: skip
