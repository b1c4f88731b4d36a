"""Segmentation with Numba. Smoothing and weights are shared among the threads; joining is sequential.

Every operation is rounded by itself (`strict_`), in the order of `reference.py`: a weight that differed in its last bit
could change the order of the edges, and so the regions.

Edge e = 4 * pixel + direction is the one from that pixel to the right, down, down and right, or up and right (0 to 3);
those that would leave the image do not exist. Ascending numbers are the order that the contract asks for.

Most edges are never sorted. Once the light ones have joined their pixels, most of the heavier ones lie inside a region,
where they can do nothing any more, now or later: they are left out (Filter-Kruskal: Osipov, Sanders and Singler 2009).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import prange

from minidet_kernels.compiler import strict_inlined, strict_parallel, strict_serial
from minidet_kernels.memory import contiguous
from minidet_kernels.segmentation.filters import smoothed
from minidet_kernels.segmentation.regions import color_histograms, region_adjacency, region_boxes, texture_histograms
from minidet_kernels.segmentation.sorting import sorted_edges

__all__ = ["color_histograms", "felzenszwalb", "region_adjacency", "region_boxes", "texture_histograms"]

# The edges come in three parts: the lightest 30 %, the next 30 %, the rest. Any other parts give the same regions; two
# to seven of them were about equally fast, all at once 1.5 to 2 times slower.
QUANTILES = (0.3, 0.6)
SAMPLE = 61  # every 61st weight is enough to find them; a prime, so as not to pick always the same columns


def felzenszwalb(image: np.ndarray, k: np.floating, weights: np.ndarray, min_size: int) -> np.ndarray:
    image = contiguous(image)
    _, height, width = image.shape
    edge_weights = np.empty((height, 4, width), image.dtype)
    _weigh(smoothed(image, weights), edge_weights)

    # A region is a tree of pixels; its root knows the number of pixels and the heaviest edge that may join the region.
    region = np.arange(height * width, dtype=np.int32).reshape(height, width)
    size = np.ones(height * width, np.int32)
    bound = np.full(height * width, k)
    refused = []  # the edges between two regions that did not join: only these can be of interest to min_size
    for low, high in pairwise((0, *_quantiles(edge_weights), np.inf)):
        parent, region = region.reshape(-1), np.empty_like(region)
        _find_regions(parent, region)
        between = sorted_edges(*_edges_between(edge_weights, region, image.dtype.type(low), image.dtype.type(high)))
        refused.append(_join(*between, width, k, region.reshape(-1), size, bound))
    parent = region.reshape(-1)
    _join_small(np.concatenate(refused), width, min_size, parent, size)
    labels = np.empty((height, width), np.int64)
    _number(parent, labels)
    return labels


def _quantiles(weights: np.ndarray) -> np.ndarray:
    sample = np.sort(weights.reshape(-1)[::SAMPLE])
    return sample[[int(quantile * len(sample)) for quantile in QUANTILES]]


@strict_parallel
def _weigh(smooth, weights):
    """smooth (C, H, W) -> weights (H, 4, W), infinite where there is no edge."""
    _, height, width = smooth.shape
    for row in prange(height):
        weights[row] = 0
        _add_squares(smooth, row, row, 1, weights[row, 0])
        if row + 1 < height:
            _add_squares(smooth, row, row + 1, 0, weights[row, 1])
            _add_squares(smooth, row, row + 1, 1, weights[row, 2])
        else:
            weights[row, 1:3] = np.inf
        if row > 0:
            _add_squares(smooth, row, row - 1, 1, weights[row, 3])
        else:
            weights[row, 3] = np.inf
        for direction in (0, 2, 3):
            weights[row, direction, width - 1] = np.inf
        for direction in range(4):
            for column in range(width):
                weights[row, direction, column] = np.sqrt(weights[row, direction, column])


@strict_inlined
def _add_squares(smooth, row, other_row, shift, totals):
    """totals (W,) += the squared differences between a row and another one, shifted to the left."""
    channels, _, width = smooth.shape
    for channel in range(channels):
        a, b = smooth[channel, row], smooth[channel, other_row]
        for column in range(width - shift):
            difference = a[column] - b[column + shift]
            totals[column] += difference * difference


def _edges_between(
    weights: np.ndarray, region: np.ndarray, low: np.floating, high: np.floating
) -> tuple[np.ndarray, np.ndarray]:
    """The weights (E,) and numbers (E,), ascending, of the edges between two regions with low <= weight < high."""
    between, counts = np.empty(weights.shape, bool), np.empty(len(weights), np.int64)
    _mark_between(weights, region, low, high, between, counts)
    ends = np.cumsum(counts)
    values, edges = np.empty(ends[-1], weights.dtype), np.empty(ends[-1], np.uint32)
    _gather(weights, between, ends - counts, ends, values, edges)
    return values, edges


@strict_parallel
def _find_regions(parent, region):
    """region (H, W) = the root of each pixel's tree: the same forest, but flat."""
    height, width = region.shape
    for row in prange(height):
        for column in range(width):
            root = parent[row * width + column]
            while parent[root] != root:
                root = parent[root]
            region[row, column] = root


@strict_parallel
def _mark_between(weights, region, low, high, between, counts):
    """between (H, 4, W), bool, and how many there are in each row (H,).

    Above the first row and below the last there are no edges: their weights are infinite, any row can stand there.
    """
    height = len(weights)
    for row in prange(height):
        here = region[row]
        below = region[row + 1] if row + 1 < height else here
        above = region[row - 1] if row > 0 else here
        between[row, :, -1] = False
        count = _mark(weights[row, 0], here[:-1], here[1:], low, high, between[row, 0])
        count += _mark(weights[row, 1], here, below, low, high, between[row, 1])
        count += _mark(weights[row, 2], here[:-1], below[1:], low, high, between[row, 2])
        count += _mark(weights[row, 3], here[:-1], above[1:], low, high, between[row, 3])
        counts[row] = count


@strict_inlined
def _mark(weights, here, there, low, high, between):
    count = 0
    for column in range(len(here)):
        mark = (low <= weights[column]) & (weights[column] < high) & (here[column] != there[column])
        between[column] = mark
        count += mark
    return count


@strict_parallel
def _gather(weights, between, starts, ends, values, edges):
    height, _, width = weights.shape
    for row in prange(height):
        at, end = starts[row], ends[row]
        for column in range(width):
            for direction in range(4):
                # Written in any case, kept or overwritten: whether it counts is too irregular to be predicted.
                if at < end:
                    values[at] = weights[row, direction, column]
                    edges[at] = 4 * (row * width + column) + direction
                    at += between[row, direction, column]


@strict_serial
def _join(weights, edges, width, k, parent, size, bound):
    """Joins regions along edges of ascending weight. Returns the edges that did not join theirs, in the same order."""
    steps = (1, width, width + 1, 1 - width)
    left = 0
    for i in range(len(edges)):
        p = np.int32(edges[i] >> 2)
        a, b = _root(parent, p), _root(parent, np.int32(p + steps[edges[i] & 3]))
        if a == b:
            continue
        if weights[i] <= bound[a] and weights[i] <= bound[b]:
            a = _united(parent, size, a, b)
            bound[a] = weights[i] + k / weights.dtype.type(size[a])
        else:
            edges[left] = edges[i]
            left += 1
    return edges[:left]


@strict_serial
def _join_small(edges, width, min_size, parent, size):
    steps = (1, width, width + 1, 1 - width)
    for edge in edges:
        p = np.int32(edge >> 2)
        a, b = _root(parent, p), _root(parent, np.int32(p + steps[edge & 3]))
        if a != b and (size[a] < min_size or size[b] < min_size):
            _united(parent, size, a, b)


@strict_inlined
def _root(parent, p):
    """On the way each pixel is tied to its grandparent, so that the next way is half as long."""
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


@strict_inlined
def _united(parent, size, a, b):
    """The root of both from now on: that of the larger tree."""
    if size[a] < size[b]:
        a, b = b, a
    parent[b] = a
    size[a] += size[b]
    return a


@strict_serial
def _number(parent, labels):
    height, width = labels.shape
    numbers = np.full(height * width, -1, np.int64)
    count = 0
    for row in range(height):
        for column in range(width):
            root = _root(parent, np.int32(row * width + column))
            if numbers[root] < 0:
                numbers[root] = count
                count += 1
            labels[row, column] = numbers[root]
