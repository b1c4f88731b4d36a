"""What gradcheck found, readable: which gradient, where, how far off, and the likely cause."""

from dataclasses import dataclass, field

FAULTS = {
    "kink": "a kink: left derivative {left:.6g}, right derivative {right:.6g}; move the input away from it",
    "jump": "a jump: the function is not continuous here; move the input away from it",
    "steep": "an infinite slope: the differences grow as the step shrinks; move the input away from it",
    "border": "the border of where the function is finite: left derivative {left:.6g}, right derivative {right:.6g}; "
    "move the input inside",
    "unsettled": "finite differences do not settle: the function rounds too much or bends too sharply here; "
    "scale or move the inputs",
}


@dataclass(frozen=True)
class Entry:
    """One derivative: of an output with respect to an element of a variable, or along a direction."""

    variable: str  # "input 0", "parameter weight"
    index: tuple[int, ...] | None  # of the element; None: along a random direction through all of them
    output: str  # "output (0, 1)", or "random cotangent 2" for a random combination of all outputs
    analytic: float
    numeric: float
    relative_error: float  # |analytic - numeric| / the larger of them, or of what rounding allows
    left: float
    right: float
    fault: str = ""  # a key of FAULTS where there is no derivative to compare with

    @property
    def place(self) -> str:
        where = "along a random direction" if self.index is None else f"at index {self.index}"
        return f"{self.variable} {where}"

    def explain(self) -> str:
        """Why there is no derivative here."""
        return f"{self.place}: " + FAULTS[self.fault].format(left=self.left, right=self.right)


@dataclass
class Report:
    """The result of gradcheck or gradgradcheck. True in a condition when nothing was found.

    problems  one sentence for every variable whose gradient is wrong (with the likely cause), every kink, and every
              violation of consistency
    worst     the five entries with the largest relative error, over all variables; faults come first
    """

    name: str
    order: int  # 1: gradcheck, 2: gradgradcheck
    rtol: float
    problems: list[str] = field(default_factory=list)
    worst: list[Entry] = field(default_factory=list)
    checked: int = 0  # how many derivatives were compared

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def relative_error(self) -> float:
        """The largest of all entries; 0 when there was none to compare."""
        return max((entry.relative_error for entry in self.worst), default=0.0)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        check = "gradcheck" if self.order == 1 else "gradgradcheck"
        verdict = "passed" if self.ok else "FAILED"
        title = f"{check} of {self.name}: {verdict} ({self.checked} derivatives, tolerance {self.rtol:g})"
        problems = [f"  - {problem}" for problem in self.problems]
        return "\n".join([title, *problems, *(self._table() if self.worst else [])])

    def _table(self) -> list[str]:
        header = ["variable", "index", "output", "analytic", "numeric", "relative error (worst first)", ""]
        rows = [
            [
                entry.variable,
                "direction" if entry.index is None else str(entry.index),
                entry.output,
                f"{entry.analytic:.9g}",
                f"{entry.numeric:.9g}",
                f"{entry.relative_error:.1e}",
                entry.fault,
            ]
            for entry in self.worst
        ]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in [header, *rows]]


class GradcheckError(AssertionError):
    """A gradient is wrong, or cannot be checked where the inputs are. `report` holds what was found."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report
