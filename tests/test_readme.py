"""The README's table of slides names files, functions, and parts of examples that are there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TABLE = README.split("| slide | where | shown by |")[1].split("\n\n")[0].splitlines()[2:]
by_row = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.split("|")[1].strip()[:40])


def there(name: str) -> Path:
    """The file or folder of that name, from the root, from minidet/ or from kernels/."""
    (path,) = (folder / name for folder in (ROOT, ROOT / "minidet", ROOT / "kernels") if (folder / name).exists())
    return path


def definitions(path: Path) -> set[str]:
    """Functions, classes and their methods, as "Class.method"."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}.{part.name}" for part in getattr(node, "body", ()) if hasattr(part, "name")}
    return names


@by_row
def test_where_a_slide_is_told_to_be_it_is(row: str) -> None:
    told = re.findall(r"`([^`]+)`", row.split("|")[2])
    assert told
    path = None
    for name in told:
        if "/" in name:
            path = there(name)
        elif not name.startswith("--set "):
            assert name.partition("(")[0] in definitions(path), f"{name} in {path}"


@by_row
def test_the_examples_have_these_parts(row: str) -> None:
    shown = row.split("|")[3]
    assert "`" in shown
    for name, parts in re.findall(r"`(examples/\w+\.py)`(?:, parts? ([\d and,]+))?", shown):
        text = there(name).read_text()
        for part in re.findall(r"\d+", parts):
            assert re.search(rf"^{part}\. ", text, re.MULTILINE), f"part {part} of {name}"


def test_every_picture_of_a_slide_is_shown_and_can_be_made_again() -> None:
    pictures = {path.stem for path in (ROOT / "docs/slides").iterdir()}
    assert pictures == set(re.findall(r"\(docs/slides/([\w-]+)\.jpg\)", README))
    (table,) = re.findall(r"^PICTURES = (\{.*?^\})", (ROOT / "docs/slides.py").read_text(), re.MULTILINE | re.DOTALL)
    assert pictures == set(ast.literal_eval(table))


def test_links_lead_to_files() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
