"""Selective Search: a few thousand boxes that hold nearly every object, without any learning.

Uijlings, van de Sande, Gevers and Smeulders, "Selective Search for Object Recognition", IJCV 2013. An image is cut into
small regions of even colour. The two most similar neighbours become one region, again and again, until the whole image
is one: somewhere between the crumbs and the whole, the paper hopes, every object has been a region. The boxes around
all regions are the proposals. No single similarity fits all images, so this is done in several colour spaces, with
several sizes of crumbs and several similarities (section 3.2 and table 5), and everything found is taken together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import minidet_kernels as mk

from .color_spaces import SPACES, to_color_space

SIGMA = 0.8  # section 3: smoothing before the segmentation, in pixels; larger: crumbs with smoother outlines
LETTERS = "CTSF"  # the similarities: colour, texture, size, fill


@dataclass(frozen=True)
class Mode:
    """Which hierarchies are built: one of every colour space with every k and every similarity.

    spaces: of HSV, Lab, rgI, H, I. similarities: each some letters of C T S F, which are added up. ks: the scales of
    the segmentation, which are its least sizes too, in pixels; meant for images of about 500 x 375.
    """

    spaces: tuple[str, ...]
    similarities: tuple[str, ...]
    ks: tuple[float, ...]

    def __post_init__(self) -> None:
        for space in self.spaces:
            if space not in SPACES:
                raise ValueError(f"Mode: expected colour spaces of {', '.join(SPACES)}, got {space!r}")
        for letters in self.similarities:
            if not letters or not set(letters) <= set(LETTERS):
                raise ValueError(f"Mode: expected similarities of the letters {LETTERS}, got {letters!r}")
        for k in self.ks:
            if not k >= 1:
                raise ValueError(f"Mode: expected every k >= 1, got {k!r}")


# Section 5.3, table 5: the paper's "single strategy", "fast" (8 hierarchies) and "quality" (80).
MODES = {
    "single": Mode(("HSV",), ("CTSF",), (100,)),
    "fast": Mode(("HSV", "Lab"), ("CTSF", "TSF"), (50, 100)),
    "quality": Mode(("HSV", "Lab", "rgI", "H", "I"), ("CTSF", "TSF", "F", "S"), (50, 100, 150, 300)),
}


@dataclass(frozen=True)
class Hierarchy:
    """One way from crumbs to the whole image. The R regions of the segmentation have the numbers 0 to R - 1, that of
    merge i has R + i; the last one, 2 R - 2, is the whole image.

    labels (H, W), int64: the regions of the segmentation. merges (R - 1, 2), int64: which two regions became one.
    similarities (R - 1,), float64: how similar they were. boxes (2 R - 1, 4), float32, and sizes (2 R - 1,), int64, in
    pixels: of all regions.
    """

    space: str
    k: float
    similarity: str
    labels: np.ndarray
    merges: np.ndarray
    similarities: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray

    def labels_after(self, merges: int) -> np.ndarray:
        """(H, W), int64: the number of the region that each pixel belongs to after so many merges, 0 to R - 1."""
        count = int(self.labels.max()) + 1
        part_of = np.arange(count + merges)
        for merge, pair in enumerate(self.merges[:merges]):
            part_of[pair] = count + merge
        for region in reversed(range(count + merges)):  # what a region is part of has been made later, and is known
            part_of[region] = part_of[part_of[region]]
        return part_of[self.labels]


def selective_search(
    image: np.ndarray, mode: str | Mode = "fast", seed: int = 0, limit: int | None = None
) -> np.ndarray:
    """image (H, W, 3), uint8 RGB -> boxes (P, 4), float32, the most promising first, no two the same.

    Boxes are x1 y1 x2 y2 in continuous coordinates: one around the pixel (row 0, column 0) alone is 0 0 1 1.
    mode: "single", "fast", "quality", or a Mode of one's own. seed: of the ranking. limit: the most boxes to return.
    """
    return rank(list(build_hierarchies(image, mode)), seed)[:limit]


def build_hierarchies(image: np.ndarray, mode: str | Mode = "fast") -> Iterator[Hierarchy]:
    """The hierarchies of an image (H, W, 3), uint8: by colour space, then k, then similarity, in the mode's order."""
    mode = as_mode(mode)
    strategies = np.array([[letter in letters for letter in LETTERS] for letters in mode.similarities])
    for space in mode.spaces:
        channels = to_color_space(image, space)
        for k in mode.ks:
            labels = mk.felzenszwalb(channels, k, SIGMA, min_size=round(k))  # in the same colour space: section 5.1
            boxes, sizes = mk.region_boxes(labels)
            groupings = mk.group_regions(
                boxes,
                sizes,
                mk.region_adjacency(labels),
                mk.color_histograms(channels, labels),
                mk.texture_histograms(channels, labels),
                strategies,
            )
            for letters, *grouping in zip(mode.similarities, *groupings, strict=True):
                yield Hierarchy(space, k, letters, labels, *grouping)


def rank(hierarchies: Sequence[Hierarchy], seed: int = 0) -> np.ndarray:
    """The boxes of all hierarchies (P, 4), in an order that begins with those likely to be objects (section 4).

    Region i, counted from the top (1 is the whole image), gets i times a random number from 0 to 1, and the smallest
    come first: large regions are likely to come early, and no hierarchy goes wholly before another. Of equal boxes the
    first stays: a box that several hierarchies found has had several chances. Were duplicates dropped before ranking,
    it would have one.
    """
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([hierarchy.boxes for hierarchy in hierarchies])
    values = np.concatenate([_positions(hierarchy) * rng.random(len(hierarchy.boxes)) for hierarchy in hierarchies])
    ranked = boxes[np.argsort(values, kind="stable")]
    _, first = np.unique(ranked, axis=0, return_index=True)
    return ranked[np.sort(first)]


def _positions(hierarchy: Hierarchy) -> np.ndarray:
    """Of every region, counted from the top."""
    return np.arange(len(hierarchy.boxes), 0, -1)


def as_mode(mode: str | Mode) -> Mode:
    if isinstance(mode, Mode):
        return mode
    if mode not in MODES:
        raise ValueError(f"selective_search: expected a mode of {', '.join(MODES)}, or a Mode, got {mode!r}")
    return MODES[mode]
