"""The paper's Faster R-CNN: what its parts are, and that an image goes through them there and back."""

import numpy as np
import pytest

import minidet
from minidet import Tensor, no_grad, watch
from minidet.backbones import vgg16
from minidet.models.faster_rcnn_vgg16 import fasterrcnn_vgg16
from minidet.random import manual_seed


@pytest.fixture(scope="module")
def vgg():
    rng, network = manual_seed(0), vgg16(init_weights=False)
    for number in range(0, 29):
        layer = network.features[number]
        if hasattr(layer, "weight"):  # He et al.'s: the signal neither fades nor grows
            fan_in = layer.weight.size // layer.out_channels
            layer.weight.data[...] = rng.normal(0, np.sqrt(2 / fan_in), layer.weight.shape)
    return network


@pytest.fixture(scope="module")
def model(vgg):
    return fasterrcnn_vgg16(num_classes=4, min_size=64, max_size=112, vgg=vgg)


def test_an_image_goes_there_and_back(model):
    """64 x 96 pixels after resizing: 4 x 6 cells, nine anchors each; a region of 7 x 7 cells has 25088 numbers."""
    seen, image = {}, Tensor(np.random.default_rng(0).random((3, 32, 48), np.float32))
    with no_grad(), watch.listen(lambda event: seen.setdefault(event.name, event.value)):
        (found,) = model.eval()([image])
    assert seen["backbone.maps"][0].shape == (1, 512, 4, 6)
    assert seen["rpn.objectness"][0].shape == (1, 4 * 6 * 9)
    (anchors,) = seen["rpn.anchors"]
    np.testing.assert_array_equal(anchors[0], [-84, -40, 99, 55])  # the authors' first, counted from 0
    np.testing.assert_array_equal(anchors[9 * 6 + 9] - anchors[0], [16, 16, 16, 16])  # a row and a column further
    count = len(seen["rpn.proposals"][0])
    assert 0 < count <= 300
    assert seen["roi.regions"].shape == (count, 512, 7, 7)
    assert (found["boxes"][:, 2:] <= (48, 32)).all()


def test_its_layers_are_the_classifiers_own(model, vgg):
    """A map of 7 x 7 that is one region goes through fc6 and fc7 as it does in VGG16."""
    model.eval()
    regions = Tensor(np.random.default_rng(1).random((2, 512, 7, 7), np.float32))
    with no_grad():
        found = model.roi_heads.box_head(regions)
        fc6, fc7 = vgg.classifier[0], vgg.classifier[3]
        hidden = np.maximum(regions.data.reshape(2, -1) @ fc6.weight.data.T + fc6.bias.data, 0)
        expected = np.maximum(hidden @ fc7.weight.data.T + fc7.bias.data, 0)
    np.testing.assert_allclose(found.data, expected, rtol=1e-4, atol=1e-4)
    assert model.backbone.features[28].weight is vgg.features[28].weight


def test_all_but_the_first_four_convolutions_learn(model):
    model.train()
    target = {"boxes": np.float32([[4, 4, 44, 28]]), "labels": np.array([2])}
    losses = model([Tensor(np.random.default_rng(0).random((3, 32, 48), np.float32))], [target])
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    sum(losses.values(), start=minidet.Tensor(np.float32(0))).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    frozen = {f"backbone.features.{number}.{kind}" for number in (0, 2, 5, 7) for kind in ("weight", "bias")}
    assert without == frozen
    model.zero_grad()
