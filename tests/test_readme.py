"""The README's table of slides names files, functions and examples that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SOURCES = "\n".join(path.read_text() for folder in ("minidet", "kernels") for path in (ROOT / folder).rglob("*.py"))
FOLDERS = ROOT, ROOT / "minidet", ROOT / "kernels"


def rows() -> list[str]:
    table = README.split("| slide | where | shown by |")[1].split("\n\n")[0]
    return table.splitlines()[2:]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("|")[1].strip()[:40])
def test_what_a_slide_is_told_to_be_in_is_there(row: str) -> None:
    _, _, where, example, _ = row.split("|")
    told = re.findall(r"`([^`]+)`", where + example)
    assert told or "part" in example
    for name in told:
        if name.startswith(("minidet ", "--set ")):
            continue
        if "/" in name:
            assert any((folder / name).exists() for folder in FOLDERS), name
            continue
        owner, _, method = name.partition("(")[0].partition(".")
        assert re.search(rf"^(class|def) {owner}\b", SOURCES, re.MULTILINE), name
        assert not method or re.search(rf"^    def {method}\b", SOURCES, re.MULTILINE), name


def test_links_lead_to_files() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
