"""The command `minidet`. Every subcommand is a module with configure(parser) and run(args)."""

import argparse
import os
import sys
from importlib import import_module

from minidet.cli.common import add_debug_option, machine
from minidet.version import __version__

COMMANDS = {
    "demo": "watch a network learn to find things, in about four minutes",
    "train": "train one of the systems on a data set",
    "eval": "measure a trained network on a data set",
    "compare": "what detectors find and what they cost: one table, one chart",
    "predict": "find things in your own images",
    "heatmap": "show where in your images a class's score comes from",
    "data": "make a data set, or check one",
    "gradcheck": "check the gradients of a layer against finite differences",
    "warmup": "compile the kernels now, not at their first use",
    "doctor": "what is installed, what can run, and whether a network learns your data",
}
_MODULES = {"eval": "evaluate"}  # where it is not called like the command

# What goes wrong by the input or the machine: told in one line. Anything else is a bug and shows its traceback.
_EXPECTED = (ValueError, FloatingPointError, OSError, ImportError, MemoryError, OverflowError)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 for a check that failed, 2 for an error, 130 after Ctrl-C, 141
    when nobody reads its output any more (`| head`)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that the terminal cannot show ends no command
            stream.reconfigure(errors="backslashreplace")
    args = build_parser(arguments).parse_args(arguments)
    try:
        with machine:
            code = args.run(args) or 0
        print(end="", flush=True)  # now, while a reader that has gone can be told from an error
        return code
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # What is still to be written is lost, and Python would complain of that at the very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except _EXPECTED as error:
        if args.debug:
            raise
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        print(f"error: {str(error) or type(error).__name__}{notes}", file=sys.stderr)
        return 2


def build_parser(arguments: list[str]) -> argparse.ArgumentParser:
    """The parser. Only the command that the arguments name is imported, so that every command starts fast."""
    parser = argparse.ArgumentParser(
        prog="minidet",
        description="How neural networks find things in images.",
        epilog="example:\n  minidet demo\n\n`minidet COMMAND --help` shows the options of a command and an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minidet {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name in arguments:
            module = import_module(f"minidet.cli.{_MODULES.get(name, name)}")
            module.configure(command)
            command.set_defaults(run=module.run)
            add_debug_option(command)
    return parser
