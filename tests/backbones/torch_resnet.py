"""ResNet (He et al. 2015) in torch, as torchvision lays it out and with its keys: the oracle of ours, alone and as the
body of detectors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block: (channels out, kernel, stride) of each convolution."""

    def __init__(self, before: int, layers: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.count, channels = len(layers), before
        for i, (out, kernel, stride) in enumerate(layers, start=1):
            setattr(self, f"conv{i}", nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(out))
            channels = out
        stride = max(stride for *_, stride in layers)
        self.downsample = None
        if stride > 1 or before != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y.relu_() if i < self.count else y
        y += x if self.downsample is None else self.downsample(x)
        return y.relu_()


class Body(nn.Module):
    """A ResNet without its head: blocks in each stage, of three convolutions (bottleneck) or of two."""

    def __init__(self, counts: tuple[int, ...], bottleneck: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.channels, before = [], 64
        for i, count in enumerate(counts):
            planes, blocks = 64 * 2**i, []
            for j in range(count):
                stride = 2 if i and not j else 1
                basic = [(planes, 3, stride), (planes, 3, 1)]
                blocks.append(Block(before, [(planes, 1, 1), basic[0], (4 * planes, 1, 1)] if bottleneck else basic))
                before = 4 * planes if bottleneck else planes
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            self.channels.append(before)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu_(), 3, 2, 1)
        maps = []
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
            maps.append(x)
        return maps


class ResNet(Body):
    """With its head: images (N, 3, H, W) -> logits (N, 1000)."""

    def __init__(self, counts: tuple[int, ...], bottleneck: bool) -> None:
        super().__init__(counts, bottleneck)
        self.fc = nn.Linear(self.channels[-1], 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(super().forward(x)[-1].mean((2, 3)))
