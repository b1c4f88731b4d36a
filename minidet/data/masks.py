"""Masks as COCO stores them: run lengths down the columns, as numbers or packed into text, and polygons."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

FINER = 5  # times, the grid on which outlines are drawn (pycocotools); odd, so that pixels' middles are on it


def mask_to_counts(mask: np.ndarray) -> list[int]:
    """Run lengths of an (H, W) bool mask, column by column: how many 0, how many 1, how many 0, ..."""
    values = np.concatenate([[False], mask.ravel(order="F")])  # the first length is one of 0
    changes = np.flatnonzero(values[1:] != values[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def counts_to_mask(counts: Sequence[int], height: int, width: int) -> np.ndarray:
    """The inverse of mask_to_counts: (height, width) bool. The counts must add up to height * width."""
    lengths = np.asarray(counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        got = f"one of {lengths.min()}" if (lengths < 0).any() else lengths.sum()
        raise ValueError(f"expected run lengths >= 0 that add up to {height} x {width} = {height * width}, got {got}")
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return values.reshape(width, height).T


def unpack_counts(text: str) -> list[int]:
    """COCO's packed run lengths: 5 bits a character from '0' on, bit 6 says "more follows", signed; from the fourth
    number on, each is the difference to the number two before."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError(f"expected packed run lengths, got the character {character!r} in them")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # the last group's sign bit
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("expected packed run lengths, but the text ends inside a number")
    return counts


def pack_counts(counts: Sequence[int]) -> str:
    """The inverse of unpack_counts, as pycocotools packs them."""
    characters = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            if value == (-1 if bits & 16 else 0):  # what follows is only the sign
                break
            characters.append(chr(48 + bits + 32))
        characters.append(chr(48 + bits))
    return "".join(characters)


class RunLengths:
    """The N masks of an image, (N, H, W) bool, kept as run lengths: of things, a hundredth of what their pixels take.

    `np.asarray` paints them all; an index paints one; booleans or a slice give a RunLengths of some.
    """

    def __init__(self, masks: np.ndarray) -> None:
        self.counts, self.size = [np.array(mask_to_counts(mask), np.int32) for mask in masks], masks.shape[1:]

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.counts), *self.size

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, int | np.integer):
            return counts_to_mask(self.counts[which], *self.size)
        some = copy.copy(self)
        some.counts = [self.counts[place] for place in np.arange(len(self))[which]]
        return some

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        masks = np.zeros(self.shape, bool if dtype is None else dtype)
        for mask, counts in zip(masks, self.counts, strict=True):
            mask[:] = counts_to_mask(counts, *self.size)
        return masks


def mask_boxes(masks: Sequence[np.ndarray]) -> np.ndarray:
    """(R, 4) float64: the boxes x1 y1 x2 y2 around the true pixels of masks (H, W); all 0 where there are none."""
    boxes = np.zeros((len(masks), 4))
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def polygons_to_mask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """(height, width) bool: what lies inside one of the polygons, as pycocotools paints them, to the pixel.

    polygons: (n, 2) arrays of x, y in continuous pixel coordinates; even-odd rule for one that crosses itself.
    """
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        places = _crossings(np.asarray(polygon, np.float64), height, width)
        if not len(places):
            continue
        first, last = places.min() // height, min(places.max() // height, width - 1)  # columns
        crossings = np.zeros((last - first + 1) * height + 1, np.int64)  # how often the outline is crossed there
        np.add.at(crossings, places - first * height, 1)
        mask[:, first : last + 1] |= (crossings[:-1].cumsum() % 2 == 1).reshape(-1, height).T
    return mask


def _crossings(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where the outline crosses the middle lines of the pixels' columns: the first pixel below it, counted down the
    columns, one after the other.

    Corners are rounded to a grid FINER times as fine, and the outline goes in single steps from one to the next, on
    its longer axis. Between two of its points that differ in x it is crossed at the upper one's height.
    """
    corners = (FINER * polygon + 0.5).astype(np.int64)  # as in C: towards 0
    ends = np.roll(corners, -1, axis=0)
    sides = np.abs(ends - corners)
    steps, major = sides.max(axis=1), (sides[:, 1] > sides[:, 0]).astype(np.int64)  # axis 0 where they are equal
    edges, minor = np.arange(len(corners)), 1 - major
    backwards = corners[edges, major] > ends[edges, major]  # each line is drawn from its lower end, whatever its way
    low, high = (np.where(backwards[:, None], b, a) for a, b in ((corners, ends), (ends, corners)))
    slope = (high[edges, minor] - low[edges, minor]) / np.maximum(steps, 1)

    edge = np.repeat(edges, steps + 1)
    along = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    along = np.where(backwards[edge], steps[edge] - along, along)
    points = np.empty((len(edge), 2), np.int64)
    rows = np.arange(len(edge))
    points[rows, major[edge]] = low[edge, major[edge]] + along
    points[rows, minor[edge]] = (low[edge, minor[edge]] + slope[edge] * along + 0.5).astype(np.int64)

    (x, y), (old_x, old_y) = points[1:].T, points[:-1].T
    column = (np.where(x < old_x, x, x - 1) + 0.5) / FINER - 0.5
    row = np.ceil(((np.minimum(y, old_y) + 0.5) / FINER - 0.5).clip(0, height))
    crossed = (x != old_x) & (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    return (column * height + row)[crossed].astype(np.int64)
