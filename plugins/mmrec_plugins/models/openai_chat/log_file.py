"""The SQLite file behind the log: made, opened and locked with care, errors in one line."""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from mmrec_bench.errors import StorageError

_APPLICATION, _VERSION = 0x6D6D7271, 1
BUSY_SECONDS = 30.0
_TABLES = """
CREATE TABLE IF NOT EXISTS requests(
    key TEXT PRIMARY KEY, created REAL NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    revision TEXT NOT NULL, characters INTEGER NOT NULL, request TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS attempts(
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, started REAL NOT NULL, seconds REAL,
    channel TEXT NOT NULL, status TEXT NOT NULL, process TEXT NOT NULL, answer TEXT,
    prompt_tokens INTEGER, cached_tokens INTEGER, answer_tokens INTEGER);
CREATE INDEX IF NOT EXISTS attempts_of ON attempts(key);
CREATE UNIQUE INDEX IF NOT EXISTS one_answer ON attempts(key) WHERE status = 'answered';
CREATE TABLE IF NOT EXISTS claims(
    key TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, started INTEGER NOT NULL,
    since REAL NOT NULL, lease REAL NOT NULL, batch TEXT);
CREATE TABLE IF NOT EXISTS features(
    provider TEXT NOT NULL, model TEXT NOT NULL, revision TEXT NOT NULL, name TEXT NOT NULL,
    value TEXT NOT NULL, PRIMARY KEY(provider, model, revision, name));
CREATE TABLE IF NOT EXISTS batches(
    ref TEXT PRIMARY KEY, provider TEXT NOT NULL, created REAL NOT NULL, state TEXT NOT NULL,
    file TEXT, id TEXT, n INTEGER NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    started INTEGER NOT NULL, lease REAL NOT NULL);
"""
_TRIGGERS = "".join(
    f"CREATE TRIGGER IF NOT EXISTS {table}_{action} BEFORE {action} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} only grow'); END;"
    for table in ("requests", "attempts")
    for action in ("UPDATE", "DELETE")
)


class LogFile:
    """The open file; threads may share one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._guarded():
            self._db = self._open()
            try:
                self._set_up()
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was recorded is on the disk already."""
        with self._lock, self._guarded():
            self._db.close()

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Prompts may be private: the file is the user's alone from the first byte on.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise StorageError(
                f"cannot open the request log {self.path}: {error.strerror}; name another file "
                "with -o model.request_log=FILE"
            ) from None
        return sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )

    def _set_up(self) -> None:
        deadline = time.monotonic() + BUSY_SECONDS
        while True:  # the change to a write-ahead log does not wait for a lock by itself
            try:
                mode = self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        if mode != "wal":
            raise StorageError(
                f"{self.path} lies on a file system without write-ahead logs; name a file on a "
                "local disk with -o model.request_log=FILE"
            )
        # Each answer is on the disk before the next request is sent: it was paid for.
        self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            application = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and application != _APPLICATION:
                raise StorageError(
                    f"{self.path} is another program's database; name another file with "
                    "-o model.request_log=FILE"
                )
            if tables and version != _VERSION:
                raise StorageError(
                    f"{self.path} is a request log of version {version}, this program reads "
                    f"{_VERSION}; name another file with -o model.request_log=FILE"
                )
            if not tables:
                for statement in f"{_TABLES}".split(";\n"):
                    self._db.execute(statement)
                for statement in _TRIGGERS.split("END;"):
                    if statement:
                        self._db.execute(statement + "END")
                self._db.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {_VERSION}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn what SQLite raises into one line that says what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(_explain(self.path, error)) from None


def _explain(path: Path, error: sqlite3.Error) -> str:
    reason = str(error)
    if "full" in reason or "disk I/O" in reason:
        return (
            f"no room to write the request log {path}: {reason}; answers kept before are whole: "
            "make room and run the same command again"
        )
    if "locked" in reason or "busy" in reason:
        return (
            f"the request log {path} was locked by another program for {BUSY_SECONDS:.0f} s; end "
            "that program and run the same command again"
        )
    if "readonly" in reason or "unable to open" in reason:
        return f"cannot write the request log {path}: {reason}; check its folder's permissions"
    return (
        f"the request log {path} is damaged: {reason}; move it away (`sqlite3 FILE .recover` may "
        "save its answers) or name another with -o model.request_log=FILE"
    )
