"""The backbone of the demos: small enough to train in a minute on two CPU cores, built like the large ones."""

from itertools import pairwise
from pathlib import Path
from typing import Any

from .. import nn
from .weights import check_sha256, load_weights

# Each stage halves the map; more channels recognise more and cost in proportion to their square.
CHANNELS = (32, 64, 128, 128)

# The weights that come with minidet, of a whole Classifier; `python examples/pretraining.py` made them.
PRETRAINED = Path(__file__).with_name("tiny.safetensors")
PRETRAINED_CHANNELS = (16, 32, 64, 64)
PRETRAINED_SHA256 = "9a3320eb5b993926425bbc66562e8e12997db0bd8f28fc161b5536786b635447"


class ConvBlock(nn.ConvNormReLU):
    """3x3 convolution, batch norm, ReLU: VGG's unit as everybody builds it since Ioffe and Szegedy 2015."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


class Centring(nn.Module):
    """Takes each image's mean colour away. It says nothing of what the image shows, and varies more than what does:
    where it stays, a network needs twice as many steps to the same accuracy."""

    def forward(self, images: Any) -> Any:
        return centred(images)


def centred(images: Any) -> Any:
    """Images (..., 3, H, W) less their own mean colour."""
    # Row after row, and from each a whole row: through channels-last memory NumPy would go three numbers at a time,
    # which takes twenty times as long for the mean and five times for the difference.
    rows = images.mean(axis=-2, keepdims=True)  # (..., 3, 1, W)
    return images - (rows.mean(axis=-1, keepdims=True) + 0 * rows)


class TinyBackbone(nn.Module):
    """images (N, 3, H, W) -> features (N, out_channels, H/stride, W/stride).

    A stem, then stages. Each begins with a stride-2 convolution that halves the map and, after the stem, refines it by
    another: full resolution costs most and says least.

    channels  of the stem and of each stage
    stride    of the whole, 2 ** len(channels) by default. The stages behind that point no longer halve the map: 4 gives
              16 x 16 cells for 64 x 64 pixels, for maps that say where things are. The same weights fit every stride.
    """

    def __init__(self, channels: tuple[int, ...] = CHANNELS, stride: int | None = None) -> None:
        super().__init__()
        strides = [2**count for count in range(1, len(channels) + 1)]  # after the stem, after each stage
        if stride is not None and stride not in strides:
            raise ValueError(f"TinyBackbone: expected a stride among {', '.join(map(str, strides))}, got {stride!r}")
        self.out_channels, self.stride = channels[-1], stride or strides[-1]
        self.centring = Centring()
        self.stem = ConvBlock(3, channels[0], stride=2)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    ConvBlock(before, after, stride=2 if reached <= self.stride else 1), ConvBlock(after, after)
                )
                for (before, after), reached in zip(pairwise(channels), strides[1:], strict=True)
            )
        )

    @classmethod
    def pretrained(cls, stride: int | None = None) -> "TinyBackbone":
        """One of PRETRAINED_CHANNELS that has learned to tell miniscene's six classes apart.

        Raises ValueError unless its file is, byte for byte, the one that comes with minidet."""
        check_sha256(PRETRAINED, PRETRAINED_SHA256)
        backbone = cls(PRETRAINED_CHANNELS, stride)
        load_weights(backbone, PRETRAINED, prefix="backbone.")
        return backbone

    def forward(self, images: Any) -> Any:
        x = self.stem(self.centring(images))  # (N, 32, H/2, W/2)
        return self.stages(x)  # (N, 64, H/4, W/4), (N, 128, H/8, W/8), (N, 128, H/16, W/16)
