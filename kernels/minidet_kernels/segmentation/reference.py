"""Segmentation and region features in plain loops."""

from __future__ import annotations

import math

import numpy as np

# (down, right) of the edges that a pixel has, in their order: right, down, down and right, up and right.
EDGES = [(0, 1), (1, 0), (1, 1), (-1, 1)]
ROWS, COLUMNS = 1, 2  # the axes of an image (C, H, W)


def felzenszwalb(image: np.ndarray, k: np.floating, weights: np.ndarray, min_size: int) -> np.ndarray:
    smooth = _smoothed(_smoothed(image, weights, COLUMNS), weights, ROWS)
    edges = sorted(_edges(smooth), key=lambda edge: edge[0])  # stable: equal weights stay in order
    height, width = image.shape[1:]
    region = np.arange(height * width)  # of each pixel
    size = np.ones(height * width, int)  # of each region
    bound = np.full(height * width, k)  # of each region: the heaviest edge that may join it, Int + k / size

    def join(a: int, b: int) -> None:
        region[region == b] = a
        size[a] += size[b]

    for weight, p, q in edges:
        a, b = region[p], region[q]
        if a != b and weight <= bound[a] and weight <= bound[b]:
            join(a, b)
            bound[a] = weight + k / image.dtype.type(size[a])
    for _, p, q in edges:
        a, b = region[p], region[q]
        if a != b and (size[a] < min_size or size[b] < min_size):
            join(a, b)
    return _numbered(region).reshape(height, width)


def _neighbours(image: np.ndarray, axis: int, distance: int) -> np.ndarray:
    """Each pixel's neighbour at that distance; beyond the border lies the border's pixel."""
    at = np.clip(np.arange(image.shape[axis]) + distance, 0, image.shape[axis] - 1)
    return image.take(at, axis)


def _smoothed(image: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    result = weights[0] * image
    for i in range(1, len(weights)):
        result = result + weights[i] * (_neighbours(image, axis, -i) + _neighbours(image, axis, i))
    return result


def _slope(image: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    result = np.zeros_like(image)
    for i in range(1, len(weights)):
        result = result + weights[i] * (_neighbours(image, axis, i) - _neighbours(image, axis, -i))
    return result


def _edges(smooth: np.ndarray) -> list[tuple[np.floating, int, int]]:
    """(weight, pixel, pixel); a pixel is row * W + column."""
    channels, height, width = smooth.shape
    edges = []
    for row in range(height):
        for column in range(width):
            for down, right in EDGES:
                r, c = row + down, column + right
                if 0 <= r < height and 0 <= c < width:
                    total = smooth.dtype.type(0)
                    for channel in range(channels):
                        difference = smooth[channel, row, column] - smooth[channel, r, c]
                        total = total + difference * difference
                    edges.append((np.sqrt(total), row * width + column, r * width + c))
    return edges


def _numbered(region: np.ndarray) -> np.ndarray:
    """The regions' numbers replaced by 0, 1, ... in the order in which they first appear."""
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(int(r), len(numbers)) for r in region], np.int64)


def region_adjacency(labels: np.ndarray) -> np.ndarray:
    height, width = labels.shape
    pairs = set()
    for row in range(height):
        for column in range(width):
            for down, right in EDGES:
                r, c = row + down, column + right
                if 0 <= r < height and 0 <= c < width and labels[row, column] != labels[r, c]:
                    pairs.add(tuple(sorted((int(labels[row, column]), int(labels[r, c])))))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def region_boxes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = int(labels.max()) + 1
    boxes, sizes = np.zeros((count, 4), np.float32), np.zeros(count, np.int64)
    for label in range(count):
        rows, columns = np.nonzero(labels == label)
        sizes[label] = len(rows)
        if len(rows):
            boxes[label] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return boxes, sizes


def color_histograms(image: np.ndarray, labels: np.ndarray, bins: int) -> np.ndarray:
    in_bins = np.minimum((image * image.dtype.type(bins)).astype(int), bins - 1)
    return _histograms(in_bins, labels, bins)


def texture_histograms(
    image: np.ndarray,
    labels: np.ndarray,
    bins: int,
    smoothing: np.ndarray,
    slope: np.ndarray,
    bins_per_unit: np.floating,
) -> np.ndarray:
    dx = _smoothed(_slope(image, slope, COLUMNS), smoothing, ROWS)
    dy = _slope(_smoothed(image, smoothing, COLUMNS), slope, ROWS)
    half = image.dtype.type(math.sqrt(0.5))
    four = [dx, half * (dx + dy), dy, half * (dy - dx)]
    derivatives = np.stack([*four, *(-derivative for derivative in four)], axis=1)  # (C, 8, H, W)
    in_bins = np.minimum((np.maximum(derivatives, 0) * bins_per_unit).astype(int), bins - 1)
    return _histograms(in_bins.reshape(-1, *labels.shape), labels, bins)


def _histograms(in_bins: np.ndarray, labels: np.ndarray, bins: int) -> np.ndarray:
    """in_bins (M, H, W), the bins of M measurements of each pixel -> counts (R, M * bins)."""
    counts = np.zeros((int(labels.max()) + 1, len(in_bins), bins), np.int64)
    for measurement, bins_of_pixels in enumerate(in_bins):
        for label, at in zip(labels.flat, bins_of_pixels.flat, strict=True):
            counts[label, measurement, at] += 1
    return counts.reshape(len(counts), -1)
