"""Files that a killed process, a full disk or a second run cannot spoil."""

import contextlib
import errno
import fcntl
import glob
import io
import json
import os
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.errors import StorageError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, the quota or the largest allowed file is full."""

TEMPORARY = ".tmp"

_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    # What a flipped bit in the headers of zip and npy leads to.
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    MemoryError,
    OverflowError,
    struct.error,
)


def atomic_write(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is, at every moment, the old one or the new one as a whole.

    A temporary file beside it is written, synced and renamed, and the folder is synced, so that
    the new file outlives a loss of power. The folder is made where it is missing. A link stays,
    and what it names is written. To a device or a pipe, e.g. /dev/stdout, the data is added.

    Raises:
        StorageError: the disk is full, or the file cannot be written; nothing is left behind.
    """
    try:
        if is_stream(path):
            with path.open("ab") as file:
                file.write(data)
            return
        if path.is_symlink():
            path = Path(os.path.realpath(path))
    except OSError as error:
        raise storage_error(path, error, len(data)) from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise storage_error(path, error, len(data)) from None
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def is_stream(path: Path) -> bool:
    """Say whether a path is a device, a pipe or an open file of a process: not to be replaced."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        return True
    # /dev/stdout and /dev/fd/N: links, perhaps to a file to which others write too.
    folder = path.parent.resolve()
    return path.is_symlink() and (folder == Path("/dev") or folder.is_relative_to("/proc"))


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, compress: bool = False) -> None:
    """Write numeric arrays as an `.npz`, atomically; compressed where it is to be kept for long.

    Raises:
        StorageError: as `atomic_write`.
        TypeError: an array of objects, which would be pickled.
    """
    objects = [name for name, array in arrays.items() if array.dtype.hasobject]
    if objects:
        raise TypeError(f"arrays of objects cannot be stored: {', '.join(objects)}")
    buffer = io.BytesIO()
    save = np.savez_compressed if compress else np.savez
    save(buffer, **cast("dict[str, Any]", dict(arrays)))
    atomic_write(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read an `.npz` as a whole; never unpickles.

    Raises:
        StorageError: missing, torn, or not what `write_arrays` writes.
    """
    try:
        # From memory, since numpy leaves the file open when it cannot read it.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(f"cannot read {path}: {reason or type(error).__name__}") from None


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable; file systems that cannot do so are left as they are."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def storage_error(path: Path, error: OSError, n_bytes: int) -> StorageError:
    """Return the one line for a write that failed."""
    reason = error.strerror or str(error)
    if error.errno in NO_ROOM:
        return StorageError(
            f"no room to write {path} ({n_bytes} bytes): {reason}; what was written before is "
            f"whole: make room and run the same command again"
        )
    return StorageError(f"cannot write {path}: {reason}; check the folder and its permissions")


def remove_temporary(folder: Path, *, of: str = "") -> int:
    """Remove temporary files that a killed process left; for whoever holds the folder's lock.

    Args:
        folder: may be missing.
        of: only those of the file of this name; "" = all.
    """
    found = list(folder.glob(f".{glob.escape(of)}*{TEMPORARY}"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds a lock, as told by the holder.

    Attributes:
        pid: its process; 0 where unknown.
        host: its machine; "" where unknown.
        since: Unix seconds; 0.0 where unknown.
    """

    pid: int = 0
    host: str = ""
    since: float = 0.0

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {since}"


class RunLock:
    """A claim on a folder that a dead process loses at once.

    The kernel's `flock` on `<folder>/lock` is the claim; the text in it only says who to ask, and
    the file stays when the claim ends. A forked child shares the claim of its parent.

        with RunLock(folder):
            ...
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        self._file: IO[str] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the claim."""
        return self._file is not None

    def acquire(
        self, *, wait: bool = True, on_wait: Callable[[LockHolder], None] | None = None
    ) -> None:
        """Claim the folder; made where it is missing.

        Args:
            wait: sleep until the holder is done, instead of an error.
            on_wait: called once with the holder before waiting.

        Raises:
            StorageError: held by another (without `wait`), or the folder cannot be locked.
        """
        if self._file is not None:
            raise StorageError(f"{self.path} is held by this object already")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise storage_error(self.path, error, 0) from None
        try:
            self._claim(file, wait=wait, on_wait=on_wait)
            file.truncate(0)
            file.write(
                json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})
            )
            file.flush()
        except BaseException as error:
            with contextlib.suppress(OSError):
                file.close()
            if isinstance(error, OSError):
                raise storage_error(self.path, error, 0) from None
            raise
        self._file = file

    def _claim(
        self, file: IO[str], *, wait: bool, on_wait: Callable[[LockHolder], None] | None
    ) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self.holder()
            if not wait:
                raise StorageError(
                    f"{self.path.parent} is in use by {holder}; wait for it, or choose another "
                    f"results folder"
                ) from None
            if on_wait is not None:
                on_wait(holder)
            fcntl.flock(file, fcntl.LOCK_EX)

    def holder(self) -> LockHolder:
        """Read who said to hold the lock; unknown where the text cannot be read."""
        try:
            text = json.loads(self.path.read_text(encoding="utf-8"))
            return LockHolder(int(text["pid"]), str(text["host"]), float(text["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return LockHolder()

    def release(self) -> None:
        """Give the claim back; nothing happens where it is not held."""
        if self._file is None:
            return
        file, self._file = self._file, None
        with contextlib.suppress(OSError):
            file.truncate(0)
        # Closing drops the claim, unless a forked child still has the file open.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
        file.close()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


@contextlib.contextmanager
def locked(
    folder: Path, *, wait: bool = True, on_wait: Callable[[LockHolder], None] | None = None
) -> Iterator[RunLock]:
    """Hold the lock of `folder` for a block."""
    lock = RunLock(folder)
    lock.acquire(wait=wait, on_wait=on_wait)
    try:
        yield lock
    finally:
        lock.release()
