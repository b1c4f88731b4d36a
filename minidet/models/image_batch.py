"""Images of any size as one batch, and boxes there and back.

Detectors look at images of different sizes. Each is normalised, resized so that its shorter side is min_size, unless
its longer one would be more than max_size then, and put into the upper left corner of one array that holds the largest.
The rest of the array is 0, which after normalisation is the usual colour (torchvision's GeneralizedRCNNTransform).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from .. import watch
from ..autograd import Tensor
from ..autograd.tensor import array_of
from ..device import to_numpy


@dataclass(frozen=True)
class ImageBatch:
    """tensor (N, 3, H, W): all images. sizes: (height, width) of each within it; original_sizes: as they came. stride:
    of the backbone's coarsest map."""

    tensor: Any
    sizes: list[tuple[int, int]]
    original_sizes: list[tuple[int, int]]
    stride: int

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def padded_size(self) -> tuple[int, int]:
        return tuple(self.tensor.shape[2:])

    def strides(self, maps: Sequence[Any]) -> list[tuple[int, int]]:
        """Pixels from one cell to the next, down and across, of each of the backbone's maps (N, C, H, W).

        A single map has the backbone's stride, also where it has fewer cells than the image would fill, as without
        padding. Of several it is told by their sizes, as torchvision does it."""
        if len(maps) == 1:
            return [(self.stride, self.stride)]
        height, width = self.padded_size
        return [(height // level.shape[2], width // level.shape[3]) for level in maps]

    def from_original(self, boxes: np.ndarray, image: int) -> np.ndarray:
        """Boxes (..., 4) in the pixels of that image as it came -> in the batch's."""
        return boxes * self._ratio(image)

    def to_original(self, boxes: np.ndarray, image: int) -> np.ndarray:
        """Boxes (..., 4) in the batch's pixels -> in those of the image as it came."""
        return boxes / self._ratio(image)

    def _ratio(self, image: int) -> np.ndarray:
        """Of the sides; each axis has its own, because sizes are whole numbers."""
        (height, width), (old_height, old_width) = self.sizes[image], self.original_sizes[image]
        return np.float32([width / old_width, height / old_height] * 2)


def batch_images(
    images: Any, normalize: Callable[[Any], Any], min_size: int | None, max_size: int | None, stride: int
) -> ImageBatch:
    """Images, a Tensor (N, 3, H, W) or a list of (3, H_i, W_i), all float32 in [0, 1], as an ImageBatch.

    normalize: what is done to each image first. min_size: None leaves the sizes as they are. stride: of the backbone's
    coarsest map; both sides of the batch are multiples of it. Raises ValueError for no image, and for others.
    """
    if not len(images):
        raise ValueError("expected at least one image, got none")
    for position, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape or image.dtype.kind != "f":
            raise ValueError(
                f"expected images (3, H, W) of floats in [0, 1], got {image.dtype} {image.shape} at position {position}"
            )
    original_sizes = [tuple(image.shape[1:]) for image in images]
    sizes = [resized(size, min_size, max_size) for size in original_sizes]
    height, width = (-(-max(sides) // stride) * stride for sides in zip(*sizes, strict=True))
    if sizes == original_sizes and set(sizes) == {(height, width)}:  # all of one size: nothing to move
        whole = normalize(images if isinstance(images, Tensor) else F.stack(images))
        watch.emit("image_batch.images", whole)
        return ImageBatch(whole, sizes, original_sizes, stride)
    placed = []
    for image, size, original_size in zip(images, sizes, original_sizes, strict=True):
        image = normalize(image[None])  # (1, 3, h, w)
        if size != original_size:
            image = F.interpolate(image, size, mode="bilinear")
        placed.append(F.pad(image, ((0, 0), (0, 0), (0, height - size[0]), (0, width - size[1]))))
    whole = F.concatenate(placed, 0)
    watch.emit("image_batch.images", whole)
    return ImageBatch(whole, sizes, original_sizes, stride)


def resized(size: tuple[int, int], min_size: int | None, max_size: int | None) -> tuple[int, int]:
    """The (height, width) that an image of that size gets."""
    if min_size is None:
        return size
    # In float32, as torchvision does: at the edge of a pixel the last bit decides.
    scale = np.float32(min_size) / np.float32(min(size))
    if max_size is not None:
        scale = min(scale, np.float32(max_size) / np.float32(max(size)))
    return tuple(max(int(side * float(scale)), 1) for side in size)


def as_pixels(image: Any) -> np.ndarray:
    """An image (3, H, W) in [0, 1], a Tensor, as the picture (H, W, 3) uint8 that it was: what regions are proposed
    in."""
    return np.rint(to_numpy(image.data).transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)


def proposals_of(target: dict, image: Any, propose: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The regions (P, 4) float32 of one image, in its own pixels: the target's, or new ones where it has none."""
    boxes = target.get("proposals")
    boxes = np.asarray(propose(as_pixels(image)) if boxes is None else boxes, np.float32)
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise ValueError(f"expected proposals (P, 4), x1 y1 x2 y2 in pixels, got {boxes.shape}")
    return boxes.reshape(-1, 4)


def with_targets(images: Any, targets: Sequence[dict] | None) -> list[tuple[Any, dict]]:
    """Each image with its target; {} where there are none. Raises ValueError for another number of targets."""
    targets = [{}] * len(images) if targets is None else targets
    if len(targets) != len(images):
        raise ValueError(f"expected a target for each of {len(images)} images, got {len(targets)}")
    return list(zip(images, targets, strict=True))


def detection_targets(targets: Sequence[dict] | None, batch: ImageBatch, classes: int) -> list[dict]:
    """`checked_targets`, with boxes and crowds in the batch's pixels."""
    return [
        target | {key: batch.from_original(target[key], position) for key in ("boxes", "crowds")}
        for position, target in enumerate(checked_targets(targets, len(batch), classes))
    ]


def checked_targets(targets: Sequence[dict] | None, images: int, classes: int) -> list[dict]:
    """What each of so many images is trained on: dicts with boxes (R, 4) float32, labels (R,) in 1..classes, and crowds
    (C, 4), the boxes around groups, which are neither objects nor background.

    targets: as the data sets give them, with boxes in pixels of the images as they came, and so are these. Raises
    ValueError, with the positions in the batch, for boxes without area and labels that are not there.
    """
    if targets is None:
        raise ValueError("expected targets to train on, got None; call model.eval() first for detections")
    if len(targets) != images:
        raise ValueError(f"expected a target for each of {images} images, got {len(targets)}")
    prepared = []
    for position, target in enumerate(targets):
        boxes = np.asarray(array_of(target["boxes"]), np.float32).reshape(-1, 4)
        labels = np.asarray(array_of(target["labels"])).reshape(-1)
        if len(labels) and labels.dtype.kind not in "iu":
            raise ValueError(f"expected labels as integers, got {labels.dtype} in image {position} of a batch")
        labels = labels.astype(np.int64, copy=False)
        good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if not good.all():
            worst = int(good.argmin())
            raise ValueError(
                f"expected boxes x1 < x2, y1 < y2, got {boxes[worst].tolist()}, box {worst} of image {position} of a "
                "batch; `minidet data check` names the file"
            )
        if len(labels) != len(boxes) or (len(labels) and not 1 <= labels.min() <= labels.max() <= classes):
            raise ValueError(
                f"expected a label from 1 to {classes} for each of {len(boxes)} boxes, got {labels.tolist()[:20]} in "
                f"image {position} of a batch"
            )
        crowd = np.asarray(target.get("iscrowd", np.zeros(len(boxes))), bool).reshape(-1)
        if len(crowd) != len(boxes):
            raise ValueError(
                f"expected iscrowd for each of {len(boxes)} boxes, got {len(crowd)} in image {position} of a batch"
            )
        prepared.append({"boxes": boxes[~crowd], "labels": labels[~crowd], "crowds": boxes[crowd]})
    return prepared
