"""From a layer's map to the image's size."""

from typing import Any

import numpy as np

import minidet_kernels as kernels


def resize_map(maps: Any, size: tuple[int, int]) -> np.ndarray:
    """maps (N, h, w), float32 or float64 -> (N, H, W), size being (H, W): bilinear, align_corners off.

    Raises ValueError for other shapes; a single map is maps[None].
    """
    maps = np.asarray(maps)
    if maps.ndim != 3:
        raise ValueError(f"resize_map: expected maps (N, h, w), got {maps.shape}; a single one needs maps[None]")
    return kernels.resize_bilinear(maps[:, None], size)[:, 0]
