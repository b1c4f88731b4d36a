"""Where resampling looks: the pixels of a resized axis, and the matrices of warps. Small, so always in NumPy."""

from __future__ import annotations

import functools

import numpy as np

from minidet_kernels.arguments import Pair, as_size, check_floats, check_shape, is_finite
from minidet_kernels.versions import to_host

ScaleFactor = float | tuple[float, float] | None

# Larger entries cannot come from an image, and 64-bit integers could not hold the pixels they point to.
LARGEST_ENTRY = 1e9


def as_scale_factors(operation: str, scale_factor: ScaleFactor) -> tuple[float | None, float | None]:
    """2 means (2, 2), (2, 3) is rows and columns; None means the ratio of the sizes."""
    if scale_factor is None:
        return None, None
    pair = tuple(scale_factor) if np.iterable(scale_factor) else (scale_factor, scale_factor)
    if len(pair) != 2 or not all(is_finite(f) and f > 0 for f in pair):
        raise ValueError(
            f"{operation}: expected scale_factor to be a finite number > 0 or a pair (rows, columns) of them, "
            f"got {scale_factor!r}"
        )
    return float(pair[0]), float(pair[1])


def nearest_pixels(inputs: int, outputs: int, scale_factor: float | None) -> np.ndarray:
    """(outputs,): the pixel that each output is a copy of.

    Where i * inputs / outputs is a whole number, rounding decides for it or for the one before. PyTorch computes in
    float32, and does not look at the scale factor where the size stays or doubles: so do we, for its weights' sake.
    """
    i = np.arange(outputs)
    if outputs in (inputs, 2 * inputs):
        return i * inputs // outputs
    if scale_factor is None:
        step = np.float32(inputs) / np.float32(outputs)
    else:  # a step of `inputs` already leads past the last pixel; a longer one could lead past what an integer holds
        step = np.float32(min(1 / scale_factor, inputs))
    return np.minimum((i.astype(np.float32) * step).astype(np.int64), inputs - 1)


def axis_taps(
    inputs: int, outputs: int, align_corners: bool, scale_factor: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """index and weight, (2, outputs) both: output i is the sum over t of weight[t, i] * x[index[t, i]].

    An axis that keeps its size is copied whatever the scale factor, as PyTorch does.
    """
    index, weight = _axis_taps(int(inputs), int(outputs), bool(align_corners), scale_factor)
    return index.copy(), weight.copy()


@functools.lru_cache(maxsize=64)  # one image after the other is resized in the same way
def _axis_taps(
    inputs: int, outputs: int, align_corners: bool, scale_factor: float | None
) -> tuple[np.ndarray, np.ndarray]:
    i = np.arange(outputs)
    if outputs == inputs:
        return np.stack([i, i]), np.stack([np.ones(outputs), np.zeros(outputs)])
    if align_corners:
        position = i * ((inputs - 1) / max(outputs - 1, 1))
    else:
        step = inputs / outputs if scale_factor is None else 1 / scale_factor
        position = np.clip((i + 0.5) * step - 0.5, 0, inputs - 1)
    first = np.minimum(position.astype(np.int64), inputs - 1)  # align_corners may round to a little beyond the last
    second = np.minimum(first + 1, inputs - 1)  # at the border both are the last pixel
    part = np.minimum(position - first, 1)
    return np.stack([first, second]), np.stack([1 - part, part])


def rotation_then_translation(angles: np.ndarray, shifts: np.ndarray, size: int | Pair) -> np.ndarray:
    """angles (N,) in radians, shifts (N, 2) as (x, y) in pixels, size = (H, W) -> matrices (N, 2, 3) for `affine_warp`.

    The picture is first rotated about its centre, the direction of x turning towards that of y (clockwise on a screen,
    where y points down), and then shifted. A point p of the picture goes to R (p - centre) + centre + shift; the matrix
    is the inverse of that, because a warp asks where a pixel of its result comes from: first the shift is taken back,
    then the rotation. Raises ValueError for other shapes.
    """
    size = as_size("rotation_then_translation", "size", size)
    angles, shifts = np.asarray(angles, np.float64), np.asarray(shifts, np.float64)
    check_shape("rotation_then_translation", "angles", angles, "N", (None,))
    check_shape("rotation_then_translation", "shifts", shifts, "N 2", (len(angles), 2))
    centre = np.array([size[1] - 1, size[0] - 1]) / 2
    cos, sin = np.cos(angles), np.sin(angles)
    back = np.stack([np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)], axis=1)  # (N, 2, 2), R transposed
    start = centre - np.einsum("nij,nj->ni", back, centre + shifts)
    return np.concatenate([back, start[:, :, None]], axis=2)


def invert_affine(matrices: np.ndarray) -> np.ndarray:
    """matrices (N, 2, 3) -> those of the inverse maps, float64: a warp by them undoes a warp by `matrices`.

    Undoing is exact for the positions; interpolation has blurred the picture twice, and what left it is lost. Raises
    ValueError where a matrix has no inverse.
    """
    matrices = check_matrices("invert_affine", matrices)
    inverse = np.linalg.inv(matrices[:, :, :2])
    return np.concatenate([inverse, -inverse @ matrices[:, :, 2:]], axis=2)


def check_matrices(operation: str, matrices: np.ndarray) -> np.ndarray:
    """The matrices on the host, float64, if they are (N, 2, 3), of numbers that can be coordinates, and invertible."""
    check_shape(operation, "matrices", matrices, "N 2 3", (None, 2, 3))
    check_floats(operation, matrices=matrices)
    entries = to_host(matrices).astype(np.float64, order="C")
    wrong = ~(np.abs(entries) < LARGEST_ENTRY).all(axis=(1, 2))  # put this way, NaN is wrong too
    determinant = entries[:, 0, 0] * entries[:, 1, 1] - entries[:, 0, 1] * entries[:, 1, 0]
    singular = determinant == 0
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(
            f"{operation}: expected matrices of finite numbers below {LARGEST_ENTRY:.0e}, got {entries[at].tolist()} "
            f"at {at}; look for a division by 0 where it was made"
        )
    if singular.any():
        at = int(np.argmax(singular))
        raise ValueError(
            f"{operation}: expected matrices whose left 2 x 2 part is invertible, got {entries[at].tolist()} at {at}, "
            "which maps the whole image to a line"
        )
    return entries
