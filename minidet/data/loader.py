"""Batches from a data set: shuffled, augmented, prepared in the background, and resumable at any point.

The stream of batches is a pure function of (seed, epoch, position). An epoch's order is a permutation drawn from
(seed, epoch) and each sample's augmentation from (seed, epoch, index), so neither depends on what was drawn before:
a loader that is told its state continues exactly as if it had never stopped.
"""

import queue
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minidet.data.dataset import Sample

# First words of the seeds, so that order and augmentation never share random numbers.
_ORDER, _AUGMENTATION = 1, 2

# Seconds after which a thread that runs Python must let others run. A network's kernels run without Python's lock and
# want it back at once; with the usual 5 ms they wait that long for this thread, again and again: a third of a step.
SWITCH_INTERVAL = 3e-4


class _ShortSwitchInterval:
    """A context manager: the interval is short while any loader is within it, and afterwards what it was before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.usual = 0.0

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self.usual, SWITCH_INTERVAL))
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                sys.setswitchinterval(self.usual)


_short_switch_interval = _ShortSwitchInterval()


@dataclass
class Batch:
    """images: (N, 3, H, W) float32 in [0, 1], channels last in memory; of collate_list a list of (3, H, W). names: of
    the images. indices: (N,) int64 positions in the data set. targets: one dict a sample with boxes (R, 4) float32,
    labels (R,) int64, iscrowd (R,) bool, and where the data set has them masks (R, H, W) bool, keypoints (R, J, 3)
    float32, proposals (P, 4) float32."""

    images: np.ndarray | list[np.ndarray]
    targets: list[dict]
    names: list[str]
    indices: np.ndarray


def make_target(sample: Sample) -> dict:
    """The annotation part of a sample as the models take it."""
    target = {
        "boxes": sample.boxes.astype(np.float32),
        "labels": sample.labels,
        "iscrowd": sample.iscrowd,
    }
    if sample.masks is not None:
        target["masks"] = sample.masks
    if sample.keypoints is not None:
        target["keypoints"] = sample.keypoints.astype(np.float32)
    if sample.proposals is not None:
        target["proposals"] = sample.proposals.astype(np.float32)
    return target


def collate(samples: list[Sample], indices: np.ndarray) -> Batch:
    """Stack samples of one size into a batch."""
    sizes = {sample.image.shape for sample in samples}
    if len(sizes) > 1:
        raise ValueError(
            f"collate: expected images of one size, got {sorted(sizes)}; put transforms.Resize into the transform "
            "or pass collate=collate_list"
        )
    stacked = np.stack([sample.image for sample in samples])  # (N, H, W, 3) uint8
    images = np.multiply(stacked, np.float32(1 / 255), dtype=np.float32)
    return Batch(images.transpose(0, 3, 1, 2), [make_target(s) for s in samples], [s.name for s in samples], indices)


def collate_list(samples: list[Sample], indices: np.ndarray) -> Batch:
    """A batch whose images are a list of (3, H, W) float32, for samples of different sizes."""
    images = [np.multiply(s.image, np.float32(1 / 255), dtype=np.float32).transpose(2, 0, 1) for s in samples]
    return Batch(images, [make_target(s) for s in samples], [s.name for s in samples], indices)


class Loader:
    """Iterate over a data set in batches. One `for` loop runs from the current position to the end of the epoch.

    dataset: anything with len() and [index] -> Sample. transform: f(sample, rng) -> sample, for instance a
    transforms.Compose. shuffle: a new order each epoch, else the data set's own. drop_last: leave out an incomplete
    last batch. prefetch: batches prepared ahead in a background thread; 0 prepares each when asked.
    collate: f(samples, indices) -> batch.

    `epoch` and `position` (samples of this epoch already handed out) say where the stream is. They move when a batch
    is handed out; with the epoch's last batch they move to (epoch + 1, 0).
    """

    def __init__(
        self,
        dataset,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        transform: Callable[[Sample, np.random.Generator], Sample] | None = None,
        drop_last: bool = False,
        prefetch: int = 2,
        collate: Callable[[list[Sample], np.ndarray], Batch] = collate,
    ):
        if batch_size < 1 or prefetch < 0 or seed < 0:
            raise ValueError(
                f"Loader: expected batch_size >= 1, prefetch >= 0 and seed >= 0, got {batch_size}, {prefetch}, {seed}"
            )
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.shuffle, self.transform, self.drop_last = shuffle, transform, drop_last
        self.prefetch, self.collate = prefetch, collate
        self.epoch = 0
        self.position = 0
        if self._end() == 0:
            raise ValueError(
                f"Loader: expected at least one batch, got {len(dataset)} samples for batches of {batch_size}"
            )

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return -(-self._end() // self.batch_size)

    def _end(self) -> int:
        """Samples that an epoch hands out."""
        count = len(self.dataset)
        return count - count % self.batch_size if self.drop_last else count

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where another loader over the same data set, with the same settings, was."""
        if set(state) != {"seed", "epoch", "position"} or not all(
            isinstance(value, int) and value >= 0 for value in state.values()
        ):
            raise ValueError(f"Loader: expected a state with seed, epoch and position >= 0, got {state}")
        if state["position"] >= self._end():
            raise ValueError(
                f"Loader: expected a position below the epoch's {self._end()} samples, got {state['position']}; "
                "the state belongs to another data set"
            )
        self.seed, self.epoch, self.position = state["seed"], state["epoch"], state["position"]

    def order(self, epoch: int) -> np.ndarray:
        """(len(dataset),) int64: the data set's indices in the order of that epoch."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng((_ORDER, self.seed, epoch)).permutation(len(self.dataset))

    def _batches(self, epoch: int, position: int) -> Iterator[tuple[Batch, int]]:
        """The rest of an epoch: each batch with the position after it."""
        order = self.order(epoch)
        while position < self._end():
            stop = min(position + self.batch_size, self._end())
            indices = order[position:stop]
            yield self.collate([self._sample(epoch, int(index)) for index in indices], indices), stop
            position = stop

    def _sample(self, epoch: int, index: int) -> Sample:
        try:
            sample = self.dataset[index]
            if self.transform is not None:
                sample = self.transform(sample, np.random.default_rng((_AUGMENTATION, self.seed, epoch, index)))
            return sample
        except Exception as error:
            records = getattr(self.dataset, "records", None)
            name = f" ({records[index].name})" if records else ""
            error.add_note(f"while loading sample {index}{name} of epoch {epoch}")
            raise

    def __iter__(self) -> Iterator[Batch]:
        batches = self._batches(self.epoch, self.position)
        for batch, stop in _in_background(batches, self.prefetch) if self.prefetch else batches:
            if stop == self._end():
                self.epoch, self.position = self.epoch + 1, 0
            else:
                self.position = stop
            yield batch


def _in_background(items: Iterator, ahead: int) -> Iterator:
    """The same items, computed in a thread up to `ahead` items before they are asked for.

    An exception in the thread is raised here, in its turn. When the consumer stops early, the thread ends.
    """
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(kind: str, value) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, value), timeout=0.05)  # wakes up to see whether the consumer has gone
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, name="minidet loader", daemon=True)
    with _short_switch_interval:
        thread.start()
        try:
            while True:
                kind, value = ready.get()
                if kind == "error":
                    raise value
                if kind == "end":
                    return
                yield value
        finally:
            stopped.set()
            thread.join()
