"""Where arrays lie: on "cpu" they are NumPy's, on "cuda" CuPy's.

minidet is written once for both. Operators and methods of arrays are the same, and NumPy hands a function that is
called with CuPy's arrays on to CuPy: np.exp(x) is then cupy.exp(x) (NumPy's NEP 13 and NEP 18). Two things are not:

- New arrays. np.ones(3) lies on the CPU; np.ones_like(x, shape=3) lies where x does.
- Mixtures, which CuPy refuses. Nothing is moved in silence, except constants, of which there is no gradient: labels,
  their weights, indices, masks and the boxes of RoIs may lie on the other device. On the CPU looking at them costs no
  wait for the GPU.

This module moves arrays, and is the only one in minidet that imports CuPy.
"""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from minidet_kernels.versions import available, is_on_gpu

DEVICES = ("cpu", "cuda")


def device_of(array: Any) -> str:
    """ "cuda" for an array of CuPy, "cpu" for everything else."""
    return "cuda" if is_on_gpu(array) else "cpu"


def to_device(array: Any, device: str) -> Any:
    """The array on "cpu" or "cuda"; the very same one if it is there. From the GPU it comes with a wait for all that
    is still being computed there. Raises ValueError for other names, RuntimeError where there is no GPU."""
    if device not in DEVICES:
        raise ValueError(f"expected device 'cpu' or 'cuda', got {device!r}")
    if device == device_of(array):
        return array
    if device == "cpu":
        return array.get()
    reason = why_no_gpu()
    if reason is not None:
        raise RuntimeError(f"device 'cuda': no GPU can be used: {reason}")
    import cupy

    return cupy.asarray(array)


def to_numpy(array: Any) -> Any:
    """The array on the CPU."""
    return to_device(array, "cpu")


def on_device_of(array: Any, *others: Any) -> Any:
    """The array on the GPU if one of the others is there, else on the CPU."""
    return to_device(array, "cuda" if any(map(is_on_gpu, others)) else "cpu")


def read(numbers: Iterable[Any]) -> list[float]:
    """The values of arrays of one element each, with a single wait for the GPU if they lie there. Exact: in float64."""
    numbers = [number.reshape(()) for number in numbers]
    return to_numpy(np.stack(numbers).astype(np.float64)).tolist() if numbers else []


def why_no_gpu() -> str | None:
    """None if "cuda" can be used, else a sentence that says why not. Never raises."""
    return None if is_emulated() else available()["cuda"]


def is_emulated() -> bool:
    """Whether the GPU is the emulator of minidet_kernels, which runs CUDA's sources on the CPU."""
    return getattr(sys.modules.get("cupy"), "__version__", "").endswith("+emulator")


def describe_device(device: str) -> str:
    """What computes there: "cpu", "emulated", or the GPU's name."""
    if device == "cpu":
        return "cpu"
    if is_emulated():
        return "emulated"
    import cupy

    return cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()


def refuse_mixture(operation: str, operands: Iterable[Any], error: BaseException) -> None:
    """Raises TypeError if operands lie on both devices, which then is what CuPy's error is about."""
    found = dict.fromkeys(device_of(operand) for operand in operands if hasattr(operand, "__array_function__"))
    if len(found) > 1:
        raise TypeError(
            f"{operation}: expected all operands on one device, got {' and '.join(found)}; move them with "
            "x.to('cuda') or x.to('cpu'), a model with model.to('cuda')"
        ) from error
