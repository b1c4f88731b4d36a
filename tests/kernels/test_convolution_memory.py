"""How much memory convolution needs at most: measured by the operating system, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

import minidet_kernels as mk

if mk.available()["cpu"] is not None:
    pytest.skip(f"the cpu version's promise: {mk.available()['cpu']}", allow_module_level=True)

# Results of 32 channels on 2 x 512 x 512 pixels are 64 MiB; a matrix of patches would be 576 MiB.
SCRIPT = """
import contextlib, resource, sys
import numpy as np
import minidet_kernels as mk

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB

way, function = sys.argv[1:]
stride = 2 if way == "strided" else 1

def run(size):
    x = np.ones((2, size, size, 32), np.float32).transpose(0, 3, 1, 2)
    grad = np.ones((2, size // stride, size // stride, 32), np.float32).transpose(0, 3, 1, 2)
    weight = np.ones((32, 32, 3, 3), np.float32)
    before = peak()
    result = {
        "forward": lambda: mk.conv2d(x, weight, None, stride, 1),
        "input gradient": lambda: mk.conv2d_input_grad(grad, weight, (size, size), stride, 1),
        "weight gradient": lambda: mk.conv2d_weight_grad(x, grad, 3, stride, 1),
    }[function]()
    return peak() - before, result.nbytes / 2**20

with mk.use("cpu"), mk.exact() if way == "direct" else contextlib.nullcontext():
    run(64)  # loads the compiled code
    print(*run(512))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the unit of ru_maxrss is the system's own")
@pytest.mark.parametrize("function", ["forward", "input gradient", "weight gradient"])
@pytest.mark.parametrize("way", ["direct", "strided", "winograd"])
def test_the_peak_is_the_result_and_a_little(way: str, function: str) -> None:
    command = [sys.executable, "-c", SCRIPT, way, function]
    grown, result = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert grown <= result + 24, f"{grown:.0f} MiB more than before, for a result of {result:.0f} MiB"
