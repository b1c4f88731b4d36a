"""Small detectors and scenes for tests."""

import numpy as np

import minidet
from minidet import nn
from minidet.boxes import base_anchors
from minidet.models.faster_rcnn import FasterRCNN, small_faster_rcnn
from minidet.random import manual_seed


class TwoConvolutions(nn.Module):
    """A backbone of stride 4 without batch norm, so that no image depends on the others of its batch."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.out_channels, self.stride = channels, 4
        self.first = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, images):
        return self.second(nn.ReLU()(self.first(images)))


def larger_heads(model: nn.Module, rng: np.random.Generator) -> nn.Module:
    """The model with heads whose weights are large enough that scores spread and boxes move."""
    for name, parameter in model.named_parameters():
        if "cls" in name or "bbox" in name or "outputs" in name:
            parameter.data[...] = rng.normal(0, 0.3, parameter.shape)
    return model


def small_detector(seed: int = 0, classes: int = 3, **sizes) -> FasterRCNN:
    rng = manual_seed(seed)
    return larger_heads(
        small_faster_rcnn(TwoConvolutions(), classes + 1, base_anchors((8, 16)), hidden=16, **sizes), rng
    )


def scene(rng: np.random.Generator, height: int, width: int, objects: int, classes: int = 3):
    """(image Tensor (3, H, W), target) of noise with boxes."""
    corners = rng.uniform(0, (width - 12, height - 12), (objects, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(6, 12, (objects, 2))], axis=1).astype(np.float32)
    target = {
        "boxes": boxes,
        "labels": rng.integers(1, classes + 1, objects),
        "iscrowd": np.zeros(objects, bool),
    }
    return minidet.Tensor(rng.random((3, height, width), np.float32)), target


def target_of(boxes, labels, crowds=()) -> dict:
    """As detection_targets makes them."""
    boxes, crowds = (np.float32(these).reshape(-1, 4) for these in (boxes, crowds))
    return {"boxes": boxes, "labels": np.array(labels, np.int64), "crowds": crowds}


def assert_runs_in_double(model: nn.Module, size: int, training: bool) -> None:
    """The losses of an image of size x size pixels are float64, or its boxes finite."""
    image, target = scene(np.random.default_rng(0), size, size, 2)
    found = model.to(np.float64).train(training)(
        [minidet.Tensor(image.data.astype(np.float64))], [target] if training else None
    )
    if training:
        assert all(loss.dtype == np.float64 for loss in found.values())
    else:
        assert np.isfinite(found[0]["boxes"]).all()
