"""Segmentation with Numba. Smoothing, weights and sorting are shared among the threads; joining is sequential.

Every operation is rounded by itself (`strict_`), in the order of `reference.py`: a weight that differed in its last bit
could change the order of the edges, and so the regions.

Edge e = 4 * pixel + direction is the one from that pixel to the right, down, down and right, or up and right (0 to 3);
those that would leave the image do not exist. Ascending numbers are the order that the contract asks for.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import strict_inlined, strict_parallel, strict_serial
from minidet_kernels.segmentation.filters import smoothed
from minidet_kernels.segmentation.regions import color_histograms, region_adjacency, region_boxes, texture_histograms
from minidet_kernels.segmentation.sorting import sorted_edges

__all__ = ["color_histograms", "felzenszwalb", "region_adjacency", "region_boxes", "texture_histograms"]


def felzenszwalb(image: np.ndarray, k: np.floating, weights: np.ndarray, min_size: int) -> np.ndarray:
    image = np.require(image, requirements=["C", "A", "W"])
    edge_weights = np.empty((image.shape[1], 4, image.shape[2]), image.dtype)
    _weigh(smoothed(image, weights), edge_weights)
    labels = np.empty(image.shape[1:], np.int64)
    _join(*sorted_edges(edge_weights), k, min_size, labels)
    return labels


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


@strict_serial
def _join(weights, edges, k, min_size, labels):
    """weights (E,), ascending, and the numbers of the edges (E,) -> labels (H, W)."""
    height, width = labels.shape
    parent = np.arange(height * width, dtype=np.int32)  # a region is a tree; its root knows the rest
    size = np.ones(height * width, np.int32)
    bound = np.full(height * width, k)  # the heaviest edge that may join the region
    steps = np.array([1, width, width + 1, 1 - width], np.int32)
    left = 0  # edges between two regions that did not join: only these can be of interest to min_size
    for i in range(len(edges)):
        p = np.int32(edges[i] >> 2)
        a, b = _root(parent, p), _root(parent, p + steps[edges[i] & 3])
        if a == b:
            continue
        if weights[i] <= bound[a] and weights[i] <= bound[b]:
            a = _united(parent, size, a, b)
            bound[a] = weights[i] + k / weights.dtype.type(size[a])
        else:
            edges[left] = edges[i]
            left += 1
    for i in range(left):
        p = np.int32(edges[i] >> 2)
        a, b = _root(parent, p), _root(parent, p + steps[edges[i] & 3])
        if a != b and (size[a] < min_size or size[b] < min_size):
            _united(parent, size, a, b)
    _number(parent, labels)


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
