"""Pictures of proposals: what must be seen in them is looked for in their pixels."""

import numpy as np

from minidet.drawing import draw_hierarchy, draw_recall
from minidet.drawing.canvas import PALETTE
from minidet.proposals import Hierarchy, build_hierarchies

# Grey and two colours, 64 x 64: three regions.
SQUARES = np.full((64, 64, 3), 128, np.uint8)
SQUARES[8:28, 8:28] = 200, 30, 30
SQUARES[8:28, 28:56] = 30, 30, 200


# The two become one, then all.
LABELS = np.zeros((64, 64), np.int64)
LABELS[8:28, 8:28], LABELS[8:28, 28:56] = 1, 2
BOXES = [[0, 0, 64, 64], [8, 8, 28, 28], [28, 8, 56, 28], [8, 8, 56, 28], [0, 0, 64, 64]]
SIZES = [3136, 400, 560, 960, 4096]
HIERARCHY = Hierarchy(
    "HSV",
    50,
    "S",
    LABELS,
    np.array([[1, 2], [0, 3]]),
    np.array([0.9, 0.1]),
    np.array(BOXES, np.float32),
    np.array(SIZES),
)


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=2).any())


def test_a_strip_shows_fewer_and_fewer_regions() -> None:
    """The image, 3 regions, 2 regions; with true boxes one picture more."""
    strip = draw_hierarchy(SQUARES, HIERARCHY, stages=4)
    assert strip.dtype == np.uint8
    cell = strip.shape[1] // 3
    image, three, two = (strip[:, at * cell : (at + 1) * cell] for at in range(3))
    for picture in (image, three):
        assert has(picture, (200, 30, 30))
        assert has(picture, (30, 30, 200))
    assert not has(two, (200, 30, 30))
    assert has(two, (100, 30, 129))  # of 400 and 560 pixels, rounded down
    assert has(two, (128, 128, 128))
    assert has(two, PALETTE[0])  # the box of the region that the merge made
    assert not has(three, PALETTE[0])
    with_truth = draw_hierarchy(SQUARES, HIERARCHY, np.array([[8, 8, 28, 28]]), stages=4)
    assert with_truth.shape[1] > strip.shape[1]


def test_one_region_is_drawn_too() -> None:
    even = np.full((32, 32, 3), 90, np.uint8)
    (hierarchy,) = build_hierarchies(even, "single")
    assert has(draw_hierarchy(even, hierarchy, title="one"), (90, 90, 90))


def test_a_large_image_is_shrunk() -> None:
    large = np.full((30, 2100, 3), 90, np.uint8)
    large[:, 1000:] = 200, 30, 30
    (hierarchy,) = build_hierarchies(large, "single")
    strip = draw_hierarchy(large, hierarchy)
    assert strip.shape[1] < 3 * 2100
    assert has(strip, (200, 30, 30))


def test_curves_of_recall() -> None:
    curves = {"single": [0.2, 0.5], "fast": [0.3, 0.9]}
    picture = draw_recall([10, 100], curves, [0.5, 0.9], curves)
    assert picture.dtype == np.uint8
    assert picture.shape == (420, 1100, 3)
    assert (draw_recall([10, 100], {"single": [0.2, 0.1]}, [0.5, 0.9], curves) != picture).any()
