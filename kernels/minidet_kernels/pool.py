"""A pool of large pieces of memory: what a dead array leaves behind serves the next one.

New memory is dear: the operating system gives it out in pages, each of which it fills with zeros when it is first
written, and takes it back as soon as an array dies. Writing a new 50 MB takes two to three times as long as writing
50 MB again, and every step of a training makes arrays of the same sizes as the step before.

Who owns what:

    array  --base-->  _Lease  -->  memory (bytes)         while the array or any view of it lives
                                   Pool._free             after the last of them died

A view keeps its base alive, so memory cannot come back to the pool before the last array over it is gone, and what
somebody can still see is never written by another. There is no lock: a finaliser runs at any moment, also while its own
thread is inside the pool, and would wait for ever. Each step is a single operation of a dictionary instead, which
CPython makes atomic. After a fork both processes have a pool of their own, as of all memory.

At most LIMIT bytes lie idle, in at most MOST_PIECES; `minidet_kernels.pool.POOL.set_limit(bytes)` changes the bytes,
for the whole process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Bytes from which an array comes from the pool: glibc's M_MMAP_THRESHOLD. Below, the C library reuses memory by itself,
# and faster; from there on it may return it to the system, and 0.9 MB of work space cost 0.6 ms a call.
SMALLEST = 1 << 17
# A piece may be larger than what is asked for by this part of it. A network's sizes come again exactly, step by step,
# and pieces of just that size are taken first; the rest is for images that differ, and for the first one: with 1/4,
# detecting in a picture of 600 x 800 took 90 MB more.
SPARE = 1.0
# Bytes of a cache line and of the largest vector register: a vector that crosses a line is loaded in two steps.
ALIGNMENT = 64
# Bytes that may lie idle: a training step of VGG16 on a 224 x 224 image needs half of it.
LIMIT = 1 << 30
# Pieces that may lie idle: each is looked at when one is sought, 0.1 us a piece, and added up when one comes back.
MOST_PIECES = 256


class Pool:
    """At most `limit` bytes, in MOST_PIECES, lie idle in it: what comes back beyond that is freed, the oldest first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._free: dict[int, np.ndarray] = {}  # by address; the one that came back last stands last

    def empty(self, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        """As np.empty: a contiguous array with any contents."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            return np.empty(shape, dtype)
        address, memory = self._take(size) or self._new(size)
        return np.asarray(_Lease(self, address, memory, tuple(shape), dtype))

    def idle(self) -> int:
        """Bytes that lie in the pool."""
        return sum(map(len, list(self._free.values())))

    def set_limit(self, limit: int) -> None:
        """Frees at once what lies idle beyond the new limit; 0 switches the pool off."""
        if limit < 0:
            raise ValueError(f"set_limit: expected bytes >= 0, got {limit}; 0 switches the pool off")
        self.limit = limit
        self._trim()

    def give_back(self, address: int, memory: np.ndarray) -> None:
        self._free[address] = memory
        self._trim()

    def _take(self, size: int) -> tuple[int, np.ndarray] | None:
        """The smallest piece that fits, of equal ones that which came back last, because it may still be in the cache;
        its address too, which takes longer to ask for than all else here."""
        least, most = size + ALIGNMENT, (1 + SPARE) * size + ALIGNMENT
        best = None
        for address, memory in reversed(list(self._free.items())):
            if least <= len(memory) <= most and (best is None or len(memory) < len(best[1])):
                best = address, memory
                if len(memory) == least:
                    break
        if best is None or self._free.pop(best[0], None) is None:  # None: another was faster
            return None
        return best

    def _new(self, size: int) -> tuple[int, np.ndarray]:
        try:
            memory = np.empty(size + ALIGNMENT, np.uint8)
        except MemoryError:
            self._free.clear()  # what lies idle here may be what is missing
            memory = np.empty(size + ALIGNMENT, np.uint8)
        return memory.__array_interface__["data"][0], memory

    def _trim(self) -> None:
        for address in list(self._free):
            if self.idle() <= self.limit and len(self._free) <= MOST_PIECES:
                break
            self._free.pop(address, None)


class _Lease:
    """Memory in use: the base of one array, and so of all its views. When the last of them dies, this does."""

    def __init__(self, pool: Pool, address: int, memory: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._pool, self._address, self._memory = pool, address, memory
        first = -(-address // ALIGNMENT) * ALIGNMENT
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (first, False)}

    def __del__(self) -> None:
        self._pool.give_back(self._address, self._memory)


POOL = Pool()
