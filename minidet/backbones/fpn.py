"""Feature pyramid (Lin et al. 2017, "Feature Pyramid Networks for Object Detection"): maps of all sizes for one head.

A network's early maps are fine and see edges, its late ones are coarse and see objects. The pyramid hands what the
coarse maps know down to the fine ones, so that a small object is sought on a fine map and a large one on a coarse map,
by the same head:

    layer4  --1x1-->  p5  --3x3-->  level "3"  --every second pixel-->  level "pool"
                      | twice as large
    layer3  --1x1-->  + = p4  --3x3-->  level "2"
                      |
    layer2  --1x1-->  + = p3  --3x3-->  level "1"
                      |
    layer1  --1x1-->  + = p2  --3x3-->  level "0"

Keys as torchvision's: backbone.body.* is a ResNet without its head, backbone.fpn.* the pyramid.
"""

from collections.abc import Callable, Sequence
from typing import Any

from .. import functional as F
from .. import nn
from . import resnet as resnets
from .resnet import ResNet

# Section 4.1: every level has 256 channels, so that all share one head.
OUT_CHANNELS = 256
STAGES = ("layer1", "layer2", "layer3", "layer4")
# From the last to the first: what is trained when `trainable_layers` of it are. Early layers see edges and colours, the
# same in all pictures; bn1 goes with conv1.
TRAINED_FIRST = ("layer4", "layer3", "layer2", "layer1", "conv1")


class FeaturePyramid(nn.Module):
    """Maps of a network, finest first, each half the size of the one before -> as many maps and a coarser one.

    in_channels: of each map. All results have out_channels. Sizes may be odd: a coarse map is enlarged to whatever size
    the finer one has.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = OUT_CHANNELS) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(c, out_channels, 1)) for c in in_channels)
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(out_channels, out_channels, 3, padding=1)) for _ in in_channels
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # no ReLU follows: inputs and outputs are as large
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Any]) -> list[Any]:
        if len(maps) != len(self.inner_blocks):
            raise ValueError(f"{self.title}: expected {len(self.inner_blocks)} maps, finest first, got {len(maps)}")
        levels, above = [], None
        for x, inner, layer in reversed([*zip(maps, self.inner_blocks, self.layer_blocks, strict=True)]):
            if above is not None:
                above = F.interpolate(above, size=x.shape[2:], mode="nearest")
            above = nn.conv_norm_relu(x, inner[0], residual=above)
            levels.insert(0, layer(above))
        # For objects larger than the coarsest map was made for: every second pixel of it (section 4.1, footnote 1).
        return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]


class ResNetBody(nn.Module):
    """images (N, 3, H, W) -> the maps of a ResNet's four stages: H/4, H/8, H/16 and H/32, rounded up at each halving.

    Its parts are the ResNet's own, and their keys the same; avgpool and fc are left behind.
    """

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        for name in ("conv1", "bn1", "relu", "maxpool", *STAGES):
            part = getattr(resnet, name)
            part._place = None  # messages name it by its new home, also when the ResNet is no more
            setattr(self, name, part)

    def forward(self, images: Any) -> list[Any]:
        x, maps = self.maxpool(nn.conv_norm_relu(images, self.conv1, self.bn1, self.relu)), []
        for stage in STAGES:
            x = getattr(self, stage)(x)
            maps.append(x)
        return maps


class ResNetFPN(nn.Module):
    """images (N, 3, H, W) -> five maps (N, out_channels, H/s, W/s), finest first: s = 4, 8, 16, 32, 64.

    Its `stride` is 32, which an image's sides must be multiples of for the maps to fit onto each other exactly.

    resnet            any ResNet; its head is left behind
    trainable_layers  how many of layer4, layer3, layer2, layer1, conv1 are trained, in this order; the rest is frozen
    """

    stride = 32

    def __init__(self, resnet: ResNet, out_channels: int = OUT_CHANNELS, trainable_layers: int = 5) -> None:
        super().__init__()
        if trainable_layers not in range(len(TRAINED_FIRST) + 1):
            raise ValueError(f"ResNetFPN: expected trainable_layers from 0 to 5, got {trainable_layers}")
        self.out_channels = out_channels
        self.body = ResNetBody(resnet)
        last_blocks = [[*getattr(self.body, stage)][-1] for stage in STAGES]
        self.fpn = FeaturePyramid([_last_convolution(block).out_channels for block in last_blocks], out_channels)
        frozen = TRAINED_FIRST[trainable_layers:]
        for name in (*frozen, "bn1") if frozen else ():
            getattr(self.body, name).requires_grad_(False)

    def forward(self, images: Any) -> list[Any]:
        return self.fpn(self.body(images))


def resnet_fpn_backbone(
    backbone_name: str = "resnet50",
    norm_layer: Callable[[int], nn.Module] = nn.FrozenBatchNorm2d,
    trainable_layers: int = 3,
) -> ResNetFPN:
    """A ResNet with a pyramid, as torchvision's function of this name: the defaults are for weights of a classifier.

    backbone_name     "resnet18", "resnet34" or "resnet50"
    norm_layer        what stands for batch norm, made from a number of channels; nn.BatchNorm2d to train from scratch
    trainable_layers  see ResNetFPN; 5 to train from scratch
    """
    if backbone_name not in ("resnet18", "resnet34", "resnet50"):
        raise ValueError(
            f"resnet_fpn_backbone: expected 'resnet18', 'resnet34' or 'resnet50', got {backbone_name!r:.40}"
        )
    network = getattr(resnets, backbone_name)(num_classes=1)  # the head is thrown away: a small one
    if norm_layer is not nn.BatchNorm2d:
        replace_batch_norm(network, norm_layer)
    return ResNetFPN(network, trainable_layers=trainable_layers)


def replace_batch_norm(network: nn.Module, norm_layer: Callable[[int], nn.Module]) -> None:
    """Puts norm_layer(num_features) in place of every BatchNorm2d. Weights and statistics are those of the new ones."""
    for module in [*network.modules()]:
        for name, part in [*module._modules.items()]:  # all are assigned again, so that their order stays
            setattr(module, name, norm_layer(part.num_features) if isinstance(part, nn.BatchNorm2d) else part)


def _last_convolution(block: nn.Module) -> nn.Conv2d:
    """Of a residual block: BasicBlock's second, Bottleneck's third."""
    return block.conv3 if hasattr(block, "conv3") else block.conv2
