"""Progress of long work: live bars on a terminal, plain lines elsewhere, nothing when quiet.

Recommenders and encoders report through `progress` and need not know where it goes::

    with progress("tuning", total=n_steps, unit="steps") as bar:
        for step in range(n_steps):
            bar.advance(1, loss=loss)
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

Mode = Literal["live", "lines", "quiet"]

log = logging.getLogger("mmrec_bench")
_mode: ContextVar[Mode] = ContextVar("progress_mode", default="quiet")
_LINE_EVERY_SECONDS = 5.0


class Bar(Protocol):
    """One piece of long work."""

    def advance(self, n: int = 1, **facts: float | str) -> None:
        """Say that `n` more units are done; `facts` (loss, ndcg) are shown beside the rate."""
        ...


class _Tally:
    """Counts, rate and remaining time of one piece of work."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
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

    def line(self) -> str:
        seconds = time.monotonic() - self.started
        rate = self.done / seconds if seconds > 0 else 0.0
        total = f"/{self.total}" if self.total is not None else ""
        left = ""
        if self.total is not None and rate > 0 and self.done < self.total:
            left = f", {_clock((self.total - self.done) / rate)} left"
        facts = f"  {self.describe_facts()}" if self.facts else ""
        return (
            f"{self.title}: {self.done}{total} {self.unit} "
            f"({rate:.3g}/s, {_clock(seconds)}{left}){facts}"
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
    def advance(self, n: int = 1, **facts: float | str) -> None:
        """Show nothing."""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
        if minutes >= 60
        else f"{minutes}:{rest:02d}"
    )


def set_mode(mode: Mode | None = None) -> None:
    """Choose where progress goes; None = live on a terminal, else lines."""
    _mode.set(mode or ("live" if sys.stderr.isatty() else "lines"))


@contextmanager
def progress(title: str, *, total: int | None = None, unit: str = "items") -> Iterator[Bar]:
    """Report progress of the work inside; ends with one line that gives count, time and rate."""
    tally = _Tally(title, total, unit)
    mode = _mode.get()
    if mode == "live":
        with _live(tally) as bar:
            yield bar
    elif mode == "lines":
        yield _LineBar(tally)
    else:
        yield _QuietBar()
    if mode != "quiet":
        log.info("%s", tally.line())


@contextmanager
def _live(tally: _Tally) -> Iterator[Bar]:
    # rich costs about 80 ms to import, so only a run on a terminal pays for it
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(tally.title, total=tally.total, rate="", facts="")

        class LiveBar:
            def advance(self, n: int = 1, **facts: float | str) -> None:
                tally.add(n, facts)
                rate = tally.done / max(1e-9, time.monotonic() - tally.started)
                display.update(
                    task,
                    completed=tally.done,
                    rate=f"{rate:.3g} {tally.unit}/s",
                    facts=tally.describe_facts(),
                )

        yield LiveBar()
