"""AlexNet, VGG, ResNet: keys and shapes as published, maps by hand, initial weights, gradients. No torch needed."""

import math

import numpy as np
import pytest

import minidet
from minidet import Tensor, backbones, nn, no_grad

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def batch_norm(name: str, channels: int) -> dict:
    return {f"{name}.{key}": () if key == "num_batches_tracked" else (channels,) for key in BN}


def convolution(name: str, *shape: int, bias: bool = True) -> dict:
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


def head(*layers: tuple[int, int, int]) -> dict:
    return {k: v for i, out, into in layers for k, v in convolution(f"classifier.{i}", out, into).items()}


VGG_HEAD = head((0, 4096, 25088), (3, 4096, 4096), (6, 1000, 4096))


def alexnet_keys() -> dict:
    keys = convolution("features.0", 64, 3, 11, 11) | convolution("features.3", 192, 64, 5, 5)
    for position, out, into in ((6, 384, 192), (8, 256, 384), (10, 256, 256)):
        keys |= convolution(f"features.{position}", out, into, 3, 3)
    return keys | head((1, 4096, 9216), (4, 4096, 4096), (6, 1000, 4096))


def vgg16_keys(positions: tuple[int, ...], bn: bool) -> dict:
    keys, before = {}, 3
    for position, out in zip(positions, (64, 64, 128, 128, 256, 256, 256, *[512] * 6), strict=True):
        keys |= convolution(f"features.{position}", out, before, 3, 3)
        keys |= batch_norm(f"features.{position + 1}", out) if bn else {}
        before = out
    return keys | VGG_HEAD


def resnet_keys(counts: tuple[int, ...], kernels: tuple[int, ...], expansion: int) -> dict:
    keys = convolution("conv1", 64, 3, 7, 7, bias=False) | batch_norm("bn1", 64)
    before = 64
    for stage, count in enumerate(counts):
        planes = (64, 128, 256, 512)[stage]
        for number in range(count):
            name, into = f"layer{stage + 1}.{number}", before
            for i, kernel in enumerate(kernels, start=1):
                out = planes * expansion if i == len(kernels) else planes
                keys |= convolution(f"{name}.conv{i}", out, into, kernel, kernel, bias=False)
                keys |= batch_norm(f"{name}.bn{i}", out)
                into = out
            if number == 0 and before != planes * expansion:
                keys |= convolution(f"{name}.downsample.0", planes * expansion, before, 1, 1, bias=False)
                keys |= batch_norm(f"{name}.downsample.1", planes * expansion)
            before = planes * expansion
    return keys | convolution("fc", 1000, before)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet", alexnet_keys()),
        ("vgg16", vgg16_keys((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), bn=False)),
        ("vgg16_bn", vgg16_keys((0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40), bn=True)),
        ("resnet18", resnet_keys((2, 2, 2, 2), (3, 3), 1)),
        ("resnet50", resnet_keys((3, 4, 6, 3), (1, 3, 1), 4)),
    ],
)
def test_keys_and_shapes_are_torchvisions_in_its_order(name, expected):
    options = {"init_weights": False} if name.startswith("vgg") else {}
    state = getattr(backbones, name)(**options).state_dict()
    assert [(key, array.shape) for key, array in state.items()] == list(expected.items())


# As torchvision's documentation gives them; alexnet_2012: the sum over the paper's layers, worked out by hand.
PARAMETERS = {
    "alexnet": 61_100_840,
    "alexnet_2012": 60_965_224,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_has_as_many_parameters_as_published(name):
    options = {"init_weights": False} if name.startswith("vgg") else {}
    network = getattr(backbones, name)(**options)
    assert sum(parameter.data.size for parameter in network.parameters()) == PARAMETERS[name]


def outputs(network: nn.Module, kind: type, size: int) -> list[tuple[int, ...]]:
    """Channels, height and width of what each layer of a kind gives."""
    shapes = []
    removers = [
        module.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[1:]))
        for module in network.modules()
        if isinstance(module, kind)
    ]
    with no_grad():
        network.eval()(Tensor(np.zeros((1, 3, size, size), np.float32)))
    for remove in removers:
        remove()
    return shapes


def test_the_2012_networks_maps_are_the_papers():
    network = backbones.alexnet_2012()
    assert outputs(network, nn.Conv2d, 224) == [
        (96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13),
    ]  # fmt: skip
    assert outputs(network, nn.MaxPool2d, 224) == [(96, 27, 27), (256, 13, 13), (256, 6, 6)]
    assert outputs(network, nn.LocalResponseNorm, 224) == [(96, 55, 55), (256, 27, 27)]


def test_the_papers_response_normalisation_by_hand():
    """b = a / (2 + 1e-4 * sum of squares of the five channels around)^0.75, section 3.3."""
    norm = next(m for m in backbones.alexnet_2012().modules() if isinstance(m, nn.LocalResponseNorm))
    a = np.array([100.0, 200, 0, 50, 300, 10, 70]).reshape(1, 7, 1, 1)
    b = norm(a)
    for channel in range(7):
        squares = (a[0, max(0, channel - 2) : channel + 3] ** 2).sum()
        assert b[0, channel, 0, 0] == pytest.approx(a[0, channel, 0, 0] / (2 + 1e-4 * squares) ** 0.75, rel=1e-12)


def test_the_2012_networks_biases_start_as_the_paper_says():
    network = backbones.alexnet_2012()
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert [set(np.unique(layer.bias.data)) for layer in layers] == [{0}, {1}, {0}, {1}, {1}, {1}, {1}, {0}]
    for layer in layers:
        assert layer.weight.data.std() == pytest.approx(0.01, rel=0.05)
        assert abs(layer.weight.data.mean()) < 1e-3


def test_vgg_starts_as_torchvisions():
    network = backbones.vgg11_bn()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for layer in convolutions:
        assert layer.weight.data.std() == pytest.approx(math.sqrt(2 / (9 * layer.out_channels)), rel=0.1)
        assert not layer.bias.data.any()
    for layer in [module for module in network.modules() if isinstance(module, nn.Linear)]:
        assert layer.weight.data.std() == pytest.approx(0.01, rel=0.01)
        assert not layer.bias.data.any()


def test_resnet_starts_as_torchvisions():
    network = backbones.resnet18(zero_init_residual=True)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            assert module.weight.data.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)
        if isinstance(module, nn.BatchNorm2d):
            assert set(module.weight.data) == {0 if name.endswith("bn2") else 1}
    assert set(backbones.resnet18().layer1[0].bn2.weight.data) == {1}
    last = backbones.resnet50(zero_init_residual=True).layer1[0]
    assert set(last.bn3.weight.data) == {0}
    assert set(last.bn2.weight.data) == {1}


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("alexnet", 63, {"dropout": 0}),
        ("alexnet_2012", 224, {"dropout": 0}),
        ("vgg11_bn", 32, {"dropout": 0}),
        ("resnet18", 40, {}),
        ("resnet50", 33, {}),
    ],
)
def test_the_gradient_reaches_every_parameter(name, size, options):
    minidet.manual_seed(0)
    network = getattr(backbones, name)(num_classes=5, **options)
    images = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
    logits = network(Tensor(images))
    assert logits.shape == (2, 5)
    (logits * np.float32([[1, -2, 3, 0.5, 1], [2, 1, -1, 1, -3]])).sum().backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert np.isfinite(parameter.grad.data).all(), path
        assert parameter.grad.data.any(), path


@pytest.mark.parametrize("name", ["alexnet", "alexnet_2012", "vgg11", "resnet18", "resnet50"])
def test_every_relu_is_a_module_that_runs_once(name):
    """Hooks, and guided backpropagation with them, change what a ReLU does: none may be hidden in a function, and none
    may stand for two."""
    options = {"init_weights": False} if name.startswith("vgg") else {}
    network = getattr(backbones, name)(**options)
    expected = {"alexnet": 7, "alexnet_2012": 7, "vgg11": 10, "resnet18": 17, "resnet50": 49}[name]
    assert len(outputs(network, nn.ReLU, 64 if name != "alexnet_2012" else 224)) == expected
    assert sum(isinstance(module, nn.ReLU) for module in network.modules()) == expected


def test_an_unknown_depth_is_refused():
    with pytest.raises(ValueError, match="expected a depth of 11, 13, 16 or 19 layers, got 17"):
        backbones.VGG(17)


def test_normalize_is_torchvisions():
    images = np.stack([np.full((2, 2), value, np.float32) for value in (0.485, 0.456 + 0.224, 0.406 - 0.225)])[None]
    expected = np.float32([0, 1, -1]).reshape(1, 3, 1, 1) * np.ones((1, 3, 2, 2), np.float32)
    np.testing.assert_allclose(backbones.normalize(images), expected, atol=1e-6)
    found = backbones.normalize(Tensor(images, requires_grad=True))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.data, expected, atol=1e-6)
    with pytest.raises(TypeError, match="expected images of floats in \\[0, 1\\], got uint8; divide them by 255 first"):
        backbones.normalize(np.zeros((1, 3, 2, 2), np.uint8))
