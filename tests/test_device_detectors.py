"""Detectors on the GPU, which here is the emulator: the CPU's losses, gradients and detections."""

import numpy as np
import pytest

from minidet import Tensor, nn
from minidet.boxes import base_anchors
from minidet.device import to_numpy
from minidet.models.fast_rcnn import FastRCNN
from minidet.models.faster_rcnn import small_faster_rcnn
from minidet.models.keypoint_rcnn import small_keypoint_rcnn
from minidet.models.mask_rcnn import small_mask_rcnn
from minidet.models.openpose import OpenPose
from minidet.models.roi_pooling import RoIPooling
from minidet.models.ssd import SSD, DefaultBoxes
from minidet.models.yolo import YOLO
from minidet.models.yolo_v1 import YOLOv1
from minidet.random import manual_seed
from minidet_kernels import emulator
from tests.models.detector_helpers import TwoConvolutions, larger_heads, scene
from tests.test_device import assert_close, needs_emulator

MAKERS = {
    "fast_rcnn": lambda: FastRCNN(TwoConvolutions(4), 4, hidden=8, pooling=RoIPooling(3, "pool")),
    "faster_rcnn": lambda: small_faster_rcnn(TwoConvolutions(4), 4, base_anchors((8, 16)), hidden=8),
    "mask_rcnn": lambda: small_mask_rcnn(
        TwoConvolutions(4), 4, base_anchors((8, 16)), channels=4, convolutions=1, hidden=8
    ),
    "keypoint_rcnn": lambda: small_keypoint_rcnn(
        TwoConvolutions(4), 4, 3, base_anchors((8, 16)), channels=4, convolutions=1, hidden=8
    ),
    "openpose": lambda: OpenPose(TwoConvolutions(4), 3, ((0, 1), (1, 2)), channels=4, convolutions=1),
    "ssd": lambda: SSD(Levels(), 4, 32, DefaultBoxes((4, 8), (0.2, 0.4, 0.7), ((2.0,), (2.0,))), score_threshold=1e-3),
    "yolo": lambda: YOLO(TwoConvolutions(4), 4, np.float32([[6, 6], [12, 8]]), channels=8, score_threshold=1e-3),
    "yolo_v1": lambda: YOLOv1(
        TwoConvolutions(4), 4, 16, convolutions=1, channels=4, fully_connected=False, score_threshold=-1.0
    ),
    "yolo_v1, fully connected": lambda: YOLOv1(
        TwoConvolutions(4), 4, 16, hidden=8, convolutions=1, channels=4, score_threshold=-1.0
    ),
}
# Added to all cells of a softmax it changes nothing: its gradient is rounding alone.
NOTHING = "roi_heads.keypoint_predictor.kps_score_lowres.bias"


class Levels(nn.Module):
    """Two maps, of stride 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.out_channels = TwoConvolutions(4), nn.Conv2d(4, 4, 3, 2, padding=1), [4, 4]

    def forward(self, images):
        maps = self.fine(images)
        return [maps, self.coarse(maps)]


@needs_emulator
@pytest.mark.parametrize("name", MAKERS)
def test_a_training_step_of_a_detector_is_the_cpus_on_the_gpu(name: str) -> None:
    rng = np.random.default_rng(0)
    images, targets = zip(
        *(scene(rng, *size, objects) for size, objects in (((24, 32), 2), ((20, 28), 0))), strict=True
    )
    for image, target in zip(images, targets, strict=True):
        corners = rng.uniform(0, 12, (6, 2))
        around = np.concatenate([corners, corners + rng.uniform(4, 12, (6, 2))], axis=1)
        if name == "openpose":
            target["labels"][:] = 1  # people are the only class
        target["masks"] = rng.random((len(target["boxes"]), *image.shape[1:])) > 0.5
        places = target["boxes"][:, None, :2] + rng.uniform(0, 6, (len(target["boxes"]), 3, 2))
        target["keypoints"] = np.concatenate([places, np.full((*places.shape[:2], 1), 2)], axis=2)
        target["proposals"] = np.concatenate([around, target["boxes"] + 1]).astype(np.float32)
    found = {}
    with emulator.emulated():
        for device in ("cpu", "cuda"):
            rng = manual_seed(0)
            model = larger_heads(MAKERS[name](), rng).to(device)
            if name == "keypoint_rcnn":  # pixel by pixel: two finer places beside a peak may be equal but for a bit
                model.roi_heads.keypoint_places = 1
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
            if key == NOTHING:
                assert np.abs([array, there[key]]).max() < 1e-6
            else:
                assert_close(there[key], array)
    for here, there in zip(found["cpu"][2], found["cuda"][2], strict=True):
        assert len(here["scores"]) > 0 or name == "openpose"  # nobody of four joints has only three
        for key, array in here.items():
            assert type(there[key]) is np.ndarray
            np.testing.assert_allclose(there[key], array, atol=1e-3)
