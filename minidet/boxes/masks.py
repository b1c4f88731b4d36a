"""Masks of boxes: from the small map that a network draws within a box to the pixels of the image.

The map's cells are probabilities at the centres of a grid over the box, and 0 around it. What is between the centres is
interpolated (He et al. 2017, section 3).
"""

import numpy as np

from .. import functional as F


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], threshold: float = 0.5, aligned: bool = True
) -> np.ndarray:
    """(D, H, W) bool: the pixels of an image of size (H, W) where masks (D, M, M), probabilities over their boxes
    (D, 4), are above the threshold. A lower threshold draws more generous masks.

    aligned: each pixel is what the map is at the pixel's centre. False: as torchvision's paste_masks_in_image, which
    rounds boxes to whole pixels first: an error of a tenth for an object of ten pixels.
    """
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float32)
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2] or boxes.shape != (len(masks), 4):
        raise ValueError(f"paste_masks: expected masks (D, M, M) and boxes (D, 4), got {masks.shape} and {boxes.shape}")
    pasted = np.zeros((len(masks), *size), bool)
    paste = _paste_at_centers if aligned else _paste_rounded
    for target, mask, box in zip(pasted, masks, boxes, strict=True):
        paste(target, mask, box, threshold)
    return pasted


def _paste_at_centers(target: np.ndarray, mask: np.ndarray, box: np.ndarray, threshold: float) -> None:
    spans, weights = [], []
    for low, high, pixels in zip(box[[1, 0]].tolist(), box[[3, 2]].tolist(), target.shape, strict=True):
        cell = max(high - low, 1e-6) / len(mask)
        first, last = max(int(np.floor(low - cell)), 0), min(int(np.ceil(high + cell)), pixels)
        places = (np.arange(first, last) + 0.5 - low) / cell - 0.5  # of pixels' centres, in cells
        near = 1 - np.abs(places[:, None] - np.arange(len(mask)))
        spans.append(slice(first, max(last, first)))
        weights.append(np.maximum(near, 0).astype(np.float32))
    target[tuple(spans)] = weights[0] @ mask @ weights[1].T > threshold


def _paste_rounded(target: np.ndarray, mask: np.ndarray, box: np.ndarray, threshold: float) -> None:
    height, width = target.shape
    x1, y1, x2, y2 = _framed(box, len(mask))
    sides = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)  # the last row and column belong to it
    top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2 + 1, height), min(x2 + 1, width)
    if top < bottom and left < right:
        resized = F.interpolate(np.pad(mask, 1)[None, None], sides, mode="bilinear")[0, 0]
        target[top:bottom, left:right] = resized[top - y1 : bottom - y1, left - x1 : right - x1] > threshold


def _framed(box: np.ndarray, side: int) -> list[int]:
    """A box grown around its centre for a frame of one cell around `side` x `side`, in whole pixels."""
    scale = np.float32((side + 2) / side)
    center, half_sides = (box[2:] + box[:2]) * np.float32(0.5), (box[2:] - box[:2]) * np.float32(0.5) * scale
    return np.concatenate([center - half_sides, center + half_sides]).astype(np.int64).tolist()
