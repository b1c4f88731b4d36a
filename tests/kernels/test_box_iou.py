"""Overlaps of boxes: numbers worked out by hand, literal loops, torch; and the errors of the contract."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk
from tests.kernels.generated_boxes import exact_iou, iou_by_hand, random_boxes
from tests.kernels.harness import assert_close


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


BOX = [0, 0, 4, 2]  # area 8
OTHERS = [
    [0, 0, 4, 2],  # itself
    [2, 1, 6, 3],  # 2 x 1 in common, hull 6 x 3
    [4, 0, 6, 2],  # touches it: hull 6 x 2, all filled
    [10, 10, 12, 12],  # apart: hull 12 x 12
    [1, 0, 3, 1],  # inside
    [0, 0, 0, 2],  # a line on its edge
    [-4, -2, 4, 2],  # around it
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_overlaps_by_hand(dtype: type) -> None:
    box, others = np.array([BOX], dtype), np.array(OTHERS, dtype)
    iou = [1, 2 / 14, 0, 0, 2 / 8, 0, 8 / 32]
    giou = [1, 2 / 14 - 4 / 18, 0, -(144 - 12) / 144, 2 / 8, 0, 8 / 32]
    np.testing.assert_allclose(mk.box_iou(box, others), [iou], rtol=2e-7)
    np.testing.assert_allclose(mk.generalized_box_iou(box, others), [giou], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(mk.box_iou(others, box)[:, 0], iou, rtol=2e-7)
    assert mk.box_iou(box, others).dtype == dtype


@pytest.mark.parametrize("function", [mk.box_iou, mk.generalized_box_iou])
def test_degenerate_boxes_give_0_and_no_warning(function) -> None:
    boxes = np.array([[3.0, 3, 3, 3], [3, 3, 3, 3], [0, 3, 9, 3], [5, 3, 5, 3]])
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(function(boxes, boxes), np.zeros((4, 4)))


def test_two_points_apart_are_as_far_as_can_be() -> None:
    points = np.array([[0.0, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(mk.generalized_box_iou(points, points), [[0, -1], [-1, 0]])


def test_an_area_below_the_smallest_normal_number_is_nothing() -> None:
    side = np.sqrt(np.finfo(np.float32).tiny)
    for factor, expected in ((1.01, 1), (0.9, 0)):
        box = np.array([[0, 0, side * factor, side * factor]], np.float32)
        assert mk.box_iou(box, box).item() == expected


@pytest.mark.parametrize("function", [mk.box_iou, mk.generalized_box_iou])
def test_the_largest_boxes_allowed_do_not_overflow(function) -> None:
    large = np.float32(4.6e18)
    boxes = np.array([[-large, -large, large, large], [-large, -large, 0, 0], [0, 0, large, large]], np.float32)
    expected = np.array([[1, 0.25, 0.25], [0.25, 1, 0], [0.25, 0, 1]], np.float32)
    if function is mk.generalized_box_iou:
        expected[1, 2] = expected[2, 1] = -0.5  # two of the hull's four quarters are filled
    np.testing.assert_array_equal(function(boxes, boxes), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_literal_loops_give_the_same_bits(dtype: type) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        boxes, others = random_boxes(rng, 9, dtype), random_boxes(rng, 21, dtype)
        with np.errstate(under="ignore"):
            expected = [[iou_by_hand(a, b) for b in others] for a in boxes]
        assert mk.box_iou(boxes, others).tobytes() == np.array(expected, dtype).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_errors_are_a_few_units(dtype: type) -> None:
    """The proof in nms/grid.py says that a computed IoU exceeds the true one by less than 16 eps."""
    for seed in range(60):
        boxes = random_boxes(np.random.default_rng(seed), 12, dtype)
        computed = mk.box_iou(boxes, boxes)
        for i, j in np.ndindex(computed.shape):
            assert float(computed[i, j]) - float(exact_iou(boxes[i], boxes[j])) < 16 * np.finfo(dtype).eps


def test_versions_give_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        boxes, others = random_boxes(rng, 70, dtype), random_boxes(rng, 90, dtype)
        for function in (mk.box_iou, mk.generalized_box_iou):
            here = function(boxes, others)
            with mk.use("reference"):
                assert here.tobytes() == function(boxes, others).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torchvisions_formula_agrees(dtype: type) -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 100, (2, 60, 2))
    boxes, others = np.concatenate([corners, corners + rng.uniform(1, 50, (2, 60, 2))], axis=2).astype(dtype)
    a, b = torch.from_numpy(boxes)[:, None], torch.from_numpy(others)[None]

    def area(x):
        return (x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1])

    sides = (torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(a) + area(b) - intersection
    hull = (torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])).prod(-1)
    assert_close(mk.box_iou(boxes, others), (intersection / union).numpy(), "box_iou")
    expected = (intersection / union - (hull - union) / hull).numpy()
    assert_close(mk.generalized_box_iou(boxes, others), expected, "generalized_box_iou")


@pytest.mark.parametrize(("max_bytes", "rows"), [(1, 1), (3 * 5 * 8, 3), (1 << 20, 7)])
def test_blocks_are_the_rows_of_the_whole(max_bytes: int, rows: int) -> None:
    rng = np.random.default_rng(2)
    boxes, others = random_boxes(rng, 7, np.float64), random_boxes(rng, 5, np.float64)
    blocks = list(mk.box_iou_blocks(boxes, others, max_bytes))
    assert blocks[0][1].shape == (rows, 5)
    assert all(block.nbytes <= max(max_bytes, 40) for _, block in blocks)
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), mk.box_iou(boxes, others))
    np.testing.assert_array_equal(np.concatenate([np.arange(7)[rows] for rows, _ in blocks]), np.arange(7))


def test_nothing_to_compare() -> None:
    none, some = np.zeros((0, 4), np.float32), np.zeros((3, 4), np.float32)
    assert mk.box_iou(none, some).shape == (0, 3)
    assert mk.generalized_box_iou(some, none).shape == (3, 0)
    assert list(mk.box_iou_blocks(none, some)) == []
    assert [block.shape for _, block in mk.box_iou_blocks(some, none)] == [(3, 0)]


GOOD = np.array([[0.0, 0, 2, 2], [1, 1, 3, 3]])


def _with(value: float, column: int = 2) -> np.ndarray:
    boxes = GOOD.copy()
    boxes[1, column] = value
    return boxes


@pytest.mark.parametrize("function", [mk.box_iou, mk.generalized_box_iou, mk.box_iou_blocks])
@pytest.mark.parametrize(
    ("boxes", "others", "error", "message"),
    [
        (_with(np.nan), GOOD, ValueError, r"boxes1 \(2, 4\) with finite .*nan.* in row 1 \(1 such"),
        (GOOD, _with(np.inf), ValueError, r"boxes2 \(2, 4\) with finite .*inf.* in row 1"),
        (GOOD, _with(1e200), ValueError, r"up to 3\.4e\+153.* in row 1"),
        (_with(0.5), GOOD, ValueError, r"boxes1 \(2, 4\) as x1 y1 x2 y2 with x1 <= x2 and y1 <= y2, got .* in row 1"),
        (GOOD, _with(0.5, 3), ValueError, r"boxes2 \(2, 4\) as x1 y1 x2 y2"),
        (GOOD[:, :3], GOOD, ValueError, r"boxes1 .* got \(2, 3\)"),
        (GOOD[0], GOOD, ValueError, r"boxes1 .* got \(4,\)"),
        (GOOD, GOOD.astype(np.float32), TypeError, "boxes1 float64, boxes2 float32"),
        (GOOD.astype(int), GOOD.astype(int), TypeError, "float32 or float64"),
        (GOOD.tolist(), GOOD, TypeError, "boxes1 to be an array, got list"),
    ],
)
def test_bad_boxes_are_refused_by_name(function, boxes, others, error, message: str) -> None:
    with pytest.raises(error, match=message):
        function(boxes, others)


def test_blocks_of_no_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="max_bytes > 0, got 0"):
        mk.box_iou_blocks(GOOD, GOOD, 0)
