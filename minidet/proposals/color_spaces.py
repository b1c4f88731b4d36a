"""Colour spaces of Selective Search, each channel brought to [0, 1]: histograms have a fixed range, and edges a scale.

Whatever the channel, 0 and 1 are the ends of what an image of 8 bits can have there, the same for all images. A range
taken from one image, or that of 0 to 255, would put everything into a few bins; and since the segmentation takes its
distances in the same numbers, it would change what its k means.
"""

from collections.abc import Callable

import numpy as np

# ITU-R BT.601, what grey pictures are made with; also the I of rgI.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# IEC 61966-2-1 (sRGB): linear RGB -> CIE XYZ. Each row is divided by the white of D65, so that white is (1, 1, 1).
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
RGB_TO_WHITE = (RGB_TO_XYZ / RGB_TO_XYZ.sum(axis=1, keepdims=True)).astype(np.float32)

_levels = np.arange(256) / 255
LINEAR = np.where(_levels <= 0.04045, _levels / 12.92, ((_levels + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_color_space(image: np.ndarray, space: str) -> np.ndarray:
    """image (H, W, 3), uint8 RGB -> (C, H, W), float32 in [0, 1]. space: HSV, Lab, rgI (three channels), H, I (one).

    Raises ValueError for another space or shape, TypeError for another dtype.
    """
    if space not in SPACES:
        raise ValueError(f"to_color_space: expected one of {', '.join(SPACES)}, got {space!r}")
    if image.dtype != np.uint8:
        raise TypeError(f"to_color_space: expected an image uint8, 0 to 255, got {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3:
        hint = "; looks channels-first, use .transpose(1, 2, 0)" if image.ndim == 3 and image.shape[0] == 3 else ""
        raise ValueError(f"to_color_space: expected an image (H, W, 3), RGB, got {image.shape}{hint}")
    return SPACES[space](np.ascontiguousarray(image.transpose(2, 0, 1)))


def _hsv(planes: np.ndarray) -> np.ndarray:
    value = planes.max(axis=0)
    chroma = value - planes.min(axis=0)
    saturation = chroma / np.maximum(value, 1, dtype=np.float32)
    return np.stack([_hue(planes)[0], saturation, value / np.float32(255)])


def _hue(planes: np.ndarray) -> np.ndarray:
    """The angle divided by 360 degrees: 0 is red, 1/3 green, 2/3 blue; of a grey pixel, which has none, 0."""
    red, green, blue = planes.astype(np.float32)
    value = planes.max(axis=0)
    chroma = np.maximum(value - planes.min(axis=0), 1, dtype=np.float32)
    sixths = np.where(
        planes[0] == value,
        (green - blue) / chroma % 6,
        np.where(planes[1] == value, (blue - red) / chroma + 2, (red - green) / chroma + 4),
    )
    return (sixths / 6)[None]


def _lab(planes: np.ndarray) -> np.ndarray:
    """CIE L*a*b*, white point D65: L / 100, (a + 128) / 255, (b + 128) / 255, the range that 8 bits give it; colours of
    sRGB reach -86 to 98 in a and -108 to 95 in b."""
    ratios = np.einsum("xc,chw->xhw", RGB_TO_WHITE, LINEAR[planes])
    x, y, z = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios * (29 / 6) ** 2 / 3 + np.float32(4 / 29))
    lab = np.stack([1.16 * y - 0.16, (500 * (x - y) + 128) / 255, (200 * (y - z) + 128) / 255])
    return lab.clip(0, 1)  # white is 1 only up to rounding


def _normalised_rg(planes: np.ndarray) -> np.ndarray:
    """Red and green as a part of the sum of all three, 1/3 where that is 0; and the intensity."""
    total = planes.sum(axis=0, dtype=np.float32)
    parts = np.where(total > 0, planes[:2] / np.maximum(total, 1), np.float32(1 / 3))
    return np.concatenate([parts, _intensity(planes)])


def _intensity(planes: np.ndarray) -> np.ndarray:
    return (np.tensordot(LUMA, planes.astype(np.float32), 1) / 255).clip(0, 1)[None]


SPACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "HSV": _hsv,
    "Lab": _lab,
    "rgI": _normalised_rg,
    "H": _hue,
    "I": _intensity,
}
