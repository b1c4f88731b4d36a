"""What the harness does not reach of the CUDA versions of boxes: many chunks, memory, values that nobody checks."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels import emulator
from minidet_kernels.cuda_source import CudaSource
from minidet_kernels.emulator import counted, emulated
from tests.kernels.cases import BY_NAME
from tests.kernels.generated_boxes import compare, nms_by_hand, random_boxes, random_scores
from tests.kernels.harness import Call, engine, run
from tests.kernels.planted import planted

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))


@pytest.fixture(params=[f"emulated {order}" for order in emulator.ORDERS])
def version(request) -> str:
    return request.param


@pytest.fixture
def small_chunks(monkeypatch) -> int:
    """Chunks of 128 boxes, two words, in the place of 4096; `suppress` goes through them in two tiles of 64."""
    with emulated():
        host_code = importlib.import_module("minidet_kernels.nms.cuda")
    monkeypatch.setattr(host_code, "CHUNK", 128)
    monkeypatch.setattr(host_code, "THREADS", 64)
    monkeypatch.setattr(host_code, "SOURCE", CudaSource(host_code.SOURCE.path, CHUNK=128, THREADS=64))
    return 128


def suppressed(version: str, boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    (kept,) = run(BY_NAME["nms"], Call((boxes, scores), {"iou_threshold": threshold}), version)
    return kept.tolist()


def crowd(count: int, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of very different sizes, most of which overlap; scores with many ties; classes."""
    rng = np.random.default_rng(count)
    centres, sides = rng.uniform(0, 300, (count, 1, 2)), np.exp(rng.normal(2.5, 1, (count, 1, 2)))
    boxes = np.concatenate([centres - sides, centres + sides], axis=2).reshape(count, 4).astype(dtype)
    return boxes, rng.integers(0, 40, count).astype(dtype) / 40, rng.integers(0, 3, count)


@pytest.mark.parametrize("count", [127, 128, 129, 3000])
def test_chunks_keep_what_one_list_keeps(version: str, small_chunks: int, count: int) -> None:
    boxes, scores, idxs = crowd(count)
    for threshold in (0.1, 0.5, 0.8):
        with mk.use("reference"):
            alone, batched = mk.nms(boxes, scores, threshold), mk.batched_nms(boxes, scores, idxs, threshold)
        assert suppressed(version, boxes, scores, threshold) == alone.tolist()
        call = Call((boxes, scores, idxs), {"iou_threshold": threshold})
        assert run(BY_NAME["batched_nms"], call, version)[0].tolist() == batched.tolist()


def test_chunks_keep_what_literal_loops_keep(version: str, small_chunks: int) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        boxes, scores = random_boxes(rng, 300, np.float64), random_scores(rng, 300, np.float64)
        assert suppressed(version, boxes, scores, 0.4) == nms_by_hand(boxes, scores, 0.4)


def test_a_tie_across_the_border_of_chunks_goes_to_the_lower_index(version: str, small_chunks: int) -> None:
    """All scores equal; box 127 is the last of its chunk, 128 the first of the next, and so on. The second of a pair,
    its copy, goes; and a copy of a copy goes because of the first, not of the second."""
    boxes = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(400)], np.float32)
    for copy, of in ((128, 127), (255, 128), (257, 256), (383, 0)):
        boxes[copy] = boxes[of]
    expected = [i for i in range(400) if i not in (128, 255, 257, 383)]
    assert suppressed(version, boxes, np.full(400, 0.5, np.float32), 0.5) == expected
    reversed_scores = np.arange(400, dtype=np.float32)
    expected = [i for i in range(399, -1, -1) if i not in (0, 127, 128, 256)]
    assert suppressed(version, boxes, reversed_scores, 0.5) == expected


def row(count: int) -> np.ndarray:
    """IoU of neighbours 2/3, of next neighbours 3/7."""
    return np.array([[2 * i, 0, 2 * i + 10, 1] for i in range(count)], np.float32)


def test_a_box_dropped_in_an_earlier_chunk_drops_nobody(version: str, small_chunks: int) -> None:
    assert suppressed(version, row(500), np.zeros(500, np.float32), 0.5) == list(range(0, 500, 2))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if (better_kept[k] && better", "if (better"),
        ("better_classes[k] == classes[own]", "true"),
        ("bool stays = later < count && kept[own];", "bool stays = later < count;"),
        ("dropped[word] |= kept[word * BITS + k] ? 0 : Word(1) << k;", ";"),
        ("dropped[later] |= bits", "dropped[later] = bits"),
        ("__syncthreads();  // nobody compares", "// nobody compares"),
        ("__syncthreads();  // nobody loads", "// nobody loads"),
        ("first < CHUNK; first += THREADS", "first < THREADS; first += THREADS"),
    ],
)
def test_kernels_broken_between_chunks_are_caught(small_chunks: int, old: str, new: str) -> None:
    crowded, scores, idxs = crowd(500)
    scenes = [(crowded, scores, idxs), (row(500), np.zeros(500, np.float32), np.zeros(500, int))]
    calls = [Call(scene, {"iou_threshold": 0.5}) for scene in scenes]

    def kept(version: str) -> list[list[int]]:
        return [run(BY_NAME["batched_nms"], call, version)[0].tolist() for call in calls]

    expected = kept("reference")
    assert kept("emulated reverse") == expected
    with planted("nms", old, new):
        assert kept("emulated forward") != expected or kept("emulated reverse") != expected


def test_generated_sets_are_suppressed_as_by_literal_loops(version: str) -> None:
    for seed in range(200):
        compare(seed, [version], most=30)


@pytest.mark.parametrize("name", ["box_iou", "generalized_box_iou"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_overlaps_have_the_bits_of_the_reference(version: str, name: str, dtype: type) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        call = Call((random_boxes(rng, 17, dtype), random_boxes(rng, 23, dtype)))
        (overlaps,), (expected,) = (run(BY_NAME[name], call, v) for v in (version, "reference"))
        assert overlaps.tobytes() == expected.tobytes()


def test_blocks_of_rows_are_rows_of_the_whole_and_nobody_waits() -> None:
    rng = np.random.default_rng(0)
    boxes, others = random_boxes(rng, 23, np.float32), random_boxes(rng, 11, np.float32)
    with emulated():
        import cupy

        there = cupy.asarray(boxes), cupy.asarray(others)
        whole = mk.box_iou(*there).get()
        with counted() as counts:
            blocks = list(mk.box_iou_blocks(*there, max_bytes=5 * 11 * 4))
        assert counts.waits == 0
        assert [rows for rows, _ in blocks] == [slice(0, 5), slice(5, 10), slice(10, 15), slice(15, 20), slice(20, 23)]
        np.testing.assert_array_equal(np.concatenate([iou.get() for _, iou in blocks]), whole)


@pytest.mark.parametrize("count", [3000, 50000])
def test_memory_of_many_boxes(monkeypatch, count: int) -> None:
    """Of every array that is made on the device, as if none were freed: no more than the contract says."""
    corners = np.random.default_rng(0).uniform(0, 1000, (count, 2))
    boxes = np.concatenate([corners, corners + np.random.default_rng(1).uniform(1, 99, (count, 2))], axis=1)
    boxes, scores = boxes.astype(np.float32), np.random.default_rng(2).random(count, dtype=np.float32)
    with emulated():
        import cupy

        there, made = (cupy.asarray(boxes), cupy.asarray(scores)), {}
        on_device = cupy._on_device

        def counting(value):
            result = on_device(value)
            if isinstance(value, np.ndarray) and value.base is None:
                made[value.ctypes.data] = value  # kept, so that no other array can have its address
            return result

        monkeypatch.setattr(cupy, "_on_device", counting)
        kept = mk.nms(*there, 0.5).get()
    memory = sum(array.nbytes for array in made.values())
    assert min(count, 4096) * 4096 / 8 < memory < 4096 * 4096 / 8 + 100 * count
    assert memory < 100e6
    assert kept.tolist() == mk.nms(boxes, scores, 0.5).tolist()


def test_nan_is_not_raised_but_has_its_place(version: str) -> None:
    """What the host would have to wait for is not checked: see the contract."""
    boxes = np.array([[0, 0, 10, 1], [0, 0, 10, 1], [np.nan, 0, 10, 1], [0, 0, 10, np.nan]], np.float32)
    scores = np.array([0.5, np.nan, 0.9, 0.2], np.float32)
    with engine(version) as (to_engine, to_host):
        there = to_engine(boxes), to_engine(scores)
        assert to_host(mk.box_iou(there[0], there[0])).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]
        assert to_host(mk.nms(*there, 0.5)).tolist() == [2, 0, 3]  # box 1 comes last, and is dropped by its copy
        taken, after = mk.soft_nms_linear(*there, 0.5)
        assert to_host(taken).tolist() == [2, 0, 3]
        np.testing.assert_array_equal(to_host(after), scores[[2, 0, 3]])
        worst = to_engine(np.array([np.nan, -np.inf, -0.0, 0.0], np.float32))
        assert to_host(mk.nms(there[0][:1].repeat(4, axis=0), worst, 1)).tolist() == [2, 3, 1, 0]


def test_soft_suppression_of_more_boxes_than_threads(version: str) -> None:
    boxes, scores, _ = crowd(600, np.float64)
    for name, options in (("soft_nms_linear", {"iou_threshold": 0.3}), ("soft_nms_gaussian", {"sigma": 0.5})):
        call = Call((boxes, scores), {**options, "score_threshold": 0.7})  # ties of many, within threads and between
        (taken, after), (expected, lowered) = (run(BY_NAME[name], call, v) for v in (version, "reference"))
        assert len(expected) > 30
        assert taken.tolist() == expected.tolist()
        np.testing.assert_allclose(after, lowered, rtol=1e-12)


def test_an_area_below_the_smallest_normal_number_is_nothing(version: str) -> None:
    side = np.sqrt(np.finfo(np.float64).tiny)
    for factor, expected in ((1.01, 1), (0.9, 0)):
        box = np.array([[0, 0, side * factor, side * factor]])
        assert run(BY_NAME["box_iou"], Call((box, box)), version)[0].item() == expected


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda boxes, scores: mk.nms(boxes[:, :3], scores, 0.5), ValueError, r"boxes .*got \(2, 3\)"),
        (lambda boxes, scores: mk.nms(boxes, scores[:1], 0.5), ValueError, r"scores .*got \(1,\)"),
        (lambda boxes, scores: mk.nms(boxes, scores.astype(float), 0.5), TypeError, "scores float64"),
        (lambda boxes, scores: mk.nms(boxes, scores.get(), 0.5), TypeError, "all arrays on one device"),
        (lambda boxes, scores: mk.box_iou(boxes, boxes.get()), TypeError, "all arrays on one device"),
        (lambda boxes, scores: mk.batched_nms(boxes, scores, scores, 0.5), TypeError, "of integers"),
    ],
)
def test_shapes_and_dtypes_are_refused_as_on_the_cpu(call, error, message: str) -> None:
    with emulated():
        import cupy

        with pytest.raises(error, match=message):
            call(cupy.zeros((2, 4), np.float32), cupy.zeros(2, np.float32))
