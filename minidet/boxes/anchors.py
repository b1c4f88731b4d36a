"""Anchors: boxes of several sizes and shapes at every cell of a map; of each a network says whether to keep it, and how
to move it.

Two ways to make the ones of a single cell, `classic_base_anchors` and `base_anchors`, and one to spread them over the
map, `grid_anchors`. For objects of other shapes give other anchors, and train again: the labels change, and nothing
else does.
"""

from collections.abc import Sequence

import numpy as np


def classic_base_anchors(
    base_size: int = 16, ratios: Sequence[float] = (0.5, 1, 2), scales: Sequence[float] = (8, 16, 32)
) -> np.ndarray:
    """(len(ratios) * len(scales), 4) float32: the anchors of Faster R-CNN's authors (their code, generate_anchors).

    ratios are height by width, the outer loop; scales times base_size are the sides of squares. It works in the papers'
    pixels, where a box holds its last row and column: the one of base_size is (0, 0, base_size - 1, base_size - 1),
    and width = x2 - x1 + 1. Sides are rounded to whole pixels for each ratio, before they are scaled. The first of the
    nine is (-84, -40, 99, 55), around the middle of that box, 7.5; the MATLAB code counts from 1 and has (-83, -39,
    100, 56).
    """
    _check_sizes("classic_base_anchors", base_size=[base_size], ratios=ratios, scales=scales)
    center = (base_size - 1) / 2
    anchors = []
    for ratio in ratios:
        width = np.rint(np.sqrt(base_size**2 / ratio))  # half to even, as in the authors' NumPy
        height = np.rint(width * ratio)
        for scale in scales:
            half_width, half_height = (width * scale - 1) / 2, (height * scale - 1) / 2
            anchors.append((center - half_width, center - half_height, center + half_width, center + half_height))
    return np.array(anchors, np.float32)


def base_anchors(sizes: Sequence[float], ratios: Sequence[float] = (0.5, 1, 2)) -> np.ndarray:
    """(len(ratios) * len(sizes), 4) float32: torchvision's anchors, centred on 0 and rounded to whole pixels.

    sizes: the square root of an anchor's area, in pixels of the image. ratios: height by width, the outer loop.
    """
    _check_sizes("base_anchors", sizes=sizes, ratios=ratios)
    heights = np.sqrt(np.asarray(ratios, np.float32))
    widths = 1 / heights
    half_width = (widths[:, None] * np.asarray(sizes, np.float32)).ravel() / 2
    half_height = (heights[:, None] * np.asarray(sizes, np.float32)).ravel() / 2
    return np.rint(np.stack([-half_width, -half_height, half_width, half_height], axis=1))


def grid_anchors(base: np.ndarray, grid: tuple[int, int], stride: tuple[float, float]) -> np.ndarray:
    """Base anchors (A, 4) at every cell of a map: (H * W * A, 4) float32, row by row, cell by cell, anchor by anchor.

    grid: (H, W) of the map. stride: rows and columns of pixels from one cell to the next; cell (0, 0) is not moved.
    """
    rows, columns = (
        np.arange(cells, dtype=np.float32) * np.float32(step) for cells, step in zip(grid, stride, strict=True)
    )
    shifts = np.zeros((*grid, 1, 4), np.float32)
    shifts[..., 0::2] = columns[:, None, None]
    shifts[..., 1::2] = rows[:, None, None, None]
    return (shifts + base).reshape(-1, 4)


def default_boxes(
    grids: Sequence[tuple[int, int]],
    steps: Sequence[float],
    scales: Sequence[float],
    ratios: Sequence[Sequence[float]],
    size: int,
) -> np.ndarray:
    """SSD's default boxes for square images of `size` pixels (Liu et al. 2016, section 2.2): (A, 4) float32, level by
    level, row by row, cell by cell.

    Of level l, grids[l] = (H, W) are its cells, steps[l] pixels apart, the first one's centre half a step from the
    border; scales[l], and the next level's behind it, are parts of the image's side. A cell has, all around its centre,

        a square of side s_l    a square of side sqrt(s_l s_(l+1))    for each r of ratios[l] one of s_l sqrt(r) times
                                                                      s_l / sqrt(r), and the same turned

    Sides are at most the image's; boxes may reach beyond it. scales has one more entry than there are levels.
    """
    if not len(grids) == len(steps) == len(ratios) == len(scales) - 1:
        raise ValueError(
            f"default_boxes: expected as many steps and ratios as grids, {len(grids)}, and one more of scales, got "
            f"{len(steps)}, {len(ratios)} and {len(scales)}"
        )
    _check_sizes("default_boxes", steps=steps, scales=scales, ratios=[r for level in ratios for r in level] or [1])
    levels = []
    for (height, width), step, scale, following, of_level in zip(
        grids, steps, scales, scales[1:], ratios, strict=False
    ):
        sides = [(scale, scale), (np.sqrt(scale * following),) * 2]
        for ratio in of_level:
            wide, high = scale * np.sqrt(ratio), scale / np.sqrt(ratio)
            sides += [(wide, high), (high, wide)]
        half = np.minimum(np.array(sides), 1) * size / 2  # (B, 2), width and height
        y, x = ((np.arange(cells) + 0.5) * step for cells in (height, width))
        centers = np.stack(np.meshgrid(x, y), axis=-1)[:, :, None]  # (H, W, 1, 2)
        levels.append(np.concatenate([centers - half, centers + half], axis=-1).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def _check_sizes(function: str, **numbers: Sequence[float]) -> None:
    for name, values in numbers.items():
        if not len(values) or not all(value > 0 and np.isfinite(value) for value in values):
            raise ValueError(f"{function}: expected {name} above 0, got {list(values)}")
