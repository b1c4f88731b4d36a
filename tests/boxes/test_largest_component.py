"""The box around the largest component: drawn by hand."""

import numpy as np
import pytest

from minidet import Tensor
from minidet.boxes import largest_component_box


def drawn(text: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in text.split()])


@pytest.mark.parametrize(
    ("picture", "connectivity", "box"),
    [
        ("#..... #..##. ...###", 8, [3, 1, 6, 3]),
        ("##..#. .....# ##....", 8, [0, 0, 2, 1]),  # three of two pixels each: the first
        ("#...## .#.... ..#...", 8, [0, 0, 3, 3]),
        ("#...## .#.... ..#...", 4, [4, 0, 6, 1]),  # without diagonals only the pair hangs together
        ("...... ...... .....#", 8, [5, 2, 6, 3]),
        ("...... ......", 8, [0, 0, 0, 0]),
        ("### ###", 8, [0, 0, 3, 2]),
    ],
)
def test_boxes_by_hand(picture: str, connectivity: int, box: list[int]) -> None:
    for mask in (drawn(picture), Tensor(drawn(picture))):
        found = largest_component_box(mask, connectivity)
        assert found.tolist() == box
        assert found.dtype == np.float32


def test_the_box_of_a_heat_map_above_a_fifth_of_its_maximum() -> None:
    rows, columns = np.mgrid[:20, :30]
    cam = np.exp(-((rows - 8) ** 2 + (columns - 20) ** 2) / 8) + 0.3 * np.exp(-((rows - 2) ** 2 + (columns - 3) ** 2))
    # exp(-r^2 / 8) > 0.2 for r < 3.6: three pixels to each side
    assert largest_component_box(cam > 0.2 * cam.max()).tolist() == [17, 5, 24, 12]


def test_other_masks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected mask \(H, W\), got \(1, 3, 3\)"):
        largest_component_box(np.zeros((1, 3, 3), bool))
    with pytest.raises(TypeError, match="of bool, got float64"):
        largest_component_box(np.zeros((3, 3)))
