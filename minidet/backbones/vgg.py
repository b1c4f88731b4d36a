"""VGG (Simonyan and Zisserman 2014): nothing but 3 x 3 convolutions, each block at half the size of the one before.

Two of them see 5 x 5 pixels, three see 7 x 7, with fewer weights than one large kernel and more ReLUs between.
"""

from typing import Any

from .. import nn

# Table 1 of the paper, columns A, B, D and E: convolutions in each of the five blocks, by the network's depth.
BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """images (N, 3, H, W), at least 32 x 32 -> logits (N, num_classes). state_dict keys as torchvision's.

    depth         11, 13, 16 or 19 layers with weights
    batch_norm    after every convolution; the paper, of 2014, had none yet
    init_weights  False leaves the layers' own initial weights, for those who load others: drawing torchvision's takes
                  a second
    """

    def __init__(
        self,
        depth: int,
        batch_norm: bool = False,
        num_classes: int = 1000,
        init_weights: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"VGG: expected a depth of 11, 13, 16 or 19 layers, got {depth!r}")
        self.features = convolutions(BLOCKS[depth], batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))  # changes nothing at 224 x 224
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        if init_weights:
            self._initialize()

    def _initialize(self) -> None:
        """As torchvision: the paper trained a shallow network first to start the deep ones from, which He et al. 2015
        made unnecessary."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, images: Any) -> Any:
        maps = self.avgpool(self.features(images))  # (N, 512, H/32, W/32) -> (N, 512, 7, 7)
        return self.classifier(maps.flatten(1))


def convolutions(blocks: tuple[int, ...], batch_norm: bool) -> nn.Sequential:
    """The five blocks as one list of layers, as torchvision numbers them."""
    layers: list[nn.Module] = []
    before = 3
    for count, channels in zip(blocks, CHANNELS, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(before, channels, 3, padding=1))
            layers += [nn.BatchNorm2d(channels)] if batch_norm else []
            layers.append(nn.ReLU())
            before = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def vgg11(**options: Any) -> VGG:
    """VGG with 11 layers; options: num_classes=1000, init_weights=True, dropout=0.5."""
    return VGG(11, **options)


def vgg11_bn(**options: Any) -> VGG:
    """vgg11 with batch normalisation."""
    return VGG(11, batch_norm=True, **options)


def vgg13(**options: Any) -> VGG:
    """VGG with 13 layers; options: num_classes=1000, init_weights=True, dropout=0.5."""
    return VGG(13, **options)


def vgg13_bn(**options: Any) -> VGG:
    """vgg13 with batch normalisation."""
    return VGG(13, batch_norm=True, **options)


def vgg16(**options: Any) -> VGG:
    """VGG with 16 layers; options: num_classes=1000, init_weights=True, dropout=0.5."""
    return VGG(16, **options)


def vgg16_bn(**options: Any) -> VGG:
    """vgg16 with batch normalisation."""
    return VGG(16, batch_norm=True, **options)


def vgg19(**options: Any) -> VGG:
    """VGG with 19 layers; options: num_classes=1000, init_weights=True, dropout=0.5."""
    return VGG(19, **options)


def vgg19_bn(**options: Any) -> VGG:
    """vgg19 with batch normalisation."""
    return VGG(19, batch_norm=True, **options)
