"""Weakly supervised localization: the identity behind the map, boxes from labels alone, and the errors."""

import numpy as np
import pytest

import minidet
import minidet_kernels
from minidet import Tensor, no_grad, optim, watch
from minidet.backbones import TinyBackbone
from minidet.heatmaps import map_box
from minidet.models.wsol import POOLINGS, WeakLocalizer

SMALL = (4, 8)  # channels of a backbone that tests can afford; its stride is 4


def make(**options) -> WeakLocalizer:
    minidet.manual_seed(0)
    settings = {"classes": 3, "image_size": 16, "cam_channels": 8} | options
    model = WeakLocalizer(TinyBackbone(SMALL), **settings)
    model.fc.weight.data[...] = np.random.default_rng(1).normal(size=model.fc.weight.shape)  # maps that differ
    return model


def batch(count: int = 4, seed: int = 0) -> tuple[Tensor, list[dict]]:
    rng = np.random.default_rng(seed)
    targets = [{"boxes": np.array([[1.0, 2, 9, 10]]), "labels": np.array([i % 3 + 1])} for i in range(count)]
    return Tensor(rng.random((count, 3, 16, 16), dtype=np.float32)), targets


def bilinear(heat_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resized pixel by pixel: pixel j of the result looks at (j + 1/2) * w/W - 1/2, held inside the map."""
    result = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * heat_map.shape[0] / height - 0.5, 0), heat_map.shape[0] - 1)
            x = min(max((j + 0.5) * heat_map.shape[1] / width - 0.5, 0), heat_map.shape[1] - 1)
            top, left = min(int(y), heat_map.shape[0] - 2), min(int(x), heat_map.shape[1] - 2)
            v, u = y - top, x - left
            upper = (1 - u) * heat_map[top, left] + u * heat_map[top, left + 1]
            lower = (1 - u) * heat_map[top + 1, left] + u * heat_map[top + 1, left + 1]
            result[i, j] = (1 - v) * upper + v * lower
    return result


def test_the_mean_of_the_map_and_the_bias_are_the_score() -> None:
    """S_c = b_c + the mean of M_c, for every class."""
    model = make().eval()
    model.fc.bias.data[...] = (0.3, -0.7, 1.1)
    images, _ = batch(2)
    with no_grad():
        features = model.features(images)
        maps = model.class_maps(features, np.array([[0, 1, 2]] * 2))
    assert maps.shape == (2, 3, 4, 4)
    means = maps.data.astype(np.float64).mean(axis=(2, 3)) + model.fc.bias.data
    np.testing.assert_allclose(means, model.logits(images).data, atol=1e-6)


def test_the_maps_are_weighted_sums_of_features_without_bias_and_relu() -> None:
    model = make().eval()
    model.fc.bias.data[...] = 100
    features = Tensor(np.random.default_rng(1).random((2, 8, 4, 4), dtype=np.float32))
    classes = np.array([[2, 0], [1, 1]])
    maps = model.class_maps(features, classes).data
    for n in range(2):
        for position, c in enumerate(classes[n]):
            expected = np.zeros((4, 4))
            for k in range(8):
                expected += float(model.fc.weight.data[c, k]) * features.data[n, k].astype(float)
            np.testing.assert_allclose(maps[n, position], expected, atol=1e-6)
    assert maps.min() < 0


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_score_is_the_pooled_maps_times_the_weights(pooling: str) -> None:
    model = make(pooling=pooling).eval()
    features = np.random.default_rng(1).random((2, 8, 4, 4), dtype=np.float32)
    pooled = features.mean(axis=(2, 3)) if pooling == "gap" else features.max(axis=(2, 3))
    expected = pooled @ model.fc.weight.data.T + model.fc.bias.data
    np.testing.assert_allclose(model.scores(Tensor(features)).data, expected, atol=1e-6)


@pytest.mark.parametrize("class_index", [None, 2, np.array([1, 0]), np.array([[0, 2], [1, 1]])])
def test_a_prediction_has_the_box_around_its_map(class_index) -> None:
    model = make().eval()
    images, _ = batch(2)
    with no_grad():
        features, scores = model.features(images), model.logits(images)
    logits = scores.data.astype(float)
    if class_index is None:
        classes, results = logits.argmax(axis=1)[:, None], model(images)
    elif np.ndim(class_index) == 2:  # several classes an image
        classes, results = class_index, model.predictions(features, scores, class_index, (16, 16))
    else:
        classes = np.broadcast_to(class_index, 2)[:, None]
        results = model.localize(images, class_index)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for n, result in enumerate(results):
        assert set(result) == {"labels", "scores", "class_scores", "maps", "boxes"}
        assert result["labels"].tolist() == (classes[n] + 1).tolist()
        np.testing.assert_allclose(result["class_scores"], probabilities[n], atol=1e-6)
        np.testing.assert_allclose(result["scores"], probabilities[n, classes[n]], atol=1e-6)
        assert result["maps"].dtype == np.float32
        assert result["boxes"].shape == (len(classes[n]), 4)
        for c, heat_map, box in zip(classes[n], result["maps"], result["boxes"], strict=True):
            low = np.einsum("k,khw->hw", model.fc.weight.data[c].astype(float), features.data[n].astype(float))
            np.testing.assert_allclose(heat_map, bilinear(low, 16, 16), atol=1e-5)
            assert box.tolist() == map_box(heat_map, 0.2, "fraction_of_max").tolist()


def test_threshold_and_mode_are_those_asked_for() -> None:
    images, _ = batch(1)
    for threshold, mode in ((0.6, "fraction_of_max"), (0.6, "minmax")):
        (result,) = make(threshold=threshold, mode=mode).eval()(images)
        assert result["boxes"][0].tolist() == map_box(result["maps"][0], threshold, mode).tolist()


def test_a_map_below_zero_gives_an_empty_box() -> None:
    model = make().eval()
    model.fc.weight.data[...] = -1
    images, _ = batch(2)
    assert all(result["boxes"].tolist() == [[0, 0, 0, 0]] for result in model(images))


@pytest.mark.parametrize("targets_without", [
    lambda t: t | {"boxes": np.full((1, 4), np.nan)}, lambda t: {"labels": t["labels"]},
    lambda t: t | {"boxes": np.zeros((0, 4))},
])  # fmt: skip
def test_it_learns_from_labels_alone(targets_without) -> None:
    """Boxes of NaN, no boxes at all: the same loss and the same gradients."""
    images, targets = batch()
    found = []
    for given in (targets, [targets_without(target) for target in targets]):
        model = make()
        losses = model(images, given)
        assert set(losses) == {"class"}
        losses["class"].backward()
        found.append((losses["class"].item(), [p.grad.data for p in model.parameters()]))
    assert found[0][0] == found[1][0]
    for with_boxes, without in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(with_boxes, without)


def test_it_finds_patches_that_nobody_showed_it() -> None:
    """Three patterns of a patch, somewhere on grey. Only the patterns are told, and the boxes come out."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:20, :20]
    patterns = rows // 2 % 2, columns // 2 % 2, (rows + columns) // 2 % 2  # lines, upright and diagonal ones
    images = np.full((24, 3, 64, 64), 0.5, np.float32)
    truth = []
    for n, image in enumerate(images):
        x, y = rng.integers(0, 44, 2)
        image[:, y : y + 20, x : x + 20] = patterns[n % 3]
        truth.append([x, y, x + 20, y + 20])
    targets = [{"labels": np.array([n % 3 + 1])} for n in range(24)]
    model = make(threshold=0.5)  # each cell sees 23 pixels: at 0.2 the box is wider than the patch by half of that
    optimizer = optim.Adam(model.named_parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model(Tensor(images), targets)["class"].backward()
        optimizer.step()
    model.eval()
    overlaps = []
    for result, target, box in zip(model(Tensor(images)), targets, truth, strict=True):
        assert result["labels"][0] == target["labels"][0]
        overlaps.append(minidet.boxes.paired_iou(result["boxes"].astype(float), np.array([box], float))[0])
    assert np.mean(overlaps) > 0.5


@pytest.mark.skipif(minidet_kernels.available()["cpu"] is not None, reason="Numba is not installed")
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_reference_version_gives_the_same_losses_gradients_and_boxes(pooling: str) -> None:
    found = {}
    images, targets = batch()
    for version in ("reference", "cpu"):
        with minidet_kernels.use(version):
            model = make(pooling=pooling)
            loss = model(images, targets)["class"]
            loss.backward()
            results = model.eval()(images)
            found[version] = loss.item(), [p.grad.data for p in model.parameters()], results
    assert found["cpu"][0] == pytest.approx(found["reference"][0], rel=1e-5)
    for fast, slow in zip(found["cpu"][1], found["reference"][1], strict=True):
        assert np.abs(fast - slow).max() <= 1e-5 * max(1, np.abs(slow).max())
    for fast, slow in zip(found["cpu"][2], found["reference"][2], strict=True):
        np.testing.assert_allclose(fast["maps"], slow["maps"], atol=1e-5)
        np.testing.assert_array_equal(fast["labels"], slow["labels"])


def test_a_backbone_cut_earlier_has_a_larger_map() -> None:
    """Anticipating the GAP moves it to a larger map."""
    images, _ = batch(1)
    for channels, cells in (((4, 8), 4), ((4, 8, 8), 2)):
        model = WeakLocalizer(TinyBackbone(channels), 3, 16, cam_channels=12)
        assert model.features(images).shape == (1, 12, cells, cells)


def test_images_of_another_size_are_localized_in_their_own_pixels() -> None:
    model = make().eval()
    (result,) = model(Tensor(np.random.default_rng(0).random((1, 3, 24, 40), dtype=np.float32)))
    assert result["maps"].shape == (1, 24, 40)


def test_its_intermediate_results_can_be_watched() -> None:
    heard = []
    images, _ = batch(2)
    with watch.listen(heard.append), watch.pictures(["a", "b"]):
        make().eval()(images)
    assert {event.name: event.shape for event in heard} == {
        "wsol.logits": (2, 3),
        "wsol.maps": (2, 1, 16, 16),
        "wsol.boxes": (2, 1, 4),
    }


def test_mistakes_are_told_apart() -> None:
    images, targets = batch(2)
    model = make()
    with pytest.raises(ValueError, match="pooling among gap, gmp, got 'max'"):
        make(pooling="max")
    with pytest.raises(ValueError, match="mode among fraction_of_max, minmax, got 'max'"):
        make(mode="max")
    with pytest.raises(ValueError, match="a threshold of at least 0 and below 1, got 20"):
        make(threshold=20)
    with pytest.raises(ValueError, match="expected labels 1 to 3, got 1 to 4"):
        model(images, [targets[0], targets[1] | {"labels": np.array([4])}])
    with pytest.raises(ValueError, match="one label an image, got 2 in image 1 of a batch"):
        model(images, [targets[0], {"labels": np.array([1, 2])}])
    for class_index in (3, -1, np.array([0, 3])):
        with pytest.raises(ValueError, match=r"class_index: expected 0 to 2, .* got"):
            model.localize(images, class_index)
    for class_index in (0.5, np.array([0, 1, 2]), np.zeros((2, 1), int), True):
        with pytest.raises(ValueError, match=r"class_index: expected a whole number, \(2,\) of them or None, got"):
            model.localize(images, class_index)
