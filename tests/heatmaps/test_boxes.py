"""Boxes around heat maps: by hand, by literal loops, and the maps that have none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import find_objects, label

from minidet import Tensor
from minidet.heatmaps.boxes import MODES, map_box, map_boxes, threshold_maps

# A hill of height 10, a small one of height 5, and a valley of depth -10 in the corner.
HILLS = np.array([
    [0.0, 1.0, 2.0, 1.0, 0.0, 0.0, 0.0],
    [1.0, 4.0, 8.0, 4.0, 0.0, 5.0, 0.0],
    [2.0, 8.0, 10., 8.0, 0.0, 0.0, 0.0],
    [1.0, 4.0, 8.0, 4.0, 0.0, 0.0, -10],
])  # fmt: skip


@pytest.mark.parametrize(
    ("threshold", "mode", "box"),
    [
        (0.2, "fraction_of_max", [1, 1, 4, 4]),  # > 2: the two values of exactly 2 are not
        (0.19, "fraction_of_max", [0, 0, 4, 4]),
        (0.5, "fraction_of_max", [1, 1, 4, 4]),
        (0.8, "fraction_of_max", [2, 2, 3, 3]),
        (0.99, "fraction_of_max", [2, 2, 3, 3]),
        (1.0, "fraction_of_max", [0, 0, 0, 0]),  # nothing is above the maximum
        (0.2, "minmax", [0, 0, 7, 4]),  # > -10 + 0.2 * 20 = -6: all but the corner
        (0.5, "minmax", [0, 0, 4, 4]),  # > 0
        (0.6, "minmax", [1, 1, 4, 4]),  # > 2
        (0.9, "minmax", [2, 2, 3, 3]),  # > 8
    ],
)
def test_boxes_by_hand(threshold: float, mode: str, box: list[int]) -> None:
    for heat_map in (HILLS, HILLS.astype(np.float32), Tensor(HILLS.astype(np.float32)), HILLS.astype(int)):
        found = map_box(heat_map, threshold, mode)
        assert found.tolist() == box
        assert found.dtype == np.float32
    assert map_boxes(np.stack([HILLS, HILLS[::-1]]), threshold, mode)[0].tolist() == box


def test_zhous_rule_is_the_default() -> None:
    assert map_box(HILLS).tolist() == map_box(HILLS, 0.2, "fraction_of_max").tolist() == [1, 1, 4, 4]


def test_the_largest_component_decides_and_not_the_highest() -> None:
    heat_map = np.array([[9.0, 0, 3, 3, 3], [0, 0, 0, 0, 3]])
    assert map_box(heat_map).tolist() == [2, 0, 5, 2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "heat_map",
    [np.zeros((4, 5)), np.full((4, 5), -2.0), np.full((4, 5), np.nan), np.where(np.eye(4) > 0, np.nan, 1.0),
     np.where(np.eye(4) > 0, np.inf, 1.0), np.where(np.eye(4) > 0, -np.inf, 1.0)],
)  # fmt: skip
def test_maps_without_anything_above_have_an_empty_box_and_no_warning(heat_map, mode: str) -> None:
    with np.errstate(all="raise"):
        assert map_box(heat_map, 0.2, mode).tolist() == [0, 0, 0, 0]


def test_negative_maps_have_a_box_only_where_the_scale_begins_at_their_minimum() -> None:
    assert map_box(HILLS - 20).tolist() == [0, 0, 0, 0]
    assert map_box(HILLS - 20, 0.6, "minmax").tolist() == [1, 1, 4, 4]


def test_a_constant_map_is_all_above_a_fraction_of_itself_and_has_no_range() -> None:
    assert map_box(np.full((3, 4), 7.0)).tolist() == [0, 0, 4, 3]
    assert map_box(np.full((3, 4), 7.0), 0.2, "minmax").tolist() == [0, 0, 0, 0]


def literal_box(heat_map: np.ndarray, threshold: float, mode: str) -> list[float]:
    """The definition, with SciPy's components."""
    heat_map = heat_map.astype(float)
    if mode == "minmax":
        span = heat_map.max() - heat_map.min()
        if span == 0:
            return [0, 0, 0, 0]
        level = heat_map.min() + threshold * span
    else:
        level = threshold * heat_map.max()
    labels, count = label(heat_map > level, structure=np.ones((3, 3)))
    if count == 0:
        return [0, 0, 0, 0]
    sizes = [(labels == number).sum() for number in range(1, count + 1)]
    rows, columns = find_objects(labels)[int(np.argmax(sizes))]
    return [columns.start, rows.start, columns.stop, rows.stop]


@settings(max_examples=200, deadline=None)
@given(
    heat_map=hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-4, 6)),
    threshold=st.sampled_from([0.0, 0.2, 0.25, 0.5, 0.9, 1.0]),
    mode=st.sampled_from(MODES),
)
def test_any_map_against_literal_loops(heat_map, threshold: float, mode: str) -> None:
    assert map_box(heat_map, threshold, mode).tolist() == literal_box(heat_map, threshold, mode)


def test_masks_of_many_thresholds_are_those_of_each() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 6, 5)).astype(np.float32)
    thresholds = np.array([0.0, 0.3, 0.7])
    masks = threshold_maps(maps, thresholds, "minmax")
    assert masks.shape == (3, 3, 6, 5)
    for heat_map, of_map in zip(maps.astype(float), masks, strict=True):
        scaled = (heat_map - heat_map.min()) / (heat_map.max() - heat_map.min())
        for threshold, mask in zip(thresholds, of_map, strict=True):
            np.testing.assert_array_equal(mask, scaled > threshold)


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match=r"map_box: expected heat_map \(H, W\), got \(1, 4, 7\)"):
        map_box(HILLS[None])
    with pytest.raises(ValueError, match=r"map_boxes: expected maps \(N, H, W\), got \(4, 7\)"):
        map_boxes(HILLS)
    with pytest.raises(ValueError, match=r"expected heat_map \(H, W\), got \(0, 5\)"):
        map_box(np.zeros((0, 5)))
    with pytest.raises(ValueError, match="mode among fraction_of_max, minmax, got 'min-max'"):
        map_box(HILLS, mode="min-max")
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="a threshold between 0 and 1, got"):
            map_box(HILLS, threshold)
    assert map_boxes(np.zeros((0, 4, 4))).shape == (0, 4)
