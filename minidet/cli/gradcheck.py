"""`minidet gradcheck`: the gradients of your own layer against finite differences."""

import argparse
import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import minidet
import minidet_kernels
from minidet.autograd import Function
from minidet.autograd.gradcheck import gradcheck, gradgradcheck
from minidet.cli import common
from minidet.nn import Module
from minidet.random import manual_seed

EPILOG = """\
examples:
  minidet gradcheck my_layer.py:MyLayer --input 2,3,8,8
  minidet gradcheck my_layer.py:MyConv --args 3,16,kernel_size=3 --input 2,3,8,8 --second
  minidet gradcheck my_loss.py:my_loss --input 4,10 --input 4,10

The inputs are drawn from a normal distribution, in float64. A Module is checked with all its parameters.
Exit status: 0 all gradients are right, 1 one is wrong or the inputs lie on a kink, 2 nothing could be checked."""


class CannotCheck(ValueError):
    """What is asked for cannot be loaded, built or run; the message says why and what to do."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `minidet gradcheck`."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("target", metavar="FILE.py:NAME", help="a Module class, a Function subclass or a function")
    parser.add_argument(
        "--input", metavar="SHAPE", type=_shape, action="append", required=True, dest="inputs",
        help="the shape of an input, as 2,3,8,8; once for each input",
    )  # fmt: skip
    parser.add_argument(
        "--args", metavar="A,B,KEY=C", type=_arguments, default=([], {}), dest="arguments",
        help="arguments of the class's constructor, or more arguments for the function, after its inputs",
    )  # fmt: skip
    parser.add_argument("--second", action="store_true", help="check second derivatives too (gradgradcheck)")
    parser.add_argument("--eval", action="store_true", help="check a Module in evaluation mode")
    parser.add_argument(
        "--seed", type=common.seed, default=0, help="of the inputs, parameters and cotangents (default: 0)"
    )
    parser.add_argument("--rtol", type=_tolerance, default=1e-6, help="largest relative error (default: 1e-6)")


def run(args: argparse.Namespace) -> int:
    """Prints the report. Returns 0 when all gradients are right, else 1. Raises CannotCheck."""
    function = build(load(args.target), args.target, *args.arguments, evaluation=args.eval, seed=args.seed)
    rng = np.random.default_rng(args.seed)
    inputs = [rng.standard_normal(shape) for shape in args.inputs]
    reports = []
    for check in (gradcheck, gradgradcheck) if args.second else (gradcheck,):
        reports.append(_check(check, function, inputs, args))
        print(reports[-1])
    return 0 if all(reports) else 1


def _check(check: Callable, function: Callable, inputs: list[np.ndarray], args: argparse.Namespace) -> Any:
    name = args.target.rpartition(":")[2]
    shapes = ", ".join(str(x.shape) for x in inputs)
    with _users_code(f"{name} cannot be checked with inputs {shapes}"):
        report = check(function, inputs, rtol=args.rtol, seed=args.seed, raise_error=False, name=name)
    if report.ok and not report.checked:
        raise CannotCheck(
            f"{name} cannot be checked with inputs {shapes}: inputs or results are empty, there is no derivative"
        )
    return report


@contextmanager
def _users_code(failing: str, advice: str = "") -> Iterator[None]:
    """Whatever the user's code raises within it, sys.exit included, becomes CannotCheck; only Ctrl-C stays itself."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise CannotCheck(f"{failing}:\n{_told(error)}{advice}") from error


def load(target: str) -> Any:
    """The object that FILE.py:NAME names; NAME may be a path of attributes. The file is executed."""
    file, colon, name = target.rpartition(":")
    if not colon or not name:
        raise CannotCheck(f"expected FILE.py:NAME, got {target!r}; for example my_layer.py:MyLayer")
    path = Path(file)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise CannotCheck(f"{file}: {what}; expected the path of a Python file, as in my_layer.py:MyLayer")
    if path.suffix != ".py":
        raise CannotCheck(f"{file}: expected a Python file, *.py")
    found: Any = _executed(path)
    for part in name.split("."):
        if not hasattr(found, part):
            raise CannotCheck(f"{file} has no {part!r}; {_offer(found, part)}")
        found = getattr(found, part)
    if not callable(found):
        raise CannotCheck(f"{target}: expected a Module class, a Function subclass or a function, got {found!r:.80}")
    return found


def _executed(path: Path) -> ModuleType:
    """The file as a module; it may import its neighbours."""
    spec = importlib.util.spec_from_file_location(f"minidet_checked_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with _users_code(f"{path} cannot be imported"):
            spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _offer(module: Any, wanted: str) -> str:
    own = [n for n, x in vars(module).items() if callable(x) and getattr(x, "__module__", "") == module.__name__]
    close = difflib.get_close_matches(wanted, own, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"it defines {', '.join(own)}" if own else "it defines no class or function"


def build(
    found: Any, target: str, positional: list, keywords: dict[str, Any], evaluation: bool = False, seed: int = 0
) -> Callable:
    """What gradcheck calls: an instance of a class in float64, or the function with its further arguments."""
    if isinstance(found, type) and not issubclass(found, Function):
        manual_seed(seed)
        with _users_code(
            f"{target}: constructing {found.__name__}{_signature(found)} failed",
            "\ngive its arguments with --args, as in --args 3,16,kernel_size=3",
        ):
            found = found(*positional, **keywords)
        if not callable(found):
            raise CannotCheck(f"{target}: expected a class whose instances can be called, got {found!r:.80}")
        positional, keywords = [], {}
    if isinstance(found, Module):
        if "_modules" not in vars(found):
            raise CannotCheck(f"{target}: expected super().__init__() first in {type(found).__name__}.__init__")
        found = found.to(np.float64).train(not evaluation)
    elif isinstance(found, type):
        found = found.apply
    if not positional and not keywords:
        return found
    return lambda *inputs: found(*inputs, *positional, **keywords)


def _signature(callable_: Callable) -> str:
    try:
        return str(inspect.signature(callable_))
    except (TypeError, ValueError):
        return ""


def _told(error: BaseException) -> str:
    """The error with the user's own line, not the engine's."""
    engine = tuple(str(Path(package.__file__).parent) for package in (minidet, minidet_kernels))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*engine, "<frozen"))]
    line = f"  {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}\n" if frames else ""
    notes = "".join(f"\n  ({note})" for note in getattr(error, "__notes__", []))
    return f"{line}  {type(error).__name__}: {error}{notes}"


def _shape(text: str) -> tuple[int, ...]:
    """ "2,3,8,8" -> (2, 3, 8, 8)"""
    try:
        shape = tuple(int(part) for part in text.strip("() ").rstrip(",").split(","))
    except ValueError:
        shape = (-1,)
    if min(shape) < 0:
        raise argparse.ArgumentTypeError(f"expected lengths with commas, as 2,3,8,8, got {text!r}")
    return shape


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, as 1e-6, got {text!r}")
    return value


def _arguments(text: str) -> tuple[list, dict[str, Any]]:
    """ "3,16,bias=False" -> ([3, 16], {"bias": False})"""
    positional: list = []
    keywords: dict[str, Any] = {}
    for part in text.split(",") if text else []:
        key, equals, value = part.partition("=")
        if equals:
            keywords[key.strip()] = _value(value)
        elif keywords:
            raise argparse.ArgumentTypeError(f"expected {part!r} before the arguments with names, got {text!r}")
        else:
            positional.append(_value(part))
    return positional, keywords


def _value(text: str) -> Any:
    """A number, True, False or None; any other text is itself."""
    text = text.strip()
    named = {"True": True, "False": False, "None": None}
    if text in named:
        return named[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
