"""Augmentations. Boxes, proposals, masks and joints move along with the picture.

Two kinds of coordinates: boxes are continuous, pixel i covers [i, i + 1], so a mirrored box has x' = W - x. Joints
name pixels by their centres, so a mirrored joint has x' = W - 1 - x; the joint at x is the continuous place x + 0.5.

The functions (flip, translate, scale, color, resize) do one thing to a Sample and return a new one. The classes draw
the parameters: `RandomFlip(...)(sample, rng)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from minidet.data.dataset import Sample
from minidet.data.joints import NOT_LABELLED

# A box that is cut by the border stays if this fraction of its area, and LEAST_SIDE pixels each way, are left inside.
# Higher forgets objects which can still be recognised; lower teaches the network to find slivers. A proposal, which
# need not show anything, stays by its sides alone; so does a crowd, which is not to be found, but is no background.
MIN_VISIBLE = 0.3
LEAST_SIDE = 1.0

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # grey value of an RGB colour (ITU-R BT.601)


def flip(sample: Sample, swap: Sequence[int] | None = None) -> Sample:
    """Mirror left and right. swap: new joint k is old joint swap[k], because a mirrored right hand is a left hand
    (joints.LSP_SWAP; Dataset.flip_swap); None keeps the joints' names."""
    width = sample.image.shape[1]
    boxes = _flipped(sample.boxes, width)
    proposals = None if sample.proposals is None else _flipped(sample.proposals, width)
    keypoints = sample.keypoints
    if keypoints is not None:
        keypoints = keypoints.copy() if swap is None else keypoints[:, list(swap)]
        labelled = keypoints[..., 2] > NOT_LABELLED
        keypoints[labelled, 0] = width - 1 - keypoints[labelled, 0]
    masks = None if sample.masks is None else sample.masks[:, :, ::-1]
    return replace(
        sample, image=sample.image[:, ::-1], boxes=boxes, masks=masks, keypoints=keypoints, proposals=proposals
    )


def _flipped(boxes: np.ndarray, width: int) -> np.ndarray:
    flipped = boxes.copy()
    flipped[:, [0, 2]] = width - boxes[:, [2, 0]]  # the right edge becomes the left one: x1 < x2 stays true
    return flipped


def translate(sample: Sample, dx: int, dy: int, fill: Sequence[int] | None = None) -> Sample:
    """Move the content dx pixels to the right and dy down. fill: colour of the new margin; the mean by default."""
    height, width = sample.image.shape[:2]
    image = _canvas(sample.image, fill)
    to_rows, from_rows = _overlap(dy, height)
    to_columns, from_columns = _overlap(dx, width)
    image[to_rows, to_columns] = sample.image[from_rows, from_columns]
    masks = sample.masks
    if masks is not None:
        masks = np.zeros_like(sample.masks)
        masks[:, to_rows, to_columns] = sample.masks[:, from_rows, from_columns]
    return _moved(sample, image, masks, factor=(1, 1), shift=(dx, dy))


def scale(
    sample: Sample, factor: float, center: tuple[float, float] | None = None, fill: Sequence[int] | None = None
) -> Sample:
    """Zoom in (factor > 1) or out about a point x, y in continuous coordinates, the middle by default.

    The picture keeps its size. Images are interpolated linearly; masks take the nearest pixel.
    """
    height, width = sample.image.shape[:2]
    x, y = (width / 2, height / 2) if center is None else center
    shift = (x - factor * x, y - factor * y)  # new = factor * old + shift
    inverse = (1 / factor, 0, -shift[0] / factor, 0, 1 / factor, -shift[1] / factor)
    color = tuple(int(value) for value in (mean_color(sample.image) if fill is None else fill))
    picture = Image.fromarray(np.ascontiguousarray(sample.image)).transform(
        (width, height), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR, fillcolor=color
    )
    masks = sample.masks
    if masks is not None:
        rows = np.floor((np.arange(height) + 0.5 - shift[1]) / factor).astype(int)
        columns = np.floor((np.arange(width) + 0.5 - shift[0]) / factor).astype(int)
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        masks = masks[:, rows.clip(0, height - 1)][:, :, columns.clip(0, width - 1)] & inside
    return _moved(sample, np.asarray(picture), masks, factor=(factor, factor), shift=shift)


def resize(sample: Sample, height: int, width: int) -> Sample:
    """Stretch to height x width pixels; the proportions are not kept. A sample of that size is returned as it is."""
    old_height, old_width = sample.image.shape[:2]
    if (old_height, old_width) == (height, width):
        return sample
    picture = Image.fromarray(np.ascontiguousarray(sample.image)).resize((width, height), Image.Resampling.BILINEAR)
    masks = sample.masks
    if masks is not None:
        rows = ((np.arange(height) + 0.5) * old_height / height).astype(int)
        columns = ((np.arange(width) + 0.5) * old_width / width).astype(int)
        masks = masks[:, rows][:, :, columns]
    return _moved(sample, np.asarray(picture), masks, factor=(width / old_width, height / old_height), shift=(0, 0))


def color(sample: Sample, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0) -> Sample:
    """Multiply brightness, the distance from the mean grey (contrast), and from each pixel's grey (saturation).

    1.0 changes nothing. The three together are one matrix: rgb' = rgb M + t.
    """
    pixels = sample.image.reshape(-1, 3).astype(np.float32)
    matrix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * LUMA[:, None]
    mean_gray = brightness * float(mean_color(sample.image) @ LUMA)
    changed = pixels @ (matrix * np.float32(brightness * contrast))
    changed += np.float32((1 - contrast) * mean_gray + 0.5)
    np.clip(changed, 0, 255, out=changed)
    return replace(sample, image=changed.astype(np.uint8).reshape(sample.image.shape))


def mean_color(image: np.ndarray) -> np.ndarray:
    """(3,) mean colour. Summing whole rows first keeps NumPy's inner loop long: 5 x faster than mean over pixels."""
    height, width = image.shape[:2]
    columns = image.reshape(height, width * 3).sum(axis=0, dtype=np.uint32)
    return columns.reshape(width, 3).sum(axis=0) / (height * width)


def _canvas(image: np.ndarray, fill: Sequence[int] | None) -> np.ndarray:
    """An empty picture like `image` in the colour `fill`, by default the mean of `image`."""
    color = np.asarray(mean_color(image) if fill is None else fill).astype(np.uint8)
    row = np.broadcast_to(color, (image.shape[1], 3)).reshape(1, -1)
    return np.repeat(row, image.shape[0], axis=0).reshape(image.shape)


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    """Where a line of `length` pixels, moved by `shift`, lands inside itself, and which pixels land there."""
    shift = max(-length, min(length, shift))
    return slice(max(shift, 0), length + min(shift, 0)), slice(max(-shift, 0), length - max(shift, 0))


def _moved(
    sample: Sample, image: np.ndarray, masks: np.ndarray | None, factor: tuple[float, float], shift: tuple[float, float]
) -> Sample:
    """The sample with a new image, and boxes and joints moved by new = factor * old + shift in continuous coordinates.

    Boxes and proposals are clipped to the image and dropped by the rule at MIN_VISIBLE; joints outside become not
    labelled.
    """
    height, width = image.shape[:2]
    moved, boxes = _moved_boxes(sample.boxes, (height, width), factor, shift)
    sides, sides_before = boxes[:, 2:] - boxes[:, :2], moved[:, 2:] - moved[:, :2]
    left_over = sides.prod(axis=1) / sides_before.prod(axis=1)
    keep = ((left_over >= MIN_VISIBLE) | sample.iscrowd) & (sides >= LEAST_SIDE).all(axis=1)
    proposals = sample.proposals
    if proposals is not None:
        _, proposals = _moved_boxes(proposals, (height, width), factor, shift)
        proposals = proposals[(proposals[:, 2:] - proposals[:, :2] >= LEAST_SIDE).all(axis=1)]
    keypoints = sample.keypoints
    if keypoints is not None:
        keypoints = keypoints[keep]
        places = (keypoints[..., :2] + 0.5) * factor + shift - 0.5
        outside = ((places < -0.5) | (places >= [width - 0.5, height - 0.5])).any(axis=-1)
        lost = outside | (keypoints[..., 2] == NOT_LABELLED)
        keypoints = np.concatenate([places, keypoints[..., 2:]], axis=-1)
        keypoints[lost] = 0
    return Sample(
        image=image,
        boxes=boxes[keep],
        labels=sample.labels[keep],
        masks=None if masks is None else masks[keep],
        keypoints=keypoints,
        iscrowd=sample.iscrowd[keep],
        difficult=sample.difficult[keep],
        areas=(sample.areas * (factor[0] * factor[1]) * left_over)[keep],
        proposals=proposals,
        name=sample.name,
        flip_swap=sample.flip_swap,
    )


def _moved_boxes(
    boxes: np.ndarray, size: tuple[int, int], factor: tuple[float, float], shift: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (R, 4) moved by new = factor * old + shift; and the same clipped to an image (height, width)."""
    moved = boxes * (factor * 2) + (shift * 2)  # (x, y) * 2 is the tuple (x, y, x, y)
    return moved, np.clip(moved, 0, size[::-1] * 2)


@dataclass
class Compose:
    """Several transforms, one after the other, with one generator."""

    transforms: Sequence[Callable[[Sample, np.random.Generator], Sample]]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample


@dataclass
class RandomFlip:
    """Mirror with a probability. swap: see flip; None: the sample's own flip_swap."""

    probability: float = 0.5
    swap: Sequence[int] | None = None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return sample
        return flip(sample, sample.flip_swap if self.swap is None else self.swap)


@dataclass
class RandomTranslate:
    """Move by up to `fraction` of the picture's sides. keep_boxes: not so far that a box which is inside leaves."""

    fraction: float = 0.15
    keep_boxes: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        size = np.array(sample.image.shape[1::-1])  # width, height
        low, high = -self.fraction * size, self.fraction * size
        if self.keep_boxes and len(sample.boxes):
            low = np.maximum(low, -sample.boxes[:, :2].min(axis=0))
            high = np.minimum(high, size - sample.boxes[:, 2:].max(axis=0))
        dx, dy = rng.integers(np.ceil(low).astype(int), np.floor(high).astype(int) + 1)  # within the limits
        return translate(sample, int(dx), int(dy))


@dataclass
class RandomScale:
    """Zoom about the middle by a factor between `lowest` and `highest`, evenly on the logarithmic scale.

    keep_boxes: not so far that a box which is inside leaves.
    """

    lowest: float = 0.8
    highest: float = 1.25
    keep_boxes: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        highest = self.highest
        if self.keep_boxes and len(sample.boxes):
            half = np.array(sample.image.shape[1::-1]) / 2
            reach = np.abs(sample.boxes.reshape(-1, 2) - half).max(axis=0)  # of the farthest edges from the middle
            highest = min(highest, (half / np.maximum(reach, 1e-9)).min())
        factor = np.exp(rng.uniform(np.log(min(self.lowest, highest)), np.log(highest)))
        return scale(sample, float(factor))


@dataclass
class RandomColor:
    """Change brightness, contrast and saturation by factors of up to 1 +- the given amounts."""

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        factors = 1 + rng.uniform(-1, 1, 3) * (self.brightness, self.contrast, self.saturation)
        return color(sample, *factors.tolist())


@dataclass
class Resize:
    """Stretch every picture to height x width pixels."""

    height: int
    width: int

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return resize(sample, self.height, self.width)
