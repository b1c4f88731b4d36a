"""The grouping of Selective Search: regions of an image become one, the two most similar neighbours first, until one is
left (Uijlings et al., IJCV 2013, algorithm 1 and section 3.2).

**Similarity** of two neighbours a and b, of |a| and |b| pixels, in an image of |im|:

    colour   sum over the bins of min(c_a / sum(c_a), c_b / sum(c_b)),   c = the region's row of `colors`
    texture  the same of the rows of `textures`
    size     1 - (|a| + |b|) / |im|                      small regions become one early
    fill     1 - (|box around both| - |a| - |b|) / |im|  one fills the gaps of the other

A strategy says which of the four are added up. |im| is the sum of all sizes: the regions cover the image.

**Grouping.** The most similar pair of neighbours becomes a region. Its histograms are the averages of theirs, weighted
by size: as counts, their sums, so nothing is rounded however many regions come together. Its neighbours are all that
were neighbours of either. This goes on until no neighbours are left.

Rules that make all versions give the same hierarchy:
- Regions that were given have the numbers 0 to R - 1; the one that merge i makes has R + i.
- Pairs are numbered too: those given in their order, then those of each new region by the number of the neighbour. Of
  equally similar pairs that with the lowest number comes first. Equal they often are: many neighbours have no bin in
  common.
- The sum over the bins is taken in whole numbers, of min(c_a |b|, c_b |a|), and divided once by |a| |b| and the
  measurements a pixel; then colour + texture + size + fill in this order, in float64.

TypeError: not arrays, other dtypes. ValueError: other shapes, a number of a region that is not there, no pixel, counts
that do not fit the sizes. No input is changed.

There is no CUDA version: each merge depends on the one before.

Cost: a merge takes as many similarities as the new region has neighbours, about ten, each of one visit to both
histograms; the most similar pair comes from a heap.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.arguments import check_array, check_boxes, check_shape
from minidet_kernels.versions import choose

__all__ = ["group_regions"]

MOST_PIXELS = 2**29  # as in segmentation; |a| |b| times the measurements a pixel must stay below 2^63
MOST_MEASUREMENTS = 64  # a pixel; texture has 8 a channel


def group_regions(
    boxes: np.ndarray,
    sizes: np.ndarray,
    pairs: np.ndarray,
    colors: np.ndarray,
    textures: np.ndarray,
    strategies: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Groups R regions in S ways: (merges, similarities, boxes, sizes).

    boxes (R, 4), sizes (R,), pairs (E, 2), colors (R, K) and textures (R, L) are what `region_boxes`,
    `region_adjacency`, `color_histograms` and `texture_histograms` return: boxes float32 or float64, x1 y1 x2 y2, the
    others int64; sizes from 1 on; pairs a < b sorted by a, then b; histograms as counts, the sum of each row the same
    multiple of the region's size, no count above it. strategies (S, 4), bool: does colour, texture, size, fill count?

    Of every strategy, with M = R - 1 merges (fewer where regions are not connected, as many in every strategy):
    merges (S, M, 2), int64: the numbers a < b of the regions that became R + i; similarities (S, M), float64: of a and
    b; boxes (S, R + M, 4), the given dtype, and sizes (S, R + M), int64: of the given regions, then the new ones.
    """
    check_boxes("group_regions", boxes=boxes)
    count = len(boxes)
    check_shape("group_regions", "sizes", sizes, "R", (count,))
    check_shape("group_regions", "pairs", pairs, "E 2", (None, 2))
    check_shape("group_regions", "colors", colors, "R K", (count, None))
    check_shape("group_regions", "textures", textures, "R L", (count, None))
    check_shape("group_regions", "strategies", strategies, "S 4", (None, 4))
    for name, array in {"sizes": sizes, "pairs": pairs, "colors": colors, "textures": textures}.items():
        _check_dtype(name, array, np.int64)
    _check_dtype("strategies", strategies, np.bool_)
    version = choose(__name__, boxes, sizes, pairs, colors, textures, strategies)
    _check_sizes(sizes)
    _check_pairs(pairs, count)
    _check_counts("colors", colors, sizes)
    _check_counts("textures", textures, sizes)
    return version.group_regions(boxes, sizes, pairs, colors, textures, strategies)


def _check_dtype(name: str, array: np.ndarray, dtype: type) -> None:
    check_array("group_regions", name, array)
    if array.dtype != dtype:
        raise TypeError(f"group_regions: expected {name} {np.dtype(dtype)}, got {array.dtype}; convert with .astype")


def _check_sizes(sizes: np.ndarray) -> None:
    if not len(sizes) or sizes.min() < 1:
        got = f"{sizes.min()} in row {sizes.argmin()}" if len(sizes) else "no region"
        raise ValueError(
            f"group_regions: expected at least one region, each of at least one pixel, got {got}; number the regions "
            "without gaps, as felzenszwalb does"
        )
    if sizes.max() > MOST_PIXELS or sizes.sum() > MOST_PIXELS:
        raise ValueError(f"group_regions: expected sizes of at most {MOST_PIXELS} pixels together, got more")


def _check_pairs(pairs: np.ndarray, count: int) -> None:
    if not len(pairs):
        return
    keys = pairs[:, 0] * count + pairs[:, 1]
    inside = pairs.min() >= 0 and pairs.max() < count
    if not inside or (pairs[:, 0] >= pairs[:, 1]).any() or (keys[1:] <= keys[:-1]).any():
        raise ValueError(
            f"group_regions: expected pairs a < b of numbers from 0 to {count - 1}, sorted by a, then b, each once, "
            f"got others (numbers from {pairs.min()} to {pairs.max()}); region_adjacency gives them so"
        )


def _check_counts(name: str, counts: np.ndarray, sizes: np.ndarray) -> None:
    sums = counts.sum(axis=1)
    measurements = int(sums[0]) // int(sizes[0])
    if not 1 <= measurements <= MOST_MEASUREMENTS or (sums != measurements * sizes).any():
        raise ValueError(
            f"group_regions: expected {name} whose rows have the sums 1 to {MOST_MEASUREMENTS} times the size, the "
            f"same multiple in all rows, got {sums[0]} for {sizes[0]} pixels in row 0, {sums[-1]} for {sizes[-1]} in "
            "the last; histograms are counts, not divided by anything"
        )
    if counts.min() < 0 or (counts > sizes[:, None]).any():
        raise ValueError(
            f"group_regions: expected {name} from 0 to the region's size (a pixel counts once in a bin), got "
            f"{counts.min()} to {counts.max()}"
        )
