"""The options that every example has."""

import argparse
from pathlib import Path


def parse_arguments(description: str, name: str, **switches: str) -> argparse.Namespace:
    """The command line: out (a Path), seed, quick, and whether each of the switches was given.

    description: the example's docstring, which --help shows. name: the folder for what it makes, unless --out says
    otherwise; a quick run stays out of it. switches: further options, with what --help says of them.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, help=f"folder for all that it makes (default: {name}, with --quick {name}-quick)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: 0)")
    parser.add_argument("--quick", action="store_true", help="little data, little training: shows that it runs")
    for switch, purpose in switches.items():
        parser.add_argument(f"--{switch}", action="store_true", help=purpose)
    arguments = parser.parse_args()
    arguments.out = arguments.out or Path(f"{name}-quick" if arguments.quick else name)
    return arguments
