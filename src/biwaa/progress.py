"""Progress of long work: one live line in a terminal, plain lines elsewhere.

- both show the task, how much of it is done, its speed, the time left, and the newest figures
- within `whole`, the time left is that of all its parts
- everything goes to standard error; standard output is for results
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from biwaa.errors import printable

PLAIN_SECONDS = 10.0  # Time between two plain lines
CALM_SECONDS = 2.0  # Shorter work than this prints no plain line, unless it is training
LIVE_SECONDS = 1.0  # Between two looks at what others are doing, where a live line tells it
ENOUGH_SECONDS, ENOUGH_PARTS = 1.0, 3  # What is measured, at least, before a whole is foretold


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


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{round(seconds / 60)} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{round(minutes / 1440)} days"


class Whole:
    """Work of several parts, in any unit: what is left of it, by the speed of what was done in this sitting.

    What lies between the parts counts as their time. The first part, which warms up, is not measured.
    """

    def __init__(self, total: float, foretell: Callable[[float], str] | None) -> None:
        """`foretell` puts the seconds a unit into words, which are printed once enough is measured."""
        self.total, self.foretell = total, foretell
        self.done, self.parts = 0.0, 0
        self.begin = 0.0

    def add(self, amount: float) -> None:
        """So much more is done."""
        self.parts += 1
        if self.parts == 1:
            self.total, self.begin = self.total - amount, time.perf_counter()
            return
        self.done += amount
        a_unit = self.seconds_a_unit()
        if self.foretell and self.parts >= ENOUGH_PARTS and a_unit * self.done >= ENOUGH_SECONDS:
            say(self.foretell(a_unit))
            self.foretell = None

    def seconds_a_unit(self) -> float:
        """As measured; 0 before anything is."""
        return (time.perf_counter() - self.begin) / self.done if self.done else 0.0

    def left(self) -> str:
        """In words; empty before anything is measured."""
        seconds = (self.total - self.done) * self.seconds_a_unit()
        return f"{duration(max(seconds, 0.0))} left in all" if self.done else ""


_whole: ContextVar[Whole | None] = ContextVar("whole", default=None)


@contextmanager
def whole(total: float, foretell: Callable[[float], str]) -> Iterator[None]:
    """Show the time left of `total` units of work within the block, of which each `track` says how many it does."""
    before = _whole.set(Whole(total, foretell) if total else None)
    try:
        yield
    finally:
        _whole.reset(before)


def was_done(amount: float) -> None:
    """So much of the whole was done in an earlier sitting."""
    if found := _whole.get():
        found.total -= amount


@contextmanager
def track(
    what: str,
    total: int | None,
    unit: str = "steps",
    start: int = 0,
    work: float = 0.0,
    others: Callable[[], str] | None = None,
) -> Iterator[Advance]:
    """Show the progress of `total` units (None: unknown), of which `start` were done earlier.

    Args:
        what: the task.
        total: units.
        unit: what they are called.
        start: of these, done earlier.
        work: of the `whole` that a unit is.
        others: what other processes are doing at the moment, where they do the work.
    """
    if _silent.get():
        yield lambda done, figures=None: None
        return
    was_done(start * work)
    shown = Shown(printable(what), total, unit, start, others)
    with _live(shown) if sys.stderr.isatty() else _plain(shown) as show:
        before = start

        def advance(done: int, figures: Mapping[str, float] | None = None) -> None:
            nonlocal before
            found = _whole.get()
            if found and work:
                found.add((done - before) * work)
            before = done
            shown.done, shown.figures = done, figures or shown.figures
            show()

        yield advance


class Shown:
    """What is shown of a task."""

    def __init__(self, what: str, total: int | None, unit: str, start: int, others: Callable[[], str] | None) -> None:
        """Nothing is done yet but what was done earlier."""
        self.what, self.total, self.unit, self.start, self.others = what, total, unit, start, others
        self.done = start
        self.figures: Mapping[str, float] = {}
        self.begin = time.perf_counter()

    @property
    def rate(self) -> float:
        """Units a second."""
        return (self.done - self.start) / max(time.perf_counter() - self.begin, 1e-9)

    def time(self) -> str:
        """How long it will take; where nobody can know yet, how long it took so far."""
        if found := _whole.get():
            return found.left()
        if self.total is None:
            return ""
        if self.done > self.start:
            return f"{duration((self.total - self.done) / max(self.rate, 1e-9))} left"
        return f"{duration(time.perf_counter() - self.begin)} so far"

    def news(self) -> str:
        """The newest figures, or what others do."""
        if self.others and self.done != self.total:
            return printable(self.others())
        return "  ".join(f"{name} {value:.3g}" for name, value in self.figures.items())


Show = Callable[[], None]


@contextmanager
def _live(shown: Shown) -> Iterator[Show]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[time]}"),
        TextColumn("{task.fields[news]}"),
    )
    # It goes when the task is done: the next one takes its line, and what matters is said in the end.
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(shown.what, total=shown.total, completed=shown.start, rate="", time="", news="")

        def show() -> None:
            rate = f"{shown.rate:.1f} {shown.unit}/s" if shown.done > shown.start and not shown.others else ""
            display.update(task, completed=shown.done, rate=rate, time=shown.time(), news=shown.news())

        with _ticking(show, LIVE_SECONDS, bool(shown.others)):
            yield show


@contextmanager
def _plain(shown: Shown) -> Iterator[Show]:
    """A line every few seconds, and at the end."""
    printed = shown.begin

    def show() -> None:
        nonlocal printed
        now = time.perf_counter()
        if shown.done != shown.total and now - printed < PLAIN_SECONDS:
            return
        if shown.unit != "steps" and now - shown.begin < CALM_SECONDS:
            return  # short work; training always prints its lines
        printed = now
        of = f"/{shown.total}" if shown.total is not None else ""
        rate = f"{shown.rate:.1f}/s" if shown.done > shown.start and not shown.others else ""
        parts = [f"{shown.what}: {shown.done}{of} {shown.unit}", rate, shown.time()]
        print(f"{', '.join(filter(None, parts))}  {shown.news()}".rstrip(), file=sys.stderr, flush=True)

    with _ticking(show, PLAIN_SECONDS, bool(shown.others)):
        yield show


@contextmanager
def _ticking(tick: Callable[[], None], seconds: float, ticks: bool) -> Iterator[None]:
    """Call `tick` every few seconds within the block, on another thread, if it `ticks` at all."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(seconds):
            tick()

    thread = threading.Thread(target=go_on, daemon=True)
    if ticks:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if ticks:
            thread.join()
