"""Connected components of binary masks: which pixels hang together.

    connectivity 4: a pixel's neighbours are those above, below, left and right of it; 8: also the four diagonal ones

Two pixels of a mask belong to one component if steps from neighbour to neighbour inside the mask lead from one to the
other. The components of an image have the numbers 1 to count, in the order of their first pixels in row-major order;
the background has 0. Source of the two passes of the cpu version: Rosenfeld and Pfaltz 1966.

masks (N, H, W), bool, any memory; N, H, W may be 0; no input is changed. The numbering leaves nothing to chance: all
versions give the same labels. Cost: one visit and about 2 to 4 looks at neighbours for each pixel; the images are
shared among the threads. The cpu version needs H * W / 2 numbers of 4 bytes for each image being worked on. On the GPU
all pixels join at once, by atomics, in an order that is open, and always to the same result; the counts stay there too,
so nobody waits; it needs 16 bytes a pixel beside the labels.

TypeError: masks that are not arrays or not bool. ValueError: other shapes, a connectivity that is not 4 or 8.
"""

from __future__ import annotations

import numbers

import numpy as np

from minidet_kernels.arguments import check_shape
from minidet_kernels.versions import choose

__all__ = ["connected_components"]


def connected_components(masks: np.ndarray, connectivity: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """masks (N, H, W) bool -> labels (N, H, W), int32, and the number of components of each image (N,), int64."""
    check_shape("connected_components", "masks", masks, "N H W", (None, None, None))
    if masks.dtype != np.bool_:
        raise TypeError(
            f"connected_components: expected masks {masks.shape} of bool, got {masks.dtype}; compare, as in x > 0.5"
        )
    if not (isinstance(connectivity, numbers.Integral) and connectivity in (4, 8)):
        raise ValueError(f"connected_components: expected connectivity 4 or 8, got {connectivity!r}")
    return choose(__name__, masks).connected_components(masks, int(connectivity))
