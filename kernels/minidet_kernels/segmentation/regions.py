"""Features of regions with Numba: boxes, sizes, neighbours, histograms."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minidet_kernels.compiler import strict_inlined, strict_parallel, strict_serial
from minidet_kernels.memory import contiguous
from minidet_kernels.segmentation.filters import along_columns, along_rows


def region_boxes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels = _as_int64(labels)
    count = int(labels.max()) + 1
    boxes, sizes = np.zeros((count, 4), np.int64), np.zeros(count, np.int64)
    _measure(labels, boxes, sizes)
    return boxes.astype(np.float32), sizes


def region_adjacency(labels: np.ndarray) -> np.ndarray:
    labels = _as_int64(labels)
    count = int(labels.max()) + 1
    keys = np.sort(_touching(labels, count))
    return np.stack([keys // count, keys % count], axis=1)


def color_histograms(image: np.ndarray, labels: np.ndarray, bins: int) -> np.ndarray:
    image, labels = contiguous(image), _as_int64(labels)
    counts = np.zeros((int(labels.max()) + 1, len(image), bins), np.int64)
    _count_colors(image, labels, image.dtype.type(bins), counts)
    return counts.reshape(len(counts), -1)


def texture_histograms(
    image: np.ndarray,
    labels: np.ndarray,
    bins: int,
    smoothing: np.ndarray,
    slope: np.ndarray,
    bins_per_unit: np.floating,
) -> np.ndarray:
    image, labels = contiguous(image), _as_int64(labels)
    dx = along_columns(along_rows(image, slope, True), smoothing, False)
    dy = along_columns(along_rows(image, smoothing, False), slope, True)
    _, sizes = region_boxes(labels)
    counts = np.zeros((len(sizes), len(image), 8, bins), np.int64)
    _count_derivatives(dx, dy, labels, image.dtype.type(math.sqrt(0.5)), bins_per_unit, counts)
    counts[..., 0] = sizes[:, None, None] - counts[..., 1:].sum(axis=-1)  # those that are 0 or small were not counted
    return counts.reshape(len(counts), -1)


def _as_int64(labels: np.ndarray) -> np.ndarray:
    return np.require(labels, np.int64, ["C", "A", "W"])


@strict_serial
def _measure(labels, boxes, sizes):
    height, width = labels.shape
    for row in range(height):
        for column in range(width):
            label = labels[row, column]
            box = boxes[label]
            if sizes[label] == 0:
                box[0], box[1] = column, row
            box[0] = min(box[0], column)
            box[2] = max(box[2], column + 1)
            box[3] = row + 1
            sizes[label] += 1


@strict_serial
def _touching(labels, count):
    """a * count + b of all regions a < b that touch, each once.

    They are kept in a hash table that is never more than half full.
    """
    height, width = labels.shape
    table = np.full(1024, -1, np.int64)
    used = 0
    for row in range(height):
        for column in range(width):
            for down, right in ((0, 1), (1, 0), (1, 1), (-1, 1)):
                r, c = row + down, column + right
                if r < 0 or r >= height or c >= width or labels[row, column] == labels[r, c]:
                    continue
                a, b = labels[row, column], labels[r, c]
                used += _insert(table, min(a, b) * count + max(a, b))
                if 2 * used > len(table):
                    table = _larger(table)
    return table[table >= 0]


@strict_inlined
def _insert(table, key):
    """1 if the key is new, else 0. The table's length is a power of 2."""
    mask = len(table) - 1
    at = (
        key * 0x9E3779B97F4A7C1 >> 20
    ) & mask  # a large odd number: neighbouring keys go far apart (Fibonacci hashing)
    while table[at] >= 0:
        if table[at] == key:
            return 0
        at = (at + 1) & mask
    table[at] = key
    return 1


@strict_serial
def _larger(table):
    larger = np.full(4 * len(table), -1, np.int64)
    for key in table:
        if key >= 0:
            _insert(larger, key)
    return larger


@strict_parallel
def _count_colors(image, labels, bins, counts):
    """counts (R, C, bins): a thread has channels of its own."""
    channels, height, width = image.shape
    last = counts.shape[2] - 1
    for channel in prange(channels):
        for row in range(height):
            for column in range(width):
                at = min(int(image[channel, row, column] * bins), last)
                counts[labels[row, column], channel, at] += 1


@strict_parallel
def _count_derivatives(dx, dy, labels, half, bins_per_unit, counts):
    """counts (R, C, 8, bins): a thread has channels of its own. Bin 0, where most pixels are, is left out."""
    channels, height, width = dx.shape
    for channel in prange(channels):
        for row in range(height):
            for column in range(width):
                x, y = dx[channel, row, column], dy[channel, row, column]
                of_region = counts[labels[row, column], channel]
                _count(of_region, 0, x * bins_per_unit)
                _count(of_region, 1, half * (x + y) * bins_per_unit)
                _count(of_region, 2, y * bins_per_unit)
                _count(of_region, 3, half * (y - x) * bins_per_unit)


@strict_inlined
def _count(counts, direction, value):
    """A derivative is positive in one direction, and negative, so 0, in the opposite one."""
    at = min(int(abs(value)), counts.shape[1] - 1)
    if at > 0:
        counts[direction if value > 0 else direction + 4, at] += 1
