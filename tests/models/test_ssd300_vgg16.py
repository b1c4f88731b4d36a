"""SSD300 on VGG16: torchvision's keys, and each stage against the same computation in torch.

The oracle is written from the paper and the constants of torchvision's `ssd300_vgg16`, layer by layer, on our weights,
and with none of minidet's code. Each stage is given the oracle's input: where two scores are nearly equal, rounding
decides, and everything behind it differs.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from minidet import Tensor, no_grad, watch
from minidet.models.image_batch import ImageBatch
from minidet.models.ssd300_vgg16 import ssd300_vgg16
from minidet.random import manual_seed
from tests.models.random_weights import random_image

CLASSES = 7
HEADS = {0: (512, 4), 1: (1024, 6), 2: (512, 6), 3: (256, 6), 4: (256, 4), 5: (256, 4)}  # channels, boxes a cell


def test_keys_and_shapes_are_torchvisions_in_its_order():
    state = ssd300_vgg16().state_dict()
    convolutions = {f"backbone.features.{n}": None for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)}
    convolutions |= {f"backbone.extra.0.{n}": (512, 512, 3, 3) for n in (1, 3, 5)}
    convolutions |= {"backbone.extra.0.7.1": (1024, 512, 3, 3), "backbone.extra.0.7.3": (1024, 1024, 1, 1)}
    for n, (before, between, after) in enumerate(
        ((1024, 256, 512), (512, 128, 256), (256, 128, 256), (256, 128, 256)), start=1
    ):
        convolutions[f"backbone.extra.{n}.0"] = (between, before, 1, 1)
        convolutions[f"backbone.extra.{n}.2"] = (after, between, 3, 3)
    for head, numbers in (("classification", 91), ("regression", 4)):
        for n, (channels, boxes) in HEADS.items():
            convolutions[f"head.{head}_head.module_list.{n}"] = (boxes * numbers, channels, 3, 3)
    names = ["backbone.scale_weight"]
    names += [f"{name}.{kind}" for name in convolutions for kind in ("weight", "bias")]
    assert list(state) == names
    for name, shape in convolutions.items():
        assert shape is None or state[f"{name}.weight"].shape == shape
    assert sum(array.size for array in state.values()) == 35_641_826  # as published


# ---- the oracle


def preparation(torch, image):
    mean = torch.tensor([0.48235, 0.45882, 0.40784])[:, None, None]
    scaled = (image - mean) / (1 / 255)
    return torch.nn.functional.interpolate(scaled[None], (300, 300), mode="bilinear", align_corners=False)


def maps_of(torch, state, x):
    f = torch.nn.functional

    def conv(x, name, **options):
        return f.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    for n in (0, 2, "pool", 5, 7, "pool", 10, 12, 14, "ceil", 17, 19, 21):
        if isinstance(n, str):
            x = f.max_pool2d(x, 2, 2, ceil_mode=n == "ceil")
        else:
            x = f.relu(conv(x, f"backbone.features.{n}", padding=1))
    maps = [state["backbone.scale_weight"].view(1, -1, 1, 1) * f.normalize(x)]
    x = f.max_pool2d(x, 2, 2)
    for n in (1, 3, 5):
        x = f.relu(conv(x, f"backbone.extra.0.{n}", padding=1))
    x = f.max_pool2d(x, 3, 1, 1)
    x = f.relu(conv(x, "backbone.extra.0.7.1", padding=6, dilation=6))
    maps.append(f.relu(conv(x, "backbone.extra.0.7.3")))
    for n, options in enumerate(({"padding": 1, "stride": 2},) * 2 + ({},) * 2, start=1):
        x = f.relu(conv(maps[-1], f"backbone.extra.{n}.0"))
        maps.append(f.relu(conv(x, f"backbone.extra.{n}.2", **options)))
    return maps


def head_of(torch, state, maps, head, numbers):
    outputs = []
    for n, x in enumerate(maps):
        name = f"head.{head}_head.module_list.{n}"
        y = torch.nn.functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
        count, _, height, width = y.shape
        y = y.view(count, -1, numbers, height, width).permute(0, 3, 4, 1, 2)
        outputs.append(y.reshape(count, -1, numbers))
    return torch.cat(outputs, 1)


def default_boxes():
    """(8732, 4): of each cell two squares, then each ratio lying and standing, all around the cell's centre."""
    boxes = []
    for cells, step, scale, following, ratios in (
        (38, 8, 0.07, 0.15, (2,)),
        (19, 16, 0.15, 0.33, (2, 3)),
        (10, 32, 0.33, 0.51, (2, 3)),
        (5, 64, 0.51, 0.69, (2, 3)),
        (3, 100, 0.69, 0.87, (2,)),
        (1, 300, 0.87, 1.05, (2,)),
    ):
        sides = [(scale, scale), (math.sqrt(scale * following),) * 2]
        for ratio in ratios:
            sides.append((scale * math.sqrt(ratio), scale / math.sqrt(ratio)))
            sides.append(sides[-1][::-1])
        for row in range(cells):
            for column in range(cells):
                x, y = (column + 0.5) * step, (row + 0.5) * step
                for wide, high in sides:
                    w, h = 300 * min(wide, 1), 300 * min(high, 1)
                    boxes.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return np.float32(boxes)


def detections_of(torch, logits, deltas, boxes, size):
    """One image's: decoded, clipped, the best 400 of each class above 0.01, suppressed at 0.45, the best 200 of all."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centers = boxes[:, :2] + sides / 2
    moved = deltas[:, :2] / 10 * sides + centers
    half = torch.exp((deltas[:, 2:] / 5).clamp(max=math.log(1000 / 16))) * sides / 2
    boxes = torch.cat([moved - half, moved + half], 1).clamp(0, 300)
    scores = torch.softmax(logits, 1)
    found = []
    for label in range(1, scores.shape[1]):
        of_class = scores[:, label]
        order = sorted(torch.nonzero(of_class > 0.01)[:, 0].tolist(), key=lambda i: -of_class[i].item())[:400]
        kept = []
        for i in order:
            x1, y1, x2, y2 = boxes[i].tolist()
            alone = True
            for j in kept:
                a1, b1, a2, b2 = boxes[j].tolist()
                common = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
                union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - common
                alone &= common <= 0.45 * union
            if alone:
                kept.append(i)
        found += [(of_class[i].item(), label, boxes[i].tolist()) for i in kept]
    found.sort(key=lambda one: -one[0])
    ratio = np.float32([size[1] / 300, size[0] / 300] * 2)
    return [(score, label, np.float32(box) * ratio) for score, label, box in found[:200]]


@pytest.fixture(scope="module")
def twins():
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    rng = manual_seed(0)
    model = ssd300_vgg16(CLASSES).eval()
    for name, array in model.state_dict().items():
        if array.ndim == 4:  # He et al.'s: numbers of one size through all layers
            array[...] = rng.normal(0, math.sqrt(2 / array[0].size), array.shape)
        elif name.endswith("bias"):
            array[...] = rng.normal(0, 0.1, array.shape)
    for head in (model.head.classification_head, model.head.regression_head):
        for convolution in head.module_list:
            convolution.weight.data[...] *= 0.02  # scores and boxes within reason
    image = random_image(200, 260)
    seen = {}
    with no_grad(), watch.listen(lambda event: seen.setdefault(event.name, event.value)):
        (found,) = model([Tensor(image)])
    state = {name: torch.from_numpy(np.array(array)) for name, array in model.state_dict().items()}
    with torch.no_grad():
        batch = preparation(torch, torch.from_numpy(image))
        maps = maps_of(torch, state, batch)
        logits = head_of(torch, state, maps, "classification", CLASSES)
        deltas = head_of(torch, state, maps, "regression", 4)
    theirs = SimpleNamespace(batch=batch, maps=maps, logits=logits, deltas=deltas)
    return SimpleNamespace(torch=torch, model=model, seen=seen, found=found, theirs=theirs, size=image.shape[1:])


def assert_close(found, expected):
    expected = expected.numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.data, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


def test_the_prepared_image(twins):
    assert_close(twins.seen["image_batch.images"], twins.theirs.batch)


def test_the_six_maps(twins):
    with no_grad():
        maps = twins.model.backbone(Tensor(twins.theirs.batch.numpy()))
    assert [level.shape[2] for level in maps] == [38, 19, 10, 5, 3, 1]
    for found, expected in zip(maps, twins.theirs.maps, strict=True):
        assert_close(found, expected)


def test_the_heads(twins):
    maps = [Tensor(level.numpy()) for level in twins.theirs.maps]
    with no_grad():
        logits, deltas = twins.model.head.classification_head(maps), twins.model.head.regression_head(maps)
    assert logits.shape == (1, 8732, CLASSES)
    assert_close(logits, twins.theirs.logits)
    assert_close(deltas, twins.theirs.deltas)


def test_the_default_boxes():
    """Of any image, and without torch: they hang on the constants alone."""
    seen = {}
    with no_grad(), watch.listen(lambda event: seen.setdefault(event.name, event.value)):
        ssd300_vgg16(2).eval()([Tensor(random_image(40, 60))])
    np.testing.assert_allclose(seen["ssd.default_boxes"], default_boxes(), rtol=0, atol=1e-4)


def test_the_detections(twins):
    outputs = twins.theirs.logits[0], twins.theirs.deltas[0]
    expected = detections_of(twins.torch, *outputs, twins.torch.from_numpy(default_boxes()), twins.size)
    batch = ImageBatch(None, [(300, 300)], [twins.size], 1)
    (found,) = twins.model.detections(*(x[None].numpy() for x in outputs), default_boxes(), batch)
    assert len(expected) == 200
    np.testing.assert_allclose(found["scores"], [score for score, _, _ in expected], rtol=1e-4)
    assert found["labels"].tolist() == [label for _, label, _ in expected]
    np.testing.assert_allclose(found["boxes"], [box for *_, box in expected], atol=0.02)
