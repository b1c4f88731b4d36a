"""The sliding window: one network, applied to crops and to whole images, says the same; and where windows are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidet
from minidet import Tensor, nn, watch
from minidet.backbones import TinyBackbone, cut
from minidet.backbones.tiny import Centring
from minidet.models.sliding_window import (
    SlidingWindow,
    receptive_field,
    unpadded,
    window_boxes,
    window_labels,
)


def make(object_sizes=((8.0, 8.0), (20.0, 12.0)), num_classes: int = 3, seed: int = 0, **options) -> SlidingWindow:
    """A small network in evaluation mode, its batch norms with averages that are not those they begin with."""
    rng = minidet.manual_seed(seed)
    model = SlidingWindow(TinyBackbone((4, 6), 4), num_classes, object_sizes, hidden=5, **options).eval()
    for name, buffer in model.named_buffers():
        buffer[...] = rng.uniform(0.5, 1.5, buffer.shape) if "var" in name else rng.uniform(-0.2, 0.2, buffer.shape)
    return model


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).random((3, height, width), dtype=np.float32))


def cropped(model: SlidingWindow, level) -> np.ndarray:
    return model.crop_scores(level, np.arange(len(level.boxes)), 50)


def target(boxes=(), labels=(), crowd=()) -> dict:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return {
        "boxes": boxes,
        "labels": np.array(labels, np.int64),
        "iscrowd": np.isin(np.arange(len(boxes)), np.array(crowd)),
    }


# ---- crops and the fully convolutional network -----------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    cells=st.integers(1, 4),
    context=st.integers(0, 5),
    object_size=st.tuples(st.floats(5, 40), st.floats(5, 40)),
    seed=st.integers(0, 99),
)
def test_each_window_cropped_alone_has_the_score_of_the_fully_convolutional_network(
    height, width, cells, context, object_size, seed
) -> None:
    model = make([object_size], cells=cells, context=context, seed=seed)
    (level,) = model.pyramid(picture(height, width, seed))
    scores = model.slide(Tensor(level.image)).data
    assert scores.shape == (1, 3, *level.grid)
    for row in range(level.grid[0]):
        for column in range(level.grid[1]):
            y, x = 4 * row, 4 * column
            crop = level.image[:, :, y : y + model.window, x : x + model.window]
            assert crop.shape == (1, 3, model.window, model.window)
            np.testing.assert_allclose(model.classify(Tensor(crop)).data[0], scores[0, :, row, column], atol=1e-5)


@pytest.mark.parametrize("crops_at_once", [1, 7, 10_000])
def test_both_ways_find_the_same(crops_at_once) -> None:
    model = make(score_threshold=0.0, nms_threshold=0.5)
    model.fc2.weight.data[...] *= 4  # scores that are not all alike
    image = picture(50, 41)
    slid, cropped = model.detect(image), model.detect(image, crops_at_once)
    assert len(slid["boxes"]) > 10
    np.testing.assert_array_equal(slid["boxes"], cropped["boxes"])
    np.testing.assert_array_equal(slid["labels"], cropped["labels"])
    np.testing.assert_allclose(slid["scores"], cropped["scores"], atol=1e-5)


def test_what_is_found_by_hand() -> None:
    """Softmax, threshold, and in each class, window after window by score, those that no better one overlaps with."""
    model = make(score_threshold=0.3, nms_threshold=0.4, detections_per_image=12)
    image = picture(50, 41)
    levels = model.pyramid(image)
    model.fc2.weight.data[...] *= 40  # so that windows differ, and none of the classes wins them all
    model.fc2.bias.data[...] -= np.concatenate([model.scores(level) for level in levels]).mean(axis=0)
    boxes = np.concatenate([level.boxes for level in levels]).astype(float)
    scores = np.exp(np.concatenate([model.scores(level) for level in levels]))
    scores /= scores.sum(axis=1, keepdims=True)
    expected = []
    for score, window, label in sorted((-scores[w, k], w, k) for w in range(len(boxes)) for k in (1, 2)):
        better = [boxes[other] for _, other, k in expected if k == label]
        if -score > 0.3 and all(overlap(boxes[window], box) <= 0.4 for box in better):
            expected.append((score, window, label))
    found = model.detect(image)
    assert len(expected) > 12
    assert {label for _, _, label in expected[:12]} == {1, 2}
    np.testing.assert_allclose(found["boxes"], [boxes[window] for _, window, _ in expected[:12]], rtol=1e-6)
    np.testing.assert_allclose(found["scores"], [-score for score, _, _ in expected[:12]], rtol=1e-5)
    assert found["labels"].tolist() == [label for _, _, label in expected[:12]]


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    """IoU."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    both = np.prod(np.maximum(sides, 0))
    return both / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - both)


def test_the_shipped_weights_too() -> None:
    model = SlidingWindow(cut(TinyBackbone.pretrained(stride=4), "stages.1"), 7, [(12.0, 12.0), (36.0, 36.0)]).eval()
    assert (model.window, model.side) == (39, 23)
    for level in model.pyramid(picture(60, 47)):
        np.testing.assert_allclose(model.scores(level), cropped(model, level), atol=1e-5)


def test_poolings_too() -> None:
    """VGG's first two blocks, in small; both convolutions are padded, and poolings that round up would see borders."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), nn.Linear(1, 1),
    )  # fmt: skip
    model = SlidingWindow(cut(network, "5"), 3, [(9.0, 9.0)], context=3, hidden=5).eval()
    assert (model.stride, model.window) == (4, 20)  # a cell sees 1 + 2 + 1 + 2 * 2 + 2 * 2, and there are 3 of them
    (level,) = model.pyramid(picture(30, 37))
    np.testing.assert_allclose(model.scores(level), cropped(model, level), atol=1e-5)


def test_a_network_that_centres_each_crop_says_something_else() -> None:
    """Its Centring comes back: it takes the mean of what it is given, the whole level or a crop."""
    model = make([(10.0, 10.0)])
    (level,) = model.pyramid(Tensor(np.linspace(0, 1, 3 * 40 * 40, dtype=np.float32).reshape(3, 40, 40) ** 2))
    model.backbone.centring = Centring()
    assert np.abs(model.scores(level) - cropped(model, level)).max() > 1e-3


def test_a_network_with_padding_sees_the_borders_of_a_crop() -> None:
    image = picture(64, 64).data[None]
    for network, same in ((TinyBackbone((4, 6), 4), False), (unpadded(TinyBackbone((4, 6), 4)), True)):
        network.eval().centring = nn.Sequential()
        whole, crop = network(Tensor(image)).data, network(Tensor(image[:, :, 16:48, 16:48])).data
        size = crop.shape[2]
        difference = np.abs(whole[:, :, 4 : 4 + size, 4 : 4 + size] - crop).max()
        assert difference < 1e-5 if same else difference > 1e-2


# ---- surgery ---------------------------------------------------------------------------------------------------------


def test_the_middle_of_the_map_is_what_the_padded_network_computes() -> None:
    """A cell of either sees 47 pixels. With padding cell i begins at 4 i - 23, the padding being 1 + 2 + 5 * 4 pixels;
    without it cell j of the image less its first row and column begins at 4 j + 1. So i = j + 6."""
    image = picture(64, 64).data[None]
    image -= image.mean(axis=(2, 3), keepdims=True)
    whole = TinyBackbone.pretrained(stride=4).eval()(Tensor(image)).data
    valid = unpadded(TinyBackbone.pretrained(stride=4)).eval()(Tensor(image[:, :, 1:, 1:])).data
    assert valid.shape == (1, 64, 5, 5)
    np.testing.assert_allclose(valid, whole[:, :, 6:11, 6:11], atol=1e-4)  # up to 5


def test_the_receptive_field_is_what_a_cell_sees() -> None:
    backbone = unpadded(cut(TinyBackbone((4, 6, 8), 4), "stages.1")).eval()
    field = receptive_field(backbone)
    assert field == 31
    zeros = Tensor(np.zeros((1, 3, field, field), np.float32))
    base = backbone(zeros).data
    assert base.shape == (1, 8, 1, 1)
    for y, x in ((0, 15), (30, 15), (15, 0), (15, 30)):  # each of its edges counts
        changed = np.zeros((1, 3, field, field), np.float32)
        changed[0, :, y, x] = 100
        assert np.abs(backbone(Tensor(changed)).data - base).max() > 0
    with pytest.raises(ValueError, match="kernel"):
        backbone(Tensor(np.zeros((1, 3, field - 1, field - 1), np.float32)))


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (nn.AvgPool2d(2), r"AvgPool2d\(kernel_size=2, .*\)"),
        (nn.AdaptiveAvgPool2d(4), r"AdaptiveAvgPool2d\(\(4, 4\)\)"),
        (nn.GlobalMaxPool2d(), r"GlobalMaxPool2d\(\)"),
        (nn.GlobalAvgPool2d(), r"GlobalAvgPool2d\(\)"),
        (nn.ConvTranspose2d(4, 4, 2, stride=2), r"ConvTranspose2d\(4, 4, \(2, 2\), stride=2\)"),
        (nn.Conv2d(4, 4, 3, dilation=2), r"Conv2d\(4, 4, \(3, 3\), dilation=2\)"),
        (nn.Conv2d(4, 4, 3, dilation=(1, 3)), r"Conv2d\(4, 4, \(3, 3\), dilation=\(1, 3\)\)"),
        (nn.MaxPool2d(2, dilation=2), r"MaxPool2d\(kernel_size=2, .*dilation=2, .*\)"),
        (nn.Conv2d(4, 4, (1, 3)), r"Conv2d\(4, 4, \(1, 3\)\)"),
        (nn.MaxPool2d(2, stride=(1, 2)), r"MaxPool2d\(kernel_size=2, stride=\(1, 2\), .*\)"),
    ],
)
def test_layers_whose_windows_would_not_be_counted_are_refused(layer, told) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(Centring(), layer))
    network.out_channels, network.stride = 4, 1
    message = (
        r"expected a backbone of Conv2d and MaxPool2d with square windows and dilation 1, "
        rf"got {told} at '1\.1'; cut the network"
    )
    for refuse in (unpadded, receptive_field, lambda backbone: SlidingWindow(backbone, 3, [(9.0, 9.0)])):
        with pytest.raises(ValueError, match=message):
            refuse(network)
    assert network[0].geometry["padding"] == 1  # nothing was changed
    assert isinstance(network[1][0], Centring)


def test_a_pooling_that_rounds_up_sees_beyond_the_image_until_it_is_unpadded() -> None:
    """5 pixels hold two windows of 2, and half of a third."""
    network, image = nn.MaxPool2d(2, ceil_mode=True), Tensor(np.zeros((1, 3, 5, 5), np.float32))
    assert network(image).shape == (1, 3, 3, 3)
    assert unpadded(network)(image).shape == (1, 3, 2, 2)


def test_a_square_may_be_said_by_two_numbers() -> None:
    """3 pixels; a pooling of 2 of them, 2 apart, adds 2; a convolution of 3 of those, each 4 pixels on, 8."""
    one = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3))
    two = nn.Sequential(nn.Conv2d(3, 4, (3, 3), stride=(2, 2)), nn.MaxPool2d((2, 2), (2, 2)), nn.Conv2d(4, 4, (3, 3)))
    assert receptive_field(one) == receptive_field(two) == 13


@pytest.mark.parametrize("one", [1, (1, 1)])
def test_a_dilation_of_1_is_none(one) -> None:
    assert receptive_field(nn.Sequential(nn.Conv2d(3, 4, 3, dilation=one), nn.MaxPool2d(2, dilation=one))) == 4


# ---- where windows are -----------------------------------------------------------------------------------------------


def test_windows_by_hand() -> None:
    """Squares of 6 pixels, 4 apart, two rows and three columns, in an image enlarged twice upwards and not sideways."""
    expected = [[0, 0, 6, 3], [4, 0, 10, 3], [8, 0, 14, 3], [0, 2, 6, 5], [4, 2, 10, 5], [8, 2, 14, 5]]
    boxes = window_boxes((2, 3), 6, 4, (2.0, 1.0))
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, expected)


def test_a_level_by_hand() -> None:
    """An image of 30 x 20 whose objects are as large as the inner square stays as it is, but centred, with zeros
    around."""
    model = make([(13.0, 13.0)], cells=3, context=5)
    assert (model.window, model.side) == (23, 13)  # 15 + 4 * 2
    image = picture(30, 20)
    (level,) = model.pyramid(image)
    assert level.grid == (6, 3)  # the last begin at 20 and 8, and end at 33 and 21
    assert level.image.shape == (1, 3, 20 + 23, 8 + 23)
    centred = image.data - image.data.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(level.image[0, :, 5:35, 5:25], centred, atol=1e-6)
    around = level.image.copy()
    around[0, :, 5:35, 5:25] = 0
    assert not around.any()
    np.testing.assert_array_equal(level.boxes[[0, 1, 3, 17]], [[0, 0, 13, 13], [4, 0, 17, 13], [0, 4, 13, 17],
                                                               [8, 20, 20, 30]])  # cut at the border  # fmt: skip
    np.testing.assert_array_equal(model.crop(level, np.array([0, 17])), np.concatenate([
        level.image[:, :, :23, :23], level.image[:, :, 20:43, 8:31]
    ]))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.tuples(st.floats(3, 60), st.floats(3, 60)))
def test_windows_leave_no_pixel_out_and_stay_in_the_image(height, width, size) -> None:
    model = make([size], context=4)
    (level,) = model.pyramid(picture(height, width))
    assert len(level.boxes) == level.grid[0] * level.grid[1]
    seen = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in level.boxes:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        seen[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))] = True
    assert seen.all()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (300, 300), (14, 13)])
def test_images_of_any_size_and_lists_of_them(size) -> None:
    model = make()
    alone, together = model([picture(*size)]), model([picture(20, 30), picture(*size)])
    for found in together:
        count = len(found["scores"])
        assert (found["boxes"].shape, found["labels"].shape) == ((count, 4), (count,))
        assert found["boxes"].dtype == found["scores"].dtype == np.float32
        assert found["labels"].dtype == np.int64
        assert set(found["labels"].tolist()) <= {1, 2}
        assert (np.diff(found["scores"]) <= 0).all()
    for name, array in alone[0].items():
        np.testing.assert_array_equal(together[1][name], array)
    assert (together[1]["boxes"][:, 2:] <= size[::-1]).all()


def test_the_sizes_of_objects_are_those_in_the_resized_image() -> None:
    """An image of twice the size has the same windows, twice as large."""
    small, large = make(min_size=None), make(min_size=24, max_size=48)
    for one, other in zip(small.pyramid(picture(24, 36)), large.pyramid(picture(48, 72)), strict=True):
        assert one.grid == other.grid
        np.testing.assert_allclose(other.boxes, one.boxes * 2, rtol=1e-6)
    assert large.pyramid(picture(48, 192))[0].grid == small.pyramid(picture(12, 48))[0].grid  # 48 at most


def test_a_batch_of_one_size_is_a_list() -> None:
    model = make()
    images = np.stack([picture(24, 24, seed).data for seed in range(2)])
    for one, other in zip(model(Tensor(images)), model([Tensor(image) for image in images]), strict=True):
        np.testing.assert_array_equal(one["boxes"], other["boxes"])


# ---- what windows are trained on -------------------------------------------------------------------------------------


def test_labels_by_hand() -> None:
    windows = np.array([
        [0, 0, 10, 10],  # the first object
        [1, 0, 11, 10],  # IoU 90 / 110 with it
        [2, 0, 12, 10],  # 80 / 120: neither
        [4, 0, 14, 10],  # 60 / 140: background
        [50, 50, 60, 60],  # far from all
        [20, 0, 30, 10],  # in the crowd
        [30, 0, 40, 10],  # touches the crowd
        [37, 0, 47, 10],  # four tenths of it are in the second crowd
    ], np.float32)  # fmt: skip
    truth = {
        "boxes": np.array([[0, 0, 10, 10]], np.float32),
        "labels": np.array([2]),
        "crowds": np.array([[18, 0, 30, 12], [43, 0, 60, 10]], np.float32),
    }
    nothing = {name: array[:0] for name, array in truth.items()}
    assert window_labels(windows, truth).tolist() == [2, 2, -1, 0, 0, -1, 0, 0]
    missed = nothing | {"boxes": np.array([[52, 52, 60, 57]], np.float32), "labels": np.array([1])}
    assert window_labels(windows, missed).tolist() == [0] * 4 + [1] + [0] * 3  # IoU 0.4, and the best that there is
    assert window_labels(windows, nothing).tolist() == [0] * 8


def test_the_sample_is_windows_of_all_levels_with_their_labels() -> None:
    model = make(batch_size_per_image=40, positive_fraction=0.5, context=3)
    image = picture(60, 60)
    truth = {
        "boxes": np.array([[10, 10, 18, 18], [30, 30, 42, 50]], np.float32),
        "labels": np.array([1, 2]),
        "crowds": np.zeros((0, 4), np.float32),
    }
    crops, labels = model.sample(image, truth)
    levels = model.pyramid(image)
    every = np.concatenate([model.crop(level, np.arange(len(level.boxes))) for level in levels])
    expected = window_labels(np.concatenate([level.boxes for level in levels]), truth)
    assert len(crops) == len(labels) == 40
    assert set(labels.tolist()) == {0, 1, 2}
    assert (labels > 0).sum() == min((expected > 0).sum(), 20)
    for crop, label in zip(crops, labels, strict=True):
        (found,) = np.flatnonzero((every == crop).all(axis=(1, 2, 3)))[:1]
        assert expected[found] == label
    minidet.manual_seed(5)
    first = model.sample(image, truth)
    minidet.manual_seed(5)
    for one, other in zip(first, model.sample(image, truth), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_loss_is_the_mean_over_windows_and_teaches_every_weight() -> None:
    model = make(batch_size_per_image=16).train()
    images = [picture(40, 30), picture(20, 50, seed=1)]
    targets = [target([[10, 10, 18, 18]], [1]), target()]
    heard = []
    minidet.manual_seed(3)
    with watch.listen(heard.append):
        losses = model(images, targets)
    minidet.manual_seed(3)
    crowds = np.zeros((0, 4), np.float32)
    pairs = zip(images, targets, strict=True)
    labels = np.concatenate([model.sample(image, truth | {"crowds": crowds})[1] for image, truth in pairs])
    (logits,) = (event.value.data.astype(float) for event in heard if event.name == "sliding_window.logits")
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    assert losses.keys() == {"loss_classifier"}
    assert losses["loss_classifier"].item() == pytest.approx(expected.mean(), rel=1e-5)
    losses["loss_classifier"].backward()
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.grad.data).max() > 0, name


def test_a_batch_of_crowds_alone_teaches_nothing() -> None:
    model = make().train()
    before = {name: array.copy() for name, array in model.named_buffers() if "running" in name}
    loss = model([picture(20, 20)], [target([[0, 0, 20, 20]], [1], crowd=[0])])["loss_classifier"]
    loss.backward()
    assert loss.item() == 0
    assert all(not parameter.grad.data.any() for parameter in model.parameters())
    for name, array in model.named_buffers():
        if name in before:
            np.testing.assert_array_equal(array, before[name])


def test_one_class() -> None:
    model = make(num_classes=2)
    (found,) = model([picture(30, 30)])
    assert set(found["labels"].tolist()) <= {1}
    assert model.train()([picture(30, 30)], [target([[5, 5, 13, 13]], [1])])["loss_classifier"].item() > 0


def test_labels_that_the_network_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a label from 1 to 2 for each of 1 boxes, got \[3\] in image 0"):
        make().train()([picture(20, 20)], [target([[0, 0, 9, 9]], [3])])


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="a context below half of the window's 23 pixels, got 12"):
        make(context=12)
    for sizes in ([], [(0.0, 3.0)]):
        with pytest.raises(ValueError, match="expected one or more object_sizes above 0"):
            make(sizes)
    with pytest.raises(ValueError, match=r"expected images \(3, H, W\) of floats in \[0, 1\], got uint8 \(3, 8, 8\)"):
        make()([Tensor(np.zeros((3, 8, 8), np.uint8))])
