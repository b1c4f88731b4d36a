"""Resampling on the GPU: launches the kernels of resample.cu. Results are (N, C, H, W) without gaps.

Where results look is worked out on the host, from a few numbers, and sent over. Sending does not wait for the GPU.
"""

from __future__ import annotations

from pathlib import Path

import cupy
import numpy as np

from minidet_kernels.arguments import Pair
from minidet_kernels.cuda_source import MOST_ELEMENTS, CudaSource

Taps = tuple[np.ndarray, np.ndarray]

SOURCE = CudaSource(Path(__file__).with_name("resample.cu"))

# Above the rounding of the dozen operations between a pixel and the results that look at it: 1e-16 each, of numbers
# that are as large as the largest of them.
ROUNDING = 1e-14


def resize_bilinear(x: cupy.ndarray, rows: Taps, columns: Taps) -> cupy.ndarray:
    x = cupy.ascontiguousarray(x)
    size = rows[0].shape[1], columns[0].shape[1]
    y = cupy.empty((*x.shape[:2], *size), x.dtype)
    taps = (*_sent(rows, x.dtype), *_sent(columns, x.dtype))
    SOURCE.launch_for_each("resize_bilinear", x.dtype, y.size, x, *taps, y, *x.shape[2:], *size)
    return y


def resize_bilinear_adjoint(grad: cupy.ndarray, rows: Taps, columns: Taps, input_size: Pair) -> cupy.ndarray:
    grad = cupy.ascontiguousarray(grad)
    x_grad = cupy.empty((*grad.shape[:2], *input_size), grad.dtype)
    taps = (*_sent(rows, grad.dtype), *_sent(columns, grad.dtype))
    ranges = (*_lookers(rows[0], input_size[0]), *_lookers(columns[0], input_size[1]))
    sizes = (*input_size, *grad.shape[2:])
    SOURCE.launch_for_each("resize_bilinear_adjoint", grad.dtype, x_grad.size, grad, *taps, *ranges, x_grad, *sizes)
    return x_grad


def resize_nearest(x: cupy.ndarray, rows: np.ndarray, columns: np.ndarray) -> cupy.ndarray:
    x = cupy.ascontiguousarray(x)
    y = cupy.empty((*x.shape[:2], len(rows), len(columns)), x.dtype)
    where = cupy.asarray(rows, np.int32), cupy.asarray(columns, np.int32)
    SOURCE.launch_for_each("resize_nearest", x.dtype, y.size, x, *where, y, *x.shape[2:], *y.shape[2:])
    return y


def resize_nearest_adjoint(grad: cupy.ndarray, rows: np.ndarray, columns: np.ndarray, input_size: Pair) -> cupy.ndarray:
    grad = cupy.ascontiguousarray(grad)
    x_grad = cupy.empty((*grad.shape[:2], *input_size), grad.dtype)
    # the pixels ascend: the copies of pixel h follow one another, from first[h] to before first[h + 1]
    first = (
        cupy.asarray(np.searchsorted(pixels, np.arange(size + 1)), np.int32)
        for pixels, size in zip((rows, columns), input_size, strict=True)
    )
    sizes = (*input_size, *grad.shape[2:])
    SOURCE.launch_for_each("resize_nearest_adjoint", grad.dtype, x_grad.size, grad, *first, x_grad, *sizes)
    return x_grad


def affine_warp(x: cupy.ndarray, matrices: np.ndarray, output_size: Pair) -> cupy.ndarray:
    x = cupy.ascontiguousarray(x)
    y = cupy.empty((len(matrices), x.shape[1], *output_size), x.dtype)
    SOURCE.launch_for_each("affine_warp", x.dtype, y.size, x, cupy.asarray(matrices), y, *x.shape, *output_size)
    return y


def affine_warp_adjoint(grad: cupy.ndarray, matrices: np.ndarray, input_size: Pair, images: int) -> cupy.ndarray:
    grad = cupy.ascontiguousarray(grad)
    x_grad = cupy.empty((images, grad.shape[1], *input_size), grad.dtype)
    geometry = cupy.asarray(matrices), cupy.asarray(_searches(matrices, input_size, grad.shape[2:]))
    sizes = (len(matrices), *x_grad.shape, *grad.shape[2:])
    SOURCE.launch_for_each("affine_warp_adjoint", grad.dtype, x_grad.size, grad, *geometry, x_grad, *sizes)
    return x_grad


def affine_warp_gram(matrices: np.ndarray, input_size: Pair, output_size: Pair) -> cupy.ndarray:
    gram = cupy.empty((5, *input_size), np.float64)
    geometry = cupy.asarray(matrices), cupy.asarray(_searches(matrices, input_size, output_size))
    sizes = (len(matrices), *input_size, *output_size)
    SOURCE.launch_for_each("affine_warp_gram", gram.dtype, gram.size, *geometry, gram, *sizes)
    return gram


def gram_product(x: cupy.ndarray, gram: cupy.ndarray) -> cupy.ndarray:
    x, gram = cupy.ascontiguousarray(x), cupy.ascontiguousarray(gram)
    y = cupy.empty(x.shape, x.dtype)
    SOURCE.launch_for_each("gram_product", x.dtype, y.size, x, gram, y, *x.shape[2:])
    return y


def _sent(taps: Taps, dtype: np.dtype) -> tuple[cupy.ndarray, cupy.ndarray]:
    return cupy.asarray(taps[0], np.int32), cupy.asarray(taps[1], dtype)


def _lookers(index: np.ndarray, inputs: int) -> tuple[cupy.ndarray, cupy.ndarray]:
    """For each pixel of an axis the first of the results that look at it, and the one after the last: both rows of
    `index` ascend, so they follow one another."""
    first = np.searchsorted(index[1], np.arange(inputs))
    after_last = np.searchsorted(index[0], np.arange(inputs), side="right")
    return cupy.asarray(first, np.int32), cupy.asarray(after_last, np.int32)


def _searches(matrices: np.ndarray, input_size: Pair, output_size: Pair) -> np.ndarray:
    """(N, 2, 4): result (j, i) looks near pixel (w, h) only if |A (w, h, 1) - (j, i)| <= reach in both coordinates; a
    row holds three numbers of A, the inverse, and the reach.

    A result looks at a pixel only if it is at most 1 away from it in both coordinates of the input, so the reach is the
    sum of a row of the inverse in size; a little more, for rounding. A determinant that is a difference of nearly
    equal products is inexact by as much as it lost: then the reach grows, up to all results, and nothing is missed.
    """
    (a, b, c), (d, e, f) = matrices.transpose(1, 2, 0)
    largest_u = abs(a) * output_size[1] + abs(b) * output_size[0] + abs(c) + input_size[1]
    largest_v = abs(d) * output_size[1] + abs(e) * output_size[0] + abs(f) + input_size[0]
    with np.errstate(all="ignore"):
        determinant = a * e - b * d
        loss = (abs(a * e) + abs(b * d)) / abs(determinant)
        uncertainty = ROUNDING * loss * np.maximum(largest_u, largest_v)
        searches = np.empty((len(matrices), 2, 4))
        for row, (x, y) in enumerate([(e / determinant, -b / determinant), (-d / determinant, a / determinant)]):
            reach = (abs(x) + abs(y)) * (1 + uncertainty)
            searches[:, row] = np.stack([x, y, -(x * c + y * f), reach], axis=1)
    everywhere = ~(searches[:, :, 3] < MOST_ELEMENTS).all(axis=1)  # put this way, for NaN too
    searches[everywhere] = [0, 0, 0, MOST_ELEMENTS]
    return searches
