"""How much memory each kernel takes at its peak, beyond its inputs and results: python -m benchmarks.memory

Every call runs in a process of its own, on Linux, which tells a process the most memory that it ever held. A small call
of the same kind comes first, so that compiled code and threads are there, and the pool is emptied.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minidet_kernels.pool import LIMIT, POOL

MIB = 2**20

Call = tuple[Callable[..., Any], Callable[[bool], tuple[Any, ...]]]  # a kernel, and its arguments: small, or full size


def images(n: int, c: int, size: int) -> np.ndarray:
    """Channels-last, as minidet's layers hand them over."""
    return np.ones((n, size, size, c), np.float32).transpose(0, 3, 1, 2)


def boxes(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres, sides = rng.uniform(0, 1000, (count, 2)), rng.uniform(10, 200, (count, 2))
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)


def rois(count: int) -> np.ndarray:
    return np.concatenate([np.zeros((count, 1), np.float32), boxes(count) / 2], axis=1)


def calls() -> dict[str, Call]:
    import minidet_kernels as mk

    def weight(k: int, c: int, size: int) -> np.ndarray:
        return np.ones((k, c, size, size), np.float32)

    def scores(count: int) -> np.ndarray:
        return np.random.default_rng(1).random(count, dtype=np.float32)

    def blocks(a: np.ndarray, b: np.ndarray) -> float:
        return max(float(block.max()) for _, block in mk.box_iou_blocks(a, b))

    return {
        "conv2d, 3 x 3, 64 to 64, 1 x 224 x 224": (
            lambda x, w: mk.conv2d(x, w, None, 1, 1),
            lambda small: (images(1, 64, 24 if small else 224), weight(64, 64, 3)),
        ),
        "conv2d, 3 x 3, 512 to 512, 4 x 28 x 28": (
            lambda x, w: mk.conv2d(x, w, None, 1, 1),
            lambda small: (images(4, 512, 4 if small else 28), weight(512, 512, 3)),
        ),
        "conv2d_input_grad, the same": (
            lambda x, w: mk.conv2d_input_grad(x, w, x.shape[2:], 1, 1),
            lambda small: (images(4, 512, 4 if small else 28), weight(512, 512, 3)),
        ),
        "conv2d_weight_grad, the same": (
            lambda x, grad: mk.conv2d_weight_grad(x, grad, 3, 1, 1),
            lambda small: (images(4, 512, 4 if small else 28), images(4, 512, 4 if small else 28)),
        ),
        "conv2d, 3 x 3 stride 2, 32 to 32, 2 x 512 x 512": (
            lambda x, w: mk.conv2d(x, w, None, 2, 1),
            lambda small: (images(2, 32, 64 if small else 512), weight(32, 32, 3)),
        ),
        "conv2d_input_grad, the same, stride 2": (
            lambda grad, w: mk.conv2d_input_grad(grad, w, (2 * grad.shape[2], 2 * grad.shape[3]), 2, 1),
            lambda small: (images(2, 32, 32 if small else 256), weight(32, 32, 3)),
        ),
        "conv2d_weight_grad, the same, stride 2": (
            lambda x, grad: mk.conv2d_weight_grad(x, grad, 3, 2, 1),
            lambda small: (images(2, 32, 64 if small else 512), images(2, 32, 32 if small else 256)),
        ),
        "conv2d, 7 x 7 stride 2, 3 to 64, 4 x 224 x 224": (
            lambda x, w: mk.conv2d(x, w, None, 2, 3),
            lambda small: (images(4, 3, 24 if small else 224), weight(64, 3, 7)),
        ),
        "conv2d, 1 x 1, 256 to 64, 4 x 56 x 56": (
            lambda x, w: mk.conv2d(x, w),
            lambda small: (images(4, 256, 6 if small else 56), weight(64, 256, 1)),
        ),
        "max_pool2d, 2 x 2, 4 x 64 x 224 x 224": (
            lambda x: mk.max_pool2d(x, 2),
            lambda small: (images(4, 64, 24 if small else 224),),
        ),
        "batch_norm, 4 x 64 x 224 x 224": (
            lambda x: mk.batch_norm(x, np.ones(64, np.float32), np.zeros(64, np.float32)),
            lambda small: (images(4, 64, 24 if small else 224),),
        ),
        "roi_pool, 512 boxes, 256 channels, 7 x 7": (
            lambda x, rois: mk.roi_pool(x, rois, 7, 0.1),
            lambda small: (images(1, 256, 50), rois(8 if small else 512)),
        ),
        "roi_align, 512 boxes, 256 channels, 7 x 7": (
            lambda x, rois: mk.roi_align(x, rois, 7, 0.1, 2),
            lambda small: (images(1, 256, 50), rois(8 if small else 512)),
        ),
        "box_iou, 10000 x 1000": (mk.box_iou, lambda small: (boxes(10 if small else 10000), boxes(1000))),
        "box_iou_blocks, 50000 x 50000": (
            blocks,
            lambda small: (boxes(10 if small else 50000), boxes(10 if small else 50000)),
        ),
        "nms, 50000 boxes": (
            lambda b, s: mk.nms(b, s, 0.5),
            lambda small: (boxes(10 if small else 50000), scores(10 if small else 50000)),
        ),
        "connected_components, 2048 x 2048": (
            mk.connected_components,
            lambda small: (np.ones((1, 16 if small else 2048, 16 if small else 2048), bool),),
        ),
        "resize_bilinear, 64 x 56 x 56 to 224 x 224": (
            lambda x: mk.resize_bilinear(x, (224, 224)),
            lambda small: (images(1, 64, 6 if small else 56),),
        ),
    }


def measure(name: str) -> dict[str, float]:
    """MiB: of the arrays given and returned, and at the peak beyond them."""
    kernel, arguments = calls()[name]
    kernel(*arguments(True))
    POOL.set_limit(0)
    POOL.set_limit(LIMIT)
    given = arguments(False)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now
    before = status("VmRSS")
    result = kernel(*given)
    peak = status("VmHWM")
    results = result if isinstance(result, tuple) else (result,)
    returned = sum(array.nbytes for array in results if isinstance(array, np.ndarray))
    in_all = returned + sum(array.nbytes for array in given)
    return {"arrays": in_all / MIB, "beyond": max(0.0, (peak - before - returned) / MIB)}


def status(field: str) -> int:
    """Bytes, of the lines such as "VmHWM:  12345 kB" in which Linux describes this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def in_a_process(name: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", name]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    print("| call | inputs and results, MiB | at the peak beyond them, MiB |\n|---|---|---|")
    for name in calls():
        found = in_a_process(name)
        print(f"| {name} | {found['arrays']:.1f} | {found['beyond']:.1f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
