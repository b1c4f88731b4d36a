"""Cutting networks: the map is what the network computes at that layer, and what cannot be cut is refused."""

import numpy as np
import pytest

import minidet
from minidet import Tensor, backbones, nn, no_grad
from minidet.backbones import TinyBackbone, cut
from minidet.models.classifier import Classifier
from minidet.models.localizer import Localizer


def noise(*size: int) -> Tensor:
    return Tensor(np.random.default_rng(0).normal(size=(1, 3, *size)).astype(np.float32))


def at(network: nn.Module, layer: str, images: Tensor) -> np.ndarray:
    """What a layer gives when the whole network runs."""
    found = []
    remove = dict(network.named_modules())[layer].register_forward_hook(lambda m, i, output: found.append(output.data))
    network.eval()(images)
    remove()
    return found[0]


@pytest.fixture(scope="module")
def vgg():
    minidet.manual_seed(0)
    return backbones.vgg16(init_weights=False)


@pytest.mark.parametrize(
    ("name", "layer", "out_channels", "stride", "size", "cells"),
    [
        ("alexnet", "features.12", 256, 32, (224, 224), (6, 6)),
        ("alexnet", "features.11", 256, 16, (224, 224), (13, 13)),
        ("alexnet_2012", "features.14", 256, 32, (224, 224), (6, 6)),
        ("resnet18", "layer4", 512, 32, (96, 65), (3, 3)),
        ("resnet18", "layer3.0", 256, 16, (96, 64), (6, 4)),
        ("resnet18", "layer1.0.conv2", 64, 4, (96, 64), (24, 16)),
        ("resnet50", "layer2", 512, 8, (64, 64), (8, 8)),
        ("resnet50", "conv1", 64, 2, (64, 64), (32, 32)),
        ("TinyBackbone", "stages.0", 64, 4, (64, 64), (16, 16)),
        ("TinyBackbone", "stages.1.0", 128, 8, (64, 64), (8, 8)),
        ("TinyBackbone", "stem", 32, 2, (64, 64), (32, 32)),
    ],
)
def test_a_cut_network_gives_the_layers_map(name, layer, out_channels, stride, size, cells):
    minidet.manual_seed(0)
    network = getattr(backbones, name)().eval()
    extractor = cut(network, layer)
    assert (extractor.out_channels, extractor.stride) == (out_channels, stride)
    images = noise(*size)
    found = extractor(images).data  # with gradients, so that it is not fused, as the layer that a hook waits for
    assert found.shape == (1, out_channels, *cells)
    np.testing.assert_array_equal(found, at(network, layer, images))


def test_gap_is_anticipated_to_vggs_14_x_14_map(vgg):
    extractor = cut(vgg, "features.29")
    assert (extractor.out_channels, extractor.stride) == (512, 16)
    with no_grad():
        assert extractor(noise(224, 224)).shape == (1, 512, 14, 14)
    assert cut(vgg, "features").stride == 32


def test_fully_connected_layers_are_gone_and_names_stay(vgg):
    extractor = cut(vgg, "features.29")
    state, whole = extractor.state_dict(), vgg.state_dict()
    assert list(state) == [key for key in whole if key.startswith("features.")]
    assert all(state[key] is whole[key] for key in state)  # shared, not copied
    assert not any(isinstance(module, nn.Linear) for module in extractor.modules())
    assert list(dict(cut(vgg, "features.4").named_modules())) == ["", "features", *(f"features.{i}" for i in range(5))]


def test_the_probe_leaves_no_trace():
    network = backbones.resnet18()
    network.layer2.eval()
    minidet.manual_seed(3)
    before = {key: array.copy() for key, array in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    cut(network, "layer3")
    with pytest.raises(ValueError, match="does not compute"):
        cut(network, "layer4.1.relu2")
    assert [module.training for module in network.modules()] == modes
    assert all(np.array_equal(array, before[key]) for key, array in network.state_dict().items())
    assert not any(module._hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    drawn = minidet.random.generator().random()
    minidet.manual_seed(3)
    assert drawn == minidet.random.generator().random()


def test_cut_networks_are_backbones_of_the_systems():
    minidet.manual_seed(0)
    extractor = cut(backbones.resnet18(), "layer2")
    targets = [{"boxes": np.array([[4.0, 4, 20, 20]]), "labels": np.array([i + 1])} for i in range(2)]
    images = Tensor(np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32))
    for model in (Classifier(extractor, 2), Localizer(extractor, 2, image_size=32, hidden=8)):
        losses = model(images, targets)
        sum(losses.values()).backward()
        assert all(parameter.grad is not None for parameter in extractor.parameters())
        extractor.zero_grad()


def test_a_network_in_float64_and_of_other_images_can_be_cut():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.GlobalAvgPool2d()).to(np.float64)
    extractor = cut(network, "1")
    assert (extractor.out_channels, extractor.stride) == (4, 2)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.convolution(x)


class Backwards(nn.Module):
    """Runs its parts in another order than it has them."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.first = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize(
    ("make", "layer", "message"),
    [
        (backbones.resnet18, "layer5", "ResNet has no layer 'layer5'; expected one like 'layer4', 'layer3', 'layer2'"),
        (backbones.resnet18, "", "ResNet has no layer ''; expected one like 'conv1', 'bn1', 'relu'"),
        (backbones.resnet18, "layer2.0.relu2", "does not compute 'layer2.0.relu2' by its parts in their order"),
        (backbones.resnet18, "layer2.0.downsample.0", "before or after the block"),
        (
            backbones.resnet18,
            "avgpool",
            r"maps \(N, C, H, W\) grow with the image, but 'avgpool' gives \(1, 512, 1, 1\)",
        ),
        (backbones.resnet18, "fc", "grow with the image, but 'fc' gives"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, stride=3)), "0", "whose stride is a power of two, but '0' gives"),
        (Unused, "unused", "a layer that Unused runs, but it never calls 'unused'"),
        (Backwards, "first", "Backwards does not compute 'first'"),
        (lambda: nn.Sequential(nn.ReLU()), "0", "a network with a Conv2d, got Sequential without one"),
    ],
)
def test_what_cannot_be_cut_is_refused(make, layer, message):
    with pytest.raises(ValueError, match=message):
        cut(make(), layer)


@pytest.mark.parametrize("layer", [1, nn.ReLU()])
def test_a_layer_that_is_no_path_is_refused(layer):
    with pytest.raises(TypeError, match=f"cut: expected a layer's path, as 'features.29', got {type(layer).__name__} "):
        cut(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), layer)


def test_tiny_backbones_map_can_stay_larger():
    minidet.manual_seed(0)
    usual = TinyBackbone((4, 8, 8, 8))
    state = usual.state_dict()
    for stride, cells in ((2, 32), (4, 16), (8, 8), (16, 4)):
        backbone = TinyBackbone((4, 8, 8, 8), stride=stride)
        backbone.load_state_dict(state)
        assert backbone.stride == stride
        assert backbone(noise(64, 64)).shape == (1, 8, cells, cells)
    assert usual.stride == 16
    for wrong in (1, 3, 32):
        with pytest.raises(ValueError, match=f"a stride among 2, 4, 8, 16, got {wrong}"):
            TinyBackbone(stride=wrong)
