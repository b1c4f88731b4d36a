"""DeepPose on the GPU, which here is the emulator: the CPU's losses, gradients, boxes and predictions."""

import numpy as np
import pytest

from minidet import Tensor
from minidet.backbones import TinyBackbone
from minidet.device import to_numpy
from minidet.models.pose import POSE_LOSSES, DeepPose
from minidet.random import manual_seed
from minidet_kernels import emulator
from tests.test_device import assert_close, needs_emulator


@needs_emulator
@pytest.mark.parametrize("loss", POSE_LOSSES)
def test_a_training_step_of_the_cascade_is_the_cpus_on_the_gpu(loss: str) -> None:
    rng = np.random.default_rng(0)
    keypoints = np.concatenate([rng.uniform(2, 13, (2, 1, 14, 2)), rng.integers(0, 3, (2, 1, 14, 1))], axis=3)
    images, targets = rng.random((2, 3, 16, 16), dtype=np.float32), [{"keypoints": k} for k in keypoints]
    found = {}
    with emulator.emulated():
        for device in ("cpu", "cuda"):
            manual_seed(0)
            backbone = TinyBackbone((4, 8))
            model = DeepPose(backbone, image_size=16, input_size=8, stages=3, refiner_size=8, loss=loss, hidden=8)
            model.to(device)
            losses = model(Tensor(images).to(device), targets)
            sum(losses.values(), start=Tensor(np.float32(0)).to(device)).backward()
            found[device] = (
                {name: to_numpy(value.data) for name, value in losses.items()},
                {name: to_numpy(p.grad.data) for name, p in model.named_parameters()},
                {name: to_numpy(array) for name, array in model.state_dict().items()},
                model.eval()(Tensor(images).to(device)),
            )
    assert found["cpu"][0].keys() == {"stage1", "stage2", "stage3"}
    for here, there in zip(found["cpu"][:3], found["cuda"][:3], strict=True):
        for name, array in here.items():
            assert_close(there[name], array)
    for here, there in zip(found["cpu"][3], found["cuda"][3], strict=True):
        assert all(isinstance(array, np.ndarray) for array in there.values())
        np.testing.assert_allclose(there["stage_keypoints"], here["stage_keypoints"], atol=1e-3)
