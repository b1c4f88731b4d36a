"""Bugs planted into the CUDA sources, one at a time, to see each found by the layer that should find it.

    export PYTHONPATH=.:kernels
    python -m minidet_kernels.emulator.sanitize thread -m tests.kernels.planted "scatter without atomics"

runs the kernel with that bug once; without a name, all kernels of the list as they are.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import minidet_kernels as mk
from minidet_kernels import emulator
from minidet_kernels.cuda_source import source_text
from minidet_kernels.emulator import emulated
from tests.kernels.harness import Call, Case, run

# The broken files, always in the same place, so that each is compiled once only.
PLANTED = Path(emulator.__file__).parent / "__pycache__" / "planted"


@dataclass(frozen=True)
class Bug:
    """`old` in the .cu file of `folder` becomes `new`; `call` of the kernel `name` shows it."""

    folder: str
    name: str
    call: Call
    old: str
    new: str


_RNG = np.random.default_rng(0)
_IMAGE = _RNG.uniform(1, 2, (1, 3, 5, 7)).astype(np.float32)
_CONVOLUTION = Call((_IMAGE, _RNG.uniform(1, 2, (2, 3, 3, 3)).astype(np.float32), None), {"padding": 1})
# one channel: a sum of 9 terms, so that the only slice, 16 deep, is not full
_SMALL_CONVOLUTION = Call((_IMAGE[:, :1], np.ones((2, 1, 3, 3), np.float32), None), {"padding": 1})
_NORMALIZATION = Call((_IMAGE, np.ones(3, np.float32), np.zeros(3, np.float32)))
# 300 numbers for 4 pixels: two blocks of threads, and every pixel has many threads that add to it
_SCATTER = Call((np.ones((1, 1, 20, 15), np.float32), np.arange(300).reshape(1, 1, 20, 15) % 4), {"input_size": (2, 2)})
# 70 boxes: two words of 64, the second not full; neighbours overlap, and every second one is dropped
_ROW = np.array([[2 * i, 0, 2 * i + 10, 1] for i in range(70)], np.float32)
_SUPPRESSION = Call((_ROW, np.linspace(1, 0.5, 70, dtype=np.float32)), {"iou_threshold": 0.5})

BUGS = {
    "barrier missing before the sum": Bug(
        "batch_norm",
        "batch_norm",
        _NORMALIZATION,
        "__syncthreads();  // nobody reads before",
        "// nobody reads before",
    ),
    "barrier missing before the product": Bug(
        "convolution",
        "conv2d",
        _CONVOLUTION,
        "__syncthreads();  // nobody multiplies",
        "// nobody multiplies",
    ),
    "barrier missing before the walk": Bug(
        "nms",
        "nms",
        _SUPPRESSION,
        "__syncthreads();  // own and dropped",
        "// own and dropped",
    ),
    "barrier missing between the steps": Bug(
        "nms",
        "soft_nms_linear",
        _SUPPRESSION,
        "__syncthreads();  // nobody writes the next",
        "// nobody writes the next",
    ),
    "shared memory not filled": Bug(
        "convolution",
        "conv2d",
        _SMALL_CONVOLUTION,
        "tiles.left[which][at % DEPTH][at / DEPTH] = next_left[i];",
        "if (part.begin + at % DEPTH < part.end) tiles.left[which][at % DEPTH][at / DEPTH] = next_left[i];",
    ),
    "barrier that some threads never reach": Bug(
        "convolution",
        "conv2d",
        _CONVOLUTION,
        "find_depths(part.begin, 0);",
        "if (part.first_column() + thread % COLUMNS >= part.columns) return;\n    find_depths(part.begin, 0);",
    ),
    "thread without a box leaves before the barrier": Bug(
        "nms",
        "nms",
        _SUPPRESSION,
        "__syncthreads();  // nobody reads the others",
        "if (row >= count) return;\n    __syncthreads();  // nobody reads the others",
    ),
    "different barriers": Bug(
        "batch_norm",
        "batch_norm",
        _NORMALIZATION,
        "__syncthreads();  // nobody reads before",
        "if (thread < 7)\n        __syncthreads();\n    else\n        __syncthreads();  // nobody reads before",
    ),
    "end of the array not checked": Bug("relu", "relu", Call((_IMAGE,)), "if (i >= count)", "if (i > count + 9)"),
    "one row too many of a shared tile": Bug(
        "convolution",
        "conv2d",
        _CONVOLUTION,
        "for (int depth = 0; depth < DEPTH; depth++)",
        "for (int depth = 0; depth <= DEPTH; depth++)",
    ),
    "scatter without atomics": Bug(
        "pooling",
        "max_pool2d_scatter",
        _SCATTER,
        "atomicAdd(&plane[index], grad[at]);",
        "plane[index] += grad[at];",
    ),
    # in whatever order the threads come, here the last to write has the right sum
    "sum of a tree read without a barrier": Bug(
        "total_variation", "tv_anisotropic", Call((_IMAGE,)), "if (thread == 0)  // whose own", "// whose own"
    ),
    "plain read of what others change atomically": Bug(
        "components",
        "connected_components",
        Call((np.ones((1, 4, 4), bool),)),
        "atomicMin(&parent[at], at)",
        "parent[at]",
    ),
}


@contextmanager
def planted(folder: str, old: str, new: str) -> Iterator[None]:
    """Within it `old` is `new` in the .cu file that the emulated version of that folder is compiled from."""
    with emulated():
        host_code = importlib.import_module(f"minidet_kernels.{folder}.cuda")
    intact = host_code.SOURCE
    text = source_text(intact.path)  # with the files that it includes
    assert old in text, "the bug no longer fits the .cu file; plant it anew"
    broken = copy.copy(intact)
    broken.path = PLANTED / hashlib.sha256((old + new).encode()).hexdigest()[:20] / intact.path.name
    broken.path.parent.mkdir(parents=True, exist_ok=True)
    broken.path.write_text(text.replace(old, new))
    host_code.SOURCE = broken
    try:
        yield
    finally:
        host_code.SOURCE = intact


def run_once(bug: Bug, order: str = "forward") -> tuple[np.ndarray, ...]:
    return run(Case(bug.name, None, waits=1), bug.call, f"emulated {order}")  # nms waits for the size of its result


def expected(bug: Bug) -> tuple[np.ndarray, ...]:
    with mk.use("reference"):
        return run(Case(bug.name, None), bug.call, "reference")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        for some_bug in BUGS.values():
            run_once(some_bug)
    else:
        bug = BUGS[sys.argv[1]]
        with planted(bug.folder, bug.old, bug.new):
            run_once(bug)
    print("ran to its end")
