"""Choosing versions: by name, by array type, for a while, and in each thread for itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels import versions

CUDA_IS_MISSING = pytest.mark.skipif(mk.available()["cuda"] is None, reason="a GPU can be used here")


@pytest.fixture(autouse=True)
def former_choice():
    with mk.use("reference"):
        yield


def test_use_applies_at_once_and_comes_back_after_with() -> None:
    mk.use("reference")
    with mk.use("cpu"):
        assert mk.current() == "cpu"
        with mk.use("reference"):
            assert mk.current() == "reference"
        assert mk.current() == "cpu"
    assert mk.current() == "reference"


def test_the_former_choice_comes_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), mk.use("cpu"):
        1 / 0  # noqa: B018
    assert mk.current() == "reference"


def test_a_thread_has_its_own_choice() -> None:
    seen = []
    thread = threading.Thread(target=lambda: seen.append(mk.current()))
    thread.start()
    thread.join()
    assert seen == ["cpu"]  # the default, not the "reference" of this thread


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="expected one of reference, cpu, cuda, got 'gpu'"):
        mk.use("gpu")
    assert mk.current() == "reference"


@CUDA_IS_MISSING
def test_a_version_that_cannot_run_says_why_and_what_can() -> None:
    with pytest.raises(RuntimeError, match=r"cannot run: .*cupy.*available here: reference, cpu"):
        mk.use("cuda")


def test_available_names_every_version() -> None:
    assert list(mk.available()) == ["reference", "cpu", "cuda"]
    assert mk.available()["reference"] is None


def test_without_numba_the_reference_is_the_default(monkeypatch) -> None:
    monkeypatch.setattr(versions, "_is_installed", lambda module: module != "numba")
    versions._why_not.cache_clear()
    monkeypatch.setattr(versions, "_chosen", versions.ContextVar("fresh", default=None))
    assert mk.current() == "reference"
    assert mk.available()["cpu"] == "numba is not installed: pip install numba"
    versions._why_not.cache_clear()


class _ArrayOnGpu:
    """Looks like a CuPy array to `choose`, which goes by the name of the module."""

    shape, dtype = (1, 1, 2, 2), np.dtype(np.float32)


_ArrayOnGpu.__module__ = "cupy"


def test_a_cupy_array_goes_to_cuda_and_is_told_where_there_is_none() -> None:
    imported = "cupy" in sys.modules
    with pytest.raises(RuntimeError, match=r"has no cuda version.*cupy.asnumpy"):
        versions.choose("minidet_kernels", _ArrayOnGpu())  # a package without a cuda.py
    assert ("cupy" in sys.modules) == imported


def test_a_mixture_of_devices_is_refused() -> None:
    with pytest.raises(TypeError, match="one device"):
        versions.choose("minidet_kernels.pooling", np.zeros(1), _ArrayOnGpu())


def test_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match=r"builtins.list; use numpy.asarray"):
        versions.choose("minidet_kernels.pooling", [1.0])


def test_importing_the_kernels_imports_neither_numba_nor_cupy() -> None:
    program = "import sys, minidet_kernels; print({'numba', 'cupy', 'scipy'} & set(sys.modules))"
    root = Path(mk.__file__).parents[1]
    answer = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_threads_may_use_a_version_for_the_first_time_together() -> None:
    """Its import takes a while: the others must wait, and not find a module without functions."""
    pytest.importorskip("numba")
    program = (
        "import numpy as np, minidet_kernels as mk\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    print(sum(pool.map(lambda _: mk.avg_pool2d(np.ones((1, 1, 2, 2)), 2).item(), range(4))))"
    )
    root = Path(mk.__file__).parents[1]
    answer = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert answer.stdout.strip() == "4.0", answer.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_user_at_a_terminal_is_told_once_what_is_being_compiled(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    program = (
        "import numpy as np, minidet_kernels as mk\n"
        "mk.max_pool2d_gather(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 1), np.int64))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    heard = []
    for _ in range(2):
        ours, theirs = os.openpty()
        root = Path(mk.__file__).parents[1]
        subprocess.run([sys.executable, "-c", program], cwd=root, env=environment, stderr=theirs, check=True)
        os.write(theirs, b"end")
        text = ""
        while not text.endswith("end"):  # a terminal hands over what it has, which may be a part
            text += os.read(ours, 1000).decode()
        heard.append(text)
    assert heard == ["minidet: compiling pooling for this machine (once) ...\r\nend", "end"]


def test_the_doctor_learns_how_the_cpu_version_runs() -> None:
    pytest.importorskip("numba")
    from minidet_kernels.compiler import describe

    facts = describe()
    assert facts["threading_layer"] in ("omp", "tbb", "workqueue")
    assert facts["threads"] >= 1
    assert facts["float32_lanes"] in (4, 8, 16)
