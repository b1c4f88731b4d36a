"""The backbone of the demos: small enough to train in a minute on two CPU cores, built like the large ones."""

from itertools import pairwise
from typing import Any

from .. import nn

# Each stage halves the map; more channels recognise more and cost in proportion to their square.
CHANNELS = (32, 64, 128, 128)


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, ReLU: VGG's unit as everybody builds it since Ioffe and Szegedy 2015."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


class TinyBackbone(nn.Module):
    """images (N, 3, H, W) -> features (N, out_channels, H/16, W/16).

    A stem, then stages. Each begins with a stride-2 convolution that halves the map and, after the stem, refines it by
    another: full resolution costs most and says least.
    """

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        self.stem = ConvBlock(3, channels[0], stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvBlock(before, after, stride=2), ConvBlock(after, after))
            for before, after in pairwise(channels)
        )
        self.out_channels = channels[-1]
        self.stride = 2 ** len(channels)

    def forward(self, images: Any) -> Any:
        # Without each image's own mean colour, which says nothing of what it shows and varies more than all that does:
        # with it, a network needs twice as many steps to the same accuracy.
        centred = images - images.mean(axis=(2, 3), keepdims=True)
        x = self.stem(centred)  # (N, 32, H/2, W/2)
        for stage in self.stages:
            x = stage(x)  # (N, 64, H/4, W/4), (N, 128, H/8, W/8), (N, 128, H/16, W/16)
        return x
