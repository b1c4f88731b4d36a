"""`minidet gradcheck FILE.py:NAME`: what it can check, and what it says when it cannot."""

import argparse
from pathlib import Path

import pytest

from minidet.cli.gradcheck import CannotCheck, configure, run

LAYERS = '''
import numpy as np
import minidet.functional as F
from minidet import Function, nn
from neighbour import slope

class MyLayer(nn.Module):
    def __init__(self, channels=3, out=2, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(out)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(F.tanh(self.norm(self.conv(x))))

class Picky:
    def __init__(self, size):
        raise ValueError(f"size {size} is not even")

class Cube(Function):
    def forward(self, x):
        self.save(x)
        return x**3

    def backward(self, grad, x):
        return grad * 3 * x**2

class WrongCube(Cube):
    def backward(self, grad, x):
        return grad * x**2

class HalfCube(Cube):
    """Its gradient is right, the derivative of its gradient is not."""
    def backward(self, grad, x):
        return grad * 3 * getattr(x, "data", x) ** 2 if not isinstance(x, np.ndarray) else grad * 3 * x**2

def scaled_loss(x, y, scale=slope):
    return ((x - y) ** 2).sum() * scale

def needs_four_axes(x):
    return F.max_pool2d(x, 2)

def leaves(x):
    raise SystemExit(0)

class Leaves:
    def __init__(self):
        raise SystemExit

class Other(BaseException):
    pass

def strange(x):
    raise Other("odd")

class NoSuper(nn.Module):
    def __init__(self):
        self.scale = 3.0

    def forward(self, x):
        return x * self.scale

number = 3
'''


@pytest.fixture
def layers(tmp_path: Path) -> str:
    (tmp_path / "neighbour.py").write_text("slope = 2.0\n")
    path = tmp_path / "my_layer.py"
    path.write_text(LAYERS)
    return str(path)


def gradcheck(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    configure(parser)
    return run(parser.parse_args(arguments))


def test_a_module_is_checked_with_its_parameters(layers, capsys):
    assert gradcheck(f"{layers}:MyLayer", "--input", "2,3,3,3", "--eval") == 0
    assert gradcheck(f"{layers}:MyLayer", "--args", "1,out=3,bias=False", "--input", "2,1,3,3", "--eval") == 0
    out = capsys.readouterr().out
    assert out.count("gradcheck of MyLayer: passed") == 2


def test_a_function_subclass_and_a_function_with_options_are_checked(layers, capsys):
    assert gradcheck(f"{layers}:Cube", "--input", "3", "--second") == 0
    assert gradcheck(f"{layers}:scaled_loss", "--input", "4,2", "--input", "2", "--args", "scale=0.5") == 0
    out = capsys.readouterr().out
    assert "gradcheck of Cube: passed" in out
    assert "gradgradcheck of Cube: passed" in out
    assert "gradcheck of scaled_loss: passed" in out


def test_a_wrong_gradient_is_told_and_gives_status_1(layers, capsys):
    assert gradcheck(f"{layers}:WrongCube", "--input", "3") == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "likely cause: the gradient is 1/3 of what it should be" in out
    assert gradcheck(f"{layers}:HalfCube", "--input", "3") == 0
    assert gradcheck(f"{layers}:HalfCube", "--input", "3", "--second") == 1


def test_the_seed_draws_the_inputs(layers, capsys):
    outputs = []
    for seed in ("1", "1", "2"):
        gradcheck(f"{layers}:WrongCube", "--input", "3", "--seed", seed)
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_dropout_in_training_is_refused_as_random(layers, capsys):
    assert gradcheck(f"{layers}:MyLayer", "--input", "2,3,3,3") == 1
    assert "the function gives another result each time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("{file}", "expected FILE.py:NAME"),
        ("{file}:MyLayr", "has no 'MyLayr'; did you mean 'MyLayer'?"),
        ("{file}:something_else", "it defines MyLayer, Picky, Cube, WrongCube, HalfCube, scaled_loss"),
        ("{file}:number", "expected a Module class, a Function subclass or a function, got 3"),
        ("{folder}/none.py:X", "none.py: no such file; expected the path of a Python file"),
        ("{folder}:X", ": a folder; expected the path of a Python file"),
        ("{folder}/notes.txt:X", "notes.txt: expected a Python file"),
        ("{folder}/broken.py:X", "broken.py cannot be imported:\n  {folder}/broken.py:2: import no_such_package"),
        ("{folder}/unreadable.py:X", "unreadable.py cannot be imported:\n  SyntaxError"),
        ("{folder}/leaving.py:X", "leaving.py cannot be imported:\n  {folder}/leaving.py:2: sys.exit(0)\n"),
        ("{file}:leaves", "leaves cannot be checked with inputs (4,):\n  {file}:45: raise SystemExit(0)"),
        ("{file}:Leaves", "constructing Leaves() failed:\n  {file}:49: raise SystemExit"),
        ("{file}:strange", "Other: odd"),
        ("{file}:NoSuper", "expected super().__init__() first in NoSuper.__init__"),
        ("{file}:Picky", "constructing Picky(size) failed:"),
        ("{file}:needs_four_axes", "cannot be checked with inputs (4,):\n  {file}:42: return F.max_pool2d"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_explained(layers, tmp_path, target, told):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "broken.py").write_text("x = 1\nimport no_such_package\n")
    (tmp_path / "unreadable.py").write_text("def f(:\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    places = {"file": layers, "folder": tmp_path}
    with pytest.raises(CannotCheck) as caught:
        gradcheck(target.format(**places), "--input", "4")
    assert told.format(**places) in str(caught.value)


def test_a_constructor_that_fails_shows_the_users_line_and_its_arguments(layers):
    with pytest.raises(CannotCheck, match="size 3 is not even") as caught:
        gradcheck(f"{layers}:Picky", "--args", "3", "--input", "2")
    assert 'raise ValueError(f"size {size} is not even")' in str(caught.value)
    assert "--args" in str(caught.value)


@pytest.mark.parametrize("second", [[], ["--second"]])
def test_empty_inputs_are_not_said_to_be_right(layers, capsys, second):
    with pytest.raises(CannotCheck, match=r"inputs \(0, 3\): inputs or results are empty"):
        gradcheck(f"{layers}:Cube", "--input", "0,3", *second)
    assert "passed" not in capsys.readouterr().out


def test_ctrl_c_in_the_users_code_is_still_ctrl_c(layers):
    Path(layers).write_text("def f(x):\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        gradcheck(f"{layers}:f", "--input", "3")


@pytest.mark.parametrize("rtol", ["inf", "nan", "-1e-6", "0", "1", "small"])
def test_a_tolerance_that_accepts_anything_is_refused(layers, capsys, rtol):
    with pytest.raises(SystemExit) as caught:
        gradcheck(f"{layers}:Cube", "--input", "3", f"--rtol={rtol}")
    assert caught.value.code == 2
    assert f"expected a number between 0 and 1, as 1e-6, got '{rtol}'" in capsys.readouterr().err


def test_wrong_arguments_end_with_usage(layers, capsys):
    for wrong in (["--input", "2,x"], ["--input", "2,-3"], ["--input", "2", "--args", "a=1,2"], []):
        with pytest.raises(SystemExit) as caught:
            gradcheck(f"{layers}:Cube", *wrong)
        assert caught.value.code == 2
    assert "as 2,3,8,8" in capsys.readouterr().err


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit):
        gradcheck("--help")
    assert "minidet gradcheck my_layer.py:MyLayer --input 2,3,8,8" in capsys.readouterr().out
