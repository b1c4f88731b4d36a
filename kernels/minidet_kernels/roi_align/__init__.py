"""RoIAlign: of every box on a map, a grid of bins of fixed size, each the mean of samples between the pixels.

    y[r, c, i, j] = 1 / (S*T)  *  sum over the S x T samples (v, u) of bin (i, j)  of  x[n, c] at (v, u)

where box r is on image n, and x at a place between pixels is the mean of the four around it (bilinear). Nothing is
rounded to whole pixels: RoIPool does that, and masks and keypoints suffer from it. Source: He et al. 2017,
"Mask R-CNN", section 3; the rules are those of torchvision.ops.roi_align:

- A box (x1, y1, x2, y2) is multiplied by spatial_scale. Pixel centres have integer coordinates. aligned=True takes 1/2
  from all coordinates, which is right where x1 = 0 means the left edge of pixel 0. The older aligned=False does not,
  and makes boxes smaller than 1 pixel 1 pixel large.
- A box has Ho x Wo bins of equal size, a bin S x T samples of equal distances: sampling_ratio each way, or if that is
  not positive as many as the bin has pixels, rounded up. (aligned=True lets a box have no size; it then has no samples,
  and its result is 0.)
- A sample outside [-1, H] or [-1, W] counts as 0. From -1 to 0 it reads the first pixel; from H - 1 to H the last.

The result is linear in x, and `roi_align_adjoint` is the adjoint, the backward: each gradient goes back to the pixels
that were read, with the same weights. Boxes have no gradient.

A pixel with weight 0 is not looked at, even if it is NaN. Box coordinates are computed in the dtype of the boxes, in
one place for reference and cpu (geometry.py) and in the same order on the GPU, so that versions cannot disagree on what
a sample reads.

All functions: float32 or float64, any memory layout, images and boxes may be none, no input is changed; the CPU
version returns channels-last memory under the public shape. The same bits on every run. Cost: 4 * R*C*Ho*Wo * S*T
multiplications; the CPU version has fewer where samples of a bin share pixels. Memory beside the result: a copy of x if
it is not channels-last, and 100 bytes for each of the R*(Ho*S + Wo*T) places along the axes, where an S chosen by the
size of the boxes is at most 2*H + 8, however large they are (and T at most 2*W + 8).

The CUDA version returns (N, C, H, W) memory, and needs none beside the result but copies of inputs that are not
contiguous. It would have to wait for the GPU to look at values, and raises nothing for them: a box that would be
refused, for its coordinates or its image, has no samples; its result is 0 and its gradient goes nowhere. The adjoint
adds in whatever order the threads come, so that the last bits can differ from run to run.
"""

from __future__ import annotations

import numbers

import numpy as np

from minidet_kernels.arguments import Pair, as_size, check_shape
from minidet_kernels.rois import Boxes, as_rois, box_arrays, check_coordinates, check_map, map_shape
from minidet_kernels.versions import choose

__all__ = ["roi_align", "roi_align_adjoint"]

# Papers use 1 to 4 samples a side. The places of all samples along an axis are listed: a slip of the pen must not ask
# for all memory.
LARGEST_RATIO = 1024


def roi_align(
    x: np.ndarray,
    boxes: Boxes,
    output_size: int | Pair,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> np.ndarray:
    """x (N, C, H, W) and R boxes -> (R, C, Ho, Wo), output_size = (Ho, Wo).

    boxes: (R, 5) with columns image, x1, y1, x2, y2; or a list with an array (R_i, 4) for each image. Raises ValueError
    for other shapes, for boxes with x2 < x1 or y2 < y1, with NaN or more than 2**20 pixels from the map's origin, for
    images that do not exist, and for more than 1024 samples a side; TypeError for other or mixed dtypes.
    """
    version = choose(__name__, x, *box_arrays(boxes))
    output_size = as_size("roi_align", "output_size", output_size)
    check_map("roi_align", "x", x)
    rois = as_rois("roi_align", boxes, len(x), x)
    _check_options("roi_align", rois, spatial_scale, sampling_ratio)
    return version.roi_align(x, rois, output_size, spatial_scale, int(sampling_ratio), bool(aligned))


def roi_align_adjoint(
    grad: np.ndarray,
    boxes: Boxes,
    input_size: tuple[int, int, int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> np.ndarray:
    """grad (R, C, Ho, Wo), input_size = (N, C, H, W), the shape of x -> (N, C, H, W).

    Boxes that overlap add up. Raises as `roi_align`.
    """
    version = choose(__name__, grad, *box_arrays(boxes))
    n, c, h, w = map_shape("roi_align_adjoint", input_size)
    rois = as_rois("roi_align_adjoint", boxes, n, grad)
    check_shape("roi_align_adjoint", "grad", grad, "R C Ho Wo", (len(rois), c, None, None))
    check_map("roi_align_adjoint", "grad", grad)
    _check_options("roi_align_adjoint", rois, spatial_scale, sampling_ratio)
    return version.roi_align_adjoint(grad, rois, (n, c, h, w), spatial_scale, int(sampling_ratio), bool(aligned))


def _check_options(operation: str, rois: np.ndarray, spatial_scale: float, sampling_ratio: int) -> None:
    if not isinstance(sampling_ratio, numbers.Integral):
        raise TypeError(
            f"{operation}: expected sampling_ratio to be an integer, samples a side of a bin (0 or less: as many as "
            f"the bin has pixels), got {sampling_ratio!r}"
        )
    if sampling_ratio > LARGEST_RATIO:
        raise ValueError(f"{operation}: expected sampling_ratio of at most {LARGEST_RATIO}, got {sampling_ratio}")
    check_coordinates(operation, rois, spatial_scale)
