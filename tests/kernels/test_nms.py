"""Suppression: small scenes by hand, literal loops, torch; the grid's proof; memory; and the errors of the contract."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidet_kernels as mk
from tests.kernels.generated_boxes import compare, exact_iou, iou_by_hand, nms_by_hand, random_boxes, random_scores


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


# A row of boxes 10 wide and 1 high, each shifted: IoU of two is (10 - d) / (10 + d) for the shift d.
def shifted(*lefts: float, dtype: type = np.float32) -> np.ndarray:
    return np.array([[left, 0, left + 10, 1] for left in lefts], dtype)


def scores(*values: float, dtype: type = np.float32) -> np.ndarray:
    return np.array(values, dtype)


def test_a_suppressed_box_does_not_suppress() -> None:
    # 2 apart: IoU 2/3; 4 apart: 3/7. The second is suppressed by the first, and the third stays.
    assert mk.nms(shifted(0, 2, 4), scores(0.9, 0.8, 0.7), 0.5).tolist() == [0, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("overlap", "total"), [(3, 10), (1, 2), (6, 10), (7, 10), (9, 10), (1, 3)])
def test_an_overlap_equal_to_the_threshold_is_kept(dtype: type, overlap: int, total: int) -> None:
    boxes = np.array([[0, 0, total, 1], [0, 0, overlap, 1]], dtype)
    assert mk.nms(boxes, scores(0.9, 0.8, dtype=dtype), overlap / total).tolist() == [0, 1]
    assert mk.nms(boxes, scores(0.9, 0.8, dtype=dtype), overlap / total - 1e-3).tolist() == [0]


def test_the_order_is_score_descending_then_index_ascending() -> None:
    boxes = shifted(0, 100, 200, 300, 0)
    assert mk.nms(boxes, scores(0.5, 0.9, 0.5, 0.9, 0.5), 0.5).tolist() == [1, 3, 0, 2]
    assert mk.nms(boxes, scores(-0.0, 0.0, -0.0, 0.0, 0.0), 0.5).tolist() == [0, 1, 2, 3]
    assert mk.nms(boxes, scores(-np.inf, -2, 3, np.inf, -1), 0.5).tolist() == [3, 2, 4, 1]


def test_thresholds_0_and_1() -> None:
    boxes, by_score = shifted(0, 9, 10, 0), scores(0.9, 0.8, 0.7, 0.6)
    assert mk.nms(boxes, by_score, 0).tolist() == [0, 2]  # those that only touch have an overlap of 0
    assert mk.nms(boxes, by_score, 1).tolist() == [0, 1, 2, 3]


def test_degenerate_boxes_suppress_nobody() -> None:
    points = np.array([[1.0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 2, 2], [0, 1, 2, 1]])
    assert mk.nms(points, np.array([0.4, 0.3, 0.2, 0.1]), 0).tolist() == [0, 1, 2, 3]


def test_classes_do_not_suppress_each_other_even_where_coordinates_are_negative() -> None:
    """An offset of the largest coordinate, 0 here, would move no class away from another."""
    boxes = shifted(-10, -10, -9, -9)
    for idxs in ([7, -3, 7, -3], [1, 0, 1, 0]):
        kept = mk.batched_nms(boxes, scores(0.5, 0.9, 0.6, 0.8), np.array(idxs), 0.5)
        assert kept.tolist() == [1, 2]
    assert mk.batched_nms(boxes, scores(0.5, 0.9, 0.6, 0.8), np.zeros(4, np.int32), 0.5).tolist() == [1]


def test_large_offsets_are_not_there_to_round_small_boxes() -> None:
    """With coordinates up to 1e6 and class 100, an offset of 1e8 would leave float32 steps of 8 pixels."""
    boxes = shifted(0, 4, 1e6)
    kept = mk.batched_nms(boxes, scores(0.9, 0.8, 0.7), np.array([100, 100, 0]), 0.5)
    assert kept.tolist() == [0, 1, 2]  # IoU of the first two: 6 / 14


def test_soft_linear_by_hand() -> None:
    # IoU 2/3 of the first two, 3/7 of first and third, 2/3 of second and third.
    boxes, before = shifted(0, 2, 4, dtype=np.float64), scores(0.9, 0.8, 0.7, dtype=np.float64)
    kept, after = mk.soft_nms_linear(boxes, before, iou_threshold=0.5)
    # The first lowers the second to 0.8 / 3 and leaves the third; the third lowers the second to a third of that.
    assert kept.tolist() == [0, 2, 1]
    np.testing.assert_allclose(after, [0.9, 0.7, 0.8 / 9])
    assert before.tolist() == [0.9, 0.8, 0.7]
    assert mk.soft_nms_linear(boxes, before, 0.5, score_threshold=0.1)[0].tolist() == [0, 2]


def test_soft_gaussian_by_hand() -> None:
    boxes, before = shifted(0, 2, 100, dtype=np.float64), scores(0.9, 0.8, 0.5, dtype=np.float64)
    kept, after = mk.soft_nms_gaussian(boxes, before, sigma=0.5)
    assert kept.tolist() == [0, 2, 1]
    np.testing.assert_allclose(after, [0.9, 0.5, 0.8 * math.exp(-(4 / 9) / 0.5)])


def test_soft_ties_go_to_the_lower_index() -> None:
    boxes = shifted(0, 100, 200)
    for taken in (mk.soft_nms_linear, mk.soft_nms_gaussian):
        assert taken(boxes, scores(0.5, 0.75, 0.5))[0].tolist() == [1, 0, 2]


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_literal_loops(method: str) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        boxes, given = random_boxes(rng, 14, np.float64), random_scores(rng, 14, np.float64)
        left, expected = dict(enumerate(map(float, given))), []
        while left and max(left.values()) >= 0.01:
            best = min(left, key=lambda i: (-left[i], i))
            expected.append((best, left.pop(best)))
            for i in left:
                iou = float(iou_by_hand(boxes[best], boxes[i]))
                left[i] *= math.exp(-iou * iou / 0.3) if method == "gaussian" else 1 - iou if iou > 0.4 else 1
        function, value = {"linear": (mk.soft_nms_linear, 0.4), "gaussian": (mk.soft_nms_gaussian, 0.3)}[method]
        kept, after = function(boxes, given, value, 0.01)
        assert kept.tolist() == [i for i, _ in expected]
        np.testing.assert_allclose(after, [score for _, score in expected], rtol=1e-12)


def test_generated_sets_are_suppressed_as_by_literal_loops(version: str) -> None:
    for seed in range(300):
        compare(seed, [version], most=30)


def test_a_crowd_is_suppressed_as_by_literal_loops() -> None:
    """Enough boxes for a grid of many cells, and of very different sizes."""
    rng = np.random.default_rng(3)
    for threshold in (0, 0.3, 0.7):
        centres, sides = rng.uniform(0, 300, (300, 1, 2)), np.exp(rng.normal(2.5, 1, (300, 1, 2)))
        boxes = np.concatenate([centres - sides, centres + sides], axis=2).reshape(300, 4).astype(np.float32)
        given = random_scores(rng, 300, np.float32)
        assert mk.nms(boxes, given, threshold).tolist() == nms_by_hand(boxes, given, threshold)


def test_the_grids_claim_holds_and_cannot_be_made_smaller() -> None:
    """IoU > t implies |distance of centres| < w (1 - t) / (2 t); for a box inside one 1/t as wide it is attained."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        a, b = random_boxes(rng, 2, np.float64)
        t = float(exact_iou(a, b))
        if t > 0:
            for axis in (0, 1):
                distance = abs(a[axis] + a[axis + 2] - b[axis] - b[axis + 2]) / 2
                assert distance <= (a[axis + 2] - a[axis]) * (1 - t) / (2 * t) + 1e-9 * np.abs([a, b]).max()
    small, large = np.array([0.0, 0, 3, 1]), np.array([0.0, 0, 10, 1])  # IoU 3/10, centres 3.5 apart
    assert exact_iou(small, large) == pytest.approx(0.3)
    bound = 3 * (1 - 0.3) / (2 * 0.3)
    assert bound == pytest.approx(3.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_overlaps_at_the_very_reach_are_found(dtype: type) -> None:
    """The extreme of the claim, far from 0 and in many cells, with the threshold just below the overlap."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        t, origin = rng.uniform(0.05, 0.95), rng.choice([0, 1e3, -1e5])
        width = rng.uniform(1, 20)
        pair = np.array([[0, 0, width / t, 1], [0, 0, width, 1]]) + origin
        crowd = np.stack([pair + np.array([40 * k, 0, 40 * k, 0]) for k in range(20)]).reshape(-1, 4).astype(dtype)
        threshold = max(0, float(iou_by_hand(crowd[0], crowd[1])) - 2 * np.finfo(dtype).eps)
        by_score = np.linspace(1, 0.5, len(crowd)).astype(dtype)
        assert mk.nms(crowd, by_score, threshold).tolist() == nms_by_hand(crowd, by_score, threshold)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_reach_covers_what_rounding_adds(dtype: type) -> None:
    """Without its two margins, reach and computed overlap would contradict each other in the last digits."""
    pytest.importorskip("numba", reason="the grid belongs to the cpu version")
    from minidet_kernels.nms import grid

    rng = np.random.default_rng(6)
    for _ in range(1000):
        t, width, origin = rng.uniform(0.05, 0.95), rng.uniform(1, 20), rng.choice([0, 1e3, -1e5])
        pair = (np.array([[0, 0, width, 1], [0, 0, width / t, 1]]) + origin).astype(dtype)
        iou = iou_by_hand(*pair)
        threshold = np.nextafter(iou, dtype(0))  # so that IoU > threshold, just so
        reach_of_sides = grid._reach_of_sides(threshold, float(np.finfo(dtype).eps))
        _, _, largest_side, slack, _ = grid._divide(pair, 0, reach_of_sides)
        (centre, side), (other, _) = (grid._centre_and_side(pair, i, 0) for i in (0, 1))
        reach = grid._reach(side, reach_of_sides, largest_side, slack)
        assert centre - reach <= other <= centre + reach


def test_torchvisions_algorithm_keeps_the_same_boxes() -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    rng = np.random.default_rng(5)
    for threshold in (0.3, 0.5, 0.7):
        corners = rng.uniform(0, 60, (200, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (200, 2))], axis=1).astype(np.float32)
        given = rng.random(200, dtype=np.float32)
        kept = []
        x, order = torch.from_numpy(boxes), torch.from_numpy(given).argsort(descending=True, stable=True)
        while len(order):
            best, order = order[0], order[1:]
            kept.append(int(best))
            sides = (torch.min(x[best, 2:], x[order, 2:]) - torch.max(x[best, :2], x[order, :2])).clamp(min=0)
            areas = (x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1])
            overlap = sides.prod(1)
            order = order[overlap / (areas[best] + areas[order] - overlap) <= threshold]
        assert mk.nms(boxes, given, threshold).tolist() == kept


def test_nothing_to_suppress() -> None:
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    for kept in (mk.nms(*none, 0.5), mk.batched_nms(*none, np.zeros(0, np.int64), 0.5), mk.soft_nms_linear(*none)[0]):
        assert kept.shape == (0,)
        assert kept.dtype == np.int64
    assert mk.soft_nms_gaussian(*none)[1].dtype == np.float32


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read as Linux tells it")
def test_fifty_thousand_boxes_need_less_than_100_mb(version: str) -> None:
    if version == "reference":
        pytest.skip("too slow for so many")
    program = """
import resource, numpy as np, minidet_kernels as mk
rng = np.random.default_rng(0)
corners = rng.uniform(0, 1000, (50000, 2))
boxes = np.concatenate([corners, corners + rng.uniform(1, 99, (50000, 2))], axis=1).astype(np.float32)
scores = rng.random(50000, dtype=np.float32)
mk.nms(boxes[:10], scores[:10], 0.5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert 0 < len(mk.nms(boxes, scores, 0.5)) < 50000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    root = Path(mk.__file__).parents[1]
    answer = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert float(answer.stdout) < 100


BOXES, SCORES, CLASSES = shifted(0, 2), scores(0.9, 0.8), np.array([0, 1])
INSIDE_OUT = BOXES[:, [2, 1, 0, 3]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mk.nms(BOXES * np.float32(np.nan), SCORES, 0.5), ValueError, r"boxes \(2, 4\) with finite"),
        (lambda: mk.nms(INSIDE_OUT, SCORES, 0.5), ValueError, r"boxes \(2, 4\) as x1 y1 x2 y2 .* x y width height"),
        (lambda: mk.nms(BOXES[:, :3], SCORES, 0.5), ValueError, r"boxes .*got \(2, 3\)"),
        (lambda: mk.nms(BOXES, SCORES[:1], 0.5), ValueError, r"scores .*\(2\), got \(1,\)"),
        (lambda: mk.nms(BOXES, SCORES[:, None], 0.5), ValueError, r"scores .*got \(2, 1\)"),
        (lambda: mk.nms(BOXES, scores(0.5, np.nan), 0.5), ValueError, r"scores \(2,\) .* NaN at index 1"),
        (lambda: mk.nms(BOXES, SCORES.astype(np.float64), 0.5), TypeError, "boxes float32, scores float64"),
        (lambda: mk.nms(BOXES.astype(int), SCORES, 0.5), TypeError, "float32 or float64"),
        (lambda: mk.nms(BOXES.tolist(), SCORES, 0.5), TypeError, "boxes to be an array, got list"),
        (lambda: mk.nms(BOXES, SCORES, 1.5), ValueError, "iou_threshold from 0 to 1, got 1.5"),
        (lambda: mk.nms(BOXES, SCORES, -0.1), ValueError, "iou_threshold"),
        (lambda: mk.nms(BOXES, SCORES, float("nan")), ValueError, "iou_threshold"),
        (lambda: mk.nms(BOXES, SCORES, "0.5"), TypeError, "iou_threshold to be a number"),
        (lambda: mk.batched_nms(BOXES, SCORES, CLASSES[:1], 0.5), ValueError, r"idxs .*got \(1,\)"),
        (lambda: mk.batched_nms(BOXES, SCORES, SCORES, 0.5), TypeError, r"idxs \(2,\) of integers"),
        (lambda: mk.batched_nms(INSIDE_OUT, SCORES, CLASSES, 0.5), ValueError, "boxes"),
        (lambda: mk.soft_nms_linear(BOXES, -SCORES), ValueError, r"scores \(2,\) .*not negative.* at index 0"),
        (lambda: mk.soft_nms_linear(BOXES, scores(1, np.inf)), ValueError, "finite.* at index 1"),
        (lambda: mk.soft_nms_linear(BOXES, SCORES, 2), ValueError, "iou_threshold"),
        (lambda: mk.soft_nms_linear(BOXES, SCORES, score_threshold=-1), ValueError, "score_threshold"),
        (lambda: mk.soft_nms_gaussian(BOXES, SCORES, 0), ValueError, "sigma above 0"),
        (lambda: mk.soft_nms_gaussian(BOXES, SCORES, None), TypeError, "sigma to be a number"),
        (lambda: mk.soft_nms_gaussian(INSIDE_OUT, SCORES), ValueError, "boxes"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
