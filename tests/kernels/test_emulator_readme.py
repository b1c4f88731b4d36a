"""The emulator's README works as it is written: its program, and its session with gdb, answer for answer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from minidet_kernels import emulator

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "kernels" / "minidet_kernels" / "emulator" / "README.md").read_text()

pytestmark = [
    pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not())),
    pytest.mark.skipif("MINIDET_EMULATOR" in os.environ, reason="chooses its builds itself"),
]


def _blocks(text: str) -> list[str]:
    """The indented blocks, without their indentation."""
    return [
        textwrap.dedent(block).strip("\n") for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    ]


def _run(*command: str, **environment: str) -> str:
    variables = {**os.environ, "PYTHONPATH": "kernels", **environment}
    answer = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_first_program(tmp_path: Path) -> None:
    program = tmp_path / "first.py"
    program.write_text(_blocks(README)[0])
    assert _run(sys.executable, str(program)) == "[0. 2.]\n"


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_the_session_with_gdb(tmp_path: Path) -> None:
    program, start, *session = _blocks(README.partition("## Step through")[2])
    (tmp_path / "step.py").write_text(program)
    assert "MINIDET_EMULATOR=debug gdb -q --args python step.py" in start
    lines = "\n".join(session).splitlines()
    (tmp_path / "commands").write_text("\n".join(line.removeprefix("(gdb) ") for line in lines if "(gdb)" in line))
    answers = _run(
        *("gdb", "-q", "-batch", "-x", str(tmp_path / "commands"), "--args", sys.executable, str(tmp_path / "step.py")),
        MINIDET_EMULATOR="debug",
    )
    expected = [line for line in lines if line.startswith("$")]
    assert len(expected) == 6
    assert [line for line in answers.splitlines() if re.match(r"\$\d+ =", line)] == expected
