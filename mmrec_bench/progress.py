"""Progress of long work: live bars on a terminal, plain lines elsewhere, nothing when quiet.

Recommenders and encoders report through `progress` and need not know where it goes::

    with progress("tuning", total=n_steps, unit="steps") as bar:
        for step in range(n_steps):
            bar.advance(1, loss=loss)

Whoever wants to follow in code listens with `listening`, whatever is shown.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

Mode = Literal["live", "lines", "quiet"]

log = logging.getLogger("mmrec_bench")
_mode: ContextVar[Mode] = ContextVar("progress_mode", default="quiet")
_display: ContextVar["Progress | None"] = ContextVar("progress_display", default=None)
_listeners: ContextVar[tuple["Listener", ...]] = ContextVar("progress_listeners", default=())
_LINE_EVERY_SECONDS = 5.0
_NARROW = 90


@dataclass(frozen=True, slots=True)
class Report:
    """One step of a piece of work, as listeners hear it.

    Attributes:
        title: of the work.
        done: units done so far, over all processes that worked on it.
        total: units in all; None = not known.
        unit: what is counted.
        values: numbers told in this step: loss, ndcg ...; often none.
    """

    title: str
    done: int
    total: int | None
    unit: str
    values: dict[str, float]


Listener = Callable[[Report], None]


class Bar(Protocol):
    """One piece of long work."""

    def advance(self, n: int = 1, **facts: float | str) -> None:
        """Say that `n` more units are done; `facts` (loss, ndcg) are shown beside the rate."""
        ...


class _Tally:
    """Counts, rate and remaining time of one piece of work."""

    def __init__(self, title: str, total: int | None, unit: str, done: int) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.before = self.done = done
        self.facts: dict[str, float | str] = {}
        self.started = time.monotonic()

    def add(self, n: int, facts: dict[str, float | str]) -> None:
        self.done += n
        self.facts.update(facts)

    def describe_facts(self) -> str:
        shown = (
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.facts.items()
        )
        return "  ".join(shown)

    def rate(self) -> float:
        """Units a second; what an earlier process did is not counted."""
        seconds = time.monotonic() - self.started
        return (self.done - self.before) / seconds if seconds > 0 else 0.0

    def line(self) -> str:
        seconds, rate = time.monotonic() - self.started, self.rate()
        total = f"/{self.total}" if self.total is not None else ""
        left = ""
        if self.total is not None and rate > 0 and self.done < self.total:
            left = f", {_clock((self.total - self.done) / rate)} left"
        facts = f"  {self.describe_facts()}" if self.facts else ""
        return (
            f"{self.title}: {self.done}{total} {self.unit} "
            f"({_short(rate)}/s, {_clock(seconds)}{left}){facts}"
        )


class _LineBar:
    def __init__(self, tally: _Tally) -> None:
        self.tally = tally
        self.printed = tally.started

    def advance(self, n: int = 1, **facts: float | str) -> None:
        self.tally.add(n, facts)
        now = time.monotonic()
        if now - self.printed >= _LINE_EVERY_SECONDS and self.tally.done != self.tally.total:
            self.printed = now
            log.info("%s", self.tally.line())


class _QuietBar:
    def __init__(self, tally: _Tally) -> None:
        self.tally = tally

    def advance(self, n: int = 1, **facts: float | str) -> None:
        """Show nothing."""
        self.tally.add(n, facts)


class _LiveBar:
    def __init__(self, tally: _Tally, display: "Progress") -> None:
        self.tally, self.display = tally, display
        self.task = display.add_task(
            tally.title, total=tally.total, completed=tally.done, rate="", facts=""
        )

    def advance(self, n: int = 1, **facts: float | str) -> None:
        self.tally.add(n, facts)
        self.display.update(
            self.task,
            completed=self.tally.done,
            rate=f"{_short(self.tally.rate())} {self.tally.unit}/s",
            facts=self.tally.describe_facts(),
        )


class _HeardBar:
    """Tells listeners what another bar is told."""

    def __init__(self, bar: Bar, tally: _Tally, listeners: tuple[Listener, ...]) -> None:
        self.bar, self.tally, self.listeners = bar, tally, listeners

    def advance(self, n: int = 1, **facts: float | str) -> None:
        self.bar.advance(n, **facts)
        tally = self.tally
        report = Report(tally.title, tally.done, tally.total, tally.unit, _numbers(facts))
        for listener in self.listeners:
            listener(report)


class Notices(logging.StreamHandler[TextIO]):
    """Writes to `sys.stderr` as it is now: a live bar puts a writer there that prints above it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    @property
    def stream(self) -> TextIO:
        """Where lines go."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """Keep following `sys.stderr`."""


def _numbers(facts: dict[str, float | str]) -> dict[str, float]:
    """Return the facts that are numbers; what else a plugin shows is no business of a listener."""
    found = {}
    for key, value in facts.items():
        if not isinstance(value, str):
            # Any object may come from a plugin: nothing, a tensor of one number, one of many.
            with contextlib.suppress(TypeError, ValueError, OverflowError, RuntimeError):
                found[key] = float(value)
    return found


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 1000 else f"{rate:.3g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
        if minutes >= 60
        else f"{minutes}:{rest:02d}"
    )


def set_mode(mode: Mode | None = None, *, live: bool = True) -> None:
    """Choose where progress goes.

    Args:
        mode: None = live on a terminal that can redraw a line, else lines.
        live: False = lines on a terminal too, e.g. where results are read by a program.
    """
    can_redraw = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    _mode.set(mode or ("live" if live and can_redraw else "lines"))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` every step of the work inside, in the thread that does the work."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


@contextmanager
def progress(
    title: str, *, total: int | None = None, unit: str = "items", done: int = 0
) -> Iterator[Bar]:
    """Report progress of the work inside; ends with one line that gives count, time and rate.

    Args:
        title: of the work.
        total: units in all; None = not known.
        unit: what is counted.
        done: units that an earlier process did; they do not count in the rate.
    """
    tally = _Tally(title, total, unit, done)
    mode = _mode.get()
    if mode == "live":
        with _live(tally) as bar:
            yield _heard(bar, tally)
    else:
        yield _heard(_LineBar(tally) if mode == "lines" else _QuietBar(tally), tally)
    if mode != "quiet":
        log.info("%s", tally.line())


def _heard(bar: Bar, tally: _Tally) -> Bar:
    listeners = _listeners.get()
    return _HeardBar(bar, tally, listeners) if listeners else bar


@contextmanager
def _live(tally: _Tally) -> Iterator[Bar]:
    """Show a bar; work inside of other work is a line of the same display, while it lasts."""
    shared = _display.get()
    if shared is not None:
        bar = _LiveBar(tally, shared)
        try:
            yield bar
        finally:
            shared.remove_task(bar.task)
        return
    with _new_display() as display:
        token = _display.set(display)
        try:
            yield _LiveBar(tally, display)
        finally:
            _display.reset(token)


def _new_display() -> "Progress":
    # rich costs about 80 ms to import, so only a run on a terminal pays for it
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False)
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24 if console.width >= _NARROW else 8),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
    ]
    columns += [TimeElapsedColumn()] if console.width >= _NARROW else []
    columns += [TimeRemainingColumn(), TextColumn("{task.fields[facts]}", markup=False)]
    return Progress(*columns, console=console, transient=True)
