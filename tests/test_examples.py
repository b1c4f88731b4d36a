"""The examples' options; what they compute is seen by running them."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def load(path: Path):
    """An example as a module."""
    spec = spec_from_file_location(f"example_{path.stem}", path)
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def arguments_of(path: Path, monkeypatch, *options: str):
    monkeypatch.setattr(sys, "argv", [path.name, *options])
    return load(path).parse_arguments()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_quick_run_stays_out_of_the_full_ones_folder(path, monkeypatch) -> None:
    full, quick, named = (arguments_of(path, monkeypatch, *o) for o in ((), ("--quick",), ("--quick", "--out", "x")))
    assert full.out == Path(f"{path.stem.replace('_', '-')}-example")
    assert quick.out == Path(f"{full.out}-quick")
    assert named.out == Path("x")


def test_quick_weights_are_not_installed(monkeypatch, capsys) -> None:
    (path,) = (path for path in EXAMPLES if path.stem == "pretraining")
    with pytest.raises(SystemExit):
        arguments_of(path, monkeypatch, "--quick", "--install")
    assert "--install: expected the weights of a full training" in capsys.readouterr().err


def test_a_full_training_does_not_go_on_from_a_quick_one(monkeypatch, tmp_path) -> None:
    (path,) = (path for path in EXAMPLES if path.stem == "pretraining")
    arguments_of(path, monkeypatch, "--quick", "--out", str(tmp_path))
    load(path).main()
    arguments_of(path, monkeypatch, "--out", str(tmp_path))
    with pytest.raises(SystemExit, match="a run with other settings"):
        load(path).main()
