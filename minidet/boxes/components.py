"""From a binary map to a box: what weakly supervised localization does with a thresholded heat map."""

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
    labels, counts = kernels.connected_components(mask[None], connectivity)
    if counts[0] == 0:
        return np.zeros(4, np.float32)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # the background
    rows, columns = np.nonzero(labels[0] == sizes.argmax())  # the first of the largest
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
