"""The emulator refuses what CuPy or CUDA would refuse, and what they would let pass to go wrong later."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels import emulator
from minidet_kernels.cuda_source import MOST_ELEMENTS, CudaSource
from minidet_kernels.emulator import build

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))

SCALE = """
extern "C" __global__ void scale(const Real* x, Real* y, Real factor, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        y[i] = factor * x[i];
}
extern "C" __global__ void __launch_bounds__(64) where_am_i(int* y)
{
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    y[block * blockDim.x * blockDim.y * blockDim.z + thread] = 10000 * block + thread;
}
extern "C" __global__ void who_is_last(int* y)
{
    y[0] = threadIdx.x + 100 * blockIdx.x;
}
"""


@pytest.fixture
def cupy() -> Iterator:
    with emulator.emulated():
        import cupy

        yield cupy


@pytest.fixture
def scale(cupy):
    return cupy.RawModule(code=SCALE, options=("-DReal=float",)).get_function("scale")


def test_a_launch_as_in_cupy(cupy, scale) -> None:
    x, y = cupy.asarray(np.arange(5, dtype=np.float32)), cupy.empty(5, np.float32)
    scale((2,), (3,), (x, y, np.float32(0.5), np.int32(5)))
    assert y.get().tolist() == [0, 0.5, 1, 1.5, 2]


@pytest.mark.parametrize("order", emulator.ORDERS)
def test_every_thread_of_every_block_runs_once_and_knows_its_place(order: str) -> None:
    with emulator.emulated(order, seed=3):
        import cupy

        y = cupy.empty((30, 24), np.int32)
        cupy.RawModule(code=SCALE, options=("-DReal=float",)).get_function("where_am_i")((2, 3, 5), (4, 3, 2), (y,))
        assert y.get().tolist() == [[10000 * block + thread for thread in range(24)] for block in range(30)]


def test_the_order_decides_who_comes_last() -> None:
    last = {}
    for order, seed in (("forward", 0), ("reverse", 0), ("random", 1), ("random", 2)):
        with emulator.emulated(order, seed):
            import cupy

            y = cupy.empty(1, np.int32)
            cupy.RawModule(code=SCALE, options=("-DReal=float",)).get_function("who_is_last")((9,), (90,), (y,))
            last[order, seed] = y.item()
    assert last["forward", 0] == 889
    assert last["reverse", 0] == 0
    assert len(set(last.values())) == 4


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({2: 0.5}, TypeError, r"scale, argument 2: expected numpy.float32, got float"),
        ({2: np.float64(0.5)}, TypeError, r"argument 2: the kernel takes float32, got float64"),
        ({3: np.int64(4)}, TypeError, r"argument 3: the kernel takes int32, got int64; wrap it: numpy.int32"),
        ({0: np.zeros(4, np.float32)}, TypeError, r"argument 0: expected a device array for float32\*, got ndarray"),
        ({0: "float64"}, TypeError, r"argument 0: the kernel takes float32\*, the array is float64"),
        ({0: "strided"}, TypeError, r"argument 0: the array is not contiguous; .*ascontiguousarray"),
        ({3: None}, TypeError, r"expected 4 arguments \(float32\*, float32\*, float32, int32\), got 3"),
    ],
)
def test_an_argument_that_does_not_fit_the_kernel_is_refused(cupy, scale, change, error, words) -> None:
    special = {"float64": cupy.zeros(4, np.float64), "strided": cupy.zeros((4, 2), np.float32)[:, 0]}
    arguments = [cupy.zeros(4, np.float32), cupy.zeros(4, np.float32), np.float32(1), np.int32(4)]
    for at, value in change.items():
        arguments[at] = special[value] if isinstance(value, str) else value
    with pytest.raises(error, match=words):
        scale((1,), (4,), tuple(argument for argument in arguments if argument is not None))


@pytest.mark.parametrize(
    ("grid", "block", "words"),
    [
        ((0,), (1,), "expected a grid from"),
        ((1, 65536), (1,), "expected a grid from"),
        ((1,), (1, 1, 65), "expected a block from"),
        ((1,), (64, 32), "at most 1024 threads a block"),
    ],
)
def test_sizes_that_cuda_refuses_are_refused(cupy, scale, grid, block, words: str) -> None:
    x = cupy.zeros(4, np.float32)
    with pytest.raises(emulator.LaunchError, match=words):
        scale(grid, block, (x, x, np.float32(1), np.int32(4)))


def test_an_unknown_kernel_and_a_file_that_does_not_compile_say_so(cupy) -> None:
    with pytest.raises(emulator.LaunchError, match=r"no kernel .* scales in this file; it has scale, where_am_i"):
        cupy.RawModule(code=SCALE).get_function("scales")
    with pytest.raises(RuntimeError, match=r"cannot compile this .cu file[\s\S]*cudaMalloc"):
        cupy.RawModule(code='extern "C" __global__ void f(int* x)\n{ cudaMalloc(x); }').get_function("f")


def test_device_arrays_never_become_host_arrays_unasked(cupy) -> None:
    x = cupy.ones((2, 3), np.float32)
    for mistake in (
        lambda: np.asarray(x),
        lambda: x + np.ones((2, 3)),
        lambda: cupy.maximum(x, np.ones((2, 3))),
        lambda: cupy.stack([x, np.ones((2, 3))]),
        lambda: x.__setitem__(0, np.ones(3)),
    ):
        with pytest.raises(TypeError, match=r"Implicit conversion|Unsupported type"):
            mistake()


def test_what_computes_on_the_device_stays_there(cupy) -> None:
    x = cupy.asarray(np.array([[1.0, 4.0], [9.0, 16.0]]))
    with emulator.counted() as counts:
        results = [
            x[0, 1],
            x.sum(),
            2 * x - x.T,
            np.sqrt(x),
            cupy.sqrt(x),
            x.reshape(4)[1:],
            x.astype(np.float32).mean(0),
        ]
        results[3] += 1
    assert all(type(result) is cupy.ndarray for result in results)
    assert counts.waits == 0
    assert results[3].get().tolist() == [[2, 3], [4, 5]]
    assert cupy.get_array_module(x) is cupy
    assert cupy.get_array_module(np.ones(1)) is np


def test_every_wait_of_the_host_is_counted(cupy) -> None:
    x = cupy.asarray(np.array([1.0, 0.0, 2.0]))
    for waits, act in enumerate(
        (
            lambda: x.get(),
            lambda: cupy.asnumpy(x),
            lambda: float(x[0]),
            lambda: bool(x[0] > 0),
            lambda: x.tolist(),
            lambda: x[0].item(),
            lambda: x[x > 0],
            lambda: cupy.nonzero(x),
            lambda: f"{x[0]:.2f}",
            lambda: x.tobytes(),
        )
    ):
        with emulator.counted() as counts:
            act()
        assert counts.waits == 1, f"action {waits}"
    with emulator.counted() as counts:
        cupy.asarray(np.ones(3))
    assert (counts.to_device, counts.waits) == (1, 0)


def test_new_memory_is_poisoned(cupy) -> None:
    assert np.isnan(cupy.empty((2, 3), np.float32).get()).all()
    assert (cupy.empty(3, np.int64).get() == -1).all()
    assert np.isnan(cupy.empty((), np.float64).get())


def test_only_what_cupy_has_exists(cupy) -> None:
    with pytest.raises(AttributeError, match="'cupy' has no attribute 'shares_memory_not'"):
        cupy.shares_memory_not  # noqa: B018
    with pytest.raises(AttributeError, match="'cupy' has no attribute 'nditer'"):
        cupy.nditer  # noqa: B018 (NumPy has it)
    with pytest.raises(AttributeError, match="no attribute 'setflags'"):
        cupy.ones(2).setflags()
    with pytest.raises(AttributeError, match="writeable"):
        cupy.ones(2).flags.writeable  # noqa: B018


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda x: np.spacing(x), "returned NotImplemented"),
        (lambda x: np.multiply.at(x, 0, 2.0), "returned NotImplemented"),
        (lambda x: np.maximum.reduce(x), "returned NotImplemented"),
        (lambda x: np.add(x, x, where=x > 1), "expected no more options than"),
        (lambda x: x.max(initial=0.0), r"ndarray.max: expected arguments among \(axis, out, keepdims\)"),
        (lambda x: np.max(x, initial=0.0), "cupy.max: expected arguments among"),
        (lambda x: np.sum(x, where=x > 1), "cupy.sum: expected arguments among"),
        (lambda x: np.ones(3, like=x), "cupy.ones: expected arguments among"),
        (lambda x: np.insert(x, 0, 1), "no implementation found for 'numpy.insert'"),
        (lambda x: x + np.array(1.0), "Unsupported type"),
        (lambda x: np.float32(x[0]), "Implicit conversion"),
        (lambda x: range(x[0].astype(int)), "cannot be interpreted as an integer"),
        (lambda x: memoryview(x), "bytes-like object is required"),
    ],
)
def test_numpys_functions_do_no_more_than_cupys(cupy, use, words: str) -> None:
    """As cupy 14.2.0, which needs no GPU to refuse most of them; where it raises NotImplementedError it is TypeError
    here."""
    with pytest.raises(TypeError, match=words):
        use(cupy.ones(3))


def test_numpys_functions_come_to_the_device(cupy) -> None:
    x = cupy.asarray(np.array([[1.0, 2.0], [3.0, 4.0]]))
    np.add.at(x, (cupy.asarray(np.array([0, 0])),), 1.0)
    assert x.get().tolist() == [[3, 4], [3, 4]]
    for result in (np.zeros_like(x, shape=3), np.arange(3, like=x), np.clip(x, 0, None), np.vdot(x, x)):
        assert type(result) is cupy.ndarray


def test_the_list_of_names_is_that_of_the_real_cupy() -> None:
    cupy = pytest.importorskip("cupy")
    names = {name for name in dir(cupy) if not name.startswith("_")}
    methods = {f"ndarray.{name}" for name in dir(cupy.ndarray) if not name.startswith("_")}
    with emulator.emulated():
        import cupy as stand_in
    assert cupy.__version__.split(".")[0] == stand_in.__version__.split(".")[0]
    assert names | methods >= stand_in._NAMES
    for name, parameters in stand_in._PARAMETERS.items():
        owner, _, attribute = name.rpartition(".")
        assert parameters_of(getattr(cupy.ndarray if owner else cupy, attribute)) == parameters, name


def parameters_of(function) -> list[str]:
    """The names of a function's parameters; for those written in Cython, from the first line of their documentation."""
    try:
        names = list(inspect.signature(function).parameters)
    except ValueError:
        inside = re.match(r"[\w.]+\((.*?)\)", function.__doc__).group(1)
        names = [parameter.split("=")[0].split()[-1] for parameter in inside.split(",")]
    return [name for name in names if name != "self"]


def test_an_emulated_gpu_is_none() -> None:
    before, modules = mk.available(), sys.modules.get("cupy")
    with emulator.emulated():
        assert mk.available() == before
        assert sys.modules["cupy"].cuda.runtime.getDeviceCount() == 0
        with emulator.emulated("reverse"):
            pass
        assert "emulator" in sys.modules["cupy"].__version__
    assert sys.modules.get("cupy") is modules
    assert "minidet_kernels.relu.cuda" not in sys.modules or modules is not None


def test_numpy_arrays_and_device_arrays_do_not_mix(cupy) -> None:
    with pytest.raises(TypeError, match="all arrays on one device"):
        mk.relu_backward(np.zeros(3, np.float32), cupy.zeros(3, np.float32))


def test_where_the_package_may_not_be_written_libraries_go_to_a_private_folder(monkeypatch, tmp_path) -> None:
    (tmp_path / "__pycache__").touch()  # a file where the folder should be: not even root can write there
    monkeypatch.setattr(build, "__file__", str(tmp_path / "build.py"))
    build._cache.cache_clear()
    try:
        folder = build._cache()
        assert (folder.stat().st_mode & 0o777, list(folder.iterdir())) == (0o700, [])
        text = 'extern "C" __global__ void nothing_at_all(int* x)\n{\n}\n'
        build.load(text, ())
        assert len(list(folder.glob("*.so"))) == 1
    finally:
        build._cache.cache_clear()


def test_an_order_that_does_not_exist_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="expected order forward, reverse, random, got 'backward'"),
        emulator.emulated("backward"),
    ):
        pass


def test_importing_the_cuda_versions_compiles_nothing(cupy, monkeypatch) -> None:
    import importlib

    monkeypatch.setattr(cupy, "RawModule", None)
    for folder in ("relu", "pooling", "batch_norm", "convolution"):
        importlib.import_module(f"minidet_kernels.{folder}.cuda")


def test_an_array_too_large_to_be_counted_is_refused() -> None:
    class Huge:
        size, shape = MOST_ELEMENTS + 1, (MOST_ELEMENTS + 1,)

    with pytest.raises(ValueError, match="expected at most 2147482624 elements in an array on the GPU"):
        CudaSource(None).launch("scale", np.float32, (1,), (1,), Huge())


def test_indices_outside_the_image_read_and_write_nothing(cupy) -> None:
    x, indices = cupy.ones((1, 1, 2, 2), np.float32), cupy.asarray(np.array([[[[-5, 3, 4, 2**40]]]]))
    assert mk.max_pool2d_gather(x, indices).get().tolist() == [[[[0, 1, 0, 0]]]]
    assert mk.max_pool2d_scatter(cupy.ones((1, 1, 1, 4), np.float32), indices, (2, 2)).get().sum() == 1
