"""Runs a command with the kernels checked by a sanitizer, whose library must be in the process from its start.

    PYTHONPATH=.:kernels python -m minidet_kernels.emulator.sanitize address -m pytest tests/kernels -k emulated
    PYTHONPATH=.:kernels python -m minidet_kernels.emulator.sanitize thread my_script.py

The rest of the line goes to Python. A report of ASAN or UBSAN ends the process; TSAN's are printed as they come, and
the process ends with status 66 if there were any.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

from minidet_kernels.emulator.build import COMPILER, why_not

LIBRARIES = {"address": ["libasan.so", "libubsan.so"], "thread": ["libtsan.so"]}
OPTIONS = {
    # Python never frees everything at its end; and a fiber's stack is not where ASAN would look for one.
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "report_signal_unsafe=0",
    "PYTHONMALLOC": "malloc",  # each array a block of its own, with red zones around it
    "OPENBLAS_NUM_THREADS": "1",  # TSAN does not know the threads of a library that it has not compiled
}
NO_RANDOM_ADDRESSES = 0x0040000  # ADDR_NO_RANDOMIZE of Linux: TSAN's shadow memory needs the usual addresses


def why_not_sanitize(sanitizer: str) -> str | None:
    """None if kernels can be checked with it here, else a sentence that says why not."""
    if why_not() is not None:
        return why_not()
    missing = [library for library in LIBRARIES[sanitizer] if not os.path.isabs(_where(library))]
    return f"{COMPILER} comes without {', '.join(missing)}" if missing else None


def _where(library: str) -> str:
    """The absolute path, or only the name if the compiler has no such library."""
    answer = subprocess.run([COMPILER, f"-print-file-name={library}"], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def main() -> None:
    sanitizer, *command = sys.argv[1:] or [""]
    if sanitizer not in LIBRARIES or not command:
        sys.exit(__doc__)
    if why_not_sanitize(sanitizer) is not None:
        sys.exit(why_not_sanitize(sanitizer))
    if sanitizer == "thread":
        ctypes.CDLL(None).personality(NO_RANDOM_ADDRESSES)
    preload = " ".join(_where(library) for library in LIBRARIES[sanitizer])
    environment = {**os.environ, **OPTIONS, "MINIDET_EMULATOR": sanitizer, "LD_PRELOAD": preload}
    os.execve(sys.executable, [sys.executable, *command], environment)


if __name__ == "__main__":
    main()
