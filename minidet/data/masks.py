"""Masks as COCO stores them: run lengths down the columns, as numbers or packed into text, and polygons."""

from collections.abc import Sequence

import numpy as np


def mask_to_counts(mask: np.ndarray) -> list[int]:
    """Run lengths of an (H, W) bool mask, column by column: how many 0, how many 1, how many 0, ..."""
    values = np.concatenate([[False], mask.ravel(order="F"), [True]])  # starts with 0, ends with a change
    changes = np.flatnonzero(values[1:-1] != values[:-2])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def counts_to_mask(counts: list[int], height: int, width: int) -> np.ndarray:
    """The inverse of mask_to_counts: (height, width) bool. The counts must add up to height * width."""
    lengths = np.asarray(counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"expected run lengths >= 0 that add up to {height} x {width} = {height * width}")
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return values.reshape(width, height).T


def unpack_counts(text: str) -> list[int]:
    """COCO's packed run lengths: 5 bits a character from '0' on, bit 6 says "more follows", signed; from the third
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


def polygons_to_mask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """(height, width) bool: the pixels whose centre lies inside one of the polygons.

    polygons: (n, 2) arrays of x, y in continuous pixel coordinates; even-odd rule for one that crosses itself.
    """
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        crossings = np.zeros((height, width + 1), np.int32)  # how often the outline is crossed before each pixel
        for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y1 > y2:
                x1, y1, x2, y2 = x2, y2, x1, y1
            first, last = np.clip(np.ceil([y1 - 0.5, y2 - 0.5]), 0, height).astype(int)  # rows with y1 <= y+.5 < y2
            rows = np.arange(first, last)
            if len(rows):
                x = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
                np.add.at(crossings, (rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)), 1)
        mask |= crossings.cumsum(axis=1)[:, :width] % 2 == 1
    return mask
