"""Regions of an image: the graph-based segmentation of Felzenszwalb and Huttenlocher, and what Selective Search asks of
its regions.

**Segmentation** (Felzenszwalb and Huttenlocher, IJCV 2004). The image is smoothed by a Gaussian of `sigma` pixels. An
edge leads from every pixel to each of its eight neighbours; its weight is the distance of their colours,

    w(p, q) = sqrt(sum over the channels of (smooth[p] - smooth[q])^2)

At first each pixel is a region. The edges are visited by ascending weight, and the two regions A, B at an edge's ends,
if they are not the same, become one where the edge is not heavier than what holds either of them together:

    w <= min(Int(A) + k / |A|, Int(B) + k / |B|)               k = scale / 255,  |A| = number of A's pixels

Int(A), the largest weight in A's minimum spanning tree, is the weight of the edge that joined A last (0 for a pixel).
Then the edges are visited once more in the same order, and two regions become one if either has less than `min_size`
pixels. The paper's authors count intensities from 0 to 255, and so does `scale`, here as in scikit-image; images are in
[0, 1], hence k. Selective Search takes scale 50 to 300, sigma 0.8 and min_size = scale.

Rules that make all versions give the same regions:
- The Gaussian: exp(-i^2 / (2 sigma^2)) at i = -r..r, r = ceil(4 sigma), divided by its sum; beyond the border lies the
  border's pixel. Along rows, then along columns; the taps in the order 0, 1, ..., r, that of +-i once for both.
- Edges of the same weight: by their first pixel in row-major order; of one pixel to the right, down, down and right, up
  and right, as the authors' program makes them.
- Everything in the image's dtype, each operation rounded by itself.

scikit-image differs in three places: it wants w < min(...), mirrors the image at the border, and truncates the Gaussian
at int(4 sigma + 1/2). OpenCV has the four straight neighbours only.

**Region features** (Uijlings et al., IJCV 2013, section 3.2). Regions have the numbers 0 to R - 1 in `labels`, where
R = labels.max() + 1; a number without pixels has size 0 and zeros for everything. Histograms are counts, whole numbers:
that of two regions together is the sum of theirs, exactly, and nobody has to look at the pixels again. Divided by its
own sum a row is the paper's histogram, of L1 norm 1, and the sum of two rows is the average of theirs weighted by size
(`grouping` does so). All histograms have the same fixed range; without it they could be neither compared nor added:
- colour: [0, 1] of each channel in equal bins, 1 in the last one. Other colour spaces must be brought to [0, 1].
- texture: derivatives of the image smoothed with sigma 1, in eight directions 45 degrees apart, negative ones taken as
  0. Their range is [0, 1 / sqrt(2 pi)]: that is the derivative at a sharp step from 0 to 1, and none is larger. (The
  authors' program has sigma 0.8 and a maximum of 0.43.)

image (C, H, W), C = 1 to 4, float32 or float64, in [0, 1]; labels (H, W), int32 or int64. Any memory; no input is
changed. TypeError: not arrays, other dtypes. ValueError: other shapes, no pixel at all, values outside the range, NaN.

There is no CUDA version: whether two regions become one depends on all that were joined before, one edge after the
other. Move a CuPy image to the CPU with cupy.asnumpy; there Selective Search needs its regions anyway.

Cost of `felzenszwalb`: about 4 H W edges, of which those are sorted and visited that lead from one region to another;
up to 200 bytes a pixel in float32. The others: one visit a pixel.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from minidet_kernels.arguments import check_count, check_floats, check_number, check_shape
from minidet_kernels.segmentation.gaussian import derivative_weights, smoothing_weights
from minidet_kernels.versions import choose

__all__ = ["color_histograms", "felzenszwalb", "region_adjacency", "region_boxes", "texture_histograms"]

TEXTURE_SIGMA = 1.0  # Uijlings et al., section 3.2; larger: coarser textures
TEXTURE_RANGE = 1 / np.sqrt(2 * np.pi) / TEXTURE_SIGMA  # the largest derivative, see above
INTENSITIES = 255  # what `scale` takes for white, as the paper's program does
MOST_PIXELS = 2**29  # four edges a pixel are counted in 32 bits


def felzenszwalb(image: np.ndarray, scale: float, sigma: float = 0.8, min_size: int = 20) -> np.ndarray:
    """image (C, H, W) -> labels (H, W), int64: regions 0, 1, ... in the order of their first pixels, row by row.

    scale: larger means larger regions; finite, >= 0. sigma: of the smoothing, in pixels, finite, >= 0; 0 smooths
    nothing; 0.8 is the paper's. min_size: no region is smaller (unless the image is), >= 1; 20 is what the authors'
    program suggests. Raises ValueError for other numbers, and as the module says.
    """
    check_number("felzenszwalb", scale=scale, sigma=sigma)
    check_count("felzenszwalb", min_size=min_size)
    version = _checked("felzenszwalb", image)
    dtype = image.dtype
    return version.felzenszwalb(image, dtype.type(scale / INTENSITIES), smoothing_weights(sigma, dtype), int(min_size))


def region_adjacency(labels: np.ndarray) -> np.ndarray:
    """labels (H, W) -> pairs (E, 2), int64: the regions a < b that touch, each pair once, sorted by a, then b.

    Two regions touch if a pixel of one is among the eight neighbours of a pixel of the other, as in the segmentation.
    """
    return _checked("region_adjacency", labels=labels).region_adjacency(labels)


def region_boxes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """labels (H, W) -> boxes (R, 4), float32, and the number of pixels of each region (R,), int64.

    Boxes are x1 y1 x2 y2 in continuous coordinates: pixel (row, column) covers column to column + 1, row to row + 1.
    """
    return _checked("region_boxes", labels=labels).region_boxes(labels)


def color_histograms(image: np.ndarray, labels: np.ndarray, bins: int = 25) -> np.ndarray:
    """image (C, H, W), labels (H, W) -> (R, C * bins), int64: of each region one channel after the other.

    A value v counts in bin floor(v * bins), 1 in the last. The sum of a row is C * the region's size.
    bins: 25 is the paper's.
    """
    check_count("color_histograms", bins=bins)
    version = _checked("color_histograms", image, labels)
    return version.color_histograms(image, labels, int(bins))


def texture_histograms(image: np.ndarray, labels: np.ndarray, bins: int = 10) -> np.ndarray:
    """image (C, H, W), labels (H, W) -> (R, C * 8 * bins), int64: by channel, direction, then bin.

    Direction o is at o * 45 degrees, from right (0) to down (2). The derivative there, v = cos dx + sin dy, or 0 where
    that is negative, counts in bin floor(v * bins * sqrt(2 pi)), at most in the last. dx and dy are sums over the taps
    of the Gaussian as above, along their own axis of tap * i / sigma^2 * (the pixel at +i minus that at -i). The
    sum of a row is 8 * C * the region's size. bins: 10 is the paper's.
    """
    check_count("texture_histograms", bins=bins)
    version = _checked("texture_histograms", image, labels)
    smoothing, slope = smoothing_weights(TEXTURE_SIGMA, image.dtype), derivative_weights(TEXTURE_SIGMA, image.dtype)
    bins_per_unit = image.dtype.type(bins / TEXTURE_RANGE)
    return version.texture_histograms(image, labels, int(bins), smoothing, slope, bins_per_unit)


def _checked(operation: str, image: np.ndarray | None = None, labels: np.ndarray | None = None) -> ModuleType:
    """The version that runs on these arrays, once they are found to be as the module says."""
    given = [array for array in (image, labels) if array is not None]
    if image is not None:
        _check_image(operation, image)
    if labels is not None:
        check_shape(operation, "labels", labels, "H W", (None, None) if image is None else image.shape[1:])
        if labels.dtype not in (np.int32, np.int64):
            raise TypeError(f"{operation}: expected labels int32 or int64, got {labels.dtype}; convert with .astype")
    pixels = given[-1].shape[-2] * given[-1].shape[-1]
    if not 1 <= pixels <= MOST_PIXELS:
        raise ValueError(f"{operation}: expected 1 to {MOST_PIXELS} pixels, got {given[-1].shape}")
    version = choose(__name__, *given)  # before any look at values: on a GPU they could not be looked at
    if image is not None and not (image.min() >= 0 and image.max() <= 1):  # NaN is not >= anything
        raise ValueError(
            f"{operation}: expected an image of numbers in [0, 1], got {image.min()} to {image.max()}; divide one of 0 "
            "to 255 by 255, bring other colour spaces to [0, 1], look for the source of NaN"
        )
    if labels is not None and not (labels.min() >= 0 and labels.max() < pixels):
        raise ValueError(
            f"{operation}: expected labels from 0 to at most {pixels - 1} (a region has a pixel), "
            f"got {labels.min()} to {labels.max()}"
        )
    return version


def _check_image(operation: str, image: np.ndarray) -> None:
    check_shape(operation, "image", image, "C H W", (None, None, None))
    check_floats(operation, image=image)
    if not 1 <= image.shape[0] <= 4:
        hint = "; looks channels-last, use .transpose(2, 0, 1)" if 1 <= image.shape[2] <= 4 else ""
        raise ValueError(f"{operation}: expected image (C, H, W) with 1 to 4 channels, got {image.shape}{hint}")
