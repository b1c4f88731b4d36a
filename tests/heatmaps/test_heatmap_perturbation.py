"""Score-CAM and Ablation-CAM against loops that ask the network about one channel at a time."""

import numpy as np
import pytest
from heatmap_nets import WayAround, before_relu, flat_net, gap_net, images

import minidet
from minidet import Tensor, heatmaps, nn
from minidet import functional as F
from minidet.heatmaps.scores import at_rest

X = images(2)
CLASSES = np.array([1, 3])


def enlarged(channel: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, pixel centres at whole numbers plus one half, by the formula."""
    h, w = channel.shape
    result = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            v, u = (min(max((k + 0.5) * n / size - 0.5, 0), n - 1) for k, n in ((i, h), (j, w)))
            for a in range(h):
                for b in range(w):
                    result[i, j] += max(0, 1 - abs(v - a)) * max(0, 1 - abs(u - b)) * channel[a, b]
    return result


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_score_cam_asks_about_one_channel_at_a_time(batch_size: int) -> None:
    net = flat_net()
    got = before_relu(heatmaps.ScoreCAM(net, batch_size=batch_size), X, CLASSES)
    net.eval()
    for n in range(2):
        A = net[:6](Tensor(X[n : n + 1])).data[0]
        scores = []
        for channel in A:
            mask = enlarged(channel, 8)
            mask = (mask - mask.min()) / (mask.max() - mask.min()) if mask.max() > mask.min() else 0 * mask
            scores.append(net(Tensor(X[n : n + 1] * mask)).data[0, CLASSES[n]])
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = sum(weight * channel for weight, channel in zip(weights, A, strict=True))
        np.testing.assert_allclose(got[n], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_ablation_cam_takes_one_channel_away_at_a_time(batch_size: int) -> None:
    net = flat_net()
    got = before_relu(heatmaps.AblationCAM(net, batch_size=batch_size), X, CLASSES)
    net.eval()
    for n in range(2):
        A = net[:6](Tensor(X[n : n + 1])).data
        y = net[6:](Tensor(A)).data[0, CLASSES[n]]
        expected = np.zeros((4, 4))
        for k in range(6):
            without = A.copy()
            without[0, k] = 0
            expected += (y - net[6:](Tensor(without)).data[0, CLASSES[n]]) / y * A[0, k]
        np.testing.assert_allclose(got[n], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("concatenated", [False, True])
def test_ablation_cam_knows_a_way_around_the_layer(concatenated: bool) -> None:
    net = WayAround(concatenated).to(np.float64).eval()
    got = before_relu(heatmaps.AblationCAM(net, "conv", batch_size=3), X, 2)
    for n in range(2):
        before = net.stem(Tensor(X[n : n + 1]))
        before = Tensor(np.maximum(before.data, 0))
        A = net.conv(before).data
        y = net.above(before, Tensor(A)).data[0, 2]
        expected = np.zeros((8, 8))
        for k in range(4):
            without = A.copy()
            without[0, k] = 0
            expected += (y - net.above(before, Tensor(without)).data[0, 2]) / y * A[0, k]
        np.testing.assert_allclose(got[n], expected, rtol=1e-6, atol=1e-9)


class Shared(nn.Module):
    """The same ReLU runs three times, on maps of 4, 6 and 6 channels; the last two are added."""

    def __init__(self) -> None:
        super().__init__()
        minidet.manual_seed(4)
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.three, self.relu, self.fc = nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Linear(6, 3)

    def below(self, x):
        middle = self.relu(self.two(self.relu(self.one(x))))
        return middle, self.relu(self.three(middle))

    def above(self, middle, last):
        return self.fc(F.global_avg_pool2d(middle * last))

    def forward(self, x):
        return self.above(*self.below(x))


def test_of_a_layer_that_runs_several_times_ablation_cam_changes_the_last_run_only() -> None:
    net = Shared().to(np.float64).eval()
    got = before_relu(heatmaps.AblationCAM(net, "relu"), X, 2)
    for n in range(2):
        middle, last = net.below(Tensor(X[n : n + 1]))
        y = net.above(middle, last).data[0, 2]
        expected = np.zeros((8, 8))
        for k in range(6):
            without = last.data.copy()
            without[0, k] = 0
            expected += (y - net.above(middle, Tensor(without)).data[0, 2]) / y * last.data[0, k]
        np.testing.assert_allclose(got[n], expected, rtol=1e-6, atol=1e-9)


def test_to_score_cam_a_constant_channel_is_the_black_image_in_float32_too() -> None:
    """Enlarged, a constant is no longer one: its last digits differ from place to place."""
    net = gap_net(np.float32).eval()
    net[3].weight.data[2], net[3].bias.data[2] = 0, 0.7
    x = images(1, 17, np.float32)
    method = heatmaps.ScoreCAM(net, "4")
    with at_rest(net):
        scores = method.channel_scores(method.look(Tensor(x), 1), method.logits_of_masked)
    assert scores[0, 2] == net(Tensor(0 * x)).data[0, 1]


@pytest.mark.parametrize("name", ["scorecam", "ablationcam", "smoothgrad"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_are_no_larger_than_asked_for(name: str, batch_size: int) -> None:
    net, sizes = gap_net(), []
    method = heatmaps.METHODS[name](net, batch_size=batch_size)
    net[6].register_forward_hook(lambda module, inputs, output: sizes.append(len(output.data)))
    method(X[:1], 1)
    work = {"scorecam": 6, "ablationcam": 6, "smoothgrad": 50}[name]
    rest = [batch_size] * (work // batch_size) + [work % batch_size] * (work % batch_size > 0)
    assert sizes[-len(rest) :] == rest
    assert max(sizes[: -len(rest)]) <= 2  # the look, and whether the network broadcasts


def test_below_the_layer_ablation_cam_computes_an_image_once_a_batch() -> None:
    net, sizes = gap_net(), []
    net[0].register_forward_hook(lambda module, inputs, output: sizes.append(len(output.data)))
    heatmaps.AblationCAM(net, "4")(X[:1], 1)
    assert sizes == [1, 1, 1]  # the look, whether the network broadcasts, 6 channels


@pytest.mark.parametrize("name", ["scorecam", "ablationcam"])
def test_a_batch_size_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a batch_size of 1 or more, got 0"):
        heatmaps.METHODS[name](gap_net(), batch_size=0)
