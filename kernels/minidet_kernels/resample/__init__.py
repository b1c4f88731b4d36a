"""Resampling: resizing and affine warping, each with its exact adjoint, and the Gram matrix of a warp.

A bilinear result is a mean of the four input pixels around a position (u, v), u along the columns and v along the rows:

    y[n, c, i, j] = sum over the four pixels (h, w) around it of  (1 - |v - h|) * (1 - |u - w|) * x[n, c, h, w]

Pixel centres have integer coordinates: x[n, c, 0, 0] is at (0, 0). The operations differ in where they look:

- `resize_bilinear` by a factor an axis: u = (j + 1/2) * W/Wo - 1/2, held inside the image; with align_corners
  u = j * (W-1)/(Wo-1), so that the outermost centres coincide. v likewise. As torch.nn.functional.interpolate with
  mode="bilinear", antialias=False.
- `resize_nearest` takes one pixel and no mean: x[n, c, floor(i * H/Ho), floor(j * W/Wo)]. As torch's mode="nearest".
- `affine_warp` by a matrix M (2, 3) an image: (u, v) = M (j, i, 1). *The matrix maps pixels of the result to where they
  look in the input.* Pixels outside the input count as zeros, so that an image fades out over one pixel. As
  scipy.ndimage with order=1, mode="grid-constant". `rotation_then_translation` makes such matrices from what an
  augmentation does to a picture; `invert_affine` undoes them.

In resizing, `scale_factor` may replace the ratio of the sizes, Wo/W and Ho/H: an image of 5 pixels enlarged 1.5 times
has 7 pixels, but they lie 1/1.5 apart, not 5/7. As in torch it says nothing with align_corners, for an axis that keeps
its size, nor, in `resize_nearest`, for one that doubles.

All are linear in x, and `..._adjoint` is the adjoint, the backward: each gradient goes back to the four pixels, with
the same weights.

One image may be warped by many matrices: x (1, C, H, W) with L matrices gives L results; the adjoint is then asked for
with images=1, and sums over the copies. For that use there is the **Gram matrix** K'K of the warp K. A result looks at
2 x 2 pixels, so K'K joins a pixel with its 3 x 3 neighbours only, however many copies there are; and as it is
symmetric, five numbers a pixel hold it. `affine_warp_gram` computes them, and `gram_product` applies them:

    gram_product(x, affine_warp_gram(M, (H, W), size))  =  affine_warp_adjoint(affine_warp(x, M, size), M, (H, W), 1)

at the cost of 9*H*W multiplications in place of 8*L*Ho*Wo and more.

All functions: float32 or float64, any memory layout, an empty batch gives an empty result, no input is changed.
Positions and weights are computed in float64, the pixel of `resize_nearest` in float32, where torch's rounding is. The
CPU versions return channels-last memory under the public shape, `gram_product` plain (N, C, H, W). A NaN or infinity
reaches the results that look at it, also with weight 0. Cost: 4 multiplications a number of the result.

On the GPU results are plain (N, C, H, W), and the adjoints gather: the same bits on every run. The matrices for images
on the GPU may be NumPy's, and better are: they are checked on the host, which has to wait for those that are on the
GPU. Nothing else waits.
"""

from __future__ import annotations

import numbers
from types import ModuleType

import numpy as np

from minidet_kernels.arguments import Pair, as_size, check_floats, check_shape
from minidet_kernels.resample.geometry import (
    ScaleFactor,
    as_scale_factors,
    axis_taps,
    check_matrices,
    invert_affine,
    nearest_pixels,
    rotation_then_translation,
)
from minidet_kernels.versions import choose

__all__ = [
    "affine_warp",
    "affine_warp_adjoint",
    "affine_warp_gram",
    "as_scale_factors",
    "gram_product",
    "invert_affine",
    "resize_bilinear",
    "resize_bilinear_adjoint",
    "resize_nearest",
    "resize_nearest_adjoint",
    "rotation_then_translation",
]


def resize_bilinear(
    x: np.ndarray, size: int | Pair, align_corners: bool = False, scale_factor: ScaleFactor = None
) -> np.ndarray:
    """x (N, C, H, W), size = (Ho, Wo) -> (N, C, Ho, Wo).

    Raises ValueError for other shapes, sizes below 1, and scale factors that are not positive and finite; TypeError for
    other dtypes.
    """
    size = as_size("resize_bilinear", "size", size)
    factors = as_scale_factors("resize_bilinear", scale_factor)
    _check_image("resize_bilinear", "x", x)
    rows, columns = map(axis_taps, x.shape[2:], size, (align_corners, align_corners), factors)
    return choose(__name__, x).resize_bilinear(x, rows, columns)


def resize_bilinear_adjoint(
    grad: np.ndarray, input_size: int | Pair, align_corners: bool = False, scale_factor: ScaleFactor = None
) -> np.ndarray:
    """grad (N, C, Ho, Wo), input_size = (H, W) -> (N, C, H, W). Raises as `resize_bilinear`."""
    size = as_size("resize_bilinear_adjoint", "input_size", input_size)
    factors = as_scale_factors("resize_bilinear_adjoint", scale_factor)
    _check_image("resize_bilinear_adjoint", "grad", grad)
    rows, columns = map(axis_taps, size, grad.shape[2:], (align_corners, align_corners), factors)
    return choose(__name__, grad).resize_bilinear_adjoint(grad, rows, columns, size)


def resize_nearest(x: np.ndarray, size: int | Pair, scale_factor: ScaleFactor = None) -> np.ndarray:
    """x (N, C, H, W), size = (Ho, Wo) -> (N, C, Ho, Wo). Raises as `resize_bilinear`."""
    size = as_size("resize_nearest", "size", size)
    factors = as_scale_factors("resize_nearest", scale_factor)
    _check_image("resize_nearest", "x", x)
    rows, columns = map(nearest_pixels, x.shape[2:], size, factors)
    return choose(__name__, x).resize_nearest(x, rows, columns)


def resize_nearest_adjoint(grad: np.ndarray, input_size: int | Pair, scale_factor: ScaleFactor = None) -> np.ndarray:
    """grad (N, C, Ho, Wo), input_size = (H, W) -> (N, C, H, W): each pixel gets the sum of what was copied from it.

    Raises as `resize_bilinear`.
    """
    size = as_size("resize_nearest_adjoint", "input_size", input_size)
    factors = as_scale_factors("resize_nearest_adjoint", scale_factor)
    _check_image("resize_nearest_adjoint", "grad", grad)
    rows, columns = map(nearest_pixels, size, grad.shape[2:], factors)
    return choose(__name__, grad).resize_nearest_adjoint(grad, rows, columns, size)


def affine_warp(x: np.ndarray, matrices: np.ndarray, output_size: int | Pair | None = None) -> np.ndarray:
    """x (N, C, H, W) or (1, C, H, W), matrices (N, 2, 3) -> (N, C, Ho, Wo); output_size None means (H, W).

    Raises ValueError for other shapes, sizes below 1, and matrices that are not finite or not invertible; TypeError for
    other dtypes. The matrices may be float32 or float64, whatever x is, and NumPy's where x is CuPy's.
    """
    _check_image("affine_warp", "x", x)
    size = x.shape[2:] if output_size is None else as_size("affine_warp", "output_size", output_size)
    entries = check_matrices("affine_warp", matrices)
    if len(x) not in (1, len(matrices)):
        raise ValueError(
            f"affine_warp: expected as many matrices as images, or one image, got {len(x)} images and "
            f"{len(matrices)} matrices"
        )
    return _version(x, matrices).affine_warp(x, entries, size)


def affine_warp_adjoint(
    grad: np.ndarray, matrices: np.ndarray, input_size: int | Pair, images: int | None = None
) -> np.ndarray:
    """grad (N, C, Ho, Wo), matrices (N, 2, 3), input_size = (H, W) -> (images, C, H, W).

    `images` is how many images `affine_warp` was given: N (also by None), or 1, that all matrices were applied to.
    Raises as `affine_warp`.
    """
    operation = "affine_warp_adjoint"
    _check_image(operation, "grad", grad)
    size = as_size(operation, "input_size", input_size)
    entries = check_matrices(operation, matrices)
    check_shape(operation, "matrices", matrices, "N 2 3", (len(grad), 2, 3))
    images = len(grad) if images is None else images
    if not (isinstance(images, numbers.Integral) and images in (1, len(grad))):
        raise ValueError(f"{operation}: expected images to be 1 or N = {len(grad)}, got {images!r}")
    return _version(grad, matrices).affine_warp_adjoint(grad, entries, size, int(images))


def affine_warp_gram(matrices: np.ndarray, input_size: int | Pair, output_size: int | Pair) -> np.ndarray:
    """matrices (L, 2, 3), input_size = (H, W), output_size = (Ho, Wo) -> gram float64 (5, H, W).

    With K the warp of one image by all matrices, gram[e, h, w] is the entry of K'K that joins pixel (h, w) to

        e = 0: itself, 1: (h, w + 1), 2: (h + 1, w - 1), 3: (h + 1, w), 4: (h + 1, w + 1)

    and 0 where that is outside. Raises as `affine_warp`.
    """
    input_size = as_size("affine_warp_gram", "input_size", input_size)
    output_size = as_size("affine_warp_gram", "output_size", output_size)
    entries = check_matrices("affine_warp_gram", matrices)
    return choose(__name__, matrices).affine_warp_gram(entries, input_size, output_size)


def gram_product(x: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """x (N, C, H, W), gram (5, H, W) of the same dtype -> (N, C, H, W): K'K applied to every channel of every image.

        y[p] = gram[0, p] * x[p]  +  sum over e = 1 to 4 of  gram[e, p] * x[p + d] + gram[e, p - d] * x[p - d]

    where p is a pixel (h, w) of one channel, d the step from it to its neighbour e in `affine_warp_gram`; terms outside
    the image are left out. It is its own adjoint, whatever numbers gram holds. Raises as `resize_bilinear`.
    """
    _check_image("gram_product", "x", x)
    check_shape("gram_product", "gram", gram, "5 H W", (5, *x.shape[2:]))
    check_floats("gram_product", x=x, gram=gram)
    return choose(__name__, x, gram).gram_product(x, gram)


def _version(x: np.ndarray, matrices: np.ndarray) -> ModuleType:
    """x decides; matrices may be on the host, where they are wanted anyway."""
    return choose(__name__, x) if isinstance(matrices, np.ndarray) else choose(__name__, x, matrices)


def _check_image(operation: str, name: str, x: np.ndarray) -> None:
    check_shape(operation, name, x, "N C H W", (None, None, None, None))
    check_floats(operation, **{name: x})
    if min(x.shape[2:]) < 1:
        raise ValueError(f"{operation}: expected {name} to have at least one pixel, got {x.shape}")
