"""Every row of the tables of speed, against its peers: python -m benchmarks

    python -m benchmarks                      all suites, about 10 minutes on a machine that does nothing else
    python -m benchmarks convolution rois     some
    python -m benchmarks --quick              a few rows of each, within a minute
    python -m benchmarks --write              all, and the tables of kernels/README.md are written anew
    python -m benchmarks --device cuda        the CUDA kernels, against torch on the same GPU

"times as fast" is the peer's time divided by minidet's, both of one round: the median of the rounds, and the least and
largest. "of the limit" says how near minidet comes to what this machine could do at most, by arithmetic or by traffic
with its memory, whichever takes longer: measured in the same run (`limits.py`). Winograd's convolution needs fewer
operations than the plain algorithm, which are those counted, and may pass 100 %.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import minidet_kernels
from benchmarks.engines import Row, Times, compare, is_busy

SUITES = (
    "convolution",
    "vgg",
    "detector_inference",
    "detectors",
    "heatmaps",
    "training_step",
    "faster_rcnn",
    "linear",
    "rois",
    "boxes",
    "coco",
    "segmentation",
    "total_variation",
    "tape",
    "imports",
)
ROUNDS = 3
README = Path(__file__).resolve().parents[1] / "kernels" / "README.md"
MARKS = "<!-- {}: written by python -m benchmarks --write -->", "<!-- end of {} -->"


def main() -> None:
    options = parse()
    if is_busy():
        print("The machine is busy with other programs: expect wrong ratios.", file=sys.stderr)
    limits = machine_limits() if options.device == "cpu" else None
    tables, missed = {}, []
    if limits is not None:
        tables["limits"] = describe(limits)
        print(tables["limits"])
    for suite in options.suites:
        rows = importlib.import_module(f"benchmarks.{suite}").ROWS
        times, missing = compare(suite, 1 if options.quick else ROUNDS, options.quick, options.device)
        if options.device == "cuda":  # the gates were measured on processors, against other peers
            rows = {name: Row("torch") for name in rows}
        tables[suite] = table(rows, times, limits)
        print(f"\n{tables[suite]}", flush=True)
        if missing:
            print(f"(not installed here: {', '.join(missing)})")
        missed += [name for name in times if gate_of(rows[name], times[name]).endswith("missed")]
    if missed:
        print("\nGates missed:\n  " + "\n  ".join(missed))
    if options.write:
        if tuple(options.suites) != SUITES:
            del tables["limits"]  # the tables that stay were measured against their own
        write(tables)


def parse() -> argparse.Namespace:
    about, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=f"{about}\n\n{details}", formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few rows of each suite, one round")
    parser.add_argument("--write", action="store_true", help="write the tables into kernels/README.md")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default: cpu)")
    options = parser.parse_args()
    unknown = [suite for suite in options.suites if suite not in SUITES]
    if unknown:
        parser.error(f"expected suites of {', '.join(SUITES)}, got {', '.join(unknown)}")
    if options.quick and options.write:
        parser.error("--write: expected a thorough run, without --quick")
    if options.device == "cuda":
        check_gpu(parser, options)
    options.suites = options.suites or SUITES
    if options.write:
        write({})  # now, and not after ten minutes
    return options


def check_gpu(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Only suites that can run on a GPU, and only where there is one."""
    reason = minidet_kernels.available()["cuda"]
    if reason is not None:
        parser.error(f"--device cuda: {reason}")
    can = [suite for suite in SUITES if hasattr(importlib.import_module(f"benchmarks.{suite}"), "ON_GPU")]
    options.suites = options.suites or can
    if set(options.suites) - set(can) or options.write:
        parser.error(f"--device cuda: expected suites of {', '.join(can)}, and no --write")


def machine_limits() -> dict[str, float]:
    answer = subprocess.run([sys.executable, "-m", "benchmarks.limits"], capture_output=True, text=True, check=True)
    return json.loads(answer.stdout)


def describe(limits: dict[str, float]) -> str:
    return (
        f"This machine, {limits['threads']} threads: {limits['flops'] / 1e9:.0f} GFLOP/s in registers, float32; "
        f"memory read at {limits['read'] / 1e9:.0f} GB/s, read and written at {limits['moved'] / 1e9:.0f} GB/s."
    )


def table(rows: dict[str, Row], times: dict[str, Times], limits: dict[str, float] | None) -> str:
    """In Markdown. The other engines' ratios stand in a column of their own, without their spread."""
    lines = [
        "| work | minidet | peer | times as fast | gate | others | of the limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in times.items():
        row = rows[name]
        others = [
            f"{engine} {found.ratios(engine)[0]:.3g}"
            for engine in found.milliseconds
            if engine not in ("minidet", row.peer)
        ]
        cells = [
            name,
            duration(found.ours()),
            row.peer if found.ratios(row.peer) else "-",
            spread(found.ratios(row.peer)),
            gate_of(row, found),
            ", ".join(others) or "-",
            share_of_limit(row, found.ours(), limits),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def duration(milliseconds: float) -> str:
    return f"{1e3 * milliseconds:.3g} us" if milliseconds < 0.1 else f"{milliseconds:.3g} ms"


def spread(ratios: list[float]) -> str:
    if not ratios:
        return "-"
    median, least, largest = ratios
    return f"{median:.3g}" if least == largest else f"{median:.3g} ({least:.3g} to {largest:.3g})"


def gate_of(row: Row, times: Times) -> str:
    """The gate, and whether it was reached; its stretch value, if that was."""
    ratios = times.ratios(row.peer)
    if row.gate is None or not ratios:
        return "-"
    if row.stretch is not None and ratios[0] >= row.stretch:
        return f"{row.gate:g}, stretch {row.stretch:g} reached"
    return f"{row.gate:g} {'reached' if ratios[0] >= row.gate else 'missed'}"


def share_of_limit(row: Row, milliseconds: float, limits: dict[str, float] | None) -> str:
    if limits is None:
        return "-"
    least = 1e3 * max(row.flops / limits["flops"], row.moved / max(limits["read"], limits["moved"]))
    return f"{least / milliseconds:.0%}" if least else "-"


def write(tables: dict[str, str]) -> None:
    """Replaces what stands between the marks of each table. Raises ValueError if a suite has no such marks."""
    text = README.read_text()
    for name in ("limits", *SUITES):
        start, end = (mark.format(name) for mark in MARKS)
        if start not in text or end not in text:
            raise ValueError(f"{README}: expected the lines {start} and {end} around the table, found them not")
        if name in tables:
            before, rest = text.split(start, 1)
            text = f"{before}{start}\n{tables[name]}\n{end}{rest.split(end, 1)[1]}"
    if tables:
        README.write_text(text)


if __name__ == "__main__":
    main()
