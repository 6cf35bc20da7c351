"""Runs a command in a process of its own, so that one that dies is told and not believed."""

import atexit
import os
import signal
import sys
import tempfile
from typing import IO

import click

from mmrec_bench import guard

_WIDTH = 600
"""Bytes of the journal's one entry: each is written over the last, so that it cannot fill up."""

_ENDED = b"ended"


def go_apart() -> None:
    """Go on in a child, and return there alone.

    The parent waits, and ends with the child's exit code; where the child did not come to the end
    of Python's own shutdown (a crash of native code, `os._exit`), it says in which step of which
    plugin, and ends with 1. Nothing is done where a process cannot be forked.
    """
    if not hasattr(os, "fork"):
        return
    journal = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - both processes keep it open
    child = os.fork()
    if child == 0:
        _write_journal(journal)
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(child, received))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the child as well
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    last = os.pread(journal.fileno(), _WIDTH, 0).strip()
    if last == _ENDED or code in (-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP):
        sys.exit(code if code >= 0 else 128 - code)
    how = f"with exit code {code}" if code >= 0 else f"by {_name(-code)}"
    where = f" in: {last.decode(errors='replace')}" if last else ""
    click.echo(
        f"error: the process ended {how}{where}; a plugin raises, it never ends the program",
        err=True,
    )
    sys.exit(1)


def _write_journal(journal: IO[bytes]) -> None:
    """Keep in the journal what runs, and that Python came to its end."""
    own = os.getpid()

    def write(text: bytes) -> None:
        if os.getpid() == own:  # not a process that a plugin forked
            os.pwrite(journal.fileno(), text[:_WIDTH].ljust(_WIDTH), 0)

    # Registered before any plugin's, so that it is called after them.
    atexit.register(write, _ENDED)
    guard.keep_journal(lambda step: write(" ".join(step.split()).encode(errors="replace")))


def _name(number: int) -> str:
    """Return e.g. "signal 11 (SIGSEGV)"."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
