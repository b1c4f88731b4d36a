"""Connected components with Numba, in two passes over the image.

The first gives each pixel of the mask the label of a neighbour that was visited before it (above or left), or a new
one. Where neighbours have different labels, these turn out to mean the same component: they are joined in a forest,
in which parent[label] is a smaller label of the same component, and a root is its own parent. The root is the
component's smallest label, the one that its first pixel got; so numbering the roots in ascending order is the order
that the contract asks for. The second pass replaces each label by its root's number.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minidet_kernels.compiler import inlined, parallel, serial
from minidet_kernels.memory import contiguous


def connected_components(masks: np.ndarray, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.empty(masks.shape, np.int32)
    counts = np.empty(len(masks), np.int64)
    _label_all(contiguous(masks), connectivity == 8, labels, counts)
    return labels, counts


@parallel
def _label_all(masks, diagonal, labels, counts):
    for n in prange(len(masks)):
        counts[n] = _label(masks[n], diagonal, labels[n])


@serial
def _label(mask, diagonal, labels):
    # A new label needs a pixel of its own with none of the mask to its left: at most every second one of a row.
    height, width = mask.shape
    parent = np.empty(height * ((width + 1) // 2) + 1, np.int32)
    used = _first_pass(mask, diagonal, labels, parent)
    # Parents are smaller than their children, so parent[parent[label]] is already a final number.
    parent[0] = count = 0
    for label in range(1, used + 1):
        if parent[label] == label:
            count += 1
            parent[label] = count
        else:
            parent[label] = parent[parent[label]]
    for row in range(height):
        for column in range(width):
            labels[row, column] = parent[labels[row, column]]
    return count


@serial
def _first_pass(mask, diagonal, labels, parent):
    """labels (H, W) = preliminary ones, joined in `parent`. Returns how many there are."""
    height, width = mask.shape
    used = 0
    for row in range(height):
        for column in range(width):
            if not mask[row, column]:
                labels[row, column] = 0
                continue
            left = labels[row, column - 1] if column > 0 else 0
            above = labels[row - 1, column] if row > 0 else 0
            label = _joined(parent, left, above)
            if diagonal and row > 0 and above == 0:  # else the pixel above has joined its neighbours already
                if left == 0 and column > 0:  # else the one at the left has
                    label = labels[row - 1, column - 1]
                if column + 1 < width:
                    label = _joined(parent, label, labels[row - 1, column + 1])
            if label == 0:
                used += 1
                label = used
                parent[label] = label
            labels[row, column] = label
    return used


@inlined
def _joined(parent, a, b):
    """One label for both from now on: the smaller root. 0 is no label."""
    if a == 0 or b == 0 or a == b:
        return max(a, b)
    a, b = _root(parent, a), _root(parent, b)
    smaller, larger = min(a, b), max(a, b)
    parent[larger] = smaller
    return smaller


@serial
def _root(parent, label):
    """On the way each label is tied to its grandparent, so that the next way is half as long."""
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label
