"""Kernels need little memory beyond their inputs and results: measured in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minidet_kernels

ROOT = Path(__file__).parents[2]

# MiB. Written out, the patches of an image ("im2col") would be 9 times the image for a 3 x 3 kernel, 49 for 7 x 7.
MOST = {
    "conv2d, 3 x 3, 64 to 64, 1 x 224 x 224": 16,  # patches: 110
    "conv2d, 3 x 3 stride 2, 32 to 32, 2 x 512 x 512": 24,  # patches: 144
    "conv2d_input_grad, the same, stride 2": 24,  # patches: 144
    "conv2d_weight_grad, the same, stride 2": 24,  # patches: 144
    "conv2d, 7 x 7 stride 2, 3 to 64, 4 x 224 x 224": 8,  # patches: 28
    "conv2d_weight_grad, the same": 24,  # patches: 55
    "box_iou_blocks, 50000 x 50000": 100,  # all at once: 9500
    "nms, 50000 boxes": 100,  # all pairs, a bit each: 298
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak memory")
@pytest.mark.skipif(minidet_kernels.available()["cpu"] is not None, reason="needs the cpu version")
@pytest.mark.parametrize("call", MOST)
def test_the_peak_memory_is_bounded(call: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    command = [sys.executable, "-m", "benchmarks.memory", call]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["beyond"] <= MOST[call]
