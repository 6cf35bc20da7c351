"""The seam to plugins' code: whatever it raises becomes one PluginError that says whose it is.

Errors made on purpose (`MMRecError`), Ctrl-C and a full disk pass through as they are. The only
broad `except` that keeps an error is here. Standard output and error are put back where it replaced
them.
"""

import errno
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmrec_bench.errors import MMRecError, PluginError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A disk without room, which is nobody's code's fault."""

_LONGEST = 300
_MACHINERY = frozenset({"importlib", "mmrec_bench", "pluggy"})
_OWNERS: dict[type, str] = {}
_COPIES: dict[int, int] = {}


class _Journal:
    """Whose code runs now, for whoever outlives the process."""

    step = ""
    write: Callable[[str], None] | None = None

    def enter(self, step: str) -> None:
        self.step = step
        if self.write is not None:
            self.write(step)


_JOURNAL = _Journal()


def keep_journal(write: Callable[[str], None]) -> None:
    """Call `write` whenever a plugin's code is entered or left, with the step that runs then.

    Args:
        write: hears e.g. "import of my-plugin of my-distribution"; "" = no plugin's code.
    """
    _JOURNAL.write = write


def keep_descriptor(number: int, copy: int) -> None:
    """Open a descriptor again from its copy where a plugin's code closed it.

    Else the next file would get its number, and all that is printed there.
    """
    _COPIES[number] = copy


def _open_again() -> None:
    for number, copy in _COPIES.items():
        try:
            os.fstat(number)
        except OSError:
            os.dup2(copy, number)


def belongs(cls: type, owner: str) -> None:
    """Remember which distribution (or file) a component's class came from."""
    _OWNERS[cls] = owner


def owner_of(part: object) -> str:
    """Return the distribution of a component or of its class; its module where none is known."""
    cls = part if isinstance(part, type) else type(part)
    return _OWNERS.get(cls, cls.__module__)


@contextmanager
def calling(kind: str, name: str, part: object, step: str) -> Iterator[None]:
    """Run a plugin's code; an exception names the component, its distribution and the step.

    Args:
        kind: "model", "dataset" ...
        name: as registered.
        part: the component or its class.
        step: what it was asked for, e.g. "fit".

    Raises:
        PluginError: the code raised what is no MMRecError.
    """
    whose = f"{kind} {name!r} of {owner_of(part)}"
    with blaming(f"{whose} failed in {step}", owner=part, step=f"{step} of {whose}"):
        yield


@contextmanager
def blaming(
    what: str, *, owner: object = None, whole: bool = False, step: str = ""
) -> Iterator[None]:
    """Run a stranger's code; an exception is told behind `what`, with its file and line.

    Args:
        what: what went wrong if it raises.
        owner: component or class whose package's innermost line is told; None = the innermost.
        whole: all that runs is the plugin's, so that an MMRecError which does not name it is
            told behind `what` like any other.
        step: what runs, for the journal; "" = what already ran goes on.

    Raises:
        PluginError: the code raised what is no MMRecError, or tried to end the program.
    """
    outer = _JOURNAL.step
    _JOURNAL.enter(step or outer)
    streams = sys.stdout, sys.stderr
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except MMRecError as error:
        if not whole or isinstance(error, PluginError):
            raise
        raise PluginError(f"{what}: {explain(error, owner)}") from error
    except BaseException as error:  # SystemExit, CancelledError, a panic of Rust code
        # A broken pipe is not ours to pass on: it would end the program as if our own reader had
        # gone, without a word.
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise PluginError(f"{what}: {explain(error, owner)}") from error
    finally:
        _JOURNAL.enter(outer)
        if threading.current_thread() is threading.main_thread():  # others come and go in between
            sys.stdout, sys.stderr = streams
            _open_again()


def explain(error: BaseException, owner: object = None) -> str:
    """Return an exception as one line: type, message, and where in the plugin it was raised.

    Args:
        error: as caught.
        owner: component or class whose package's innermost line is told; None = the innermost.
    """
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - the message of a stranger's exception is his code too
        text = "(its message cannot be shown)"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ..."
    # A SyntaxError's message names its file and line itself.
    where = "" if isinstance(error, SyntaxError) else _where(error, owner)
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def _where(error: BaseException, owner: object) -> str:
    frames = [
        (frame, line, str(frame.f_globals.get("__name__")).partition(".")[0])
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith("<")
    ]
    if owner is not None:
        cls = owner if isinstance(owner, type) else type(owner)
        package = cls.__module__.partition(".")[0]
        frames = [one for one in frames if one[2] == package] or frames
    else:
        frames = [one for one in frames if one[2] not in _MACHINERY]
    if not frames or frames[-1][0].f_code.co_filename == __file__:
        return ""
    frame, line, _ = frames[-1]
    return f" ({_short(Path(frame.f_code.co_filename))}:{line})"


def _short(path: Path) -> str:
    return "/".join(path.parts[-2:])
