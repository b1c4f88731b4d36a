"""From a layer's map to the image's size."""

from typing import Any

import numpy as np

import minidet_kernels as kernels


def resize_map(maps: Any, size: tuple[int, int]) -> np.ndarray:
    """maps (N, h, w), float32 or float64 -> (N, H, W), size being (H, W): bilinear, align_corners off.

    Each value is taken for the middle of its share of the image, pixels s j to s (j + 1) at a stride of s: so it is
    after 2 x 2 pooling, as in VGG. A 3 x 3 convolution of stride 2 with padding 1 looks at pixels 2 j - 1 to 2 j + 1;
    after n of them (TinyBackbone; a ResNet alike) the map lies (2^n - 1) / 2 pixels too far right and down.

    Raises ValueError for other shapes; a single map is maps[None].
    """
    maps = np.asarray(maps)
    if maps.ndim != 3:
        raise ValueError(f"resize_map: expected maps (N, h, w), got {maps.shape}; a single one needs maps[None]")
    return kernels.resize_bilinear(maps[:, None], size)[:, 0]
