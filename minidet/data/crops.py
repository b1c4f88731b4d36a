"""SSD's augmentation (Liu et al. 2016, section 2.2 and the authors' code): parts of the image, and the image as a part.

A crop makes objects larger and cuts some, an expansion makes them smaller; resized to the network's square, both change
their shape, too. Much as torchvision's RandomIoUCrop and RandomZoomOut; the first of these asks for an overlap with an
object that stays, the authors with any. Coordinates: see transforms.
"""

from dataclasses import dataclass, replace

import numpy as np

from minidet.boxes import box_iou
from minidet.data.dataset import Sample
from minidet.data.joints import NOT_LABELLED
from minidet.data.transforms import mean_color

# One is drawn for each image: a crop has to overlap with an object by at least so much; 0: any crop; None: no crop.
LEAST_IOUS = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
SCALES = (0.3, 1.0)  # of a crop's sides, in parts of the image's; smaller crops show larger objects
RATIOS = (0.5, 2.0)  # width by height
TRIES = 50  # crops that are drawn for one of these, then another of them is tried
ROUNDS = 10  # of those; an image for which none fits stays whole
MOST_EXPANSION = 4.0  # a canvas's side, in the image's; larger makes smaller objects


def crop(sample: Sample, left: int, top: int, right: int, bottom: int) -> Sample:
    """The part of a sample within these edges, in pixels. Objects whose centre is outside are left out, the others'
    boxes are cut; of crowds and proposals all stay of which a pixel each way is left: what is seen of a crowd is no
    background. Joints outside become not labelled."""
    edges = np.array([left, top, right, bottom], np.float64)
    corner, far = edges[[0, 1, 0, 1]], edges[[2, 3, 2, 3]]
    cut = np.clip(sample.boxes, corner, far)
    seen = (cut[:, 2:] - cut[:, :2] >= 1).all(axis=1)
    kept = has_centers_inside(sample.boxes, edges) | (sample.iscrowd & seen)
    boxes, cut = sample.boxes[kept], cut[kept]
    left_over = (cut[:, 2:] - cut[:, :2]).prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    proposals = sample.proposals
    if proposals is not None:
        proposals = np.clip(proposals, corner, far) - corner
        proposals = proposals[(proposals[:, 2:] - proposals[:, :2] >= 1).all(axis=1)]
    return replace(
        sample,
        image=sample.image[top:bottom, left:right],
        boxes=cut - corner,
        labels=sample.labels[kept],
        masks=None if sample.masks is None else sample.masks[kept, top:bottom, left:right],
        keypoints=None if sample.keypoints is None else _within(sample.keypoints[kept], left, top, right, bottom),
        iscrowd=sample.iscrowd[kept],
        difficult=sample.difficult[kept],
        areas=sample.areas[kept] * left_over,
        proposals=proposals,
    )


def expand(sample: Sample, height: int, width: int, top: int, left: int) -> Sample:
    """The sample as a part of a canvas of height x width pixels, in its mean colour, from row `top` and column `left`
    on."""
    old_height, old_width = sample.image.shape[:2]
    image = np.empty((height, width, 3), np.uint8)
    image[:] = mean_color(sample.image)
    image[top : top + old_height, left : left + old_width] = sample.image
    masks, keypoints = sample.masks, sample.keypoints
    if masks is not None:
        masks = np.zeros((len(masks), height, width), bool)
        masks[:, top : top + old_height, left : left + old_width] = sample.masks
    if keypoints is not None:
        keypoints = keypoints + np.where(keypoints[..., 2:] > NOT_LABELLED, [left, top, 0.0], 0.0)
    corner = np.array([left, top, left, top], np.float64)
    proposals = None if sample.proposals is None else sample.proposals + corner
    return replace(
        sample, image=image, boxes=sample.boxes + corner, masks=masks, keypoints=keypoints, proposals=proposals
    )


def has_centers_inside(boxes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(R,) bool: whose centre lies between the edges (4,)."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centers > edges[:2]) & (centers < edges[2:])).all(axis=1)


def _within(keypoints: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Joints (R, J, 3) in a crop's pixels; zeros where they are outside of it."""
    places = keypoints[..., :2]
    inside = ((places >= [left - 0.5, top - 0.5]) & (places < [right - 0.5, bottom - 0.5])).all(axis=-1)
    inside &= keypoints[..., 2] > NOT_LABELLED
    return np.where(inside[..., None], keypoints - [left, top, 0], 0)


@dataclass
class RandomCrop:
    """A part of the image that overlaps with at least one object by as much as is drawn from LEAST_IOUS, and shows the
    centre of at least one; or all of it. An image without objects stays whole."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = sample.image.shape[:2]
        objects = sample.boxes[~sample.iscrowd]
        for _ in range(ROUNDS if len(objects) else 0):
            least = LEAST_IOUS[rng.integers(len(LEAST_IOUS))]
            if least is None:
                return sample
            for _ in range(TRIES):
                across, down = np.maximum(rng.uniform(*SCALES, 2) * (width, height), 1).astype(int).tolist()
                if not RATIOS[0] <= across / down <= RATIOS[1]:
                    continue
                left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
                edges = np.array([left, top, left + across, top + down], np.float64)
                # Of any object, not of all: with several objects none would ever be shown larger.
                if not has_centers_inside(objects, edges).any():
                    continue
                if box_iou(edges[None], objects).max() >= least:
                    return crop(sample, left, top, left + across, top + down)
        return sample


@dataclass
class RandomExpand:
    """With a probability, the image as a part of a larger canvas, somewhere in it."""

    probability: float = 0.5
    most: float = MOST_EXPANSION

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return sample
        height, width = sample.image.shape[:2]
        ratio = rng.uniform(1, self.most)
        new_height, new_width = int(height * ratio), int(width * ratio)
        top, left = rng.integers(new_height - height + 1), rng.integers(new_width - width + 1)
        return expand(sample, new_height, new_width, int(top), int(left))
