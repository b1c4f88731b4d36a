"""Every kernel in every version through the harness; and the harness itself against kernels broken on purpose."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import minidet_kernels
from minidet_kernels import emulator
from tests.kernels.cases import BY_NAME, CASES, CUDA_MUTANTS, MUTANTS
from tests.kernels.harness import Case, check
from tests.kernels.planted import planted

EMULATED = [f"emulated {order}" for order in emulator.ORDERS]
FAST_VERSIONS = [version for version in ("cpu", "cuda") if minidet_kernels.available()[version] is None]
# Of every kernel and version; each of the three orders of the emulated threads has a third, but fewer under TSAN, which
# makes every switch between them expensive. A nightly run asks for 10,000.
EXAMPLES = int(os.environ.get("MINIDET_EXAMPLES", "200"))
EXAMPLES_EMULATED = 10 if os.environ.get("MINIDET_EMULATOR") == "thread" else -(-EXAMPLES // 3)
KERNELS = Path(minidet_kernels.__file__).parent
NOT_KERNELS = {"available", "box_iou_blocks", "current", "exact", "use"}
SLOW_START = [HealthCheck.too_slow, HealthCheck.filter_too_much]  # the first call compiles; some geometries do not fit

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@by_name
@pytest.mark.parametrize("version", ["reference", *FAST_VERSIONS, *EMULATED])
def test_a_version_has_all_properties_of_its_kernel(case: Case, version: str) -> None:
    _skip_what_cannot_run(case, version)

    examples = EXAMPLES_EMULATED if version in EMULATED else EXAMPLES

    @settings(max_examples=examples, deadline=None, suppress_health_check=SLOW_START)
    @given(case.calls)
    def properties(call):
        check(case, call, version)

    properties()


def _skip_what_cannot_run(case: Case, version: str) -> None:
    if version in EMULATED and emulator.why_not() is not None:
        pytest.skip(emulator.why_not())
    folder = KERNELS / getattr(minidet_kernels, case.name).__module__.rpartition(".")[2]
    if version in ("cuda", *EMULATED) and not (folder / "cuda.py").exists():
        pytest.skip(f"{folder.name} has no cuda.py")


def test_every_exported_kernel_is_in_the_harness() -> None:
    assert {case.name for case in CASES} == set(minidet_kernels.__all__) - NOT_KERNELS


def _module_from(text: str, name: str, folder: Path) -> ModuleType:
    path = folder / "mutant.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check_often(case: Case, version: str = "cpu") -> None:
    @settings(
        max_examples=300,  # some mutants show in one example of fifty
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=SLOW_START,
    )
    @given(case.calls)
    def properties(call):
        check(case, call, version)

    properties()


@pytest.mark.skipif("cpu" not in FAST_VERSIONS, reason="mutants take the place of the cpu version, which needs numba")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_kernel_broken_on_purpose_is_caught(mutant: str, monkeypatch, tmp_path: Path) -> None:
    folder, kernel, old, new = MUTANTS[mutant]
    text = (KERNELS / folder / "reference.py").read_text()
    assert old in text, "the mutant no longer fits the reference; write it anew"
    name = f"minidet_kernels.{folder}.cpu"
    monkeypatch.setitem(sys.modules, name, _module_from(text.replace(old, new), name, tmp_path))
    case = BY_NAME[kernel]
    with pytest.raises(AssertionError, match=r"differs from the reference|adjoint|changed its input|other bits"):
        _check_often(case)


@pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))
@pytest.mark.parametrize("mutant", CUDA_MUTANTS)
def test_a_cuda_kernel_broken_on_purpose_is_caught(mutant: str) -> None:
    folder, kernel, old, new = CUDA_MUTANTS[mutant]
    case = BY_NAME[kernel]
    with planted(folder, old, new), pytest.raises(AssertionError, match="differs from the reference"):
        _check_often(case, "emulated reverse")


@by_name
@pytest.mark.skipif("cpu" not in FAST_VERSIONS, reason="as above")
def test_the_same_check_lets_an_unbroken_copy_pass(case: Case, monkeypatch, tmp_path: Path) -> None:
    """So that the mutants above are caught for their mutation, and for nothing else."""
    folder = getattr(minidet_kernels, case.name).__module__.rpartition(".")[2]
    name = f"minidet_kernels.{folder}.cpu"
    text = (KERNELS / folder / "reference.py").read_text()
    monkeypatch.setitem(sys.modules, name, _module_from(text, name, tmp_path))
    _check_often(case)
