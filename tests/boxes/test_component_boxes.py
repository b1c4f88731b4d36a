"""Boxes of all components of many masks: by hand, and against SciPy."""

import numpy as np
import pytest
from scipy.ndimage import find_objects, label

from minidet.boxes import component_boxes


def drawn(*pictures: str) -> np.ndarray:
    return np.array([[[c == "#" for c in row] for row in text.split()] for text in pictures])


def test_two_masks_by_hand() -> None:
    boxes, pixels, masks = component_boxes(drawn("##..# #.... ...##", "..... ..... ....."))
    assert boxes.tolist() == [[0, 0, 2, 2], [4, 0, 5, 1], [3, 2, 5, 3]]
    assert (pixels.tolist(), masks.tolist()) == ([3, 1, 2], [0, 0, 0])
    assert (boxes.dtype, pixels.dtype, masks.dtype) == (np.float32, np.int64, np.int64)
    boxes, pixels, masks = component_boxes(drawn("..... ..... .....", "....# ..... .....", "#.... .#... ....."), 4)
    assert boxes.tolist() == [[4, 0, 5, 1], [0, 0, 1, 1], [1, 1, 2, 2]]
    assert (pixels.tolist(), masks.tolist()) == ([1, 1, 1], [1, 2, 2])


@pytest.mark.parametrize("fill", [0.1, 0.4, 0.7, 1.0])
def test_random_masks_against_scipy(fill: float) -> None:
    masks = np.random.default_rng(0).random((20, 9, 13)) < fill
    found = component_boxes(masks)
    expected = []
    for number, mask in enumerate(masks):
        labels, _ = label(mask, structure=np.ones((3, 3)))
        for component, (rows, columns) in enumerate(find_objects(labels), start=1):
            box = [columns.start, rows.start, columns.stop, rows.stop]
            expected.append((box, (labels == component).sum(), number))
    for got, wanted in zip(found, zip(*expected, strict=True), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 4, 4), (2, 0, 4), (2, 4, 0)])
def test_masks_without_any_component(shape) -> None:
    boxes, pixels, masks = component_boxes(np.zeros(shape, bool))
    assert (boxes.shape, pixels.shape, masks.shape) == ((0, 4), (0,), (0,))
