"""Gradient, guided backpropagation and SmoothGrad: by hand, by differences, by the seed."""

import numpy as np
import pytest
from heatmap_nets import flat_net, gap_net, images

import minidet.functional as F
from minidet import Tensor, heatmaps, nn

X = images(2)

# Three hidden units with x (1, 2): 3, -1 (silent), 4; class 0 weighs them 5, 7, -3.
W1, W2 = np.array([[1.0, 1], [1, -1], [2, 1]]), np.array([[5.0, 7, -3], [1, 1, 1]])
PIXELS = np.array([1.0, 2]).reshape(1, 1, 1, 2)


class TwoLayers(nn.Module):
    """With the ReLU as a module or as a function."""

    def __init__(self, module: bool) -> None:
        super().__init__()
        self.first, self.second, self.module = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False), module
        self.relu = nn.ReLU()
        self.to(np.float64)
        self.first.weight.data[...], self.second.weight.data[...] = W1, W2

    def forward(self, x):
        hidden = self.first(x.flatten(1))
        return self.second(self.relu(hidden) if self.module else F.relu(hidden))


@pytest.mark.parametrize("module", [True, False])
def test_guided_backpropagation_by_hand(module: bool) -> None:
    net = TwoLayers(module)
    # Gradient: 5 (1, 1) - 3 (2, 1) = (-1, 2). Guided: the third unit's gradient is negative and stays where it is.
    assert heatmaps.Gradient(net)(PIXELS, 0).tolist() == [[[1, 2]]]
    assert heatmaps.GuidedBackpropagation(net)(PIXELS, 0).tolist() == [[[5, 5]]]
    # Class 1 weighs nothing negatively: (1, 1) + (2, 1) both ways.
    assert heatmaps.Gradient(net)(PIXELS, 1).tolist() == [[[3, 2]]]
    assert heatmaps.GuidedBackpropagation(net)(PIXELS, 1).tolist() == [[[3, 2]]]


def test_guided_backpropagation_adds_to_the_hooks_that_the_network_has() -> None:
    class Doubling(TwoLayers):
        def forward(self, x):
            hidden = F.relu(self.first(x.flatten(1)))
            hidden.register_hook(lambda gradient: 2 * gradient)
            return self.second(hidden)

    assert heatmaps.GuidedBackpropagation(Doubling(False))(PIXELS, 0).tolist() == [[[10, 10]]]


def test_guided_backpropagation_leaves_the_next_pass_alone() -> None:
    net = flat_net()
    expected = heatmaps.Gradient(net)(X, 1)
    guided = heatmaps.GuidedBackpropagation(net)(X, 1)
    assert np.abs(guided - expected).max() > 0.1 * expected.max()
    np.testing.assert_array_equal(heatmaps.Gradient(net)(X, 1), expected)


def test_guided_backpropagation_needs_a_relu() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="expected a network with ReLUs, found none between image and scores"):
        heatmaps.GuidedBackpropagation(net)(PIXELS)


def test_the_gradient_is_the_largest_derivative_over_the_colours() -> None:
    net = flat_net().eval()
    got, step = heatmaps.Gradient(net)(X, [1, 2]), 1e-6
    for n, c in ((0, 1), (1, 2)):
        for i, j in ((0, 0), (3, 4), (7, 2)):
            slopes = []
            for color in range(3):
                ends = []
                for side in (step, -step):
                    x = X[n : n + 1].copy()
                    x[0, color, i, j] += side
                    ends.append(net(Tensor(x)).data[0, c])
                slopes.append(abs(ends[0] - ends[1]) / (2 * step))
            assert got[n, i, j] == pytest.approx(max(slopes), rel=1e-5)


def test_scores_that_do_not_depend_on_the_image_are_refused() -> None:
    class Constant(nn.Module):
        def forward(self, x):
            return Tensor(np.ones((len(x), 2)))

    with pytest.raises(ValueError, match="Gradient: the scores of Constant do not depend on the image"):
        heatmaps.Gradient(Constant())(X)


def test_smooth_grad_without_noise_is_the_gradient() -> None:
    net = flat_net()
    smooth = heatmaps.SmoothGrad(net, samples=3, noise=0)(X, 1)
    np.testing.assert_allclose(smooth, heatmaps.Gradient(net)(X, 1), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_smooth_grad_is_the_mean_over_noisy_copies(batch_size: int) -> None:
    net, x = flat_net(), X[:1] + 0.5
    got = heatmaps.SmoothGrad(net, samples=5, noise=0.2, seed=7, batch_size=batch_size)(x, 1)
    sigma = 0.2 * (x.max() - x.min())
    noisy = x + sigma * np.random.default_rng(7).standard_normal((5, 3, 8, 8))
    leaf = Tensor(noisy, requires_grad=True)
    net.eval()(leaf)[:, 1].sum().backward()
    np.testing.assert_allclose(got[0], np.abs(leaf.grad.data.mean(axis=0)).max(axis=0), rtol=1e-5)


def test_smooth_grad_is_repeatable_by_its_seed() -> None:
    net = flat_net()
    first = heatmaps.SmoothGrad(net, samples=4)(X, 1)
    np.testing.assert_array_equal(heatmaps.SmoothGrad(net, samples=4)(X, 1), first)
    assert (heatmaps.SmoothGrad(net, samples=4, seed=1)(X, 1) != first).any()


@pytest.mark.parametrize("options", [{"samples": 0}, {"noise": -0.1}, {"noise": np.nan}, {"batch_size": 0}])
def test_settings_of_smooth_grad_that_cannot_be_are_refused(options) -> None:
    with pytest.raises(ValueError, match="SmoothGrad: expected samples and batch_size of 1 or more and noise of 0 or"):
        heatmaps.SmoothGrad(gap_net(), **options)


def test_maps_are_resized_as_by_torch() -> None:
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).random((2, 5, 7), np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(maps)[:, None], (11, 9), mode="bilinear")[:, 0]
    np.testing.assert_allclose(heatmaps.resize_map(maps, (11, 9)), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"expected maps \(N, h, w\), got \(5, 7\); a single one needs maps\[None\]"):
        heatmaps.resize_map(maps[0], (11, 9))
