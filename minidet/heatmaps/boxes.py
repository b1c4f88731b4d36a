"""From a heat map to a box: everything above a threshold, its largest connected component, the box around it.

"Above 20 %" has two meanings, which give different boxes:

    "fraction_of_max"   map > threshold * max(map)                            Zhou et al. 2016, section 3.2; the lecture
    "minmax"            (map - min(map)) / (max(map) - min(map)) > threshold  Choe et al. 2020, and most later papers

A class activation map has negative values, where the image speaks against the class. By the first rule they never
count; by the second the lowest of them is the zero of the scale, so that all of the map rises and 20 % of it encloses
more.
"""

from typing import Any

import numpy as np

from ..autograd.tensor import array_of
from ..boxes import largest_component_box
from ..device import to_numpy

MODES = ("fraction_of_max", "minmax")
ZHOU_THRESHOLD = 0.2  # of the maximum; higher cuts limbs off, lower takes the background in


def map_box(heat_map: Any, threshold: float = ZHOU_THRESHOLD, mode: str = "fraction_of_max") -> np.ndarray:
    """The box (4,), float32, x1 y1 x2 y2 in the map's pixels, of a heat map (H, W). See `map_boxes`."""
    heat_map = _as_maps("map_box", heat_map, ndim=2)
    return map_boxes(heat_map[None], threshold, mode)[0]


def map_boxes(maps: Any, threshold: float = ZHOU_THRESHOLD, mode: str = "fraction_of_max") -> np.ndarray:
    """Boxes (N, 4), float32, in the maps' pixels: of each map (N, H, W), any float dtype, any device, the box around
    the largest component (8 neighbours) above the threshold.

    Resize a map to its image before, `heatmaps.resize_map`: the box is then in the image's pixels. Zeros (4,), a box
    that overlaps nothing, where nothing is above: in maps without positive values ("fraction_of_max"), of one value
    ("minmax"), and with NaN or infinity in them. Raises ValueError for other shapes, thresholds outside [0, 1] and
    unknown modes. Cost: a few visits to each pixel, on the CPU.
    """
    maps = _as_maps("map_boxes", maps, ndim=3)
    if not 0 <= threshold <= 1:
        raise ValueError(f"map_boxes: expected a threshold between 0 and 1, got {threshold}")
    masks = threshold_maps(maps, np.array([threshold]), mode)[:, 0]
    return np.array([largest_component_box(mask) for mask in masks], np.float32).reshape(-1, 4)


def threshold_maps(maps: np.ndarray, thresholds: np.ndarray, mode: str = "fraction_of_max") -> np.ndarray:
    """maps (N, H, W), thresholds (T,) -> masks (N, T, H, W), bool: what is above each threshold, strictly. Nothing is
    in maps with NaN or infinity. ValueError: an unknown mode."""
    if mode not in MODES:
        raise ValueError(f"threshold_maps: expected a mode among {', '.join(MODES)}, got {mode!r}")
    low, high = (ends.astype(np.float64) for ends in (maps.min(axis=(1, 2)), maps.max(axis=(1, 2))))
    finite = np.isfinite(low) & np.isfinite(high)  # a NaN anywhere makes both ends NaN
    low, high = np.where(finite, low, 0), np.where(finite, high, 0)
    if mode == "fraction_of_max":
        low = np.zeros_like(high)
    # In the map's own units, as Zhou's rule is written: a map of one value is above none of its thresholds by "minmax".
    levels = low[:, None] + thresholds * (high - low)[:, None]  # (N, T)
    masks = maps[:, None] > levels[:, :, None, None]
    return masks & finite[:, None, None, None]


def _as_maps(function: str, maps: Any, ndim: int) -> np.ndarray:
    """Heat maps as floats on the CPU."""
    maps = to_numpy(array_of(maps))
    shape = {2: "heat_map (H, W)", 3: "maps (N, H, W)"}[ndim]
    if getattr(maps, "ndim", None) != ndim or 0 in maps.shape[-2:]:
        raise ValueError(f"{function}: expected {shape}, got {getattr(maps, 'shape', type(maps).__name__)}")
    return maps if maps.dtype.kind == "f" else maps.astype(np.float64)
