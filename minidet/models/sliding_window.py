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
backbone loses its own (`unpadded`). And a network that takes the mean colour of what it looks at away would take a
different one from each crop: it is the whole image's, taken away once, before anything is resized or cropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..autograd import Tensor, no_grad
from ..boxes import box_iou, clip_boxes_to_image
from ..boxes.matching import BELOW, match_boxes
from ..boxes.sampling import sample_balanced
from ..boxes.selection import filter_detections
from ..device import to_numpy
from ..random import generator

# What a window that is trained on shows, by its IoU with the objects. A window of 0.5 would count as found; but where
# it is called an object like one of 0.9, nothing makes the better one's score the higher of the two.
OBJECT_IOU, BACKGROUND_IOU = 0.6, 0.4
# A crowd is not labelled one by one: what lies in it by more than this part is neither object nor background.
IN_CROWD = 0.3


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

    backbone      convolutions (N, 3, H, W) -> (N, C, h, w), with out_channels and stride. Its padding is taken out of
                  it, its weights stay.
    classes       K, the number of object classes, without the background
    object_sizes  (height, width) of objects in pixels: the levels of the pyramid, in each of which objects of that size
                  fill the inner square of a window. More of them find more objects, closer, for more windows.
    cells         side of the map that the fully connected layers read: the window has
                  receptive_field + stride * (cells - 1) pixels a side
    context       pixels of the window on each side around the object. Dalal and Triggs 2005, section 6.4: what is
                  around helps to tell; they have 16 around a person of 96.
    windows       how many of each image are trained on at once; at most positive_fraction of them show an object
    score_threshold, nms_threshold, limit  of detections: see boxes.selection.filter_detections

    Training: model(images, targets) -> {"loss_classifier": softmax cross-entropy of windows}. targets: dicts with boxes
    (R, 4), labels (R,) from 1 and iscrowd (R,), on the CPU.
    Evaluation: model(images) -> dicts with boxes (D, 4), labels (D,) and scores (D,), NumPy, best score first.
    images: a Tensor (N, 3, H, W) or a list of (3, H, W), float32 in [0, 1], of any size.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        object_sizes: Sequence[tuple[float, float]],
        cells: int = 3,
        context: int = 8,
        hidden: int = 128,
        windows: int = 32,
        positive_fraction: float = 0.25,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.3,
        limit: int = 100,
    ) -> None:
        super().__init__()
        self.classes, self.object_sizes = classes, [(float(h), float(w)) for h, w in object_sizes]
        self.backbone, self.stride = unpadded(backbone), backbone.stride
        self.cells, self.context = cells, context
        self.window = receptive_field(backbone) + self.stride * (cells - 1)
        self.object_side = self.window - 2 * context
        if self.object_side < 1:
            raise ValueError(
                f"SlidingWindow: expected context below half of the window's {self.window} pixels, got {context}"
            )
        if not self.object_sizes or min(map(min, self.object_sizes)) <= 0:
            raise ValueError(f"SlidingWindow: expected object_sizes above 0, one or more, got {object_sizes}")
        self.windows, self.positive_fraction = windows, positive_fraction
        self.score_threshold, self.nms_threshold, self.limit = score_threshold, nms_threshold, limit
        self.fc1 = nn.Linear(backbone.out_channels * cells * cells, hidden)
        self.fc2 = nn.Linear(hidden, classes + 1)  # the background is class 0

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        if targets is None:
            return [self.detect(image) for image in images]
        samples = [self.sample(image, target) for image, target in zip(images, targets, strict=True)]
        crops, labels = (np.concatenate(parts) for parts in zip(*samples, strict=True))
        logits = self.classify(Tensor(crops))
        watch.emit("sliding_window.logits", logits)
        return {"loss_classifier": F.cross_entropy(logits, labels)}

    # ---- the classifier, twice -----------------------------------------------------------------------------------

    def classify(self, crops: Any) -> Any:
        """Crops (B, 3, window, window) of centred images -> scores (B, K + 1) before the softmax."""
        features = self.backbone(crops)  # (B, C, cells, cells)
        return self.fc2(F.relu(self.fc1(features.flatten(1))))

    def slide(self, images: Any) -> Any:
        """The same network, fully convolutional: centred images (N, 3, H, W) of the window's size or larger -> scores
        (N, K + 1, rows, columns) of all windows whose corners are multiples of the stride."""
        features = self.backbone(images)  # (N, C, rows + cells - 1, columns + cells - 1)
        kernel = self.fc1.weight.reshape(-1, features.shape[1], self.cells, self.cells)
        hidden = F.relu(F.conv2d(features, kernel, self.fc1.bias))  # (N, hidden, rows, columns)
        return F.conv2d(hidden, self.fc2.weight[:, :, None, None], self.fc2.bias)

    # ---- windows -------------------------------------------------------------------------------------------------

    def pyramid(self, image: Any) -> list[Level]:
        """The levels of an image (3, H, W), one for each of the object sizes."""
        with no_grad():
            image = (image - image.mean(axis=(1, 2), keepdims=True))[None]
            return [self.level(image, size) for size in self.object_sizes]

    def level(self, image: Any, object_size: tuple[float, float]) -> Level:
        """A centred image (1, 3, H, W), resized so that objects of this (height, width) have the window's inner square.

        Zeros around it, `context` pixels wide, let that square reach the image's border, and below and to the right as
        many more as the last window needs: no pixel is left out, and the smallest image has a window.
        """
        height, width = image.shape[2:]
        size = [
            max(round(side * self.object_side / pixels), 1)
            for side, pixels in zip((height, width), object_size, strict=True)
        ]
        grid = tuple(max(-(-(side - self.object_side) // self.stride), 0) + 1 for side in size)
        (h, w), (rows, columns) = size, grid
        padded = np.zeros_like(
            image.data,
            shape=(1, 3, (rows - 1) * self.stride + self.window, (columns - 1) * self.stride + self.window),
        )
        resized = F.interpolate(image, (h, w), mode="bilinear").data
        padded[:, :, self.context : self.context + h, self.context : self.context + w] = resized
        boxes = window_boxes(grid, self.object_side, self.stride, (h / height, w / width))
        return Level(padded, grid, clip_boxes_to_image(boxes, (height, width)))

    def crop(self, level: Level, windows: np.ndarray) -> Any:
        """The windows, by number, cut out of a level: (len(windows), 3, window, window)."""
        corners = np.stack(np.divmod(windows, level.grid[1]), axis=1) * self.stride
        return np.concatenate([level.image[:, :, y : y + self.window, x : x + self.window] for y, x in corners])

    def level_scores(self, level: Level, crops_at_once: int | None = None) -> np.ndarray:
        """Scores (rows * columns, K + 1) of all windows of a level, before the softmax.

        crops_at_once: None, by the fully convolutional network; or by cropping, so many windows in a batch.
        """
        with no_grad():
            if crops_at_once is None:
                scores = to_numpy(self.slide(Tensor(level.image)).data)  # (1, K + 1, rows, columns)
                return scores.reshape(self.classes + 1, -1).T
            count = len(level.boxes)
            return np.concatenate([
                to_numpy(self.classify(Tensor(self.crop(level, windows))).data)
                for windows in np.split(np.arange(count), range(crops_at_once, count, crops_at_once))
            ])

    # ---- detection -----------------------------------------------------------------------------------------------

    def detect(self, image: Any, crops_at_once: int | None = None) -> dict[str, np.ndarray]:
        """The detections in one image (3, H, W); crops_at_once as `level_scores` says."""
        levels = self.pyramid(image)
        logits = np.concatenate([self.level_scores(level, crops_at_once) for level in levels])  # (R, K + 1)
        boxes = np.concatenate([level.boxes for level in levels])  # (R, 4)
        probabilities = F.softmax(logits, dim=1)
        watch.emit("sliding_window.boxes", boxes)
        watch.emit("sliding_window.probabilities", probabilities)
        return filter_detections(
            boxes, probabilities[:, 1:], self.score_threshold, self.nms_threshold, self.limit, min_size=1.0
        )

    # ---- training ------------------------------------------------------------------------------------------------

    def sample(self, image: Any, target: dict) -> tuple[Any, np.ndarray]:
        """Windows of one image to learn from: crops (n, 3, window, window) and their labels (n,), 0 the background."""
        levels = self.pyramid(image)
        boxes = np.concatenate([level.boxes for level in levels])
        labels = window_labels(boxes, target)
        chosen = np.concatenate(
            sample_balanced(labels > 0, labels == 0, self.windows, self.positive_fraction, generator())
        )
        crops, first = [np.zeros_like(levels[0].image, shape=(0, 3, self.window, self.window))], 0
        chosen.sort()
        for level in levels:  # their windows are numbered through
            within = chosen[(chosen >= first) & (chosen < first + len(level.boxes))] - first
            if len(within):
                crops.append(self.crop(level, within))
            first += len(level.boxes)
        return np.concatenate(crops), labels[chosen]


def window_boxes(grid: tuple[int, int], side: int, stride: int, scale: tuple[float, float]) -> np.ndarray:
    """What the windows of a level stand for: boxes (rows * columns, 4) float32, row by row.

    grid: (rows, columns). Window (i, j)'s inner square has `side` pixels and begins at (i * stride, j * stride) of the
    resized image, which has scale = (vertical, horizontal) pixels for each of the image's. The boxes are in the
    image's pixels.
    """
    y, x = (np.arange(count) * stride for count in grid)
    y, x = np.meshgrid(y, x, indexing="ij")
    corners = np.stack([x, y, x + side, y + side], axis=-1).reshape(-1, 4)
    return (corners / (scale[::-1] * 2)).astype(np.float32)


def window_labels(boxes: np.ndarray, target: dict) -> np.ndarray:
    """What windows with these boxes (R, 4) are trained to say: (R,) int64, 0 for the background, -1 for nothing."""
    crowd = np.asarray(target["iscrowd"], bool)
    truth, labels = target["boxes"][~crowd].astype(np.float32), target["labels"][~crowd]
    matched = match_boxes(box_iou(truth, boxes), OBJECT_IOU, BACKGROUND_IOU)
    found = np.full(len(boxes), -1, np.int64)
    found[matched == BELOW] = 0
    found[matched >= 0] = labels[matched[matched >= 0]]
    found[(found == 0) & in_crowd(boxes, target["boxes"][crowd])] = -1
    return found


def in_crowd(boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """Which boxes (R, 4) lie by more than IN_CROWD of their area in one of the crowds (C, 4): (R,) bool."""
    top_left = np.maximum(boxes[:, None, :2], crowds[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    inside = np.prod(np.maximum(bottom_right - top_left, 0), axis=2)  # (R, C)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return (inside > IN_CROWD * area[:, None]).any(axis=1)


# ---- surgery -----------------------------------------------------------------------------------------------------


def unpadded(network: nn.Module) -> nn.Module:
    """The network with the padding taken out of all its convolutions; its own layers, changed, not copies.

    What it computes in the middle of an image, farther from the border than it sees, stays as it was.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.geometry["padding"] = 0
    return network


def receptive_field(network: nn.Module) -> int:
    """Side, in pixels, of what one cell of the network's map sees: of convolutions applied one after the other."""
    field, step = 1, 1  # step: pixels from one cell to the next
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            field += (module.kernel_size[0] - 1) * step
            step *= module.geometry["stride"]
    return field
