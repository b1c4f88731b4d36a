"""AlexNet (Krizhevsky, Sutskever, Hinton 2012): the network that made everybody train on two GPUs.

Two of them are here. `alexnet_2012` is the paper's, with its normalisation across channels and its convolutions in two
groups, one a GPU. `alexnet` is the one that torchvision has weights for (Krizhevsky 2014, "One weird trick", without
the trick): narrower, no groups, no normalisation, and a head for images of any size.
"""

from typing import Any

from .. import nn


class AlexNet(nn.Module):
    """images (N, 3, H, W), at least 63 x 63 -> logits (N, num_classes). state_dict keys as torchvision's."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(  # map sizes for images of 224 x 224
            nn.Conv2d(3, 64, 11, stride=4, padding=2),  # 55
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # 27
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # 13
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # 6
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))  # changes nothing at 224 x 224
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, images: Any) -> Any:
        maps = self.avgpool(self.features(images))  # (N, 256, 6, 6)
        return self.classifier(maps.flatten(1))


class AlexNet2012(nn.Module):
    """images (N, 3, 224, 224) -> logits (N, num_classes), as in the paper's section 3 and figure 2.

    The paper's images have 224 pixels and its first map 55, which need a border of 2 that it does not mention. Weights
    start as in its section 5; without the ones in the biases, which put ReLUs where they learn, training stalls.
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4, padding=2),  # 55
            nn.ReLU(),
            response_norm(),
            nn.MaxPool2d(3, stride=2),  # 27; windows overlap (section 3.4)
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(),
            response_norm(),
            nn.MaxPool2d(3, stride=2),  # 13
            nn.Conv2d(256, 384, 3, padding=1),  # the only convolution that sees what both GPUs have found
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # 6
        )
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        self._initialize()

    def _initialize(self) -> None:
        """Section 5: Gaussian weights; biases of 1 in convolutions 2, 4 and 5 and in the hidden layers, else 0."""
        layers = [module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        for number, layer in enumerate(layers, start=1):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, 1 if number in (2, 4, 5, 6, 7) else 0)

    def forward(self, images: Any) -> Any:
        maps = self.features(images)  # (N, 256, 6, 6)
        return self.classifier(maps.flatten(1))


def response_norm() -> nn.LocalResponseNorm:
    """Section 3.3: n = 5, alpha = 1e-4, beta = 0.75, k = 2. The paper multiplies the sum by alpha, the layer by
    alpha / n."""
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


def alexnet(num_classes: int = 1000, dropout: float = 0.5) -> AlexNet:
    """torchvision's AlexNet, with new weights (61,100,840 for 1000 classes)."""
    return AlexNet(num_classes, dropout)


def alexnet_2012(num_classes: int = 1000, dropout: float = 0.5) -> AlexNet2012:
    """The paper's AlexNet, with new weights (60,965,224 for 1000 classes)."""
    return AlexNet2012(num_classes, dropout)
