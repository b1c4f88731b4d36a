"""Selective Search's grouping as the paper's algorithm 1 has it: a table of all pairs, searched for the largest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Region:
    box: np.ndarray  # x1 y1 x2 y2
    size: np.int64
    color: np.ndarray  # counts
    texture: np.ndarray


def group_regions(
    boxes: np.ndarray,
    sizes: np.ndarray,
    pairs: np.ndarray,
    colors: np.ndarray,
    textures: np.ndarray,
    strategies: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    groupings = []
    for strategy in strategies:
        regions = [Region(*features) for features in zip(boxes, sizes, colors, textures, strict=True)]
        merges, similarities = _group(regions, pairs, strategy)
        groupings.append((merges, similarities, [r.box for r in regions], [r.size for r in regions]))
    shape, merged = len(strategies), len(groupings[0][0]) if groupings else 0
    count = len(boxes) + merged
    return (
        np.array([g[0] for g in groupings], np.int64).reshape(shape, merged, 2),
        np.array([g[1] for g in groupings], np.float64).reshape(shape, merged),
        np.array([g[2] for g in groupings], boxes.dtype).reshape(shape, count, 4),
        np.array([g[3] for g in groupings], np.int64).reshape(shape, count),
    )


def _group(
    regions: list[Region], pairs: np.ndarray, strategy: np.ndarray
) -> tuple[list[tuple[int, int]], list[np.float64]]:
    """(merges, their similarities); the new regions are appended to `regions`."""
    image_size = sum(region.size for region in regions)

    def similarity(a: int, b: int) -> np.float64:
        return _similarity(regions[a], regions[b], image_size, strategy)

    similar = {(a, b): similarity(a, b) for a, b in pairs.tolist()}
    merges, similarities = [], []
    while similar:
        a, b = max(similar, key=similar.get)  # the first of the most similar
        merges.append((a, b))
        similarities.append(similar[a, b])
        new = len(regions)
        regions.append(_merged(regions[a], regions[b]))
        touching = {region for pair in similar if a in pair or b in pair for region in pair} - {a, b}
        similar = {pair: value for pair, value in similar.items() if not {a, b} & set(pair)}
        for neighbour in sorted(touching):
            similar[neighbour, new] = similarity(neighbour, new)
    return merges, similarities


def _similarity(a: Region, b: Region, image_size: np.int64, strategy: np.ndarray) -> np.float64:
    color, texture, size, fill = strategy
    total = np.float64(0)
    if color:
        total += _intersection(a.color, a.size, b.color, b.size)
    if texture:
        total += _intersection(a.texture, a.size, b.texture, b.size)
    if size:
        total += 1 - (a.size + b.size) / image_size
    if fill:
        x1, y1, x2, y2 = _box_around(a.box, b.box).astype(np.float64)
        total += 1 - ((x2 - x1) * (y2 - y1) - a.size - b.size) / image_size
    return total


def _intersection(counts_a: np.ndarray, size_a: np.int64, counts_b: np.ndarray, size_b: np.int64) -> np.float64:
    """Of the two histograms divided by their sums, which are `measurements` times the sizes."""
    measurements = counts_a.sum() // size_a
    return np.minimum(counts_a * size_b, counts_b * size_a).sum() / (measurements * size_a * size_b)


def _merged(a: Region, b: Region) -> Region:
    return Region(_box_around(a.box, b.box), a.size + b.size, a.color + b.color, a.texture + b.texture)


def _box_around(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])
