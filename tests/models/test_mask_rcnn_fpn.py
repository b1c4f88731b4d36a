"""Mask and Keypoint R-CNN in torchvision's layout: its keys, and what they add to Faster R-CNN stage by stage against
torch. Each stage is given the oracle's input; the stages before are those of test_faster_rcnn_fpn.py."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import minidet
from minidet import Tensor, nn, no_grad, watch
from minidet.backbones.fpn import ResNetFPN
from minidet.backbones.resnet import BasicBlock, ResNet
from minidet.boxes import paste_masks
from minidet.models import keypointrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from minidet.models.faster_rcnn_fpn import pyramid_faster_rcnn
from minidet.models.image_batch import ImageBatch
from minidet.models.keypoint_rcnn import (
    KeypointRCNNHeads,
    KeypointRCNNPredictor,
    KeypointRoIHeads,
    heatmaps_to_keypoints,
)
from minidet.models.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor, MaskRoIHeads
from minidet.models.roi_pooling import RoIPooling
from tests.models.random_weights import random_image, random_weights
from tests.models.test_faster_rcnn_fpn import ANCHOR_SIZES, assert_close

CLASSES, JOINTS = 7, 5


def test_the_masks_keys_and_shapes_are_torchvisions():
    state = maskrcnn_resnet50_fpn().state_dict()
    mine = {key: value.shape for key, value in state.items() if "mask" in key}
    layers = {f"mask_head.{n}.0": ((256, 256, 3, 3), (256,)) for n in range(4)}
    layers |= {
        "mask_predictor.conv5_mask": ((256, 256, 2, 2), (256,)),
        "mask_predictor.mask_fcn_logits": ((91, 256, 1, 1), (91,)),
    }
    assert mine == expected_keys(layers)
    assert len(state) == 348 + len(mine)


def test_the_keypoints_keys_and_shapes_are_torchvisions():
    state = keypointrcnn_resnet50_fpn().state_dict()
    mine = {key: value.shape for key, value in state.items() if "keypoint" in key}
    layers = {f"keypoint_head.{2 * n}": ((512, 512 if n else 256, 3, 3), (512,)) for n in range(8)}
    layers["keypoint_predictor.kps_score_lowres"] = ((512, 17, 4, 4), (17,))
    assert mine == expected_keys(layers)
    assert len(state) == 348 + len(mine)


def expected_keys(layers: dict) -> dict:
    return {
        f"roi_heads.{name}.{key}": shape
        for name, shapes in layers.items()
        for key, shape in zip(("weight", "bias"), shapes, strict=True)
    }


@pytest.mark.parametrize(
    ("build", "count"), [(maskrcnn_resnet50_fpn, 44_401_393), (keypointrcnn_resnet50_fpn, 59_137_258)]
)
def test_they_have_as_many_parameters_as_published(build, count):
    """As torchvision's documentation counts them: frozen batch norm has none."""
    model = build(norm_layer=nn.FrozenBatchNorm2d)
    assert sum(parameter.data.size for parameter in model.parameters()) == count


def test_they_cut_regions_and_masks_as_torchvision_does():
    for model, name in ((maskrcnn_resnet50_fpn(), "mask"), (keypointrcnn_resnet50_fpn(), "keypoint")):
        pooling = getattr(model.roi_heads, f"{name}_pooling")
        assert (pooling.output_size, pooling.method, pooling.levels) == (14, "align", 4)
        assert pooling.sampling == {"sampling_ratio": 2, "aligned": False}
        assert getattr(model.roi_heads, "aligned", False) is False


# ------------------------------------------------------------------------------------------------ against torch


def small(heads):
    minidet.manual_seed(0)
    backbone = ResNetFPN(ResNet(BasicBlock, (1, 1, 1, 1), num_classes=1), out_channels=32)
    return pyramid_faster_rcnn(backbone, CLASSES, 96, 160, ANCHOR_SIZES, hidden=64, heads=heads)


def with_masks():
    return small(
        partial(
            MaskRoIHeads,
            mask_pooling=RoIPooling(14, levels=4),
            mask_head=MaskRCNNHeads(32, (16, 24)),
            mask_predictor=MaskRCNNPredictor(24, 24, CLASSES),
            aligned=False,
        )
    )


def with_keypoints():
    return small(
        partial(
            KeypointRoIHeads,
            keypoint_pooling=RoIPooling(14, levels=4),
            keypoint_head=KeypointRCNNHeads(32, (16, 24)),
            keypoint_predictor=KeypointRCNNPredictor(24, JOINTS),
        )
    )


@pytest.fixture(scope="module", params=["masks", "keypoints"])
def twins(request):
    """Our model and the oracle with the same weights, and what the oracle makes of two images, stage by stage."""
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    from tests.models.torch_mask_rcnn import TorchKeypointRCNN, TorchMaskRCNN

    options = ((1, 1, 1, 1), False, 32, 64, CLASSES, 96, 160, ANCHOR_SIZES)
    if request.param == "masks":
        mine, theirs = with_masks(), TorchMaskRCNN(*options, mask_channels=(16, 24))
    else:
        mine, theirs = with_keypoints(), TorchKeypointRCNN(*options, keypoint_channels=(16, 24), joints=JOINTS)
    weights = random_weights({key: tuple(value.shape) for key, value in theirs.state_dict().items()})
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    theirs.eval()
    mine.eval().load_state_dict(weights)
    images = [random_image(96, 128, seed=1), random_image(70, 110, seed=2)]
    with torch.no_grad():
        batch, sizes = theirs.prepare([torch.from_numpy(image) for image in images])
        maps = theirs.backbone(batch)
        found = theirs([torch.from_numpy(image) for image in images])
        ratios = [torch.tensor([s[1] / i.shape[2], s[0] / i.shape[1]] * 2) for s, i in zip(sizes, images, strict=True)]
        boxes = [(one["boxes"] * ratio).float() for one, ratio in zip(found, ratios, strict=True)]
        regions = theirs.roi_features(maps, boxes, sizes, bins=14)
        labels = torch.cat([one["labels"] for one in found])
        if request.param == "masks":
            logits = theirs.mask_outputs(regions)
            results = {"masks": theirs.masks(logits, labels).numpy()}
        else:
            logits = theirs.keypoint_outputs(regions)
            places, heights = theirs.keypoints(logits, torch.cat(boxes))
            results = {"keypoints": places.numpy(), "heights": heights.numpy()}
    return SimpleNamespace(
        kind=request.param,
        mine=mine,
        images=images,
        batch=ImageBatch(None, sizes, [image.shape[1:] for image in images], 32),
        maps=[Tensor(level.numpy()) for level in maps],
        boxes=[of_image.numpy() for of_image in boxes],
        found=[{key: value.numpy() for key, value in one.items()} for one in found],
        regions=regions.numpy(),
        logits=logits.numpy(),
        labels=labels.numpy(),
        **results,
    )


def test_the_oracles_case_is_not_trivial(twins):
    assert all(len(boxes) > 10 for boxes in twins.boxes)
    assert len(set(twins.labels.tolist())) > 1
    assert twins.logits.std() > 0.1


def test_the_regions(twins):
    heads = twins.mine.roi_heads
    pooling = heads.mask_pooling if twins.kind == "masks" else heads.keypoint_pooling
    strides = [(s, s) for s in (4, 8, 16, 32, 64)]
    with no_grad():
        assert_close(pooling(twins.maps, twins.boxes, strides), twins.regions)


def test_the_heads_outputs(twins):
    heads, regions = twins.mine.roi_heads, Tensor(twins.regions)
    with no_grad():
        if twins.kind == "masks":
            logits = heads.mask_predictor(heads.mask_head(regions))
        else:
            logits = heads.keypoint_predictor(heads.keypoint_head(regions))
    assert_close(logits, twins.logits)


def test_what_is_read_from_them(twins):
    if twins.kind == "masks":
        labels = twins.labels
        logits = twins.logits[np.arange(len(labels)), twins.mine.roi_heads.map_of(labels, twins.logits)]
        assert_close(1 / (1 + np.exp(-logits)), twins.masks)
    else:
        keypoints, heights = heatmaps_to_keypoints(twins.logits, np.concatenate(twins.boxes))
        assert_close(keypoints[..., :2], twins.keypoints, scale=10)  # pixels, up to 160
        assert_close(heights, twins.heights)
        assert (keypoints[..., 2] == 1).all()


def test_the_whole(twins):
    heard = {}
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        found = twins.mine([Tensor(image) for image in twins.images])
    start = 0
    for image, size, mine, theirs in zip(twins.images, twins.batch.sizes, found, twins.found, strict=True):
        assert_close(mine["boxes"], theirs["boxes"], scale=10)
        np.testing.assert_array_equal(mine["labels"], theirs["labels"])
        these = slice(start, start := start + len(mine["boxes"]))
        if twins.kind == "masks":
            assert_close(heard["mask.logits"].data[these], twins.logits[these], scale=10)  # through all stages
            assert mine["masks"].shape == (len(mine["boxes"]), *image.shape[1:])
            assert mine["masks"].dtype == bool
            expected = paste_masks(twins.masks[these], theirs["boxes"], image.shape[1:], aligned=False)
            assert (mine["masks"] == expected).mean() > 0.999  # at the threshold rounding decides
        else:
            places = twins.keypoints[these] * np.float32([image.shape[2] / size[1], image.shape[1] / size[0]])
            near = np.abs(mine["keypoints"][..., :2] - places).max(axis=-1) < 1e-2
            assert near.mean() > 0.98  # of two equal maxima rounding takes the one or the other
