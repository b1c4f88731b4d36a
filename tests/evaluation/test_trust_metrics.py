"""The trust metrics of heat maps by hand, on networks that are linear or look at one pixel."""

import numpy as np
import pytest

import minidet
from minidet import Tensor, heatmaps, nn
from minidet.evaluation import (
    area,
    average_drop,
    deletion_curve,
    insertion_curve,
    parameter_randomization,
    pointing_game,
    rank_correlation,
)
from minidet.evaluation.heatmaps import BLUR


class LinearModel(nn.Module):
    """Two classes with probabilities p and 1 - p, p = sigmoid(sum w x) for images (N, 1, 2, 2)."""

    def __init__(self, weight) -> None:
        super().__init__()
        self.weight = nn.Parameter(np.array(weight, np.float64).reshape(4, 1))

    def forward(self, x):
        score = x.flatten(1) @ self.weight
        return score @ np.array([[1.0, 0.0]])


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


# The image's mean is 2.5; the map says: last pixel, first, then the two others in reading order.
IMAGE, WEIGHT = np.array([1.0, 2, 3, 4]).reshape(1, 1, 2, 2), [1.0, -1, 0.5, 2]
MAP = np.array([[[0.7, 0.1], [0.1, 0.9]]])


def score(*pixels: float) -> float:
    return sigmoid(np.dot(WEIGHT, pixels))


def test_deletion_on_a_linear_model_by_hand() -> None:
    fractions, scores = deletion_curve(LinearModel(WEIGHT), IMAGE, MAP, 0, steps=4)
    assert fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    expected = [
        score(1, 2, 3, 4),
        score(1, 2, 3, 2.5),
        score(2.5, 2, 3, 2.5),
        score(*[2.5] * 2, 3, 2.5),
        score(*[2.5] * 4),
    ]
    np.testing.assert_allclose(scores, [expected], rtol=1e-12)
    # In three steps of 4/3 of a pixel: after one, three and four pixels.
    np.testing.assert_allclose(
        deletion_curve(LinearModel(WEIGHT), IMAGE, MAP, 0, steps=3)[1], [[expected[k] for k in (0, 1, 3, 4)]]
    )
    a, b, c, d, e = expected
    assert area(fractions, scores)[0] == pytest.approx((a / 2 + b + c + d + e / 2) / 4)


def test_insertion_on_a_linear_model_by_hand() -> None:
    fractions, scores = insertion_curve(LinearModel(WEIGHT), IMAGE, MAP, 0, "mean", steps=2)
    assert fractions.tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(scores, [[score(*[2.5] * 4), score(1, 2.5, 2.5, 4), score(1, 2, 3, 4)]], rtol=1e-12)
    other = insertion_curve(LinearModel(WEIGHT), IMAGE, MAP, 1, "mean", steps=2)[1]
    np.testing.assert_allclose(other, 1 - scores, rtol=1e-12)


@pytest.mark.parametrize("curve", [deletion_curve, insertion_curve])
@pytest.mark.parametrize("baseline", ["mean", "blur"])
def test_a_curve_runs_from_the_image_to_the_baseline_or_back(curve, baseline: str) -> None:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    images, net = rng.random((3, 3, 12, 16)), small_net()
    nothing = np.broadcast_to(images.mean(axis=(2, 3), keepdims=True), images.shape)
    if baseline == "blur":
        nothing = np.stack([[gaussian_filter(color, BLUR * 16) for color in image] for image in images])
    ends = []
    for x in (images, nothing):
        logits = net(Tensor(x)).data[:, 2:3] - net(Tensor(x)).data
        ends.append(1 / np.exp(-logits).sum(axis=1))
    maps = rng.random((3, 4, 4))
    scores = curve(net, images, maps, 2, baseline, steps=5, batch_size=2)[1]
    assert scores.shape == (3, 6)
    np.testing.assert_allclose(scores[:, 0 if curve is deletion_curve else -1], ends[0], rtol=1e-12)
    np.testing.assert_allclose(scores[:, -1 if curve is deletion_curve else 0], ends[1], rtol=1e-12)
    np.testing.assert_allclose(curve(net, images, maps, 2, baseline, steps=5)[1], scores, rtol=1e-12)
    each = [curve(net, images[n : n + 1], maps[n : n + 1], n, baseline, steps=5)[1][0] for n in range(3)]
    np.testing.assert_allclose(curve(net, images, maps, [0, 1, 2], baseline, steps=5)[1], each, rtol=1e-12)


def test_small_maps_are_resized_to_the_image() -> None:
    images, net = np.random.default_rng(1).random((2, 3, 16, 16)), small_net()
    maps = np.random.default_rng(2).random((2, 4, 4), np.float32)
    large = heatmaps.resize_map(maps, (16, 16))
    np.testing.assert_array_equal(insertion_curve(net, images, maps)[1], insertion_curve(net, images, large)[1])


def test_of_equal_values_the_first_in_reading_order_goes_first() -> None:
    scores = deletion_curve(LinearModel(WEIGHT), IMAGE, np.zeros((1, 2, 2)), 0, steps=4)[1]
    expected = [score(1, 2, 3, 4), score(2.5, 2, 3, 4), score(2.5, 2.5, 3, 4), score(*[2.5] * 3, 4), score(*[2.5] * 4)]
    np.testing.assert_allclose(scores, [expected], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, bool])
def test_maps_of_whole_numbers_have_the_order_of_their_values(dtype) -> None:
    images, net = np.random.default_rng(1).random((1, 3, 16, 16)), small_net()
    maps = np.random.default_rng(2).integers(0, 3, (1, 16, 16)).astype(dtype)
    expected = deletion_curve(net, images, maps.astype(float))[1]
    np.testing.assert_array_equal(deletion_curve(net, images, maps)[1], expected)


def test_equal_values_are_in_order_on_large_images_too() -> None:
    """NumPy's ordinary sort keeps the order of a few values only."""
    images, net = np.random.default_rng(1).random((1, 3, 16, 16)), small_net()
    steps = np.repeat([0.0, 1.0], 128).reshape(1, 16, 16)  # the lower half first
    order = [*range(128, 256), *range(128)]
    strict = np.empty(256)
    strict[order] = np.arange(256, 0, -1)
    strict = strict.reshape(1, 16, 16)
    np.testing.assert_array_equal(deletion_curve(net, images, steps)[1], deletion_curve(net, images, strict)[1])


def test_a_map_of_the_pixel_that_counts_beats_one_of_another() -> None:
    """The network sees the pixel (5, 6) only."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)).to(np.float64)
    for parameter in net.parameters():
        parameter.data[...] = 0
    net[1].weight.data[0, 5 * 8 + 6] = 5
    images = np.random.default_rng(3).random((1, 3, 8, 8))
    images[0, 0, 5, 6] = 1
    right, wrong = np.zeros((2, 1, 8, 8))
    right[0, 5, 6] = wrong[0, 0, 0] = 1
    assert area(*deletion_curve(net, images, right, 0)) < area(*deletion_curve(net, images, wrong, 0)) - 1e-3
    insertions = [area(*insertion_curve(net, images, maps, 0, "mean")) for maps in (right, wrong)]
    assert insertions[0] > insertions[1] + 1e-3


def test_average_drop_and_increase_by_hand() -> None:
    images = np.concatenate([IMAGE, IMAGE, IMAGE])
    maps = np.array([[[0, 0], [0, 0.5]], [[2, 1], [-3, 0]], [[0, 0], [0, 0.0]]])
    before = score(1, 2, 3, 4)
    after = [score(0, 0, 0, 4), score(1, 1, 0, 0), score(0, 0, 0, 0)]  # the second: masks 1, 0.5, 0, 0
    got = average_drop(LinearModel(WEIGHT), images, maps, 0, batch_size=2)
    assert got["average_drop"] == pytest.approx(np.mean([max(0, before - o) / before for o in after]))
    assert got["increase_in_confidence"] == pytest.approx(np.mean([o > before for o in after]))
    against = average_drop(LinearModel(WEIGHT), images, maps, 1)
    assert against["increase_in_confidence"] == pytest.approx(np.mean([1 - o > 1 - before for o in after]))
    drops = [max(0, o - before) / (1 - before) for o in after]
    assert drops == [0, 0, 0]  # the score of class 1 only rises
    assert against["average_drop"] == pytest.approx(np.mean(drops))


def test_a_score_that_stays_has_neither_dropped_nor_increased() -> None:
    same = average_drop(LinearModel(WEIGHT), IMAGE, np.full((1, 2, 2), 0.3), 0)  # a constant map: the whole image
    assert same == {"average_drop": 0, "increase_in_confidence": 0}


@pytest.mark.parametrize(
    ("point", "tolerance", "hit"),
    [
        ((5, 5), 0, True),
        ((9, 5), 0, True),  # the pixel's centre 9.5 is inside 4..10
        ((10, 5), 0, False),
        ((11, 5), 0.1, True),  # 11.5 is 1.5 from 10, of 16 pixels
        ((11, 5), 0.09, False),
        ((11, 9), 0.1, False),  # (1.5, 1.5) away: 2.1 pixels
        ((11, 9), 0.14, True),
        ((0, 12), 0, True),  # in the second box
    ],
)
def test_the_pointing_game_by_hand(point, tolerance: float, hit: bool) -> None:
    heat = np.zeros((1, 16, 12))
    heat[0, point[1], point[0]] = 1
    assert pointing_game(heat, [np.array([[4, 4, 10, 8], [0, 12, 2, 14]])], tolerance) == hit


def test_the_pointing_game_counts_hits() -> None:
    maps = np.zeros((4, 8, 8))
    maps[0, 2, 2] = maps[1, 7, 7] = 1  # hit, miss; a map of zeros and a constant one point nowhere
    maps[3] = 5
    assert pointing_game(maps, [np.array([[0, 0, 8 - 4, 8 - 4]])] * 4) == 0.25
    assert pointing_game(maps[:1], [np.zeros((0, 4))]) == 0  # without an object


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_points_nowhere(value: float) -> None:
    heat = np.zeros((1, 8, 8))
    heat[0, 2, 3], heat[0, 2, 2] = 1, value
    assert pointing_game(heat, [np.array([[0, 0, 4, 4]])]) == 0


def small_net() -> nn.Sequential:
    minidet.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(),
        nn.GlobalAvgPool2d(), nn.Linear(6, 4),
    ).to(np.float64).eval()  # fmt: skip


def test_parameters_are_randomized_from_the_top_down_and_put_back() -> None:
    net, images = small_net(), np.random.default_rng(5).random((2, 3, 16, 16))
    before = {name: array.copy() for name, array in net.state_dict().items()}
    seen = []

    class Watched(heatmaps.GradCAM):
        def __call__(self, images, class_index=None):
            state = {name: array.copy() for name, array in net.state_dict().items()}
            seen.append(({name for name in state if (state[name] != before[name]).any()}, class_index))
            return super().__call__(images, class_index)

    result = parameter_randomization(Watched(net), images)
    assert [path for path, _ in result] == ["6", "3", "1", "0"]
    changed = [names for names, _ in seen]
    assert changed[0] == set()
    assert changed[1] == {"6.weight", "6.bias"}
    assert changed[2] == changed[1] | {"3.weight", "3.bias"}
    assert changed[4] == changed[2] | {"0.weight", "0.bias"}  # batch norm is at its start, all ones and zeros
    predicted = net(Tensor(images)).data.argmax(axis=1)
    for _, classes in seen:
        np.testing.assert_array_equal(classes, predicted)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert parameter_randomization(heatmaps.GradCAM(net), images) == result  # by the seed
    assert parameter_randomization(heatmaps.GradCAM(net), images, seed=1) != result


def test_the_correlation_is_that_of_the_ranks() -> None:
    """A method that draws a prepared map at each call: 4 layers, no weights looked at."""
    net, images = small_net(), np.random.default_rng(5).random((2, 3, 16, 16))
    first = np.random.default_rng(6).random((2, 4, 4))
    prepared = [first, first**3, -first, np.zeros_like(first), np.stack([first[0], -first[1]])]

    class Prepared:
        model = net

        def __call__(self, images, class_index):
            return prepared.pop(0)

    values = [value for _, value in parameter_randomization(Prepared(), images)]
    assert values == pytest.approx([1, -1, 0, 0])


def test_the_rank_correlation_by_hand() -> None:
    """Spearman: 1 - 6 sum d^2 / (n (n^2 - 1)) of ranks without ties."""
    a, b = np.array([[[1.0, 5], [2, 30]]]), np.array([[[2.0, 1], [3, 4]]])  # d = 1, 2, 1, 0
    assert rank_correlation(a, b) == pytest.approx(1 - 6 * 6 / (4 * 15))
    assert rank_correlation(np.concatenate([a, a]), np.concatenate([b, a])) == pytest.approx((0.4 + 1) / 2)
    assert rank_correlation(a, np.zeros_like(a)) == 0


def test_a_method_that_shows_the_image_only_is_found_out() -> None:
    net, images = small_net(), np.random.default_rng(5).random((2, 3, 16, 16))

    class Edges:
        model = net

        def __call__(self, images, class_index):
            return np.abs(np.diff(np.asarray(images)[:, 0], axis=2))

    assert [value for _, value in parameter_randomization(Edges(), images)] == pytest.approx([1] * 4)
    assert parameter_randomization(heatmaps.GradCAM(net), images)[-1][1] < 0.9


def test_weights_are_put_back_after_an_error() -> None:
    net, images = small_net(), np.random.default_rng(5).random((2, 3, 16, 16))
    before = {name: array.copy() for name, array in net.state_dict().items()}

    class Failing(heatmaps.GradCAM):
        calls = 0

        def __call__(self, images, class_index=None):
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("no map")
            return super().__call__(images, class_index)

    net.train()
    with pytest.raises(RuntimeError, match="no map"):
        parameter_randomization(Failing(net), images)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert all(module.training for module in net.modules())
    assert not any(module._hooks for module in net.modules())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: deletion_curve(LinearModel(WEIGHT), IMAGE, MAP, 0, "zero"), "expected a baseline of mean, blur and 1"),
        (lambda: insertion_curve(LinearModel(WEIGHT), IMAGE, MAP, 0, steps=0), "1 step or more, got 'blur' and 0"),
        (lambda: deletion_curve(LinearModel(WEIGHT), IMAGE, MAP[0]), r"expected a map an image, .* got \(2, 2\)"),
        (lambda: average_drop(LinearModel(WEIGHT), IMAGE[:0], MAP[:0]), r"not 0, \(N, h, w\), got \(0, 2, 2\)"),
        (lambda: average_drop(LinearModel(WEIGHT), IMAGE, MAP * np.nan), "expected maps that are finite"),
        (lambda: deletion_curve(LinearModel(WEIGHT), IMAGE, MAP, 2), "class_index: expected 0 to 1"),
        (lambda: deletion_curve(LinearModel(WEIGHT), IMAGE * np.nan, MAP, 0), "expected finite scores, .* image 0 of"),
        (
            lambda: parameter_randomization(heatmaps.GradCAM(small_net()), np.zeros((0, 3, 16, 16))),
            "expected at least one image, got none",
        ),
        (
            lambda: pointing_game(MAP, []),
            r"expected maps \(N, H, W\) and boxes of each of the N images, got",
        ),
    ],
)
def test_input_that_cannot_be_measured_is_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
