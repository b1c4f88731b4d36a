"""Networks that the tests of heat maps share."""

import numpy as np

import minidet
from minidet import functional as F
from minidet import nn
from minidet.heatmaps.scores import as_images, at_rest


def gap_net(dtype=np.float64, classes: int = 4, pool: nn.Module | None = None) -> nn.Sequential:
    """conv -> ReLU -> pool -> conv -> ReLU ("4", 4 x 4 maps of images of 8 x 8) -> GAP -> FC."""
    minidet.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(),
        pool or nn.GlobalAvgPool2d(), nn.Linear(6, classes),
    )  # fmt: skip
    return net.to(dtype)


def flat_net(dtype=np.float64, classes: int = 4) -> nn.Sequential:
    """As gap_net, with fully connected layers that know where things are: the gradients differ from place to place."""
    minidet.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, classes),
    )  # fmt: skip
    rng = np.random.default_rng(3)
    net[1].running_mean[...] = 0.1 * rng.standard_normal(5)
    net[1].running_var[...] = rng.uniform(0.05, 0.2, 5)
    return net.to(dtype)


class WayAround(nn.Module):
    """A layer with a way around it, which is added to its output or put beside it."""

    def __init__(self, concatenated: bool) -> None:
        super().__init__()
        minidet.manual_seed(3)
        self.concatenated = concatenated
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4 + 4 * concatenated, 3)

    def above(self, before, middle):
        joined = F.concatenate([before, middle], axis=1) if self.concatenated else before + middle
        return self.fc(F.global_avg_pool2d(F.relu(joined)))

    def forward(self, x):
        before = F.relu(self.stem(x))
        return self.above(before, self.conv(before))


def images(count: int = 3, size: int = 8, dtype=np.float64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 3, size, size)).astype(dtype)


def before_relu(method, x, class_index) -> np.ndarray:
    """The method's map before its last ReLU, float64."""
    method(x[:1])  # finds the layer
    with at_rest(method.model), minidet.enable_grad():
        return method.maps(method.look(as_images(method.model, x), class_index))
