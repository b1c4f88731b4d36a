"""minidet warmup: the kernels are compiled now, and not at their first use."""

import argparse
from collections.abc import Callable

EPILOG = """example:
  minidet warmup

Compiled code is kept beside the kernels' sources: this is needed once for each installation and machine."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG


def run(args: argparse.Namespace) -> int:
    from minidet_kernels.warmup import ALL

    compile_kernels(ALL)
    return 0


def compile_kernels(parts: dict[str, Callable[[], None]]) -> None:
    """Compiles parts of `minidet_kernels.warmup`, as many at a time as there are cores, with a progress bar."""
    from tqdm import tqdm

    from minidet.training.run import usable_cores
    from minidet_kernels.warmup import warm_up

    with tqdm(total=len(parts), desc="compiling the kernels", unit="part", leave=False) as bar:
        bar.refresh()
        for _ in warm_up(parts, min(usable_cores(), len(parts))):
            bar.update()
    print(f"   {len(parts)} parts of the kernels are ready")
