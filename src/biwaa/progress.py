"""Progress of long work: a live display in a terminal, plain lines elsewhere.

- both show the task, how much of it is done, its speed, the time left, and the newest figures
- everything goes to standard error; standard output is for results
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from biwaa.errors import printable

PLAIN_SECONDS = 10.0  # Time between two plain lines
CALM_SECONDS = 2.0  # Shorter work than this prints no plain line, unless it is training


class Advance(Protocol):
    """Called with how much is done so far, and figures to show."""

    def __call__(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Show it."""


_silent: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def quiet(silent: bool = True) -> Iterator[None]:
    """Print nothing within the block, if `silent`."""
    before = _silent.set(silent or _silent.get())
    try:
        yield
    finally:
        _silent.reset(before)


def be_quiet() -> None:
    """Print nothing from now on."""
    _silent.set(True)


def say(text: str) -> None:
    """Print a line, with or without a progress display on the screen."""
    if _silent.get():
        return
    text = printable(text)
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


@contextmanager
def track(what: str, total: int | None, unit: str = "steps", start: int = 0) -> Iterator[Advance]:
    """Show the progress of `total` units of work (None: unknown), of which `start` were done earlier."""
    what = printable(what)
    if _silent.get():
        yield lambda done, figures=None: None
    elif sys.stderr.isatty():
        with _live(what, total, unit, start) as advance:
            yield advance
    else:
        yield _Plain(what, total, unit, start)


def _figures(figures: Mapping[str, float] | None) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in (figures or {}).items())


@contextmanager
def _live(what: str, total: int | None, unit: str, start: int) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as display:
        task = display.add_task(what, total=total, completed=start, rate="", figures="")
        begin = time.perf_counter()

        def advance(done: int, figures: Mapping[str, float] | None = None) -> None:
            rate = (done - start) / max(time.perf_counter() - begin, 1e-9)
            fields = {"rate": f"{rate:.1f} {unit}/s"}
            if figures:
                fields["figures"] = _figures(figures)
            display.update(task, completed=done, **fields)  # type: ignore[arg-type]

        yield advance


class _Plain:
    """A line every few seconds, and at the end."""

    def __init__(self, what: str, total: int | None, unit: str, start: int) -> None:
        self.what, self.total, self.unit, self.start = what, total, unit, start
        self.begin = self.printed = time.perf_counter()

    def __call__(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        now = time.perf_counter()
        if done != self.total and now - self.printed < PLAIN_SECONDS:
            return
        if self.unit != "steps" and now - self.begin < CALM_SECONDS:
            return  # short work; training always prints its lines
        self.printed = now
        rate = (done - self.start) / max(now - self.begin, 1e-9)
        of, left = "", ""
        if self.total is not None:
            of, left = f"/{self.total}", f", {(self.total - done) / max(rate, 1e-9):.0f} s left"
        text = f"{self.what}: {done}{of} {self.unit}, {rate:.1f}/s{left}  {_figures(figures)}"
        print(text, file=sys.stderr, flush=True)
