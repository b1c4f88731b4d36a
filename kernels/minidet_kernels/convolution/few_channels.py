"""The input gradient of a first layer, in float32: few channels, such as the 3 of a colour image.

`direct.py` puts the channels of its result into the 16 lanes of a vector: with 3 channels, 13 lanes work for nothing.
Here the lanes are the products of one output pixel with all weights that it met, (r, s, c), 27 for a 3 x 3 kernel:

    product[j, (r, s, c)]  =  sum over k of  grad[i, j, k] * weight[k, c, r, s]

and each is then added where it belongs, to pixel (i*stride + r, j*stride + s) of the padded image. In channels-last
memory the S*C products of one kernel row land side by side:

    product of pixel j      [ r=0: s,c ... | r=1: s,c ... | r=2: s,c ... | unused lanes ]
                                  +              +              +
    rows of the image       i*stride       i*stride+1     i*stride+2       from column j*stride on

Neighbouring output pixels meet the same image pixels, so threads share out bands of image rows; a band computes the
products of all output rows that reach into it, and adds them row after row. The bits depend on nothing but the shapes
and the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange

from minidet_kernels.arguments import Pair
from minidet_kernels.compiler import parallel, serial
from minidet_kernels.memory import contiguous, empty, to_channels_last, to_public
from minidet_kernels.simd import LANES, ROWS, tile_of_16, tile_of_32

# Rows of a band, in heights of the kernel: the output rows that reach over its edge are computed by both neighbours,
# an eighth more work at 8 heights.
BAND_HEIGHTS = 8


def conv2d_input_grad(
    grad: np.ndarray, weight: np.ndarray, input_size: Pair, stride: Pair, padding: Pair
) -> np.ndarray:
    c, height = weight.shape[1], input_size[0]
    bands = max(-(-height // (BAND_HEIGHTS * weight.shape[2])), -(-numba.get_num_threads() // max(grad.shape[0], 1)))
    x_grad = empty((grad.shape[0], *input_size, c), np.float32)
    weight = contiguous(weight)
    _scatter(to_channels_last(grad), weight, stride, padding, -(-height // bands), x_grad)
    return to_public(x_grad)


@parallel
def _scatter(grad, weight, stride, padding, band, x_grad):
    n, ho, wo, k_size = grad.shape
    _, height, width, c = x_grad.shape
    _, _, r_size, s_size = weight.shape
    lanes = -(-(r_size * s_size * c) // LANES) * LANES
    packed = np.empty(lanes * k_size, np.float32)
    for block in prange(lanes // LANES):
        _pack(weight, block, packed)
    flat = grad.reshape(-1)
    bands = -(-height // band)
    for task in prange(n * bands):
        image, top = task // bands, task % bands * band
        rows = min(band, height - top)
        seen = np.zeros((rows, max((wo - 1) * stride[1] + s_size, padding[1] + width) * c), np.float32)
        products = np.empty((-(-wo // ROWS) * ROWS, lanes), np.float32)
        first = max(-((r_size - 1 - padding[0] - top) // stride[0]), 0)  # row whose last tap reaches the band
        last = min((top + rows - 1 + padding[0]) // stride[0], ho - 1)
        for i in range(first, last + 1):
            _multiply_row(flat, (image * ho + i) * wo * k_size, wo, packed, k_size, products)
            for r in range(r_size):
                row = i * stride[0] + r - padding[0] - top
                if row >= 0 and row < rows:
                    _add_row(products, wo, r * s_size * c, s_size * c, stride[1] * c, seen[row])
        for row in range(rows):
            target, left = x_grad[image, top + row].reshape(-1), padding[1] * c
            for column in range(width * c):
                target[column] = seen[row, left + column]


@serial
def _pack(weight, block, packed):
    """16 of the weights (r, s, c), of one output channel after the other."""
    k_size, c_size, r_size, s_size = weight.shape
    for k in range(k_size):
        for lane in range(LANES):
            place = block * LANES + lane
            tap, c = place // c_size, place % c_size
            value = weight[k, c, tap // s_size, tap % s_size] if tap < r_size * s_size else np.float32(0)
            packed[(block * k_size + k) * LANES + lane] = value


@serial
def _multiply_row(grad, at, pixels, packed, k_size, products):
    """products (pixels, lanes) = a row of pixels of grad, from `at` on, times the weights."""
    rounded, lanes = products.shape
    sources, results = np.zeros(rounded, np.int64), np.arange(rounded) * lanes
    for pixel in range(pixels):  # what is missing to whole tiles computes the first pixel again
        sources[pixel] = pixel * k_size
    start, starts, result = np.zeros(2 * LANES, np.float32), np.zeros(rounded, np.int64), products.reshape(-1)
    for lane in range(0, lanes, 2 * LANES):
        for row in range(0, rounded, ROWS):
            if lane + 2 * LANES <= lanes:
                tile_of_32(grad, at, sources, 1, 0, packed, lane * k_size, LANES, k_size * LANES,
                           start, 0, starts, result, lane, results, row, k_size, 1)  # fmt: skip
            else:
                tile_of_16(grad, at, sources, 1, 0, packed, lane * k_size, LANES, 0,
                           start, 0, starts, result, lane, results, row, k_size, 1)  # fmt: skip


@serial
def _add_row(products, pixels, first, count, step, row):
    """Adds the products of one kernel row, `count` of them from `first` on, of all pixels to a row of the image."""
    for pixel in range(pixels):
        for i in range(count):
            row[pixel * step + i] += products[pixel, first + i]
