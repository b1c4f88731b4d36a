"""What is installed is what is here."""

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
