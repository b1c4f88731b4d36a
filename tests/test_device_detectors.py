"""Fast and Faster R-CNN on the GPU, which here is the emulator: the CPU's losses, gradients and detections."""

import numpy as np
import pytest

from minidet import Tensor
from minidet.boxes import base_anchors
from minidet.device import to_numpy
from minidet.models.fast_rcnn import FastRCNN
from minidet.models.faster_rcnn import small_faster_rcnn
from minidet.models.roi_pooling import RoIPooling
from minidet.random import manual_seed
from minidet_kernels import emulator
from tests.models.detector_helpers import TwoConvolutions, larger_heads, scene
from tests.test_device import assert_close, needs_emulator

MAKERS = {
    "fast_rcnn": lambda: FastRCNN(TwoConvolutions(4), 4, hidden=8, pooling=RoIPooling(3, "pool")),
    "faster_rcnn": lambda: small_faster_rcnn(TwoConvolutions(4), 4, base_anchors((8, 16)), hidden=8),
}


@needs_emulator
@pytest.mark.parametrize("name", MAKERS)
def test_a_training_step_of_a_detector_is_the_cpus_on_the_gpu(name: str) -> None:
    rng = np.random.default_rng(0)
    images, targets = zip(
        *(scene(rng, *size, objects) for size, objects in (((24, 32), 2), ((20, 28), 0))), strict=True
    )
    for target in targets:
        corners = rng.uniform(0, 12, (6, 2))
        around = np.concatenate([corners, corners + rng.uniform(4, 12, (6, 2))], axis=1)
        target["proposals"] = np.concatenate([around, target["boxes"] + 1]).astype(np.float32)
    found = {}
    with emulator.emulated():
        for device in ("cpu", "cuda"):
            rng = manual_seed(0)
            model = larger_heads(MAKERS[name](), rng).to(device)
            moved = [image.to(device) for image in images]
            losses = model(moved, targets)
            sum(losses.values(), start=Tensor(np.float32(0)).to(device)).backward()
            found[device] = (
                {name: to_numpy(value.data) for name, value in losses.items()},
                {name: to_numpy(p.grad.data) for name, p in model.named_parameters()},
                model.eval()(moved, targets) if name == "fast_rcnn" else model.eval()(moved),
            )
    for here, there in zip(found["cpu"][:2], found["cuda"][:2], strict=True):
        assert here.keys() == there.keys()
        for key, array in here.items():
            assert_close(there[key], array)
    for here, there in zip(found["cpu"][2], found["cuda"][2], strict=True):
        assert len(here["boxes"]) > 0
        for key, array in here.items():
            assert type(there[key]) is np.ndarray
            np.testing.assert_allclose(there[key], array, atol=1e-3)
