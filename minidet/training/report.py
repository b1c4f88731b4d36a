"""What the person at the terminal sees while a network trains: a bar with the time left, and a line an epoch.

On a terminal the bar moves; into a file or a pipe only whole lines are written.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext


class Report:
    """The progress of `total` steps. quiet: print nothing at all."""

    def __init__(self, total: int, quiet: bool = False) -> None:
        from tqdm import tqdm

        self.quiet = quiet
        self.bar = tqdm(
            total=total, unit="step", disable=quiet or not sys.stderr.isatty(), dynamic_ncols=True, mininterval=0.2
        )

    def start(self, done: int) -> None:
        """The clock starts; `done` steps were taken by an earlier start of the run."""
        self.bar.reset()
        self.bar.initial = self.bar.n = done

    def step(self, title: str, losses: dict[str, float]) -> None:
        """One step done. losses: running means by name."""
        self.bar.set_description_str(title, refresh=False)
        self.bar.set_postfix_str(", ".join(f"{name} {value:.3f}" for name, value in losses.items()), refresh=False)
        self.bar.update()

    def doing(self, what: str) -> None:
        """What goes on while the bar stands still."""
        self.bar.set_description_str(what)

    def line(self, text: str) -> None:
        """A line that stays, above the bar."""
        if not self.quiet:
            self.bar.write(text)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Shows that something of unknown length goes on; the bar's clock does not count it."""
        self.bar.clear()
        with nullcontext() if self.quiet else waiting(what):
            yield
        self.bar.unpause()

    def close(self) -> None:
        self.bar.close()


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says what goes on, if it takes a while, with the seconds counting: in place on a terminal, else line by line."""
    terminal = sys.stderr.isatty()
    over = threading.Event()
    start = time.monotonic()

    def tick() -> None:
        while not over.wait(0.5 if terminal else 5.0):
            _print(f"{what} ... {time.monotonic() - start:.0f} s", terminal)

    ticker = threading.Thread(target=tick, name="minidet waiting", daemon=True)
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()
        if terminal:
            _print("", terminal)


def _print(text: str, terminal: bool) -> None:
    """On a terminal over the last text, with the cursor left at its start for whoever prints next; else as a line."""
    sys.stderr.write(f"\r\x1b[2K{text}\r" if terminal else f"{text}\n")
    sys.stderr.flush()
