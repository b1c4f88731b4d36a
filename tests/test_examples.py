"""The examples' options; what they compute is seen by running them."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


class Parsed(Exception):
    """Ends an example with its arguments."""


def load(path: Path, monkeypatch, *options: str):
    """An example as a module, with the command line and the folder of modules that it has when it is run."""
    monkeypatch.setattr(sys, "argv", [path.name, *options])
    monkeypatch.syspath_prepend(path.parent)
    spec = spec_from_file_location(f"example_{path.stem}", path)
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def arguments_of(path: Path, monkeypatch, *options: str):
    """What main works with: it gets no further."""
    example = load(path, monkeypatch, *options)
    parse = example.parse_arguments

    def stop(*arguments: str, **switches: str) -> None:
        raise Parsed(parse(*arguments, **switches))

    monkeypatch.setattr(example, "parse_arguments", stop)
    with pytest.raises(Parsed) as parsed:
        example.main()
    return parsed.value.args[0]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_quick_run_stays_out_of_the_full_ones_folder(path, monkeypatch) -> None:
    full, quick, named = (arguments_of(path, monkeypatch, *o) for o in ((), ("--quick",), ("--quick", "--out", "x")))
    assert full.out == Path(f"{path.stem.replace('_', '-')}-example")
    assert quick.out == Path(f"{full.out}-quick")
    assert named.out == Path("x")


@pytest.fixture
def pretraining() -> Path:
    (path,) = (path for path in EXAMPLES if path.stem == "pretraining")
    return path


def test_weights_are_installed_only_if_asked_and_not_those_of_a_quick_run(pretraining, monkeypatch) -> None:
    assert arguments_of(pretraining, monkeypatch, "--install").install
    assert not arguments_of(pretraining, monkeypatch).install
    example = load(pretraining, monkeypatch, "--quick", "--install")
    monkeypatch.setattr(example, "load_system", pytest.fail)  # it would have begun
    with pytest.raises(SystemExit, match="--install: expected the weights of a full training"):
        example.main()


def test_a_full_training_does_not_go_on_from_a_quick_one(pretraining, monkeypatch, tmp_path) -> None:
    load(pretraining, monkeypatch, "--quick", "--out", str(tmp_path)).main()
    with pytest.raises(SystemExit, match="a run with other settings"):
        load(pretraining, monkeypatch, "--out", str(tmp_path)).main()
