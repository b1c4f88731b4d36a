"""NVIDIA's compiler accepts every .cu file, for every GPU that we support, without a warning."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import minidet_kernels
from minidet_kernels import emulator
from minidet_kernels.cuda_source import CudaSource, source_text
from minidet_kernels.emulator import nvrtc

KERNELS = Path(minidet_kernels.__file__).parent
FILES = sorted(KERNELS.glob("*/*.cu"))  # not the broken ones that tests/kernels/planted.py writes further down

needs_nvrtc = pytest.mark.skipif(nvrtc.why_not() is not None, reason=str(nvrtc.why_not()))


def _source(file: Path) -> CudaSource:
    if emulator.why_not() is not None:
        pytest.skip(emulator.why_not())
    with emulator.emulated():
        return importlib.import_module(f"minidet_kernels.{file.parent.name}.cuda").SOURCE


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_cu_file_is_launched_by_the_cuda_py_beside_it(file: Path) -> None:
    assert _source(file).path == file


@needs_nvrtc
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float", "double"])
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nvrtc_compiles_every_file(file: Path, architecture: str, dtype: type) -> None:
    assert nvrtc.compile(source_text(file), architecture, _source(file).options_for(dtype)) == (True, "")


@needs_nvrtc
def test_the_gate_closes() -> None:
    """INFINITY is known to g++ with the shim, and not to NVRTC without headers."""
    good, log = nvrtc.compile('extern "C" __global__ void f(float* x) { *x = INFINITY; }', "sm_80", ())
    assert not good
    assert 'identifier "INFINITY" is undefined' in log


@needs_nvrtc
@pytest.mark.parametrize(
    ("right", "wrong", "where"),
    [
        ("return a > b ? a : b;", "return a > nobody;", "box_iou/overlap.cuh"),
        ("constexpr int BITS = 64;", "constexpr int BITS = nobody;", "nms/nms.cu"),  # below the #include
    ],
)
def test_errors_name_file_and_line_also_where_files_are_included(right: str, wrong: str, where: str) -> None:
    file = KERNELS / "nms" / "nms.cu"
    text = source_text(file)
    good, log = nvrtc.compile(text.replace(right, wrong), "sm_80", _source(file).options_for(np.float32))
    (line,) = (number for number, told in enumerate((KERNELS / where).read_text().splitlines(), 1) if right in told)
    assert not good
    assert f'{where}({line}): error: identifier "nobody" is undefined' in log


def test_geometry_is_compiled_without_fused_multiply_add() -> None:
    assert "--fmad=false" in CudaSource(Path("geometry.cu")).options
    assert "--fmad=true" in CudaSource(Path("products.cu"), fused=True).options
