"""RoIPool: of every box on a map, a fixed number of bins, each the maximum of its pixels; with gather and scatter.

    values[r, c, i, j] = max of x[n, c] over the pixels of bin (i, j) of box r on image n
    argmax[r, c, i, j] = row * W + column of that pixel

so that boxes of any size give a fully connected layer inputs of one size. Sources: Girshick 2015, "Fast R-CNN", section
2.1 (He et al. 2014 for pooling of bins); the rules are those of torchvision.ops.roi_pool:

- A box (x1, y1, x2, y2) is multiplied by spatial_scale and rounded to pixels, halves away from 0. Both corners belong
  to it: its size is x2 - x1 + 1, at least 1 pixel.
- Bin i of P begins at floor(i * size / P) and ends before ceil((i + 1) * size / P). So neighbouring bins overlap where
  the size is no multiple of P, and no bin is empty for being small.
- What lies outside the map is cut off. A bin that lies outside altogether has value 0 and argmax -1.
- Ties: the first pixel in row-major order wins. As in this package's `max_pool2d`, a NaN wins over every number, the
  last NaN of a bin over earlier ones, and -inf is a number like others (torchvision overlooks both).

The maximum is not linear, but once argmax is fixed it is: `roi_pool_gather` picks the values at argmax, and
`roi_pool_scatter` is its adjoint, the backward. Gradients of boxes that overlap add up. Boxes have no gradient.

All functions: float32 or float64, any memory layout, images and boxes may be none, no input is changed; the CPU version
returns channels-last memory under the public shape. The same bits on every run; those of scatter depend on the number
of threads. Cost: R*C times the pixels of all bins, about (height + Ho) * (width + Wo) for a box of height x width
pixels; gather and scatter R*C*Ho*Wo. Memory beside the result: a copy of each input that is not channels-last, 32 bytes
for each of the R*(Ho + Wo) rows and columns of bins, and in scatter at most twice the memory of grad.

The CUDA version returns (N, C, H, W) memory, and needs none beside the result but copies of inputs that are not
contiguous. It would have to wait for the GPU to look at values, and raises nothing for them. A box on an image that
does not exist, and in `roi_pool` one that would be refused for its coordinates, has no pixels: values 0, argmax -1, no
gradient. An argmax outside [-1, H*W) is skipped like -1. The scatter adds in whatever order the threads come, so that
the last bits can differ from run to run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidet_kernels.arguments import Pair, as_size, check_shape
from minidet_kernels.rois import Boxes, as_rois, box_arrays, check_coordinates, check_map, map_shape
from minidet_kernels.versions import choose, is_on_gpu

__all__ = ["roi_pool", "roi_pool_gather", "roi_pool_scatter"]


def roi_pool(
    x: np.ndarray, boxes: Boxes, output_size: int | Pair, spatial_scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """x (N, C, H, W) and R boxes -> values (R, C, Ho, Wo) and argmax (R, C, Ho, Wo), int32 into the flattened H*W.

    boxes: (R, 5) with columns image, x1, y1, x2, y2; or a list with an array (R_i, 4) for each image. Raises ValueError
    for other shapes, for boxes with x2 < x1 or y2 < y1, with NaN or more than 2**20 pixels from the map's origin, and
    for images that do not exist; TypeError for other or mixed dtypes.
    """
    version = choose(__name__, x, *box_arrays(boxes))
    output_size = as_size("roi_pool", "output_size", output_size)
    check_map("roi_pool", "x", x)
    rois = as_rois("roi_pool", boxes, len(x), x)
    check_coordinates("roi_pool", rois, spatial_scale)
    return version.roi_pool(x, rois, output_size, spatial_scale)


def roi_pool_gather(x: np.ndarray, boxes: Boxes, argmax: np.ndarray) -> np.ndarray:
    """x (N, C, H, W), the boxes and the argmax (R, C, Ho, Wo) of `roi_pool` -> the values of x there, (R, C, Ho, Wo).

    0 where argmax is -1. Of the boxes only the image matters. Raises IndexError for an argmax outside [-1, H*W),
    otherwise as `roi_pool`.
    """
    version = choose(__name__, x, argmax, *box_arrays(boxes))
    check_map("roi_pool_gather", "x", x)
    rois = as_rois("roi_pool_gather", boxes, len(x), x)
    check_shape("roi_pool_gather", "argmax", argmax, "R C Ho Wo", (len(rois), x.shape[1], None, None))
    _check_argmax("roi_pool_gather", argmax, x.shape[2:])
    return version.roi_pool_gather(x, rois, argmax)


def roi_pool_scatter(grad: np.ndarray, boxes: Boxes, argmax: np.ndarray, input_size: Sequence[int]) -> np.ndarray:
    """grad, argmax (R, C, Ho, Wo) and input_size = (N, C, H, W), the shape of x -> (N, C, H, W): the adjoint of gather.

    Each grad is added to its pixel; an argmax of -1 is skipped. Raises as `roi_pool_gather`.
    """
    version = choose(__name__, grad, argmax, *box_arrays(boxes))
    shape = map_shape("roi_pool_scatter", input_size)
    rois = as_rois("roi_pool_scatter", boxes, shape[0], grad)
    check_shape("roi_pool_scatter", "grad", grad, "R C Ho Wo", (len(rois), shape[1], None, None))
    check_shape("roi_pool_scatter", "argmax", argmax, "R C Ho Wo", grad.shape)
    _check_argmax("roi_pool_scatter", argmax, shape[2:])
    return version.roi_pool_scatter(grad, rois, argmax, shape)


def _check_argmax(operation: str, argmax: np.ndarray, map_size: Pair) -> None:
    if argmax.dtype != np.int32:
        raise TypeError(f"{operation}: expected argmax int32, as roi_pool returns it, got {argmax.dtype}")
    if is_on_gpu(argmax):
        return
    pixels = map_size[0] * map_size[1]
    if argmax.size and not (argmax.min() >= -1 and argmax.max() < pixels):
        raise IndexError(
            f"{operation}: expected argmax in [-1, {pixels}) for a map of {tuple(map_size)}, "
            f"got {argmax.min()} to {argmax.max()}; is it of another map?"
        )
