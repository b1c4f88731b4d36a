"""The edges by ascending weight, equal ones in their order: a radix sort, which needs no comparison.

A float32 that is not negative is ordered as its bits are as an integer. Those 32 bits are sorted by digits of 11 bits,
the lowest first; each pass keeps equal digits in the order that they came in.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.compiler import strict_serial

DIGIT = 11  # three digits make 32 bits; the 2048 places that a pass writes to stay in the cache
BUCKETS = 1 << DIGIT


def sorted_edges(weights: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """weights (E,) and the numbers of the edges (E,), ascending -> both by weight, equal weights by number."""
    if weights.dtype == np.float32:
        return _radix_sorted(weights.view(np.uint32), edges)
    order = np.argsort(weights, kind="stable")
    return weights[order], edges[order]


@strict_serial
def _radix_sorted(bits, edges):
    counts = np.zeros((3, BUCKETS), np.int64)
    a, b = np.empty(len(bits), np.uint64), np.empty(len(bits), np.uint64)
    for i in range(len(bits)):
        key = np.int64(bits[i])
        counts[0, key & (BUCKETS - 1)] += 1
        counts[1, (key >> DIGIT) & (BUCKETS - 1)] += 1
        counts[2, key >> 2 * DIGIT] += 1
        a[i] = (np.uint64(bits[i]) << np.uint64(32)) | np.uint64(edges[i])
    _pass(a, b, _starts(counts[0]), np.uint64(32))
    _pass(b, a, _starts(counts[1]), np.uint64(32 + DIGIT))
    _pass(a, b, _starts(counts[2]), np.uint64(32 + 2 * DIGIT))
    for i in range(len(bits)):
        bits[i], edges[i] = b[i] >> np.uint64(32), b[i] & np.uint64(0xFFFFFFFF)
    return bits.view(np.float32), edges


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
