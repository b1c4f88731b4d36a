"""The feature pyramid: keys and shapes as published, values by hand and against torch, what is trained and what not."""

from functools import partial

import numpy as np
import pytest
from test_networks import convolution, resnet_keys

import minidet
from minidet import Tensor, nn, no_grad
from minidet.backbones import fpn
from minidet.backbones.resnet import BasicBlock, ResNet


def pyramid_keys() -> dict:
    inner = {k: v for i in range(4) for k, v in convolution(f"fpn.inner_blocks.{i}.0", 256, 256 << i, 1, 1).items()}
    return inner | {k: v for i in range(4) for k, v in convolution(f"fpn.layer_blocks.{i}.0", 256, 256, 3, 3).items()}


@pytest.mark.parametrize("norm_layer", [nn.BatchNorm2d, nn.FrozenBatchNorm2d])
def test_keys_and_shapes_are_torchvisions_in_its_order(norm_layer):
    body = resnet_keys((3, 4, 6, 3), (1, 3, 1), 4)
    expected = {f"body.{key}": shape for key, shape in body.items() if not key.startswith("fc.")} | pyramid_keys()
    if norm_layer is nn.FrozenBatchNorm2d:
        expected = {key: shape for key, shape in expected.items() if not key.endswith("num_batches_tracked")}
    state = fpn.resnet_fpn_backbone("resnet50", norm_layer).state_dict()
    assert [(key, array.shape) for key, array in state.items()] == list(expected.items())


def small_backbone(**options) -> fpn.ResNetFPN:
    """Four blocks, 32 channels in the pyramid."""
    minidet.manual_seed(0)
    return fpn.ResNetFPN(ResNet(BasicBlock, (1, 1, 1, 1), num_classes=1), out_channels=32, **options)


# ------------------------------------------------------------------------------------------------ by hand


def test_a_pyramid_by_hand():
    """1 x 1 weights of 1, 3 x 3 weights that only see the middle: maps are sums of what lies above."""
    pyramid = fpn.FeaturePyramid([1, 1, 1], out_channels=1)
    for inner, layer in zip(pyramid.inner_blocks, pyramid.layer_blocks, strict=True):
        inner[0].weight.data[...] = 1
        layer[0].weight.data[...] = 0
        layer[0].weight.data[0, 0, 1, 1] = 1
    pyramid.inner_blocks[0][0].bias.data[...] = 1000
    pyramid.layer_blocks[1][0].bias.data[...] = 0.5
    fine = np.arange(15).reshape(1, 1, 3, 5)
    middle = np.array([[100, 200, 300], [400, 500, 600]]).reshape(1, 1, 2, 3)
    coarse = np.array([[10000, 20000]]).reshape(1, 1, 1, 2)
    found = pyramid([Tensor(x.astype(np.float32)) for x in (fine, middle, coarse)])
    # Column j of three looks at floor(j * 2/3) of two: 0, 0, 1. Of five columns j * 3/5: 0, 0, 1, 1, 2; of three rows
    # i * 2/3: 0, 0, 1.
    merged = np.array([[10100, 10200, 20300], [10400, 10500, 20600]])
    finest = fine[0, 0] + 1000 + merged[[0, 0, 1]][:, [0, 0, 1, 1, 2]]
    assert [x.data[0, 0].tolist() for x in found] == [
        finest.tolist(), (merged + 0.5).tolist(), coarse[0, 0].tolist(), [[10000]],
    ]  # fmt: skip


def test_the_last_level_is_every_second_pixel_of_the_one_before():
    levels = small_backbone()(Tensor(np.random.default_rng(0).random((2, 3, 96, 160), np.float32)))
    assert [x.shape for x in levels] == [(2, 32, 24, 40), (2, 32, 12, 20), (2, 32, 6, 10), (2, 32, 3, 5), (2, 32, 2, 3)]
    np.testing.assert_array_equal(levels[4].data, levels[3].data[:, :, ::2, ::2])


def test_frozen_batch_norm_by_hand():
    norm = nn.FrozenBatchNorm2d(2, eps=1.0)
    norm.load_state_dict(
        {"weight": [2, 1], "bias": [0, 5], "running_mean": [1, -1], "running_var": [3, 0]}  # y = (x - 1), y = x + 6
    )
    x = Tensor(np.float32([[[[1, 2]], [[3, -6]]]]), requires_grad=True)
    y = norm.train()(x)
    assert y.data.tolist() == [[[[0, 1]], [[9, 0]]]]
    (y * np.float32([[[[1, 2]], [[3, 4]]]])).sum().backward()
    assert x.grad.data.tolist() == [[[[1, 2]], [[3, 4]]]]
    assert list(norm.parameters()) == []


# ------------------------------------------------------------------------------------- what is trained


@pytest.mark.parametrize(
    ("trainable_layers", "trained"),
    [
        (0, []),
        (1, ["layer4"]),
        (3, ["layer2", "layer3", "layer4"]),
        (4, ["layer1", "layer2", "layer3", "layer4"]),
        (5, ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]),
    ],
)
def test_the_last_layers_are_trained(trainable_layers, trained):
    backbone = small_backbone(trainable_layers=trainable_layers)
    found = {name.split(".")[0] for name, p in backbone.body.named_parameters() if p.requires_grad}
    assert found == set(trained)
    assert all(p.requires_grad for p in backbone.fpn.parameters())


@pytest.mark.parametrize("trainable_layers", [3, 5])
def test_the_gradient_reaches_every_parameter_that_is_trained_and_no_other(trainable_layers):
    backbone = small_backbone(trainable_layers=trainable_layers)
    rng = np.random.default_rng(0)
    levels = backbone(Tensor(rng.normal(size=(2, 3, 64, 96)).astype(np.float32)))
    sum((x * rng.normal(size=x.shape).astype(np.float32)).sum() for x in levels).backward()
    for path, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.data.any(), path  # noqa: PT018
        else:
            assert parameter.grad is None, path


def test_replaced_batch_norm_is_everywhere_and_nothing_else_has_changed_its_place():
    network = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=1)
    before = [name for name, _ in network.named_modules()]
    fpn.replace_batch_norm(network, partial(nn.FrozenBatchNorm2d, eps=0.0))
    assert [name for name, _ in network.named_modules()] == before
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert {m.eps for m in network.modules() if isinstance(m, nn.FrozenBatchNorm2d)} == {0.0}


def test_a_part_knows_its_place_when_the_resnet_is_no_more():
    backbone = small_backbone()
    assert backbone.body.layer2[0].conv1.title == "Conv2d 'body.layer2.0.conv1'"


# ---------------------------------------------------------------------------------------------- errors


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="expected trainable_layers from 0 to 5, got 6"):
        small_backbone(trainable_layers=6)
    with pytest.raises(ValueError, match="expected 'resnet18', 'resnet34' or 'resnet50', got 'vgg16'"):
        fpn.resnet_fpn_backbone("vgg16")
    with pytest.raises(ValueError, match="expected 2 maps, finest first, got 1"):
        fpn.FeaturePyramid([4, 8])([Tensor(np.zeros((1, 4, 2, 2), np.float32))])


# ----------------------------------------------------------------------------------------- against torch


@pytest.mark.parametrize(
    ("counts", "shape"),
    [((1, 1, 1, 1), (2, 96, 160)), ((1, 1, 1, 1), (1, 75, 109)), ((3, 4, 6, 3), (1, 128, 160))],
)
def test_maps_equal_torchs(counts, shape):
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    from tests.models import torch_faster_rcnn as oracle

    real = counts == (3, 4, 6, 3)
    theirs = oracle.with_random_weights(oracle.Backbone(counts, bottleneck=real, channels=256 if real else 32))
    mine = fpn.resnet_fpn_backbone(norm_layer=nn.BatchNorm2d, trainable_layers=5) if real else small_backbone()
    mine.eval().load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    count, *size = shape
    images = np.random.default_rng(1).normal(size=(count, 3, *size)).astype(np.float32)
    with torch.no_grad():
        expected = [x.numpy() for x in theirs(torch.from_numpy(images))]
    with no_grad():
        found = [x.data for x in mine(Tensor(images))]
    for theirs, ours in zip(expected, found, strict=True):
        assert theirs.std() > 0.1  # else there would be nothing to compare
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
