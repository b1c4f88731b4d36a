"""The edges by ascending weight, equal ones in their order: a radix sort, which needs no comparison.

A float32 that is not negative is ordered as its bits are as an integer. Those 32 bits are sorted by digits of 11 bits,
the lowest first; each pass keeps equal digits in the order that they came in.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.compiler import strict_serial

DIGIT = 11  # three digits make 32 bits; the 2048 places that a pass writes to stay in the cache
BUCKETS = 1 << DIGIT


def sorted_edges(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """weights (H, 4, W), infinite where there is no edge -> the finite ones (E,), ascending, and their numbers (E,).

    An edge's number is 4 * pixel + direction.
    """
    by_pixel = weights.transpose(0, 2, 1).reshape(-1)
    if weights.dtype == np.float32:
        return _radix_sorted(by_pixel.view(np.uint32), by_pixel)
    order = np.argsort(by_pixel, kind="stable")[: np.count_nonzero(by_pixel < np.inf)]
    return by_pixel[order], order.astype(np.uint32)


@strict_serial
def _radix_sorted(bits, weights):
    counts = np.zeros((3, BUCKETS), np.int64)
    for e in range(len(bits)):
        if weights[e] < np.inf:
            for digit in range(3):
                counts[digit, (bits[e] >> np.uint32(digit * DIGIT)) & np.uint32(BUCKETS - 1)] += 1
    count = counts[0].sum()
    a, b = np.empty(count, np.uint64), np.empty(count, np.uint64)
    starts = _starts(counts[0])
    for e in range(len(bits)):
        if weights[e] < np.inf:
            digit = bits[e] & np.uint32(BUCKETS - 1)
            a[starts[digit]] = (np.uint64(bits[e]) << np.uint64(32)) | np.uint64(e)
            starts[digit] += 1
    _pass(a, b, _starts(counts[1]), np.uint64(32 + DIGIT))
    _pass(b, a, _starts(counts[2]), np.uint64(32 + 2 * DIGIT))
    keys, edges = np.empty(count, np.uint32), np.empty(count, np.uint32)
    for i in range(count):
        keys[i], edges[i] = a[i] >> np.uint64(32), a[i] & np.uint64(0xFFFFFFFF)
    return keys.view(np.float32), edges


@strict_serial
def _starts(counts):
    starts = np.zeros(len(counts), np.int64)
    for i in range(1, len(counts)):
        starts[i] = starts[i - 1] + counts[i - 1]
    return starts


@strict_serial
def _pass(source, target, starts, shift):
    for i in range(len(source)):
        digit = (source[i] >> shift) & np.uint64(BUCKETS - 1)
        target[starts[digit]] = source[i]
        starts[digit] += 1
