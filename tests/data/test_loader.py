"""The loader's stream is a pure function of (seed, epoch, position), whatever thread prepares it."""

import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidet.data import transforms as T
from minidet.data.dataset import Sample
from minidet.data.images import ImageError
from minidet.data.loader import SWITCH_INTERVAL, Loader, collate_list


class Numbered:
    """A data set whose picture k has the value k everywhere, but for one box."""

    def __init__(self, count: int, bad: int | None = None, sizes: tuple = ((8, 8),)):
        self.count, self.bad, self.sizes = count, bad, sizes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index == self.bad:
            raise ImageError(f"{index:06d}.png: expected a PNG or JPEG picture")
        height, width = self.sizes[index % len(self.sizes)]
        image = np.full((height, width, 3), index, np.uint8)
        return Sample(image, np.array([[1.0, 2, 5, 7]]), np.array([1 + index % 3]), name=f"{index:06d}.png")


AUGMENT = T.Compose([T.RandomFlip(), T.RandomTranslate(0.2), T.RandomColor()])


def loader(count: int = 11, batch_size: int = 4, **options) -> Loader:
    return Loader(Numbered(count), batch_size, **({"transform": AUGMENT, "seed": 5} | options))


def assert_equal_batches(one, other) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        assert a.names == b.names
        np.testing.assert_array_equal(a.indices, b.indices)
        for x, y in zip(a.targets, b.targets, strict=True):
            assert set(x) == set(y)
            for key in x:
                np.testing.assert_array_equal(x[key], y[key])


def test_a_batch_has_shapes_types_and_memory_layout_as_promised():
    batch = next(iter(Loader(Numbered(10, sizes=((6, 9),)), 4, shuffle=False)))
    assert batch.images.shape == (4, 3, 6, 9)
    assert batch.images.dtype == np.float32
    assert batch.images.transpose(0, 2, 3, 1).flags.c_contiguous  # channels last in memory
    np.testing.assert_allclose(batch.images[:, 0, 0, 0], np.arange(4) / 255, rtol=1e-6)
    target = batch.targets[3]
    assert (target["boxes"].dtype, target["labels"].dtype) == (np.float32, np.int64)
    assert target["boxes"].tolist() == [[1, 2, 5, 7]]
    assert batch.names == ["000000.png", "000001.png", "000002.png", "000003.png"]
    assert "masks" not in target
    assert "keypoints" not in target


def test_every_sample_comes_once_an_epoch_and_every_epoch_has_another_order():
    stream = loader()
    orders = [np.concatenate([batch.indices for batch in stream]) for _ in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(11))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], np.arange(11))
    assert stream.state_dict() == {"seed": 5, "epoch": 3, "position": 0}


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 3]), (True, [4, 4])])
def test_the_last_batch_is_kept_or_dropped(drop_last, sizes):
    stream = loader(drop_last=drop_last)
    assert [len(batch.images) for batch in stream] == sizes
    assert len(stream) == len(sizes)
    assert stream.state_dict()["epoch"] == 1


def test_augmentation_differs_from_epoch_to_epoch_but_not_from_run_to_run():
    first, again = ([list(stream) for _ in range(2)] for stream in (loader(), loader()))
    for a, b in zip(first, again, strict=True):
        assert_equal_batches(a, b)
    by_name = [{n: im for batch in epoch for n, im in zip(batch.names, batch.images, strict=True)} for epoch in first]
    assert any(not np.array_equal(by_name[0][name], by_name[1][name]) for name in by_name[0])


def test_a_samples_augmentation_does_not_depend_on_the_batch_it_is_in():
    by_name = []
    for batch_size in (1, 4, 11):
        by_name.append({n: i for b in loader(batch_size=batch_size) for n, i in zip(b.names, b.images, strict=True)})
    for name in by_name[0]:
        np.testing.assert_array_equal(by_name[0][name], by_name[1][name])
        np.testing.assert_array_equal(by_name[0][name], by_name[2][name])


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 13),
    batch_size=st.integers(1, 5),
    stop=st.integers(0, 12),
    prefetch=st.integers(0, 3),
    resumed_prefetch=st.integers(0, 3),
    seed=st.integers(0, 2**40),
)
def test_resuming_anywhere_gives_exactly_the_batches_that_would_have_come(
    count, batch_size, stop, prefetch, resumed_prefetch, seed
):
    options = {"count": count, "batch_size": batch_size, "seed": seed}
    whole, expected = loader(**options, prefetch=0), []
    while len(expected) < stop + 4:
        expected.extend(whole)
    interrupted, taken = loader(**options, prefetch=prefetch), []
    while len(taken) < stop:
        for batch in interrupted:
            taken.append(batch)
            if len(taken) == stop:
                break
    resumed = loader(**(options | {"seed": 0}), prefetch=resumed_prefetch)
    resumed.load_state_dict(interrupted.state_dict())
    rest = []
    while len(taken) + len(rest) < len(expected):
        rest.extend(resumed)
    assert_equal_batches((taken + rest)[: len(expected)], expected)


def test_stopping_early_and_going_on_continues_the_epoch():
    stream = loader(prefetch=3)
    first = next(iter(stream))
    rest = list(stream)
    assert sorted(np.concatenate([first.indices, *[b.indices for b in rest]]).tolist()) == list(range(11))


@pytest.mark.parametrize("ahead", [1, 2, 5, 50])
def test_prefetching_changes_nothing(ahead):
    assert_equal_batches(list(loader(prefetch=ahead)), list(loader(prefetch=0)))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_while_loading_comes_out_in_its_turn_with_the_samples_name(prefetch):
    stream = Loader(Numbered(10, bad=6), 2, shuffle=False, prefetch=prefetch)
    batches = iter(stream)
    assert [next(batches).names[0] for _ in range(3)] == ["000000.png", "000002.png", "000004.png"]
    with pytest.raises(ImageError, match=r"000006\.png") as caught:
        next(batches)
    assert any("while loading sample 6" in note for note in caught.value.__notes__)
    assert stream.state_dict()["position"] == 6  # the state still points at the batch that failed


def loader_threads() -> list:
    return [thread for thread in threading.enumerate() if thread.name == "minidet loader"]


def test_the_thread_ends_when_the_consumer_stops_early_or_fails():
    def consume() -> None:
        for batch in loader(count=100, prefetch=2):
            if batch.names:
                raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        consume()
    for _ in loader(count=100, prefetch=2):
        break
    deadline = time.monotonic() + 5
    while loader_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loader_threads() == []


def test_two_loaders_at_once_leave_the_switch_interval_as_it_was():
    before = sys.getswitchinterval()
    first, second = iter(loader(count=40, prefetch=2)), iter(loader(count=40, prefetch=2))
    next(first), next(second)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL)
    first.close()  # in the order that a stack would not have
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL)
    second.close()
    assert sys.getswitchinterval() == before


def test_no_more_than_the_promised_batches_are_prepared_ahead():
    asked = []

    class Watched(Numbered):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    iterator = iter(Loader(Watched(100), 1, prefetch=3))
    next(iterator)
    time.sleep(0.3)
    assert len(asked) <= 1 + 3 + 1  # handed out, waiting, and the one in the thread's hands
    iterator.close()


def test_different_sizes_are_refused_by_the_stacking_and_taken_by_the_list():
    data = Numbered(4, sizes=((8, 8), (8, 9)))
    with pytest.raises(
        ValueError, match=r"images of one size, got \[\(8, 8, 3\), \(8, 9, 3\)\]; put transforms\.Resize"
    ):
        list(Loader(data, 4))
    batch = next(iter(Loader(data, 4, collate=collate_list, shuffle=False)))
    assert [image.shape for image in batch.images] == [(3, 8, 8), (3, 8, 9)] * 2
    assert len(list(Loader(data, 2, transform=T.Resize(6, 6)))) == 2


@pytest.mark.parametrize(
    "state",
    [{}, {"seed": 0, "epoch": 0}, {"seed": 0, "epoch": -1, "position": 0}, {"seed": 0, "epoch": 0, "position": 1.5}],
)
def test_states_that_are_none_are_refused(state):
    with pytest.raises(ValueError, match="expected a state with seed, epoch and position"):
        loader().load_state_dict(state)


def test_a_state_of_another_data_set_is_refused():
    with pytest.raises(ValueError, match="position below the epoch's 11 samples, got 11"):
        loader().load_state_dict({"seed": 0, "epoch": 0, "position": 11})


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"prefetch": -1}, {"seed": -1}, {"count": 0}, {"count": 3, "drop_last": True}]
)
def test_settings_without_a_batch_are_refused(wrong):
    with pytest.raises(ValueError, match="Loader: expected"):
        loader(**wrong)
