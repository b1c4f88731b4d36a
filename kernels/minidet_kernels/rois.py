"""Regions of interest, as RoIPool and RoIAlign take them: the two formats of boxes, the checks of boxes and maps."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidet_kernels.arguments import LARGEST_INTEGER, MOST_PIXELS, check_floats, check_shape, is_finite
from minidet_kernels.versions import is_on_gpu

Boxes = np.ndarray | Sequence[np.ndarray]

# In pixels of the map. No map is that large; and up to here float32 coordinates are still exact to 1/16 of a pixel, so
# that a box cannot ask for a place that its numbers do not hold. rois.cuh has the number too.
LARGEST_COORDINATE = 2**20


def box_arrays(boxes: Boxes) -> Sequence[np.ndarray]:
    """The arrays that `choose` has to look at."""
    return boxes if isinstance(boxes, list | tuple) else [boxes]


def as_rois(operation: str, boxes: Boxes, images: int, like: np.ndarray) -> np.ndarray:
    """Either format -> (R, 5): the number of the image, x1, y1, x2, y2.

    boxes: (R, 5) already, or for each of the `images` an array (R_i, 4). Their dtype must be that of `like`. Raises
    ValueError for other shapes and for images that do not exist, TypeError for other dtypes. On the GPU images are not
    looked at, since the host would have to wait: the kernels pass over those that do not exist (rois.cuh).
    """
    if isinstance(boxes, list | tuple):
        return _from_list(operation, boxes, images, like)
    check_shape(operation, "boxes", boxes, "R 5", (None, 5))
    check_floats(operation, input=like, boxes=boxes)
    if is_on_gpu(boxes):
        return boxes
    image = boxes[:, 0]
    exists = (image >= 0) & (image < images) & (image == np.floor(image))  # all False for NaN
    if not exists.all():
        at = int(np.argmin(exists))
        raise ValueError(
            f"{operation}: expected boxes[:, 0] to be the number of an image, a whole number from 0 to {images - 1}, "
            f"got {image[at].item()} at {at}; the columns are image, x1, y1, x2, y2"
        )
    return boxes


def _from_list(operation: str, boxes: Sequence[np.ndarray], images: int, like: np.ndarray) -> np.ndarray:
    if len(boxes) != images:
        raise ValueError(
            f"{operation}: expected one array of boxes an image, {images} in all, got {len(boxes)}; "
            "an image without boxes has one of shape (0, 4)"
        )
    check_floats(operation, input=like)
    rois = [np.empty_like(like, shape=(0, 5))]
    for image, boxes_there in enumerate(boxes):
        check_shape(operation, f"boxes[{image}]", boxes_there, "R 4", (None, 4))
        check_floats(operation, **{"input": like, f"boxes[{image}]": boxes_there})
        rois.append(np.concatenate([np.full_like(boxes_there[:, :1], image), boxes_there], axis=1))
    return np.concatenate(rois)


def check_coordinates(operation: str, rois: np.ndarray, spatial_scale: float) -> None:
    """Of rois (R, 5): finite, on a map of possible size, x1 <= x2 and y1 <= y2. Raises ValueError.

    On the GPU only spatial_scale: rois.cuh has the rest, and takes what is refused here for a box without pixels.
    """
    if not (is_finite(spatial_scale) and spatial_scale > 0):
        raise ValueError(
            f"{operation}: expected spatial_scale to be a positive number, the size of the map divided by that of the "
            f"image, got {spatial_scale!r}"
        )
    if is_on_gpu(rois):
        return
    with np.errstate(over="ignore", invalid="ignore"):  # refused in words
        scaled = np.abs(rois[:, 1:]) * rois.dtype.type(spatial_scale)
    possible = (scaled <= LARGEST_COORDINATE).all(axis=1)  # NaN compares as False
    _refuse(operation, rois, possible, f"finite coordinates that times spatial_scale are at most {LARGEST_COORDINATE}")
    ordered = (rois[:, 1] <= rois[:, 3]) & (rois[:, 2] <= rois[:, 4])
    _refuse(operation, rois, ordered, "x1 <= x2 and y1 <= y2; if they are (x, y, width, height), add x and y")


def _refuse(operation: str, rois: np.ndarray, good: Any, expected: str) -> None:
    if not good.all():
        at = int(np.argmin(good))
        raise ValueError(
            f"{operation}: expected boxes of {expected}; got (x1, y1, x2, y2) = {rois[at, 1:].tolist()} at {at}"
        )


def check_map(operation: str, name: str, x: np.ndarray) -> None:
    """(N, C, H, W) with at least one pixel, and as many as int32 can count."""
    check_shape(operation, name, x, "N C H W", (None, None, None, None))
    if not 0 < x.shape[2] * x.shape[3] <= MOST_PIXELS:
        raise ValueError(
            f"{operation}: expected {name} (N, C, H, W) with H * W from 1 to {MOST_PIXELS} pixels, got {x.shape}"
        )


def map_shape(operation: str, input_size: Sequence[int]) -> tuple[int, int, int, int]:
    """input_size of an adjoint: the shape of x."""
    shape = tuple(input_size) if isinstance(input_size, list | tuple) else ()
    whole = all(isinstance(size, numbers.Integral) and size >= 0 for size in shape)
    if len(shape) != 4 or not whole or not 0 < shape[2] * shape[3] <= MOST_PIXELS:
        raise ValueError(
            f"{operation}: expected input_size (N, C, H, W), the shape of x, with H * W from 1 to {MOST_PIXELS} "
            f"pixels, got {input_size!r}"
        )
    n, c, h, w = (int(size) for size in shape)
    if 8 * max(n, 1) * max(c, 1) * h * w > LARGEST_INTEGER:  # bytes in float64
        raise ValueError(f"{operation}: expected input_size (N, C, H, W) of an array that can be, got {input_size!r}")
    return n, c, h, w
