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
from ..data.joints import HIDDEN, NOT_LABELLED, VISIBLE
from ..device import is_on_gpu, to_numpy

PLACES = ("boxes", "keypoints")  # what moves with the pixels
# No image in [0, 1] is so bright, nor one that somebody has normalised already; one of whole numbers up to 255 is.
TOO_BRIGHT = 10.0


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

    def from_original(self, places: np.ndarray, image: int) -> np.ndarray:
        """Boxes (..., 4), or keypoints (..., 3) x, y, v, in the pixels of that image as it came -> in the batch's.

        Joints are multiplied like boxes, as torchvision does it, though they name pixels by their centres: in an image
        that is made twice as large they move by half a pixel, and back."""
        return places * self._ratio(image, places.shape[-1])

    def to_original(self, found: list[dict]) -> list[dict]:
        """What a detector has found in each image, in the batch's pixels -> in those of the images as they came: boxes
        (D, 4), and where there are, keypoints (D, J, 3)."""
        return [
            one | {key: one[key] / self._ratio(image, one[key].shape[-1]) for key in PLACES if key in one}
            for image, one in enumerate(found)
        ]

    def _ratio(self, image: int, numbers: int) -> np.ndarray:
        """Of the sides; each axis has its own, because sizes are whole numbers. numbers: a box's 4, a keypoint's 3."""
        (height, width), (old_height, old_width) = self.sizes[image], self.original_sizes[image]
        across, down = width / old_width, height / old_height
        return np.float32([across, down, across, down] if numbers == 4 else [across, down, 1])


def batch_images(
    images: Any,
    normalize: Callable[[Any], Any],
    min_size: int | None,
    max_size: int | None,
    stride: int,
    fixed_size: tuple[int, int] | None = None,
) -> ImageBatch:
    """Images, a Tensor (N, 3, H, W) or a list of (3, H_i, W_i), all float32 in [0, 1], as an ImageBatch.

    normalize: what is done to each image first. min_size: None leaves the sizes as they are. fixed_size: the (height,
    width) that every image gets, whatever its shape; min_size and max_size are not looked at then. stride: of the
    backbone's coarsest map; both sides of the batch are multiples of it. Raises ValueError for no image, for what is
    none, and for numbers up to 255 or NaN (on the CPU: on the GPU nobody looks at them).
    """
    if not len(images):
        raise ValueError("expected at least one image, got none")
    for position, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape or image.dtype.kind != "f":
            raise ValueError(
                f"expected images (3, H, W) of floats in [0, 1], got {image.dtype} {image.shape} at position {position}"
            )
        pixels = array_of(image)
        if not is_on_gpu(pixels) and not (brightest := pixels.max()) <= TOO_BRIGHT:  # so NaN is told of, too
            advice = "divide by 255" if np.isfinite(brightest) else "look for what is not finite before this call"
            raise ValueError(
                f"expected images in [0, 1], got numbers up to {brightest:g} at position {position}; {advice}"
            )
    original_sizes = [tuple(image.shape[1:]) for image in images]
    sizes = [fixed_size or resized(size, min_size, max_size) for size in original_sizes]
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
        if size != (height, width):
            image = F.pad(image, ((0, 0), (0, 0), (0, height - size[0]), (0, width - size[1])))
        placed.append(image)
    whole = F.concatenate(placed, 0) if len(placed) > 1 else placed[0]
    watch.emit("image_batch.images", whole)
    return ImageBatch(whole, sizes, original_sizes, stride)


def unchanged(images: Any) -> Any:
    """As they are: a TinyBackbone takes the mean colour of each away itself."""
    return images


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
    """`checked_targets`, in the batch's pixels: boxes, crowds, masks and keypoints. Raises ValueError also for a box
    without a pixel of its image, and for masks of another size."""
    prepared = []
    for position, target in enumerate(checked_targets(targets, len(batch), classes)):
        height, width = batch.original_sizes[position]
        boxes = target["boxes"]
        outside = (boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, :2] >= (width, height)).any(axis=1)
        if outside.any():
            raise ValueError(
                f"expected boxes in pixels of their image, {width} wide and {height} high, got "
                f"{boxes[outside.argmax()].tolist()} in image {position} of a batch"
            )
        moved = {key: batch.from_original(target[key], position) for key in ("boxes", "crowds")}
        if "masks" in target:
            if target["masks"].shape[1:] != (height, width):
                raise ValueError(
                    f"expected masks (R, {height}, {width}), of their image's size, got "
                    f"{target['masks'].shape} in image {position} of a batch"
                )
            moved["masks"] = resized_masks(target["masks"], batch.sizes[position])
        if "keypoints" in target:
            moved["keypoints"] = batch.from_original(target["keypoints"], position).astype(np.float32, copy=False)
        prepared.append(target | moved)
    return prepared


def with_keypoints(targets: list[dict], joints: int) -> list[dict]:
    """The same targets; raises ValueError where one has no keypoints, or other ones."""
    for position, target in enumerate(targets):
        shape = target["keypoints"].shape if "keypoints" in target else "none"
        if shape == "none" or shape[1] != joints:
            raise ValueError(
                f"expected keypoints (R, {joints}, 3) to train on, got {shape} in image {position} of a batch"
            )
    return targets


def resized_masks(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks (R, H, W) -> (R, *size): each pixel is the one that its centre lies in."""
    sides = zip(size, masks.shape[1:], strict=True)
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in sides)
    return masks if masks.shape[1:] == size else masks[:, rows[:, None], columns]


def checked_targets(targets: Sequence[dict] | None, images: int, classes: int) -> list[dict]:
    """What each of so many images is trained on: dicts with boxes (R, 4) float32, labels (R,) in 1..classes, and crowds
    (C, 4), the boxes around groups, which are neither objects nor background. Where they are given, masks (R, H, W) and
    keypoints (R, J, 3) of the objects, too.

    targets: as the data sets give them, with boxes in pixels of the images as they came, and so are these. Raises
    ValueError, with the position in the batch, for what cannot be learned from: boxes without area, labels that are not
    there, masks that are not of 0 and 1, labelled joints without a place.
    """
    if targets is None:
        raise ValueError("expected targets to train on, got None; call model.eval() first for detections")
    if len(targets) != images:
        raise ValueError(f"expected a target for each of {images} images, got {len(targets)}")
    return [_checked(target, classes, f"image {number} of a batch") for number, target in enumerate(targets)]


def _checked(target: dict, classes: int, where: str) -> dict:
    if not {"boxes", "labels"} <= target.keys():
        raise ValueError(f"expected boxes and labels, got {', '.join(target) or 'neither'} in {where}")
    boxes = np.asarray(array_of(target["boxes"]), np.float32)
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise ValueError(f"expected boxes (R, 4), got {boxes.shape} in {where}")
    boxes = boxes.reshape(-1, 4)
    labels = np.asarray(array_of(target["labels"])).reshape(-1)
    if len(labels) and labels.dtype.kind not in "iu":
        raise ValueError(f"expected labels as integers, got {labels.dtype} in {where}")
    labels = labels.astype(np.int64, copy=False)
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not good.all():
        worst = int(good.argmin())
        raise ValueError(
            f"expected boxes x1 < x2, y1 < y2, got {boxes[worst].tolist()}, box {worst} of {where}; "
            "`minidet data check` names the file"
        )
    if len(labels) != len(boxes) or (len(labels) and not 1 <= labels.min() <= labels.max() <= classes):
        raise ValueError(
            f"expected a label from 1 to {classes} for each of {len(boxes)} boxes, got {labels.tolist()[:20]} in "
            f"{where}"
        )
    crowd = np.asarray(target.get("iscrowd", np.zeros(len(boxes))), bool).reshape(-1)
    if len(crowd) != len(boxes):
        raise ValueError(f"expected iscrowd for each of {len(boxes)} boxes, got {len(crowd)} in {where}")
    checked = {"boxes": boxes[~crowd], "labels": labels[~crowd], "crowds": boxes[crowd]}
    for key, shape, check in (("masks", "(R, H, W)", _checked_masks), ("keypoints", "(R, J, 3)", _checked_keypoints)):
        if key in target:
            parts = np.asarray(array_of(target[key]))
            if parts.ndim != 3 or len(parts) != len(boxes) or (key == "keypoints" and parts.shape[2] != 3):
                raise ValueError(f"expected {key} {shape} for {len(boxes)} boxes, got {parts.shape} in {where}")
            checked[key] = check(parts, where)[~crowd]
    return checked


def _checked_masks(masks: np.ndarray, where: str) -> np.ndarray:
    if masks.dtype == bool:
        return masks
    wrong = masks[(masks != 0) & (masks != 1)]
    if len(wrong):
        raise ValueError(
            f"expected masks of bool, or of 0 and 1, got {wrong[0]:g} in {where}; masks >= 0.5 makes them of parts of "
            "1, masks >= 128 of a picture's 0 to 255"
        )
    return masks.astype(bool)


def _checked_keypoints(keypoints: np.ndarray, where: str) -> np.ndarray:
    """The same; x and y of a joint that is not labelled mean nothing, and are 0."""
    labelled = np.isin(keypoints[..., 2], (HIDDEN, VISIBLE))
    wrong = ~(labelled & np.isfinite(keypoints).all(axis=2) | (keypoints[..., 2] == NOT_LABELLED))
    if wrong.any():
        person, joint = np.argwhere(wrong)[0]
        raise ValueError(
            f"expected keypoints x, y, v with v 0, 1 or 2, and numbers for x and y where it is not 0, got "
            f"{keypoints[person, joint].tolist()}, joint {joint} of person {person} in {where}"
        )
    return np.where(labelled[..., None], keypoints, 0)
