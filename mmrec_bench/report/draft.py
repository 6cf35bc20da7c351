"""A report while it is written: a folder beside the target, which it replaces as a whole."""

import contextlib
import glob
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrec_bench.errors import StorageError
from mmrec_bench.files import TEMPORARY, storage_error, sync_folder
from mmrec_bench.report.escaping import script

MARKER = "mmrec-report.json"
"""A file that every report has: a folder without it is not ours to replace."""
_SCHEMA = 1


class Draft:
    """The folder that is written.

    Attributes:
        folder: the site as it will be.
        scratch: for what is needed while writing only.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder, scratch

    def text(self, name: str, content: str) -> None:
        """Write a text file; lone surrogates, which UTF-8 has not, become "?"."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "replace"))

    def script(self, name: str, kind: str, value: Any) -> None:  # noqa: ANN401 - JSON
        """Write a file of data, see `escaping.script`."""
        self.text(name, script(kind, value))


def check_target(target: Path) -> None:
    """Check that a report may be written to a folder.

    Raises:
        StorageError: it is there, and it is neither empty nor a report.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise StorageError(f"{target} is not a folder; name another with --output")
    if not target.is_dir() or not any(target.iterdir()):
        return
    try:
        kind = json.loads((target / MARKER).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    if kind != "mmrec-bench report":
        raise StorageError(
            f"{target} has files and is no report of mmrec-bench (no {MARKER}); it is left as it "
            "is: name a new folder with --output"
        )


@contextmanager
def drafted(target: Path) -> Iterator[Draft]:
    """Give a draft that takes the target's place when the block ends without an error.

    Raises:
        StorageError: the target is not ours to replace, or the disk is full; the target is whole.
    """
    check_target(target)
    target = target.absolute()
    base = target.parent / f"{_own(target)}{os.getpid()}{TEMPORARY}"
    try:
        _sweep(target)
        (base / "site").mkdir(parents=True)
        (base / "scratch").mkdir()
        draft = Draft(base / "site", base / "scratch")
        marker = {"kind": "mmrec-bench report", "schema": _SCHEMA}
        draft.text(MARKER, json.dumps(marker) + "\n")
        yield draft
        check_target(target)
        _swap(base / "site", target, base / "old")
    except OSError as error:
        raise storage_error(Path(error.filename or target), error, 0) from None
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _swap(new: Path, target: Path, old: Path) -> None:
    """Put `new` in the place of `target`; where that fails the old one is put back."""
    there = target.exists()
    if there:
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if there:
            old.rename(target)
        raise
    sync_folder(target.parent)


def _own(target: Path) -> str:
    """Return what drafts of this report by this machine are called, before the process's number."""
    return f".{target.name}.{socket.gethostname()}."


def _sweep(target: Path) -> None:
    """Remove drafts of this report whose process is gone, and put back what one of them held.

    Drafts of another machine on a shared disk stay: their processes cannot be looked up here.
    """
    for base in target.parent.glob(f"{glob.escape(_own(target))}*{TEMPORARY}"):
        number = base.name.removeprefix(_own(target)).removesuffix(TEMPORARY)
        if not number.isdecimal() or (not (base / "site").exists() and not (base / "old").exists()):
            continue
        with contextlib.suppress(PermissionError):
            if alive(int(number)) and int(number) != os.getpid():
                continue
            if (base / "old" / MARKER).exists() and not target.exists():
                (base / "old").rename(target)
            shutil.rmtree(base, ignore_errors=True)


def alive(pid: int) -> bool:
    """Whether a process of this machine runs; numbers that no process can have do not."""
    if pid <= 0:  # to `kill` these name groups of processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
