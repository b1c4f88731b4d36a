"""R-CNN's warped regions: each box of an image, with some of what is around it, stretched to one square size.

A box with the centre (x, y) and the sides w, h is seen through a window around it that is larger by the factor
size / (size - 2 * context), so that in the warped square the box ends `context` pixels from each side, whatever its
own proportions were:

    left = round(x - w/2 * factor), right = round(x + w/2 * factor), at least one pixel;  rows likewise

What of the window lies inside the image, from l to r, is resized bilinearly, without antialiasing, to

    round((r - l) * size / (right - left)) columns,  from column round((l - left) * size / (right - left)) on

so that nothing of the image's surroundings is mixed into its border. The rest of the square gets the colour `fill`;
without one, the mean of what the square shows of the image, so that it becomes 0 where a network centres each picture,
as it does with the mean colour of all images where one takes that away. A box that misses the image is nothing but
fill, without one 0.

Source: Girshick et al. 2014, "R-CNN", appendix A, "tightest square with context / warp", and the authors' code: a
square of 227 with context 16, windows of whole pixels, round(v) = floor(v + 1/2). Boxes are continuous here, and a
window ends where its last pixel does; the code's boxes name first and last pixels, and its windows one pixel more.

image (C, H, W), float32 or float64, any memory, also (H, W, C) transposed; boxes (P, 4), of another dtype if you like,
P may be 0; no input is changed. The cpu version returns channels-last memory under the public shape. A NaN reaches the
pixels that look at it, also with weight 0, and with them the mean. There is no CUDA version: regions are cut where the
images come from. Cost: 4 multiplications a number of the result.

TypeError: other dtypes. ValueError: other shapes; boxes that `box_iou` refuses, or beyond 2^30; a context that leaves
nothing of the square.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidet_kernels.arguments import as_pair, check_boxes, check_count, check_floats, check_shape
from minidet_kernels.region_warp.geometry import placements
from minidet_kernels.versions import choose

__all__ = ["region_warp"]

FARTHEST = 2**30  # coordinates: windows of larger boxes would not be integers of 64 bits for every context


def region_warp(
    image: np.ndarray, boxes: np.ndarray, size: int, context: int = 0, fill: Sequence[float] | None = None
) -> np.ndarray:
    """image (C, H, W), boxes (P, 4) x1 y1 x2 y2 -> (P, C, size, size), the image's dtype.

    size, context: in pixels of the square; 227 and 16 are the paper's. fill: a number for each channel, or None.
    """
    check_shape("region_warp", "image", image, "C H W", (None, None, None))
    check_floats("region_warp", image=image)
    if min(image.shape[1:]) < 1:
        raise ValueError(f"region_warp: expected image to have at least one pixel, got {image.shape}")
    check_boxes("region_warp", boxes=boxes)
    if np.abs(boxes).max(initial=0) > FARTHEST:
        raise ValueError(f"region_warp: expected coordinates up to 2^30, got {np.abs(boxes).max()}; clip boxes first")
    check_count("region_warp", size=size)
    context, _ = as_pair("region_warp", "context", context, minimum=0)
    if 2 * context >= size:
        raise ValueError(f"region_warp: expected context below size / 2 = {size / 2:g}, got {context}")
    if fill is not None:
        fill = np.asarray(fill, image.dtype)
        check_shape("region_warp", "fill", fill, "C", (len(image),))
    factor = size / (size - 2 * context)
    x1, y1, x2, y2 = boxes.astype(np.float64).T
    rows = placements(y1, y2, factor, image.shape[1], size)
    columns = placements(x1, x2, factor, image.shape[2], size)
    return choose(__name__, image, boxes).region_warp(image, rows, columns, int(size), fill)
