"""Trackers hear how runs go, each in a process of its own, and can change nothing of them.

The run writes what it tells as JSON into a queue, and a thread feeds the tracker's process from it:
whatever the tracker does (raise, hang, draw random numbers, end its process) stays there, and the
run never waits for it. Only when all runs are done is a slow tracker given some time to catch up.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, Self

from mmrec_bench import guard
from mmrec_bench.errors import ConfigError, MMRecError, PluginError
from mmrec_bench.plugins import Plugins
from mmrec_bench.progress import Report, listening
from mmrec_bench.records import RunRecord, RunSpec
from mmrec_bench.registry import check_unique

log = logging.getLogger("mmrec_bench")

PROCESS = "mmrec_bench.tracker_process"
MARK = "\x1e"
"""Begins a line in which a tracker's process answers; other lines are what the tracker prints."""
PATIENCE_SECONDS = 60.0
_START_SECONDS = 120.0

_observers: ContextVar[tuple["Observer", ...]] = ContextVar("observers", default=())


class Finish(Protocol):
    """Tells the record of a run that went well."""

    def __call__(self, record: RunRecord | Mapping[str, Any]) -> None:
        """Tell it; called once, at the end."""
        ...


@contextmanager
def observing(
    trackers: Sequence[str], plugins: Plugins, *, patience: float = PATIENCE_SECONDS
) -> Iterator[None]:
    """Let trackers hear the runs inside.

    Args:
        trackers: "NAME" or "NAME:TARGET" each, e.g. "tensorboard:runs".
        plugins: where the names are registered.
        patience: seconds that a tracker is given, when all runs are done, to catch up.

    Raises:
        ConfigError: an unknown name, or a target that the tracker cannot use.
        PluginError: a tracker cannot be loaded, e.g. its package is not installed.
    """
    check_unique(trackers, "--track")
    observers = [Observer(text, plugins) for text in trackers]
    try:
        for one in observers:
            one.start()
        for one in observers:
            one.wait_until_ready()
        token = _observers.set(tuple(observers))
        try:
            yield
        finally:
            _observers.reset(token)
    finally:
        for one in observers:
            one.end()
        deadline = time.monotonic() + patience
        for one in observers:
            one.close(deadline)


@contextmanager
def observed(spec: RunSpec, run_id: str | None = None) -> Iterator[Finish]:
    """Tell trackers, where there are any, how the run inside goes.

    Args:
        spec: of the run.
        run_id: where it is not the spec's own, e.g. of a trial of a search.
    """
    observers, name = _observers.get(), run_id or spec.run_id
    if not observers:
        yield _nobody_hears
        return

    def tell(event: str, **values: object) -> None:
        line = json.dumps({"event": event, "run_id": name, **values})
        for one in observers:
            one.tell(line)

    def tell_progress(report: Report) -> None:
        if report.values:
            facts = {"title": report.title, "step": report.done, "values": report.values}
            tell("run_progressed", **facts)

    def finish(record: RunRecord | Mapping[str, Any]) -> None:
        plain = record.model_dump(mode="json") if isinstance(record, RunRecord) else dict(record)
        tell("run_finished", record=plain)

    tell("run_started", spec=spec.model_dump(mode="json"))
    try:
        with listening(tell_progress):
            yield finish
    except BaseException as error:
        tell("run_failed", reason=_reason(error))
        raise


def _nobody_hears(record: RunRecord | Mapping[str, Any]) -> None:
    """Tell nobody."""


def _reason(error: BaseException) -> str:
    if isinstance(error, MMRecError):
        return " ".join(str(error).split())
    return "stopped" if isinstance(error, KeyboardInterrupt) else guard.explain(error)


class Observer:
    """A tracker in its own process, as the run sees it."""

    def __init__(self, text: str, plugins: Plugins) -> None:
        self.name, _, self.target = text.partition(":")
        self.owner = plugins["tracker"].find(self.name).owner
        loaded = [one.distribution for one in plugins.loaded]
        self._files = [one for one in loaded if Path(one).is_absolute()]
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._answered = threading.Event()
        self._refusal: MMRecError | None = None
        self._ready = self._told = self._ended = False
        self._process: subprocess.Popen[str] | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> Self:
        """Start the process; it says for itself when it is ready."""
        path = os.pathsep.join(one or str(Path.cwd()) for one in sys.path)
        self._process = process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        )
        request = {"name": self.name, "target": self.target, "files": self._files}
        self._queue.put(json.dumps(request))
        for work in (self._feed, self._hear):
            self._threads.append(threading.Thread(target=work, args=(process,), daemon=True))
            self._threads[-1].start()
        return self

    def wait_until_ready(self) -> None:
        """Wait until the tracker is built.

        Raises:
            ConfigError: its target cannot be used.
            PluginError: it cannot be loaded or built.
        """
        if not self._answered.wait(_START_SECONDS):
            raise PluginError(
                f"tracker {self.name!r} of {self.owner} is not ready after {_START_SECONDS:g} s"
            )
        if self._refusal is not None:
            raise self._refusal

    def tell(self, line: str) -> None:
        """Tell one event, as JSON; a tracker that was left out hears nothing."""
        if not self._ended:
            self._queue.put(line)

    def end(self) -> None:
        """Say that nothing more will be told."""
        self._queue.put(json.dumps({"event": "end"}))
        self._queue.put(None)

    def close(self, deadline: float) -> None:
        """Wait until the tracker has heard all, at most until `deadline` (monotonic seconds)."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._leave_out("was still busy when all runs were done, and is stopped")
        finally:
            self._process.kill()
            for thread in self._threads:
                thread.join(5.0)

    def _feed(self, process: subprocess.Popen[str]) -> None:
        """Write what is told; blocks where the tracker is slow, which the run does not notice."""
        assert process.stdin is not None  # noqa: S101 - as asked for
        with suppress(OSError, ValueError), process.stdin as pipe:
            for line in iter(self._queue.get, None):
                pipe.write(line + "\n")
                pipe.flush()

    def _hear(self, process: subprocess.Popen[str]) -> None:
        """Read what the process answers, until it ends."""
        assert process.stdout is not None  # noqa: S101 - as asked for
        with process.stdout as lines:
            for line in lines:
                if line.startswith(MARK):
                    self._take(json.loads(line[1:]))
                elif text := line.rstrip():
                    log.debug("tracker %s: %s", self.name, text)
        code = process.wait()
        if code and not self._told:
            self._leave_out(f"ended its process with code {code}")
        self._ended = True
        self._answered.set()

    def _take(self, answer: Mapping[str, Any]) -> None:
        if answer.get("ready"):
            self._ready = True
            self._answered.set()
        elif self._ready:
            self._leave_out(answer["reason"], whole=True)
        else:
            self._told = True
            refused = ConfigError if answer["exit_code"] == ConfigError.exit_code else PluginError
            self._refusal = refused(answer["reason"])

    def _leave_out(self, reason: str, *, whole: bool = False) -> None:
        """Warn once; from then on the tracker is told nothing."""
        self._ended = True
        if self._told:
            return
        self._told = True
        what = reason if whole else f"tracker {self.name!r} of {self.owner} {reason}"
        if not self._ready:
            self._refusal = PluginError(what)
        else:
            log.warning("%s; it is left out, and the run goes on", what)
