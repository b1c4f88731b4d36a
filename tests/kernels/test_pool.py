"""The memory pool: reuse, ownership, the bound, threads and forks."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels import memory
from minidet_kernels.pool import ALIGNMENT, MOST_PIECES, SMALLEST, Pool

SIZE = SMALLEST // 4  # float32 of the smallest array that comes from a pool


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_an_array_is_as_np_empty_makes_it_and_begins_at_a_cache_line() -> None:
    array = Pool().empty((3, SIZE), np.float32)
    assert array.shape == (3, SIZE)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.flags.aligned
    assert type(array) is np.ndarray
    assert address(array) % ALIGNMENT == 0
    array[...] = 1.5
    assert (array.copy() == 1.5).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, bool])
def test_the_last_element_lies_within_the_memory(dtype) -> None:
    array = Pool().empty((SMALLEST,), dtype)
    memory = array.base._memory
    assert address(memory) <= address(array)
    assert address(array) + array.nbytes <= address(memory) + memory.nbytes


def test_small_arrays_do_not_come_from_it() -> None:
    pool = Pool()
    pool.empty((SIZE - 1,), np.float32)
    assert pool.empty((0, 5), np.float32).shape == (0, 5)
    assert pool.idle() == 0


def test_memory_comes_back_when_the_array_dies_and_serves_the_next_of_about_its_size() -> None:
    pool = Pool()
    array = pool.empty((SIZE,), np.float32)
    first = address(array)
    assert pool.idle() == 0
    del array
    assert pool.idle() == 4 * SIZE + ALIGNMENT
    assert address(pool.empty((SIZE,), np.int32)) == first
    larger, smaller = pool.empty((3 * SIZE,), np.float32), pool.empty((SIZE,), np.float32)
    assert address(smaller) == first
    assert address(larger) != first
    del larger
    a_third = pool.empty((SIZE,), np.float32)  # three times as large as needed: not given away for it
    assert pool.idle() == 12 * SIZE + ALIGNMENT
    assert not np.shares_memory(a_third, smaller)


def test_of_those_that_fit_the_smallest_is_taken_and_of_equal_ones_the_last() -> None:
    pool = Pool()
    sizes = (2 * SIZE, SIZE + 100, SIZE + 100, 2 * SIZE - 100)
    arrays = [pool.empty((size,), np.float32) for size in sizes]
    places = [address(array) for array in arrays]
    while arrays:
        del arrays[0]  # the last one comes back last
    taken = [pool.empty((SIZE,), np.float32) for _ in sizes]
    assert [address(array) for array in taken] == [places[i] for i in (2, 1, 3, 0)]


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[5:],
        lambda array: array.reshape(2, -1).T,
        lambda array: array.view(np.int32)[::-1],
        lambda array: np.broadcast_to(array, (2, array.size)),
        lambda array: np.asarray(memoryview(array)),
        lambda array: np.frombuffer(array, np.uint8),
        lambda array: array[:4].reshape(2, 2).transpose(),
        np.nditer,
    ],
)
def test_any_view_keeps_the_memory(view) -> None:
    pool = Pool()
    array = pool.empty((SIZE,), np.float32)
    array[:] = 7
    seen = view(array)
    del array
    gc.collect()
    assert pool.idle() == 0
    pool.empty((SIZE,), np.float32)[:] = 8
    if isinstance(seen, np.ndarray):
        assert (np.unique(seen.copy().view(np.float32)) == 7).all()
    del seen
    assert pool.idle() > 0


def test_results_never_change_under_the_user() -> None:
    """Many arrays, kept or dropped in a random order: each keeps what was written into it."""
    pool, rng, kept = Pool(8 * SMALLEST), np.random.default_rng(0), {}
    for number in range(400):
        array = pool.empty((int(rng.integers(SIZE, 2 * SIZE)),), np.int32)
        array[:] = number
        kept[number] = array[:: int(rng.integers(1, 4))]
        del array
        while len(kept) > rng.integers(0, 8):
            seen = kept.pop(int(rng.choice(list(kept))))
        for number, seen in kept.items():
            assert (seen == number).all()
        assert pool.idle() <= pool.limit


def test_the_bound_holds_and_the_oldest_go_first() -> None:
    pool = Pool(limit=3 * (SMALLEST + ALIGNMENT))
    arrays = [pool.empty((SIZE,), np.float32) for _ in range(5)]
    addresses = [address(array) for array in arrays]
    while arrays:
        del arrays[0]
        assert pool.idle() <= pool.limit
    assert pool.idle() == pool.limit
    reused = [pool.empty((SIZE,), np.float32) for _ in range(3)]
    assert [address(array) for array in reused] == addresses[:1:-1]  # the last that came back, first


def test_the_number_of_pieces_is_bound_too() -> None:
    pool = Pool()
    arrays = [pool.empty((SIZE,), np.float32) for _ in range(MOST_PIECES + 5)]
    arrays.clear()
    assert pool.idle() == MOST_PIECES * (SMALLEST + ALIGNMENT)


def test_the_bound_can_be_changed_and_zero_switches_off() -> None:
    pool = Pool()
    pool.empty((SIZE,), np.float32)
    assert pool.idle() > 0
    pool.set_limit(0)
    assert pool.idle() == 0
    pool.empty((SIZE,), np.float32)
    assert pool.idle() == 0
    with pytest.raises(ValueError, match="bytes >= 0, got -1"):
        pool.set_limit(-1)


def test_threads_never_share_memory() -> None:
    pool, wrong = Pool(4 * SMALLEST), []

    def work(number: int) -> None:
        for _ in range(150):
            array = pool.empty((SIZE,), np.int32)
            array[:] = number
            if not (array == number).all():
                wrong.append(number)
            del array

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pool.idle() <= pool.limit


def test_a_finaliser_that_runs_inside_the_pool_does_not_wait() -> None:
    """Garbage with a cycle may be collected at any allocation, also at one that the pool itself makes."""
    pool = Pool()
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            cycle = [pool.empty((SIZE,), np.float32)]
            cycle.append(cycle)
            del cycle
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert 0 < pool.idle() <= pool.limit


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_each_process_has_its_own() -> None:
    pool = Pool()
    kept = pool.empty((SIZE,), np.float32)
    kept[:] = 1
    pool.empty((SIZE,), np.float32)
    child = os.fork()
    if child == 0:
        array = pool.empty((SIZE,), np.float32)
        array[:] = 2
        os._exit(0 if (kept == 1).all() and (array == 2).all() else 1)
    array = pool.empty((SIZE,), np.float32)
    array[:] = 3
    assert os.waitpid(child, 0)[1] == 0
    assert (array == 3).all()


X = np.ones((1, 16, 64, 64), np.float32)
WEIGHT = np.ones((16, 16, 3, 3), np.float32)
KERNELS = {
    "conv2d": lambda: mk.conv2d(X, WEIGHT, padding=1),
    "conv2d, direct": lambda: mk.conv2d(X, WEIGHT, padding=1, stride=(1, 2)),
    "conv2d_input_grad": lambda: mk.conv2d_input_grad(X, WEIGHT, (64, 64), padding=1),
    "relu": lambda: mk.relu(X),
    "max_pool2d": lambda: mk.max_pool2d(X, 2, 1),
    "linear_weight_grad": lambda: mk.linear_weight_grad(np.ones((16, 512), np.float32), np.ones((16, 512), np.float32)),
    "box_iou": lambda: mk.box_iou(BOXES, BOXES),
    "roi_align": lambda: mk.roi_align(X, [BOXES], 7),
}
BOXES = np.tile(np.array([[0, 0, 9, 9]], np.float32), (200, 1))


@pytest.mark.skipif(mk.available()["cpu"] is not None, reason="only the cpu version has a pool")
@pytest.mark.parametrize("kernel", KERNELS)
def test_results_of_kernels_come_from_the_pool(kernel: str, monkeypatch) -> None:
    monkeypatch.setattr(memory, "POOL", Pool())
    with mk.use("cpu"):
        result = KERNELS[kernel]()
    before = memory.POOL.idle()
    del result
    assert memory.POOL.idle() > before


def test_what_lies_idle_is_freed_where_memory_is_missing(monkeypatch) -> None:
    pool, failures = Pool(), [MemoryError()]
    del_me = pool.empty((SIZE,), np.float32)
    del del_me
    assert pool.idle() > 0
    true_empty = np.empty

    def empty(*arguments):
        if failures:
            raise failures.pop()
        return true_empty(*arguments)

    monkeypatch.setattr(np, "empty", empty)
    array = pool.empty((4 * SIZE,), np.float32)
    assert array.size == 4 * SIZE
    assert pool.idle() == 0
