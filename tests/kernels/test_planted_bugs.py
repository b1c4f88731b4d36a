"""Every kind of mistake that CUDA forgives in silence, made on purpose, is found by the layer that should find it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minidet_kernels import emulator
from minidet_kernels.emulator.sanitize import why_not_sanitize
from tests.kernels.harness import assert_close
from tests.kernels.planted import BUGS, expected, planted, run_once

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not())),
    pytest.mark.skipif("MINIDET_EMULATOR" in os.environ, reason="chooses its sanitizers itself"),
]


@pytest.mark.parametrize("order", emulator.ORDERS)
@pytest.mark.parametrize("name", BUGS)
def test_without_the_bug_the_kernel_is_right(name: str, order: str) -> None:
    for result, wanted in zip(run_once(BUGS[name], order), expected(BUGS[name]), strict=True):
        assert_close(result, wanted, name)


@pytest.mark.parametrize("name", [name for name in BUGS if name.startswith("barrier missing")])
def test_a_missing_barrier_shows_in_the_result_in_some_order_of_the_threads(name: str) -> None:
    wrong = {order for order in emulator.ORDERS if _is_wrong(name, order)}
    assert wrong, f"{name}: right in every order"


def test_shared_memory_that_nobody_wrote_is_poison() -> None:
    (result,) = _run_broken("shared memory not filled")
    assert np.isnan(result).any()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "barrier that some threads never reach",
            r"correlate: divergent barrier: \d+ of 128 threads of a block wait at __syncthreads\(\) in line \d+, "
            "the others have returned",
        ),
        (
            "thread without a box leaves before the barrier",
            r"overlaps: divergent barrier: 6 of 64 threads of a block wait at __syncthreads\(\) in line \d+, "
            "the others have returned",
        ),
        ("different barriers", r"divergent barrier: some threads .* in line \d+, others in line \d+"),
    ],
)
def test_a_divergent_barrier_is_an_error_of_the_launch(name: str, words: str) -> None:
    with pytest.raises(emulator.LaunchError, match=words):
        _run_broken(name)
    run_once(BUGS[name])  # the next launch is not disturbed


@pytest.mark.parametrize(
    ("sanitizer", "name", "words"),
    [
        ("address", "end of the array not checked", ["heap-buffer-overflow", "in relu", "relu.cu:"]),
        ("address", "one row too many of a shared tile", ["out of bounds for type", "product.cuh:"]),
        ("thread", "scatter without atomics", ["data race", "in scatter", "pooling.cu:"]),
        ("thread", "barrier missing before the sum", ["data race", "block_sum", "batch_norm.cu:"]),
        ("thread", "barrier missing before the product", ["data race", "product.cuh:"]),
        ("thread", "barrier missing before the walk", ["data race", "in keep_best", "nms.cu:"]),
        ("thread", "barrier missing between the steps", ["data race", "in soft_nms", "nms.cu:"]),
        ("thread", "sum of a tree read without a barrier", ["data race", "total_variation.cu:"]),
        ("thread", "plain read of what others change atomically", ["data race", "components.cu:"]),
    ],
)
def test_a_sanitizer_finds_it_and_names_the_line(sanitizer: str, name: str, words: list[str]) -> None:
    status, report = _sanitized(sanitizer, name)
    assert status != 0, report
    for word in words:
        assert word in report


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_a_sanitizer_says_nothing_where_nothing_is_wrong(sanitizer: str) -> None:
    status, report = _sanitized(sanitizer)
    assert status == 0, report
    assert "ran to its end" in report


def _run_broken(name: str, order: str = "forward") -> tuple[np.ndarray, ...]:
    bug = BUGS[name]
    with planted(bug.folder, bug.old, bug.new):
        return run_once(bug, order)


def _is_wrong(name: str, order: str) -> bool:
    try:
        results = _run_broken(name, order)
    except emulator.LaunchError:  # threads that see different values leave a loop at different times
        return True
    return any(
        result.shape != wanted.shape or not np.allclose(result, wanted, rtol=1e-5)
        for result, wanted in zip(results, expected(BUGS[name]), strict=True)
    )


def _sanitized(sanitizer: str, *arguments: str) -> tuple[int, str]:
    """Status and output of planted.py under the sanitizer."""
    if why_not_sanitize(sanitizer) is not None:
        pytest.skip(why_not_sanitize(sanitizer))
    command = [
        sys.executable,
        "-m",
        "minidet_kernels.emulator.sanitize",
        sanitizer,
        "-m",
        "tests.kernels.planted",
        *arguments,
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return answer.returncode, answer.stdout + answer.stderr
