"""Sliding window: detection with nothing but a classifier.

The lecture's straightforward solution. A window of a fixed size slides over the image; a network says of each crop what
it shows. Objects have other sizes than the window, so it slides over the image in several sizes, the pyramid. Most
crops show no object, so there is a class more: the background.

    pyramid     the image resized, once for each size of objects
    windows     every `stride` pixels of each level, a crop
    classify    a crop -> K + 1 scores, the background first
    threshold   crops that show an object
    NMS         of those that overlap, in each class, the best one

It is as slow as it sounds: neighbouring crops share most of their pixels, and the network computes them anew for each.
They need not be cropped. A convolution without padding computes at each place what it would compute in a crop from
there; and a fully connected layer that reads a map of n x n cells is a convolution with a kernel of n x n, applied at
one place (Sermanet et al.: OverFeat, ICLR 2014, section 3.5). So the same weights applied to a whole level give the
scores of all its windows at once, exactly those of the crops.

Exactly, where two things are seen to. Padding would show each crop a border of zeros where the level has pixels: the
backbone loses its own (`unpadded`). And a network that subtracts the mean colour of what it is given would subtract
another one from each crop: it is the whole image's, subtracted once, before anything is resized or cropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..autograd import Tensor, no_grad
from ..backbones.surgery import children
from ..backbones.tiny import Centring, centred
from ..boxes import BELOW, box_iou, clip_boxes_to_image, filter_detections, inside_crowds, match_boxes, sample_balanced
from ..device import to_numpy
from ..random import generator
from .image_batch import checked_targets, resized

# What a window that is trained on shows, by its IoU with the objects; between the two it is not trained on. A window of
# 0.5 would count as found; but if windows of 0.5 and of 0.9 are both called an object, nothing in the loss makes the
# better one score higher. Each object's best window shows it, whatever its IoU: some objects have none of 0.7.
OBJECT_IOU, BACKGROUND_IOU = 0.7, 0.5


@dataclass(frozen=True)
class Level:
    """An image in one of the pyramid's sizes, ready to be slid over.

    image  (1, 3, h, w), zeros around it: the mean colour, as all of it is centred
    grid   (rows, columns) of windows that it holds; window (i, j) begins at pixel (i * stride, j * stride)
    boxes  (rows * columns, 4) float32, row by row: what each window stands for, in pixels of the image as it came
    """

    image: Any
    grid: tuple[int, int]
    boxes: np.ndarray


class SlidingWindow(nn.Module):
    """images -> boxes of objects, by classifying every window of every size.

    backbone      Conv2d and MaxPool2d without dilation (N, 3, H, W) -> (N, C, h, w), one after the other, with
                  out_channels and stride: of a classifier `surgery.cut` makes one. It is changed: see `unpadded`
    num_classes   K + 1, with the background, class 0
    object_sizes  (height, width) of objects in pixels: the levels of the pyramid. In each of them objects of that size
                  fill the inner square of a window. More of them find more objects, closer, for more windows
    min_size, max_size  object_sizes are in pixels of the image resized so that its shorter side is min_size, and its
                  longer one no more than max_size; None: of the image as it is
    cells         side of the map that the fully connected layers read: a window has
                  receptive_field(backbone) + stride * (cells - 1) pixels a side
    context       pixels of a window around its inner square. What is around an object helps to tell it from others:
                  Dalal and Triggs 2005, section 6.5, have 16 on each side of a person, in windows of 64 x 128
    hidden        units of the first fully connected layer
    batch_size_per_image, positive_fraction   windows of each image that are trained on at once, and the most of them
                  that show an object
    score_threshold, nms_threshold, detections_per_image   of what is found: see boxes.filter_detections

    Training: model(images, targets) -> {"loss_classifier": softmax cross-entropy of windows}. targets: dicts with boxes
    (R, 4) in the image's pixels, labels (R,) in 1..K and iscrowd (R,), on the CPU.
    Evaluation: model(images) -> dicts with boxes (D, 4), labels (D,) and scores (D,), NumPy, best score first.
    images: a Tensor (N, 3, H, W) or a list of (3, H, W), float32 in [0, 1], of any size.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        object_sizes: Sequence[tuple[float, float]],
        min_size: int | None = None,
        max_size: int | None = None,
        cells: int = 3,
        context: int = 8,
        hidden: int = 128,
        batch_size_per_image: int = 32,
        positive_fraction: float = 0.25,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.3,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__()
        if len(object_sizes) == 0 or min(map(min, object_sizes)) <= 0:
            raise ValueError(f"SlidingWindow: expected one or more object_sizes above 0, got {object_sizes}")
        self.num_classes, self.object_sizes = num_classes, list(object_sizes)
        self.min_size, self.max_size = min_size, max_size
        self.backbone, self.stride = unpadded(backbone), backbone.stride
        self.cells, self.context = cells, context
        self.window = receptive_field(backbone) + self.stride * (cells - 1)
        self.side = self.window - 2 * context  # of the inner square
        if self.side < 1:
            raise ValueError(
                f"SlidingWindow: expected a context below half of the window's {self.window} pixels, got {context}"
            )
        self.batch_size_per_image, self.positive_fraction = batch_size_per_image, positive_fraction
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.detections_per_image = detections_per_image
        self.fc1 = nn.Linear(backbone.out_channels * cells * cells, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        if not self.training:
            return [self.detect(image) for image in images]
        return {"loss_classifier": self.loss(images, targets)}

    # ---- windows -------------------------------------------------------------------------------------------------

    def pyramid(self, image: Any) -> list[Level]:
        """The levels of an image, a Tensor (3, H, W) of floats in [0, 1]: one for each of the object sizes."""
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape or image.dtype.kind != "f":
            raise ValueError(
                f"SlidingWindow: expected images (3, H, W) of floats in [0, 1], got {image.dtype} {image.shape}"
            )
        size = tuple(image.shape[1:])
        ratio = np.divide(size, resized(size, self.min_size, self.max_size))
        with no_grad():
            return [self.level(centred(image[None]), ratio * object_size) for object_size in self.object_sizes]

    def level(self, image: Any, object_size: Sequence[float]) -> Level:
        """A centred image (1, 3, H, W), resized so that an object of this (height, width) in its pixels has those of
        the inner square.

        It is interpolated without smoothing, also where it shrinks: the network has learned from the same pixels. Zeros
        around it, `context` pixels wide, let the inner square reach the border; below and on the right there are as
        many more as the last window needs, so that no pixel is left out and the smallest image has a window.
        """
        old = image.shape[2:]
        size = [max(round(a * self.side / b), 1) for a, b in zip(old, object_size, strict=True)]  # (height, width)
        grid = tuple(max(-(-(a - self.side) // self.stride), 0) + 1 for a in size)  # (rows, columns)
        whole = [(count - 1) * self.stride + self.window for count in grid]
        padded = np.zeros_like(image.data, shape=(1, 3, *whole))
        rows, columns = (slice(self.context, self.context + a) for a in size)
        padded[:, :, rows, columns] = F.interpolate(image, tuple(size), mode="bilinear").data
        boxes = window_boxes(grid, self.side, self.stride, (size[0] / old[0], size[1] / old[1]))
        return Level(padded, grid, clip_boxes_to_image(boxes, old))

    def crop(self, level: Level, windows: np.ndarray) -> Any:
        """Windows of a level, by their numbers (B,), row by row from 0: (B, 3, window, window)."""
        corners = np.stack(np.divmod(windows, level.grid[1]), axis=1) * self.stride
        crops = [level.image[:, :, y : y + self.window, x : x + self.window] for y, x in corners]
        return np.concatenate([level.image[:0, :, : self.window, : self.window], *crops])  # also of no windows

    # ---- the classifier, twice -----------------------------------------------------------------------------------

    def classify(self, crops: Any) -> Any:
        """Crops (B, 3, window, window) of a level -> scores (B, K + 1) before the softmax."""
        features = self.backbone(crops)  # (B, C, cells, cells)
        return self.fc2(F.relu(self.fc1(features.flatten(1))))

    def slide(self, images: Any) -> Any:
        """The same network, fully convolutional: levels (N, 3, h, w), no smaller than a window -> scores
        (N, K + 1, rows, columns) of all windows that begin at multiples of the stride."""
        features = self.backbone(images)  # (N, C, rows + cells - 1, columns + cells - 1)
        watch.emit("backbone.maps", features)
        kernel = self.fc1.weight.reshape(-1, features.shape[1], self.cells, self.cells)
        hidden = F.relu(F.conv2d(features, kernel, self.fc1.bias))  # (N, hidden, rows, columns)
        return F.conv2d(hidden, self.fc2.weight[:, :, None, None], self.fc2.bias)

    def scores(self, level: Level) -> np.ndarray:
        """Scores (rows * columns, K + 1) of all windows of a level, before the softmax, on the CPU: in one pass."""
        with no_grad():
            scores = self.slide(Tensor(level.image))
        scores = to_numpy(scores.data).reshape(self.num_classes, -1).T
        watch.emit("sliding_window.scores", scores)
        return scores

    def crop_scores(self, level: Level, windows: np.ndarray, crops_at_once: int) -> np.ndarray:
        """The same (B, K + 1) of windows (B,), by number, each cut out and classified, so many in a batch."""
        with no_grad():
            batches = np.split(windows, range(crops_at_once, len(windows), crops_at_once))
            scores = [self.classify(Tensor(self.crop(level, batch))) for batch in batches]
        return np.concatenate([to_numpy(of_batch.data) for of_batch in scores])

    # ---- detection -----------------------------------------------------------------------------------------------

    def detect(self, image: Any, crops_at_once: int | None = None) -> dict[str, np.ndarray]:
        """The detections in one image (3, H, W), by sliding the network over each level; given crops_at_once, by
        cutting all windows out and classifying so many in a batch. What is found is the same.
        """
        levels = self.pyramid(image)
        watch.emit("sliding_window.levels", levels)
        boxes = np.concatenate([level.boxes for level in levels])  # (R, 4)
        if crops_at_once is None:
            scores = [self.scores(level) for level in levels]
        else:
            scores = [self.crop_scores(level, np.arange(len(level.boxes)), crops_at_once) for level in levels]
        probabilities = F.softmax(np.concatenate(scores), dim=1)  # (R, K + 1)
        watch.emit("sliding_window.boxes", boxes)
        watch.emit("sliding_window.probabilities", probabilities)
        objects = probabilities[:, 1:]
        return filter_detections(boxes, objects, self.score_threshold, self.nms_threshold, self.detections_per_image)

    # ---- training ------------------------------------------------------------------------------------------------

    def loss(self, images: Any, targets: list[dict]) -> Any:
        """The mean cross-entropy of some windows of each image, each cut out and classified by itself."""
        targets = checked_targets(targets, len(images), self.num_classes - 1)
        samples = [self.sample(image, target) for image, target in zip(images, targets, strict=True)]
        crops, labels = (np.concatenate(parts) for parts in zip(*samples, strict=True))
        logits = self.classify(Tensor(crops))
        watch.emit("sliding_window.logits", logits)
        return F.cross_entropy(logits, labels)

    def sample(self, image: Any, target: dict) -> tuple[Any, np.ndarray]:
        """Windows of one image, drawn to learn from: crops (n, 3, window, window) and what they show (n,), 0 for the
        background. target: as checked_targets makes it."""
        levels = self.pyramid(image)
        labels = window_labels(np.concatenate([level.boxes for level in levels]), target)
        drawn = sample_balanced(labels > 0, labels == 0, self.batch_size_per_image, self.positive_fraction, generator())
        numbers = np.sort(np.concatenate(drawn))  # windows of all levels are numbered through
        ends = np.cumsum([len(level.boxes) for level in levels])
        of_levels = np.split(numbers, np.searchsorted(numbers, ends[:-1]))
        starts = ends - [len(level.boxes) for level in levels]
        crops = [self.crop(*each) for each in zip(levels, map(np.subtract, of_levels, starts), strict=True)]
        return np.concatenate(crops), labels[numbers]


def window_boxes(grid: tuple[int, int], side: int, stride: int, scale: tuple[float, float]) -> np.ndarray:
    """What the windows of a level stand for: boxes (rows * columns, 4) float32, row by row.

    grid: (rows, columns). Window (i, j)'s inner square has `side` pixels and begins at (i * stride, j * stride) of the
    resized image, which has scale = (vertical, horizontal) pixels for each of the image's. The boxes are in the
    image's pixels.
    """
    y, x = (np.arange(count) * stride for count in grid)
    y, x = np.meshgrid(y, x, indexing="ij")
    corners = np.stack([x, y, x + side, y + side], axis=-1).reshape(-1, 4)
    horizontal_first = (*scale[::-1], *scale[::-1])
    return (corners / horizontal_first).astype(np.float32)


def window_labels(boxes: np.ndarray, target: dict) -> np.ndarray:
    """What windows with these boxes (R, 4) are trained to say: (R,) int64, 0 for the background, -1 for nothing."""
    matched = match_boxes(box_iou(target["boxes"], boxes), OBJECT_IOU, BACKGROUND_IOU, allow_low_quality=True)
    found = np.full(len(boxes), -1, np.int64)
    found[matched >= 0] = target["labels"][matched[matched >= 0]]
    found[(matched == BELOW) & ~inside_crowds(boxes, target["crowds"])] = 0
    return found


# ---- surgery -----------------------------------------------------------------------------------------------------

# Layers through which a cell of the map sees more than one pixel, too; `layers_of` refuses them.
OTHER_WINDOWS = (nn.ConvTranspose2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.GlobalAvgPool2d, nn.GlobalMaxPool2d)


def unpadded(network: nn.Module) -> nn.Module:
    """The network, changed: its convolutions and poolings lose their padding, a TinyBackbone its Centring; the weights
    stay. Farther from the border of an image than a cell of the map sees, the map stays as it was.

    Raises ValueError, with the network as it was, for layers that `layers_of` refuses.
    """
    for layer in layers_of(network):
        if isinstance(layer, nn.Conv2d):
            layer.geometry["padding"] = 0
        else:
            layer.window |= {"padding": 0, "ceil_mode": False}
    for module in list(network.modules()):
        for name, part in children(module):
            if isinstance(part, Centring):
                setattr(module, name, nn.Sequential())  # passes on what it is given
    return network


def receptive_field(network: nn.Module) -> int:
    """Side, in pixels, of what one cell of the network's map sees: of convolutions and poolings, square and one after
    the other. Raises ValueError for layers that `layers_of` refuses."""
    field, step = 1, 1  # step: pixels from one cell to the next
    for layer in layers_of(network):
        window = window_of(layer)
        kernel, stride = np.max(window["kernel_size"]), np.max(window["stride"] or window["kernel_size"])
        field += int(kernel - 1) * step
        step *= int(stride)
    return field


def layers_of(network: nn.Module) -> list[nn.Module]:
    """The network's Conv2d and MaxPool2d, in their order. Raises ValueError where the windows of one are not square or
    have a dilation, and for any of OTHER_WINDOWS: padding would stay, and a cell would see more than is counted."""
    layers = []
    for path, module in network.named_modules():
        refused = isinstance(module, OTHER_WINDOWS)
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            window = window_of(module)
            refused = np.any(np.not_equal(window["dilation"], 1))
            refused |= any(len(np.unique(window[side])) > 1 for side in ("kernel_size", "stride"))
            layers.append(module)
        if refused:
            raise ValueError(
                "SlidingWindow: expected a backbone of Conv2d and MaxPool2d with square windows and dilation 1, got "
                f"{type(module).__name__}({module.describe()}) at {path!r}; cut the network before it"
            )
    return layers


def window_of(layer: nn.Conv2d | nn.MaxPool2d) -> dict[str, Any]:
    """How a convolution's or a pooling's windows lie: kernel_size, stride, padding and dilation, each one number or
    two; a pooling's stride may be None, its kernel_size."""
    return layer.window if isinstance(layer, nn.MaxPool2d) else layer.geometry | {"kernel_size": layer.kernel_size}
