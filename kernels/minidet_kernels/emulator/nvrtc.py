"""NVIDIA's own compiler as a gate: every .cu file must compile for every GPU that we support. Needs no GPU, no driver.

It is a library, libnvrtc, that CuPy uses as well; `pip install nvidia-cuda-nvrtc-cu12` brings it alone. CUDA's own
headers are not needed, since our files include none.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path

# Turing, Ampere and Hopper: the oldest that CUDA 13 still knows, and the ones that data centres have most of.
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")

# What CuPy 14 adds to the options of a RawModule.
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


def why_not() -> str | None:
    """None if NVRTC is here, else a sentence that says why not."""
    try:
        _library()
    except OSError as error:
        return f"NVRTC is not installed (pip install nvidia-cuda-nvrtc-cu12): {error}"
    return None


def compile(text: str, architecture: str, options: tuple[str, ...]) -> tuple[bool, str]:
    """Whether NVRTC compiles the text down to the machine code of that architecture, and what it says."""
    nvrtc, program = _library(), ctypes.c_void_p()
    everything = [f"-arch={architecture}", *CUPY_OPTIONS, *options]
    words = (ctypes.c_char_p * len(everything))(*(word.encode() for word in everything))
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    failed = nvrtc.nvrtcCompileProgram(program, len(words), words)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return not failed, log.value.decode()


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(_installed_library() or "libnvrtc.so")


def _installed_library() -> str | None:
    """In the pip package, if it is there: nvidia/cuda_nvrtc/lib in those for CUDA 12, nvidia/cu13/lib for CUDA 13."""
    nvidia = importlib.util.find_spec("nvidia")
    for folder in nvidia.submodule_search_locations if nvidia else ():
        for library in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            return str(library)
    return None
