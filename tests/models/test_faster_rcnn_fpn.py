"""Faster R-CNN on a pyramid: torchvision's keys, and each stage and the whole against the same network in torch.

The stages choose: which boxes are best, which overlap too much, which level a box is read from. Where two numbers are
nearly equal, rounding decides, and everything behind it differs. So each stage is given the oracle's input.
"""

from types import SimpleNamespace

import numpy as np
import pytest

import minidet
from minidet import Tensor, nn, no_grad, watch
from minidet.backbones.fpn import ResNetFPN
from minidet.backbones.resnet import BasicBlock, ResNet
from minidet.models.faster_rcnn_fpn import fasterrcnn_resnet50_fpn, pyramid_faster_rcnn
from minidet.models.image_batch import ImageBatch, batch_images
from tests.models.random_weights import random_image

ANCHOR_SIZES = (8, 16, 32, 64, 128)


def head_keys() -> dict:
    """Behind the backbone, whose keys tests/backbones/test_fpn.py knows: 91 classes, 3 anchors a cell."""
    layers = {
        "rpn.head.conv.0.0": (256, 256, 3, 3),
        "rpn.head.cls_logits": (3, 256, 1, 1),
        "rpn.head.bbox_pred": (12, 256, 1, 1),
        "roi_heads.box_head.fc6": (1024, 256 * 7 * 7),
        "roi_heads.box_head.fc7": (1024, 1024),
        "roi_heads.box_predictor.cls_score": (91, 1024),
        "roi_heads.box_predictor.bbox_pred": (4 * 91, 1024),
    }
    return {
        f"{name}.{key}": shape if key == "weight" else shape[:1]
        for name, shape in layers.items()
        for key in ("weight", "bias")
    }


@pytest.mark.parametrize(("norm_layer", "count"), [(nn.BatchNorm2d, 348), (nn.FrozenBatchNorm2d, 348 - 53)])
def test_keys_and_shapes_are_torchvisions_in_its_order(norm_layer, count):
    state = fasterrcnn_resnet50_fpn(norm_layer=norm_layer).state_dict()
    backbone = [key for key in state if key.startswith("backbone.")]
    assert len(state) == count
    assert list(state)[: len(backbone)] == backbone
    assert [(key, state[key].shape) for key in list(state)[len(backbone) :]] == list(head_keys().items())
    assert sum(key.startswith("backbone.fpn.") for key in state) == 16


def test_it_has_as_many_parameters_as_published():
    """As torchvision's documentation counts them: frozen batch norm has none."""
    model = fasterrcnn_resnet50_fpn(norm_layer=nn.FrozenBatchNorm2d)
    assert sum(parameter.data.size for parameter in model.parameters()) == 41_755_286


@pytest.mark.parametrize("frozen", [False, True])
def test_its_options_are_torchvisions(frozen):
    model = fasterrcnn_resnet50_fpn(
        num_classes=3,
        min_size=64,
        max_size=96,
        trainable_backbone_layers=0 if frozen else 5,
        box_detections_per_img=2,
    ).eval()
    assert any(p.requires_grad for p in model.backbone.body.parameters()) is not frozen
    seen = {}
    with no_grad(), watch.listen(lambda event: seen.setdefault(event.name, event.value)):
        (found,) = model([Tensor(np.random.default_rng(0).random((3, 32, 64), np.float32))])
    assert seen["backbone.maps"][0].shape == (1, 256, 16, 24)  # 48 x 96 pixels, padded to 64 x 96
    assert len(found["boxes"]) == len(found["labels"]) == len(found["scores"]) == 2


# ----------------------------------------------------------------------------------- training, without an oracle


def small_model(num_classes: int = 7, **options):
    minidet.manual_seed(0)
    backbone = ResNetFPN(ResNet(BasicBlock, (1, 1, 1, 1), num_classes=1), out_channels=32)
    return pyramid_faster_rcnn(backbone, num_classes, 96, 160, ANCHOR_SIZES, hidden=64, **options)


@pytest.mark.parametrize(
    ("options", "proposals", "detections"),
    [
        ({}, 35, 6 * 35),  # seven of each level; a box of each class of each proposal
        ({"rpn_post_nms_top_n_test": 5}, 5, 6 * 5),
        ({"rpn_nms_thresh": 0.0}, range(5, 35), None),
        ({"box_nms_thresh": 0.0}, 35, range(6, 6 * 35)),
        ({"box_score_thresh": 1.0}, 35, 0),
        ({"box_detections_per_img": 2}, 35, 2),
    ],
)
def test_how_many_boxes_its_options_leave_at_test(options, proposals, detections):
    """Without suppression or thresholds all 7 that each of 5 levels may propose go on."""
    all_of_them = {"rpn_pre_nms_top_n_test": 7, "rpn_nms_thresh": 1.0, "box_nms_thresh": 1.0, "box_score_thresh": 0.0}
    model, seen = small_model(**all_of_them | {"box_detections_per_img": 1000} | options).eval(), {}
    with no_grad(), watch.listen(lambda event: seen.setdefault(event.name, event.value)):
        (found,) = model([Tensor(np.random.default_rng(0).random((3, 96, 128), np.float32))])
    for number, expected in ((len(seen["rpn.proposals"][0]), proposals), (len(found["boxes"]), detections)):
        assert expected is None or number == expected or (isinstance(expected, range) and number in expected)


def test_how_many_boxes_its_options_leave_in_training():
    """Of 11 proposals and the object 8 are trained on; 3 of these at most, here the object alone, are no background."""
    options = {"rpn_pre_nms_top_n_train": 7, "rpn_post_nms_top_n_train": 11, "rpn_nms_thresh": 1.0}
    model, seen = small_model(**options, box_batch_size_per_image=8, box_positive_fraction=0.4), {}
    image = Tensor(np.random.default_rng(0).random((3, 96, 128), np.float32))
    target = {"boxes": np.float32([[3, 3, 6, 6]]), "labels": np.array([4])}
    with watch.listen(lambda event: seen.setdefault(event.name, event.value)):
        model([image], [target])
        assert len(seen["rpn.proposals"][0]) == 11
        assert sorted(seen["roi.labels"]) == [0] * 7 + [4]
        seen.clear()
        target = {"boxes": np.repeat(target["boxes"], 9, axis=0), "labels": np.full(9, 4)}
        model([image], [target])
        assert sorted(seen["roi.labels"]) == [0] * 5 + [4] * 3


def test_in_training_it_gives_the_four_losses_and_every_parameter_a_gradient():
    rng = np.random.default_rng(0)
    images = [Tensor(rng.random((3, 96, 128), np.float32)), Tensor(rng.random((3, 80, 100), np.float32))]
    targets = [
        {"boxes": np.float32([[10, 20, 50, 70], [60, 5, 76, 20]]), "labels": np.array([1, 6])},
        {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)},
    ]
    model = small_model()
    losses = model(images, targets)
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    sum(losses.values()).backward()
    for path, parameter in model.named_parameters():
        assert np.isfinite(parameter.grad.data).all(), path
        assert parameter.grad.data.any(), path


# ------------------------------------------------------------------------------------------------ against torch


def oracle_run(oracle, theirs, images: list[np.ndarray]) -> SimpleNamespace:
    """What the oracle makes of the images, stage by stage, as arrays."""
    torch = oracle.torch
    with torch.no_grad():
        batch, sizes = theirs.prepare([torch.from_numpy(image) for image in images])
        maps = theirs.backbone(batch)
        logits, deltas = theirs.head_outputs(maps)
        anchors = theirs.anchors(batch, maps)
        proposals = [
            theirs.proposals([x[n] for x in logits], [x[n] for x in deltas], anchors, size)
            for n, size in enumerate(sizes)
        ]
        regions = theirs.roi_features(maps, proposals, sizes)
        class_logits, box_deltas = theirs.box_outputs(regions)
        found = theirs([torch.from_numpy(image) for image in images])

    def arrays(values):
        if isinstance(values, torch.Tensor):
            return values.numpy()
        return {k: arrays(v) for k, v in values.items()} if isinstance(values, dict) else [arrays(v) for v in values]

    stages = {
        "batch": batch, "maps": maps, "logits": logits, "deltas": deltas, "anchors": anchors, "proposals": proposals,
        "regions": regions, "class_logits": class_logits, "box_deltas": box_deltas, "found": found,
    }  # fmt: skip
    return SimpleNamespace(sizes=sizes, **{name: arrays(values) for name, values in stages.items()})


@pytest.fixture(scope="module", params=["four blocks, two images", "ResNet-50, one image"])
def twins(request):
    """Our model, the oracle's stages for some images, and these, all with the same weights."""
    pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    from tests.models import torch_faster_rcnn as oracle

    if request.param.startswith("ResNet-50"):
        images = [random_image(120, 150, seed=3)]
        options = {"min_size": 128, "max_size": 200}  # resized by 128/120: to 128 x 160
        theirs, mine = oracle.TorchFasterRCNN(**options), fasterrcnn_resnet50_fpn(**options)
    else:  # padded: 96 x 128, and 96 x 151 after resizing, together 96 x 160
        images = [random_image(96, 128, seed=1), random_image(70, 110, seed=2)]
        theirs = oracle.TorchFasterRCNN((1, 1, 1, 1), False, 32, 64, 7, 96, 160, ANCHOR_SIZES)
        mine = small_model()
    oracle.with_random_weights(theirs)
    mine.eval().load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    seen = {}
    with no_grad(), watch.listen(lambda event: seen.setdefault(event.name, event.value)):
        seen["found"] = mine([Tensor(image) for image in images])
    return SimpleNamespace(mine=mine, images=images, seen=seen, theirs=oracle_run(oracle, theirs, images))


def batch_of(twins) -> ImageBatch:
    originals = [image.shape[1:] for image in twins.images]
    return ImageBatch(Tensor(twins.theirs.batch), twins.theirs.sizes, originals, 32)


def assert_close(found, expected, scale: float = 1.0):
    found = found.data if isinstance(found, Tensor) else found
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)


def test_the_oracles_case_is_not_trivial(twins):
    """Scores spread, boxes move, several levels and classes are met, and suppression has work."""
    theirs = twins.theirs
    assert min(level.std() for level in theirs.logits) > 0.1
    for image, boxes in enumerate(theirs.proposals):
        sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
        assert len(boxes) > 100
        assert sides.max() > 4 * sides.min()
        assert len(theirs.found[image]["boxes"]) > 20
        assert len(set(theirs.found[image]["labels"].tolist())) > 1
        assert theirs.found[image]["scores"].std() > 0.01


def test_the_batch(twins):
    mine = twins.mine
    batch = batch_images([Tensor(x) for x in twins.images], mine.normalize, mine.min_size, mine.max_size, 32)
    assert batch.sizes == twins.theirs.sizes
    assert_close(batch.tensor, twins.theirs.batch)


def test_the_maps(twins):
    with no_grad():
        maps = twins.mine.backbone(Tensor(twins.theirs.batch))
    for found, expected in zip(maps, twins.theirs.maps, strict=True):
        assert_close(found, expected)


def test_the_anchors(twins):
    for found, expected in zip(twins.seen["rpn.anchors"], twins.theirs.anchors, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_rpns_outputs(twins):
    with no_grad():
        logits, deltas = twins.mine.rpn.head([Tensor(level) for level in twins.theirs.maps])
    for found, expected in zip([*logits, *deltas], [*twins.theirs.logits, *twins.theirs.deltas], strict=True):
        assert_close(found, expected)


def test_the_proposals(twins):
    theirs = twins.theirs
    outputs = [[Tensor(level) for level in levels] for levels in (theirs.logits, theirs.deltas)]
    found = twins.mine.rpn.proposals(*outputs, theirs.anchors, batch_of(twins))
    for mine, expected in zip(found, theirs.proposals, strict=True):
        assert_close(mine, expected, scale=10)  # pixels, up to 200


def test_the_regions(twins):
    with no_grad():
        maps = [Tensor(level) for level in twins.theirs.maps]
        found = twins.mine.roi_heads.pooling(maps, twins.theirs.proposals, batch_of(twins).strides(maps))
    assert_close(found, twins.theirs.regions)


def test_every_size_is_read_from_its_level():
    """Boxes of 4 to 1000 pixels, which meet all four levels that are read; those of 112, 224, 448 and 896, too."""
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    from tests.models import torch_faster_rcnn as oracle

    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((2, 8, 1024 // s, 1024 // s), np.float32) for s in (4, 8, 16, 32, 64)]
    boxes = []
    for _ in range(2):
        sides = np.exp(rng.uniform(np.log(4), np.log(1000), (60, 2)))
        sides[:4] = [[112, 112], [224, 224], [448, 448], [896, 896]]
        corners = rng.uniform(0, 1, (60, 2)) * (1024 - sides)
        boxes.append(np.concatenate([corners, corners + sides], axis=1).astype(np.float32))
    theirs = oracle.TorchFasterRCNN((1, 1, 1, 1), False, 32, 64, 7)
    as_torch = [[torch.from_numpy(x) for x in arrays] for arrays in (maps, boxes)]
    expected = theirs.roi_features(*as_torch, [(1024, 1024)] * 2).numpy()
    found = small_model().roi_heads.pooling(
        [Tensor(level) for level in maps], boxes, [(s, s) for s in (4, 8, 16, 32, 64)]
    )
    assert_close(found, expected)


def test_the_box_heads_outputs(twins):
    heads = twins.mine.roi_heads
    with no_grad():
        logits, deltas = heads.box_predictor(heads.box_head(Tensor(twins.theirs.regions)))
    assert_close(logits, twins.theirs.class_logits)
    assert_close(deltas, twins.theirs.box_deltas.reshape(deltas.shape))


def test_the_detections(twins):
    theirs = twins.theirs
    logits, deltas = Tensor(theirs.class_logits), Tensor(theirs.box_deltas)
    batch = batch_of(twins)
    found = batch.to_original(twins.mine.roi_heads.detections(logits, deltas, theirs.proposals, batch.sizes))
    assert_same_detections(found, theirs.found)


def test_the_whole(twins):
    assert_same_detections(twins.seen["found"], twins.theirs.found)


def assert_same_detections(found: list[dict], expected: list[dict]):
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine["labels"], theirs["labels"])
        assert_close(mine["scores"], theirs["scores"])
        assert_close(mine["boxes"], theirs["boxes"], scale=10)  # pixels, up to 200
