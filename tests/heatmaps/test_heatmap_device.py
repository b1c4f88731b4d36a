"""The heat maps on the GPU, which here is the emulator, are those of the CPU."""

import numpy as np
import pytest
from heatmap_nets import flat_net, gap_net, images

from minidet import heatmaps
from minidet.evaluation import insertion_curve, parameter_randomization
from minidet_kernels import emulator

needs_emulator = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))


@pytest.fixture
def gpu():
    with emulator.emulated():
        yield


@needs_emulator
@pytest.mark.parametrize("name", heatmaps.METHODS)
def test_every_map_is_that_of_the_cpu(gpu, name: str) -> None:
    x, make = images(2, dtype=np.float32), gap_net if name == "cam" else flat_net
    options = {"samples": 3} if name == "smoothgrad" else {}
    expected = heatmaps.METHODS[name](make(np.float32), **options)(x, [1, 2])
    method = heatmaps.METHODS[name](make(np.float32).to("cuda"), **options)
    got = method(x, [1, 2])
    assert method.model.device == "cuda"
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * expected.max())


@needs_emulator
def test_the_trust_metrics_are_those_of_the_cpu(gpu) -> None:
    x, results = images(2, dtype=np.float32), []
    for device in ("cpu", "cuda"):
        net = flat_net(np.float32).to(device)
        method = heatmaps.GradCAM(net)
        curve = insertion_curve(net, x, method(x), steps=4)[1]
        forgotten = [value for _, value in parameter_randomization(method, x[:1])]
        results.append([*curve.ravel(), *forgotten])
    np.testing.assert_allclose(results[1], results[0], atol=1e-3)
