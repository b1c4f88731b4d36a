"""Selective Search's grouping with Numba. Strategies are shared among the threads; the merges of one are sequential.

The most similar pair lies at the root of a heap. A pair stays in the heap when one of its regions is merged; when it
comes to the root, it is thrown away. For its neighbours a region has a list of its pairs, linked from one to the next:
it is walked once, when the region is merged, so dead pairs in it cost little.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import strict_inlined, strict_parallel, strict_serial
from minidet_kernels.memory import contiguous


def group_regions(
    boxes: np.ndarray,
    sizes: np.ndarray,
    pairs: np.ndarray,
    colors: np.ndarray,
    textures: np.ndarray,
    strategies: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    count, ways = len(sizes), len(strategies)
    all_boxes, all_sizes = np.empty((ways, 2 * count - 1, 4), boxes.dtype), np.empty((ways, 2 * count - 1), np.int64)
    all_boxes[:, :count], all_sizes[:, :count] = boxes, sizes
    merges, similarities = np.empty((ways, count - 1, 2), np.int64), np.empty((ways, count - 1))
    merged = np.zeros(ways, np.int64)
    _group_all(
        all_boxes,
        all_sizes,
        contiguous(pairs),
        contiguous(colors.astype(np.int32)),  # no count is above the number of pixels: twice as many in a register
        contiguous(textures.astype(np.int32)),
        contiguous(strategies),
        merges,
        similarities,
        merged,
    )
    made = merged[0] if ways else 0
    return merges[:, :made], similarities[:, :made], all_boxes[:, : count + made], all_sizes[:, : count + made]


@strict_parallel
def _group_all(boxes, sizes, pairs, colors, textures, strategies, merges, similarities, merged):
    for way in prange(len(strategies)):
        merged[way] = _group(
            boxes[way], sizes[way], pairs, colors, textures, strategies[way], merges[way], similarities[way]
        )


@strict_serial
def _group(boxes, sizes, pairs, given_colors, given_textures, strategy, merges, similarities):
    """Fills boxes and sizes (2 R - 1,) behind the given ones, merges and similarities; returns how many there are."""
    count = len(given_colors)
    colors, textures = _with_room(given_colors, len(sizes)), _with_room(given_textures, len(sizes))
    image_size = sizes[:count].sum()
    color_total, texture_total = colors[0].sum() // sizes[0], textures[0].sum() // sizes[0]

    alive, met_by = np.ones(len(sizes), np.bool_), np.zeros(len(sizes), np.int64)
    neighbours = np.empty(len(sizes), np.int64)
    first_pair = np.full(len(sizes), -1)  # of each region's list
    room = 4 * len(pairs)
    ends, next_pair = np.empty((room, 2), np.int64), np.empty((room, 2), np.int64)
    similar, heap = np.empty(room), np.empty(room, np.int64)
    made = waiting = merge = 0
    for a, b in pairs:
        similar[made] = _similarity(
            boxes, sizes, colors, textures, color_total, texture_total, image_size, strategy, a, b
        )
        _link(ends, next_pair, first_pair, made, a, b)
        _push(heap, waiting, similar, made)
        made, waiting = made + 1, waiting + 1

    while waiting > 0:
        best = heap[0]
        waiting -= 1
        _replace_root(heap, waiting, similar)
        a, b = ends[best]
        if not (alive[a] and alive[b]):
            continue
        new = count + merge
        merges[merge, 0], merges[merge, 1], similarities[merge] = a, b, similar[best]
        merge += 1
        _merge(boxes, sizes, colors, textures, a, b, new)
        alive[a] = alive[b] = False
        touching = _meet(ends, next_pair, first_pair, alive, met_by, neighbours, a, b, new)
        if made + touching > len(similar):
            ends, next_pair = (
                _with_room(ends, 2 * len(ends) + touching),
                _with_room(next_pair, 2 * len(ends) + touching),
            )
            similar, heap = _grown(similar, len(ends)), _grown(heap, len(ends))
        for neighbour in np.sort(neighbours[:touching]):
            similar[made] = _similarity(
                boxes, sizes, colors, textures, color_total, texture_total, image_size, strategy, neighbour, new
            )
            _link(ends, next_pair, first_pair, made, neighbour, new)
            _push(heap, waiting, similar, made)
            made, waiting = made + 1, waiting + 1
    return merge


@strict_serial
def _with_room(rows, length):
    """(R, K) -> (length, K): the same rows, and room behind them."""
    result = np.empty((length, rows.shape[1]), rows.dtype)
    result[: len(rows)] = rows
    return result


@strict_serial
def _grown(values, length):
    result = np.empty(length, values.dtype)
    result[: len(values)] = values
    return result


@strict_inlined
def _similarity(boxes, sizes, colors, textures, color_total, texture_total, image_size, strategy, a, b):
    total = 0.0
    if strategy[0]:
        total += _common(colors[a], sizes[a], colors[b], sizes[b]) / (color_total * sizes[a] * sizes[b])
    if strategy[1]:
        total += _common(textures[a], sizes[a], textures[b], sizes[b]) / (texture_total * sizes[a] * sizes[b])
    if strategy[2]:
        total += 1 - (sizes[a] + sizes[b]) / image_size
    if strategy[3]:
        width = np.float64(max(boxes[a, 2], boxes[b, 2])) - np.float64(min(boxes[a, 0], boxes[b, 0]))
        height = np.float64(max(boxes[a, 3], boxes[b, 3])) - np.float64(min(boxes[a, 1], boxes[b, 1]))
        total += 1 - (width * height - sizes[a] - sizes[b]) / image_size
    return total


@strict_serial
def _common(counts_a, size_a, counts_b, size_b):
    """In whole numbers, so the compiler may add them in any order."""
    total = 0
    for k in range(len(counts_a)):
        total += min(np.int64(counts_a[k]) * size_b, np.int64(counts_b[k]) * size_a)
    return total


@strict_inlined
def _merge(boxes, sizes, colors, textures, a, b, new):
    sizes[new] = sizes[a] + sizes[b]
    for axis in range(2):
        boxes[new, axis] = min(boxes[a, axis], boxes[b, axis])
        boxes[new, 2 + axis] = max(boxes[a, 2 + axis], boxes[b, 2 + axis])
    colors[new] = colors[a] + colors[b]
    textures[new] = textures[a] + textures[b]


@strict_inlined
def _meet(ends, next_pair, first_pair, alive, met_by, neighbours, a, b, new):
    """Writes the regions that touch a or b into `neighbours`, each once, and returns how many there are."""
    count = 0
    for region in (a, b):
        pair = first_pair[region]
        while pair >= 0:
            side = 0 if ends[pair, 0] == region else 1
            other = ends[pair, 1 - side]
            if alive[other] and met_by[other] != new:
                met_by[other] = new
                neighbours[count] = other
                count += 1
            pair = next_pair[pair, side]
    return count


@strict_inlined
def _link(ends, next_pair, first_pair, pair, a, b):
    """Puts the pair at the head of both regions' lists."""
    ends[pair, 0], ends[pair, 1] = a, b
    next_pair[pair, 0], next_pair[pair, 1] = first_pair[a], first_pair[b]
    first_pair[a] = first_pair[b] = pair


@strict_inlined
def _before(similar, p, q):
    return similar[p] > similar[q] or (similar[p] == similar[q] and p < q)


@strict_inlined
def _push(heap, waiting, similar, pair):
    at = waiting
    while at > 0 and _before(similar, pair, heap[(at - 1) // 2]):
        heap[at] = heap[(at - 1) // 2]
        at = (at - 1) // 2
    heap[at] = pair


@strict_inlined
def _replace_root(heap, waiting, similar):
    """The root is gone; the last pair sinks from there to its place among the `waiting` that are left."""
    pair, at = heap[waiting], 0
    while 2 * at + 1 < waiting:
        child = 2 * at + 1
        if child + 1 < waiting and _before(similar, heap[child + 1], heap[child]):
            child += 1
        if not _before(similar, heap[child], pair):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = pair
