"""Regions of an image projected into its feature maps, and each made a grid of one size (Girshick 2015, section 2.1).

With a feature pyramid (Lin et al. 2017, section 4.2) a region is read from the level whose cells suit its size.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidet_kernels.rois import as_rois

from .. import functional as F

# Lin et al. 2017, equation 1: a region of 224 x 224 pixels, the size of ImageNet's pictures, is read from level 4,
# whose cells are 16 pixels. A larger size takes finer maps: more cells a region, each having seen less around it.
CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4
ROUNDING = 1e-6  # so that a box of exactly 112 pixels is not put a level down by the logarithm's last bit (torchvision)


class RoIPooling:
    """maps, boxes -> (R, C, output_size, output_size), the regions of all images one after the other.

    method          "align": means of samples, nothing rounded (RoIAlign); "pool": the maximum of each bin, corners
                    rounded to cells (RoIPool, Fast R-CNN's)
    sampling_ratio  RoIAlign's samples a bin and direction; 0 for about one a cell
    aligned         RoIAlign in continuous coordinates; False lies half a cell off, as in torchvision's detectors, whose
                    weights have learned it, and any others learn it as well
    levels          how many of the maps are read, finest first; RPNs may look at more
    """

    def __init__(
        self,
        output_size: int = 7,
        method: str = "align",
        sampling_ratio: int = 2,
        aligned: bool = False,
        levels: int | None = None,
    ) -> None:
        if method not in ("align", "pool"):
            raise ValueError(f"RoIPooling: expected method 'align' or 'pool', got {method!r}")
        self.output_size, self.method, self.levels = output_size, method, levels
        self.sampling = {"sampling_ratio": sampling_ratio, "aligned": aligned} if method == "align" else {}

    def __call__(self, maps: Sequence[Any], boxes: Sequence[np.ndarray], strides: Sequence[tuple[int, int]]) -> Any:
        """maps: (N, C, H_l, W_l) of each level. boxes: (R_i, 4) of each image, in pixels of the batch. strides: pixels
        from one cell of each level to the next, as ImageBatch.strides tells them."""
        maps, scales = maps[: self.levels], [1 / stride for stride, _ in strides[: self.levels]]
        boxes = [np.asarray(of_image, np.float32) for of_image in boxes]
        rois = as_rois("RoIPooling", boxes, len(boxes), np.empty(0, np.float32))  # (R, 5), the image in front
        if len(maps) == 1:
            return self.read(maps[0], rois, scales[0])
        levels = pyramid_levels(rois[:, 1:], scales)
        read = [self.read(level, rois[levels == number], scales[number]) for number, level in enumerate(maps)]
        # Level after level; back into the order of the boxes.
        return F.concatenate(read, 0)[np.argsort(np.argsort(levels, kind="stable"), kind="stable")]

    def read(self, level: Any, rois: np.ndarray, scale: float) -> Any:
        pool = F.roi_align if self.method == "align" else F.roi_pool
        size = (self.output_size, self.output_size)
        return pool(level, rois.astype(level.dtype, copy=False), size, scale, **self.sampling)


def pyramid_levels(boxes: np.ndarray, scales: Sequence[float]) -> np.ndarray:
    """Which of the levels with these scales, finest first, each box (R, 4) is read from: (R,) from 0 (Lin et al. 2017,
    equation 1)."""
    finest, coarsest = (-round(math.log2(scale)) for scale in (scales[0], scales[-1]))
    sides = np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-12))
    level = np.floor(CANONICAL_LEVEL + np.log2(sides / CANONICAL_SIZE) + ROUNDING)
    return (np.clip(level, finest, coarsest) - finest).astype(np.int64)
