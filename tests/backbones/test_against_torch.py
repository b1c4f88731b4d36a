"""The networks against torch: modules written here from the published layouts, with our weights, give our logits."""

from collections.abc import Callable

import numpy as np
import pytest

import minidet
from minidet import Tensor, no_grad
from minidet import backbones as ours

torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
tn = torch.nn

from tests.backbones.torch_resnet import ResNet  # noqa: E402


class FeaturesAndClassifier(tn.Module):
    """What torchvision's AlexNet and VGG have in common."""

    def __init__(self, features: list, size: int, classifier: list) -> None:
        super().__init__()
        self.features = tn.Sequential(*features)
        self.avgpool = tn.AdaptiveAvgPool2d(size)
        self.classifier = tn.Sequential(*classifier)

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def alexnet():
    features = [tn.Conv2d(3, 64, 11, 4, 2), tn.ReLU(), tn.MaxPool2d(3, 2), tn.Conv2d(64, 192, 5, padding=2), tn.ReLU()]
    features += [tn.MaxPool2d(3, 2)]
    for channels in ((192, 384), (384, 256), (256, 256)):
        features += [tn.Conv2d(*channels, 3, padding=1), tn.ReLU()]
    features += [tn.MaxPool2d(3, 2)]
    head = [tn.Dropout(), tn.Linear(9216, 4096), tn.ReLU(), tn.Dropout(), tn.Linear(4096, 4096), tn.ReLU()]
    return FeaturesAndClassifier(features, 6, [*head, tn.Linear(4096, 1000)])


def vgg16(batch_norm: bool):
    features, before = [], 3
    for channels in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if channels == 0:
            features.append(tn.MaxPool2d(2, 2))
            continue
        features.append(tn.Conv2d(before, channels, 3, padding=1))
        features += [tn.BatchNorm2d(channels), tn.ReLU()] if batch_norm else [tn.ReLU()]
        before = channels
    head = [tn.Linear(25088, 4096), tn.ReLU(), tn.Dropout(), tn.Linear(4096, 4096), tn.ReLU(), tn.Dropout()]
    return FeaturesAndClassifier(features, 7, [*head, tn.Linear(4096, 1000)])


NETWORKS: dict[str, Callable] = {
    "alexnet": alexnet,
    "vgg16": lambda: vgg16(batch_norm=False),
    "vgg16_bn": lambda: vgg16(batch_norm=True),
    "resnet18": lambda: ResNet((2, 2, 2, 2), bottleneck=False),
    "resnet34": lambda: ResNet((3, 4, 6, 3), bottleneck=False),
    "resnet50": lambda: ResNet((3, 4, 6, 3), bottleneck=True),
}


def twins(name: str):
    """Our network with random weights, biases and averages, and torch's with the same arrays, not copied."""
    minidet.manual_seed(0)
    mine, rng = getattr(ours, name)().eval(), np.random.default_rng(0)
    for key, array in mine.state_dict().items():
        if key.endswith("running_var"):
            array[...] = rng.uniform(0.5, 2, array.shape)
        elif array.ndim == 1:  # a scale near 1, else a bias or a running mean near 0
            array[...] = rng.normal(0, 0.1, array.shape) + (1 if array.mean() == 1 else 0)
    with torch.device("meta"):  # without memory
        theirs = NETWORKS[name]().eval()
    state = {key: torch.from_numpy(array) for key, array in mine.state_dict().items()}
    assert list(theirs.state_dict()) == list(state)
    theirs.load_state_dict(state, assign=True)
    return mine, theirs


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, (1, 224, 224)) for name in NETWORKS if name != "resnet34"]
    + [("alexnet", (2, 97, 131)), ("resnet18", (2, 61, 83)), ("resnet34", (1, 64, 33)), ("resnet50", (2, 45, 70))],
)
def test_logits_equal_torchs(name, shape):
    mine, theirs = twins(name)
    count, *size = shape
    images = np.random.default_rng(1).normal(size=(count, 3, *size)).astype(np.float32)
    with no_grad(), torch.no_grad():
        expected = theirs(torch.from_numpy(images)).numpy()
        found = mine(Tensor(images)).data
    assert found.shape == (count, 1000)
    assert expected.std() > 1e-3  # else there would be nothing to compare
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


def test_the_2012_network_equals_torchs():
    minidet.manual_seed(0)
    mine = ours.alexnet_2012().eval()
    norm = [tn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)]
    with torch.device("meta"):
        features = [tn.Conv2d(3, 96, 11, 4, 2), tn.ReLU(), *norm, tn.MaxPool2d(3, 2)]
        features += [tn.Conv2d(96, 256, 5, padding=2, groups=2), tn.ReLU(), *norm, tn.MaxPool2d(3, 2)]
        for before, after, groups in ((256, 384, 1), (384, 384, 2), (384, 256, 2)):
            features += [tn.Conv2d(before, after, 3, padding=1, groups=groups), tn.ReLU()]
        head = [tn.Linear(9216, 4096), tn.ReLU(), tn.Dropout(), tn.Linear(4096, 4096), tn.ReLU(), tn.Dropout()]
        theirs = FeaturesAndClassifier([*features, tn.MaxPool2d(3, 2)], 6, [*head, tn.Linear(4096, 1000)]).eval()
    theirs.load_state_dict({key: torch.from_numpy(a) for key, a in mine.state_dict().items()}, assign=True)
    images = np.random.default_rng(1).normal(0, 50, (1, 3, 224, 224)).astype(np.float32)  # the paper's are 0..255
    with no_grad(), torch.no_grad():
        expected = theirs(torch.from_numpy(images)).numpy()
        found = mine(Tensor(images)).data
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))
