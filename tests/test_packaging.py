"""What is installed is what is here."""

import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_setup_cfg_lists_every_package() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    found = {
        ".".join(path.parent.relative_to(root).parts)
        for root, package in ((ROOT, "minidet"), (ROOT / "kernels", "minidet_kernels"))
        for path in (root / package).rglob("*.py")
    }
    assert sorted(listed) == sorted(found)
    for name in found:
        root = ROOT if name.startswith("minidet.") or name == "minidet" else ROOT / "kernels"
        assert (root / name.replace(".", "/") / "__init__.py").is_file(), f"{name} lacks an __init__.py"


def test_every_subpackage_can_be_had_from_minidet() -> None:
    """In a fresh process, where nobody has imported them."""
    names = sorted(path.parent.name for path in (ROOT / "minidet").glob("*/__init__.py"))
    assert "boxes" in names
    program = f"import minidet; print([name for name in {names} if not hasattr(minidet, name)])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "['cli']"  # the command line is no part of the library


def test_the_cuda_sources_and_weights_are_package_data() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert {"*.cu", "*.cuh", "*.safetensors"} <= set(config["options.package_data"]["*"].split(", "))
