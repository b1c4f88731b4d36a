"""ResNet (He et al. 2015, "Deep Residual Learning"): each block adds to its input what is still missing.

The sum gives the gradient a way past every block, so that a hundred layers train as well as ten.
"""

from collections.abc import Sequence
from typing import Any

from .. import nn


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside the identity (figure 5, left): (N, inplanes, H, W) -> (N, planes, H/s, W/s)."""

    expansion = 1  # output channels by planes

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(inplanes, planes, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Any) -> Any:
        y = nn.conv_norm_relu(x, self.conv1, self.bn1, self.relu1)
        return nn.conv_norm_relu(y, self.conv2, self.bn2, self.relu2, residual=self.downsample(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions beside the identity (figure 5, right): (N, inplanes, H, W) -> (N, 4 planes, H/s,
    W/s). The middle one works in a quarter of the channels.

    The stride is the 3 x 3 convolution's, as in torchvision ("ResNet v1.5"): in the paper's place, the first 1 x 1, it
    throws three quarters of the input away unseen.
    """

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        outplanes = planes * self.expansion
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(planes, outplanes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outplanes)
        self.downsample = shortcut(inplanes, outplanes, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Any) -> Any:
        y = nn.conv_norm_relu(x, self.conv1, self.bn1, self.relu1)
        y = nn.conv_norm_relu(y, self.conv2, self.bn2, self.relu2)
        return nn.conv_norm_relu(y, self.conv3, self.bn3, self.relu3, residual=self.downsample(x))


def shortcut(inplanes: int, outplanes: int, stride: int) -> nn.Module:
    """What the residual is added to: the input, through a 1 x 1 convolution where its size changes (section 3.3, B)."""
    if stride == 1 and inplanes == outplanes:
        return nn.Identity()
    return nn.ConvNormReLU(nn.Conv2d(inplanes, outplanes, 1, stride, bias=False), nn.BatchNorm2d(outplanes))


class ResNet(nn.Module):
    """images (N, 3, H, W) -> logits (N, num_classes). state_dict keys as torchvision's.

    block               BasicBlock or Bottleneck
    layers              blocks in each of the four stages
    zero_init_residual  every block starts as the identity (Goyal et al. 2017, section 5.1)

    Each ReLU is a module of its own, where torchvision calls one several times: relu1, relu2, ... Hooks, and so heat
    maps, can then tell them apart; ReLUs have no keys.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(block, 64, 64, layers[0])
        self.layer2 = stage(block, 64 * block.expansion, 128, layers[1], stride=2)
        self.layer3 = stage(block, 128 * block.expansion, 256, layers[2], stride=2)
        self.layer4 = stage(block, 256 * block.expansion, 512, layers[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        self._initialize(zero_init_residual)

    def _initialize(self, zero_init_residual: bool) -> None:
        """He et al. 2015, "Delving Deep into Rectifiers": gradients keep their size on the way back."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif zero_init_residual and isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_((module.bn2 if isinstance(module, BasicBlock) else module.bn3).weight)

    def forward(self, images: Any) -> Any:
        x = nn.conv_norm_relu(images, self.conv1, self.bn1, self.relu)  # (N, 64, H/2, W/2)
        x = self.maxpool(x)  # (N, 64, H/4, W/4)
        x = self.layer1(x)
        x = self.layer2(x)  # H/8
        x = self.layer3(x)  # H/16
        x = self.layer4(x)  # (N, 512 * expansion, H/32, W/32)
        return self.fc(self.avgpool(x).flatten(1))


def stage(block: Any, inplanes: int, planes: int, count: int, stride: int = 1) -> nn.Sequential:
    """Blocks of one map size; the first one halves it where stride is 2."""
    rest = (block(planes * block.expansion, planes) for _ in range(count - 1))
    return nn.Sequential(block(inplanes, planes, stride), *rest)


def resnet18(**options: Any) -> ResNet:
    """ResNet with 18 layers; options: num_classes=1000, zero_init_residual=False."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **options)


def resnet34(**options: Any) -> ResNet:
    """ResNet with 34 layers; options: num_classes=1000, zero_init_residual=False."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **options)


def resnet50(**options: Any) -> ResNet:
    """ResNet with 50 layers; options: num_classes=1000, zero_init_residual=False."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **options)
