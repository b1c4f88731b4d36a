"""Compiles a .cu file for the processor: g++, the shim in front of the text, a shared library as the result.

Four builds, of which the environment variable MINIDET_EMULATOR chooses one for the whole process:

    fast      what the tests use. With -g and -O2 it would take twice as long to compile, and run no faster
    debug     for gdb: nothing optimised away
    address   with ASAN and UBSAN: reads and writes out of bounds, undefined behaviour
    thread    with TSAN: races between threads of CUDA

The last two need the sanitizer's library in the process from its start: `python -m minidet_kernels.emulator.sanitize`
sees to that.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

SHIM = Path(__file__).parent / "shim"
COMPILER = os.environ.get("CXX", "g++")
BUILDS = {
    "fast": ["-O1"],
    "debug": ["-O0", "-g"],
    # -fsanitize-sections: red zones around shared arrays too, which have a section of their own
    "address": [
        "-O1",
        "-g",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fsanitize-sections=cuda_shared",
        "-fno-sanitize-recover=undefined",
    ],
    "thread": ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread"],
}
ALWAYS = [
    "-std=c++17",  # as NVRTC by default
    "-shared",
    "-fPIC",
    "-Wall",
    "-Wno-unknown-pragmas",  # #pragma unroll
    "-ffp-contract=off",  # two roundings for a * b + c, as NVRTC with --fmad=false
    "-U_FORTIFY_SOURCE",  # its longjmp refuses to change stacks
    "-fvisibility=hidden",  # each library keeps its names to itself, and gdb finds one function of a name
    "-fno-gnu-unique",  # and its variables
]
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')


def why_not() -> str | None:
    """None if .cu files can be compiled here, else a sentence that says why not."""
    if os.name != "posix":
        return "the emulator needs Linux or macOS with g++"
    if shutil.which(COMPILER) is None:
        return f"{COMPILER} is not installed (on Debian: apt install g++)"
    return None


def kernels_in(text: str) -> list[str]:
    return KERNEL.findall(text)


@functools.cache
def load(text: str, options: tuple[str, ...]) -> ctypes.PyDLL:
    """The library made from the text of a .cu file; of NVRTC's options only the macros (-DREAL=float) matter here.

    Raises RuntimeError with the compiler's words.
    """
    build = os.environ.get("MINIDET_EMULATOR", "fast")
    if build not in BUILDS:
        raise ValueError(f"MINIDET_EMULATOR: expected one of {', '.join(BUILDS)}, got {build!r}")
    macros = [option for option in options if option.startswith("-D")]
    command = [COMPILER, *ALWAYS, *BUILDS[build], *macros, "-include", str(SHIM / "cuda_on_cpu.h")]
    source = text + "".join(f"\nEMULATOR_EXPORT({kernel})" for kernel in kernels_in(text)) + "\n"
    shim = "".join(path.read_text() for path in sorted(SHIM.iterdir()))
    name = hashlib.sha256(repr((source, shim, command)).encode()).hexdigest()[:20]
    library = _cache() / f"{name}.so"
    if not library.exists():
        _compile(command, source, library)
    return ctypes.PyDLL(str(library))  # which keeps Python's lock: a library runs one launch at a time


@functools.cache
def _cache() -> Path:
    """Where libraries are kept: beside the sources or, where nobody may write there, in a folder of this process."""
    folder = Path(__file__).parent / "__pycache__" / "libraries"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return Path(_private_folder().name)
    return folder


@functools.cache
def _private_folder() -> tempfile.TemporaryDirectory:
    """Of this user and this process alone, for what is loaded from it is run; gone when the process ends."""
    return tempfile.TemporaryDirectory(prefix="minidet-emulator-")


def _compile(command: list[str], source: str, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:  # so that two processes do not meet
        result = Path(scratch) / library.name
        answer = subprocess.run(
            [*command, "-x", "c++", "-", "-o", str(result)], input=source, capture_output=True, text=True
        )
        if answer.returncode:
            raise RuntimeError(f"{COMPILER} cannot compile this .cu file:\n{answer.stderr[:4000]}")
        result.replace(library)
