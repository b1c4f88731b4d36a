"""Connected components by flooding: from each pixel that has no label yet, to all that it hangs together with."""

from __future__ import annotations

import numpy as np

EDGES = [(-1, 0), (0, -1), (0, 1), (1, 0)]
CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]


def connected_components(masks: np.ndarray, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    neighbours = EDGES if connectivity == 4 else EDGES + CORNERS
    labels = np.zeros(masks.shape, np.int32)
    counts = np.zeros(len(masks), np.int64)
    for n, mask in enumerate(masks):
        for row, column in np.argwhere(mask):  # in row-major order
            if labels[n, row, column] == 0:
                counts[n] += 1
                _flood(mask, labels[n], int(row), int(column), counts[n], neighbours)
    return labels, counts


def _flood(
    mask: np.ndarray, labels: np.ndarray, row: int, column: int, label: np.int64, neighbours: list[tuple[int, int]]
) -> None:
    height, width = mask.shape
    labels[row, column] = label
    front = [(row, column)]
    while front:
        row, column = front.pop()
        for down, right in neighbours:
            r, c = row + down, column + right
            if 0 <= r < height and 0 <= c < width and mask[r, c] and labels[r, c] == 0:
                labels[r, c] = label
                front.append((r, c))
