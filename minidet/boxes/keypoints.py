"""Keypoints of boxes, as a heat map of each joint, whose cells lie over the person's box.

The true joint is one cell, so that a softmax over all cells can be trained to say it (He et al. 2017, section 5). What
it says is as exact as the cells are small; read back, the map is first resized to the box's pixels by cubic
interpolation, whose maximum may lie between cells (torchvision's keypoints_to_heatmap and heatmaps_to_keypoints). As
there, joints are not moved by the half pixel between their centres and the boxes' edges: what is read is off by as much
as what was trained, and so right; only of joints within half a pixel of the edge some are left out.
"""

import functools

import numpy as np

CUBIC = -0.75  # the slope of the kernel at distance 1, as in torch and OpenCV; -0.5 overshoots less at edges


def keypoints_to_cells(keypoints: np.ndarray, boxes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of the size x size cells of its box each joint is in, row by row, and which joints (bool) to train on.

    keypoints (P, J, 3) x, y, v; boxes (P, 4). Both results (P, J). A joint on the right or lower edge is in the last
    cell; those outside of the box or not labelled are not trained on, and their cell is 0.
    """
    corners, far = boxes[:, None, :2], boxes[:, None, 2:]  # (P, 1, 2)
    places = keypoints[..., :2]
    cells = np.floor((places - corners) * (size / (far - corners))).astype(np.int64)
    cells = np.where(places == far, size - 1, cells)
    valid = ((cells >= 0) & (cells < size)).all(axis=2) & (keypoints[..., 2] > 0)
    return np.where(valid, cells[..., 1] * size + cells[..., 0], 0), valid


def heatmaps_to_keypoints(heatmaps: np.ndarray, boxes: np.ndarray, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """keypoints (D, J, 3) x, y, 1 and their scores (D, J), the maps' maxima, from heatmaps (D, J, M, M) over boxes
    (D, 4).

    least: a map is looked at in so many places a side, where its box has fewer pixels. With torchvision's 1 a box that
    is smaller than its map is read pixel by pixel, and what the map says in between is lost.
    """
    count, joints, size, _ = heatmaps.shape
    keypoints, scores = np.ones((count, joints, 3), np.float32), np.zeros((count, joints), np.float32)
    for of_person, its_scores, maps, (x1, y1, x2, y2) in zip(keypoints, scores, heatmaps, boxes, strict=True):
        width, height = max(x2 - x1, 1), max(y2 - y1, 1)
        columns, rows = max(int(np.ceil(width)), least), max(int(np.ceil(height)), least)
        fine = cubic_weights(size, rows) @ maps @ cubic_weights(size, columns).T  # (J, rows, columns)
        best = fine.reshape(joints, -1).argmax(axis=1)
        its_scores[:] = fine.reshape(joints, -1).max(axis=1)
        of_person[:, 0] = x1 + (best % columns + 0.5) * (width / columns)
        of_person[:, 1] = y1 + (best // columns + 0.5) * (height / rows)
    return keypoints, scores


@functools.lru_cache(maxsize=128)  # boxes of hundreds of people have few different sides
def cubic_weights(size: int, new: int) -> np.ndarray:
    """(new, size) float32: a row of `size` numbers resized to `new` ones is this matrix times it. Cubic convolution of
    the four around each place, the outermost repeated beyond the border (Keys 1981). Read-only: the next
    call gets the same array."""
    places = (np.arange(new) + 0.5) * (size / new) - 0.5
    first = np.floor(places).astype(np.int64)
    weights = np.zeros((new, size))
    for offset in (-1, 0, 1, 2):
        distance = np.abs(places - (first + offset))
        near = (CUBIC + 2) * distance**3 - (CUBIC + 3) * distance**2 + 1  # up to 1
        far = CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)  # from 1 to 2
        np.add.at(weights, (np.arange(new), np.clip(first + offset, 0, size - 1)), np.where(distance <= 1, near, far))
    weights = weights.astype(np.float32)
    weights.flags.writeable = False
    return weights
