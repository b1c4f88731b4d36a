"""From binary maps to boxes: what weakly supervised localization does with a thresholded heat map."""

from typing import Any

import numpy as np

import minidet_kernels as kernels

from ..autograd.tensor import array_of


def largest_component_box(mask: Any, connectivity: int = 8) -> np.ndarray:
    """The box (4,), float32, around the connected component of a mask (H, W), bool, that has the most pixels; of equal
    ones that whose first pixel comes first in row-major order. All zeros where the mask is empty.

    x1 y1 x2 y2 in continuous coordinates: pixel (row, column) covers column to column + 1 and row to row + 1. Zhou et
    al. 2016, section 3.2, take the mask cam > 0.2 * cam.max(). Errors: `minidet_kernels.connected_components`.
    """
    mask = array_of(mask)
    if getattr(mask, "ndim", None) != 2:
        raise ValueError(
            f"largest_component_box: expected mask (H, W), got {getattr(mask, 'shape', type(mask).__name__)}"
        )
    boxes, pixels, _ = component_boxes(mask[None], connectivity)
    return boxes[pixels.argmax()] if len(boxes) else np.zeros(4, np.float32)  # argmax: the first of the largest


def component_boxes(masks: Any, connectivity: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boxes of all connected components of masks (N, H, W), bool: boxes (C, 4), float32, in the coordinates of
    `largest_component_box`; how many pixels each component has (C,); and the mask that it is in (C,), both int64. Mask
    after mask, and within a mask in the order of the components' first pixels. Errors: as the kernel's.
    """
    masks = array_of(masks)
    labels, counts = kernels.connected_components(masks, connectivity)
    total, (height, width) = int(counts.sum()), labels.shape[1:]
    # Numbers from 0 that go on from mask to mask, where the kernel's begin with 1 in each.
    labels += (np.cumsum(counts) - counts - 1).astype(np.int32)[:, None, None]
    places = np.flatnonzero(masks)
    component = labels.ravel()[places]
    rows, columns = np.divmod(places % max(height * width, 1), max(width, 1))
    boxes = np.empty((total, 4), np.float32)
    for side, (coordinate, extreme, start) in enumerate((
        (columns, np.minimum, width), (rows, np.minimum, height), (columns, np.maximum, 0), (rows, np.maximum, 0)
    )):  # fmt: skip
        ends = np.full(total, start)
        extreme.at(ends, component, coordinate)
        boxes[:, side] = ends
    boxes[:, 2:] += 1  # the far edge of the last pixel
    pixels = np.bincount(component, minlength=total)
    return boxes, pixels, np.repeat(np.arange(len(counts)), counts)
