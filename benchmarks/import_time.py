"""How long `import minidet` takes: wall time of fresh processes, NumPy's own import beside it.

    python benchmarks/import_time.py

Each figure is the median over several processes, run in turns, of the time around the import statement alone; the files
are in the disk's cache from a first round that is not counted. The target covers all that the import costs, NumPy
included.
"""

import statistics
import subprocess
import sys
from pathlib import Path

PROCESSES = 9
TARGET = 0.4  # seconds

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import sys, time
sys.path[:0] = {path!r}
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def seconds(module: str) -> float:
    """The time of one import in a fresh process."""
    program = PROGRAM.format(path=[str(ROOT), str(ROOT / "kernels")], module=module)
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    modules = ("numpy", "minidet")
    for module in modules:
        seconds(module)  # compiles and caches the files
    times = {module: [] for module in modules}
    for _ in range(PROCESSES):
        for module in modules:
            times[module].append(seconds(module))
    numpy, minidet = (statistics.median(times[module]) for module in modules)
    print(f"import numpy    {numpy:.3f} s")
    print(f"import minidet  {minidet:.3f} s, of which beyond NumPy {minidet - numpy:.3f} s   target <= {TARGET} s")


if __name__ == "__main__":
    main()
