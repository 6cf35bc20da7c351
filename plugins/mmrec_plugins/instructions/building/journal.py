"""What a teacher answered, kept line by line, so that a killed build asks nothing twice."""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmrec_bench.errors import StorageError
from mmrec_bench.files import storage_error
from mmrec_bench.teaching import Teacher, WritingRequest, Written
from mmrec_bench.types import Image, Message
from mmrec_plugins.instructions.building.account import Account

log = logging.getLogger("mmrec_bench")


class Journal:
    """An append-only file of answers beside the corpus, one JSON line each.

    A line that was torn by a kill is cut off when the file is opened again; the folder's lock is
    held by the caller.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, tuple[Written, float]] = {}
        if path.exists():
            self._read()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> tuple[Written, float] | None:
        """Return an answer and the seconds that it took, or None."""
        return self._known.get(key)

    def append(self, answers: Sequence[tuple[str, Written, float]]) -> None:
        """Keep answers; they outlive a loss of power when this returns.

        Raises:
            StorageError: the disk is full, or the file cannot be written.
        """
        lines = "".join(_line(*answer) for answer in answers).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(self.path, error, len(lines)) from None
        self._known.update((key, (written, seconds)) for key, written, seconds in answers)

    def _read(self) -> None:
        whole = 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        break
                    self._take(line, number)
                    whole += len(line)
            if whole < self.path.stat().st_size:
                log.info("%s: the last line was torn by a kill and is cut off", self.path)
                os.truncate(self.path, whole)
        except OSError as error:
            raise storage_error(self.path, error, 0) from None

    def _take(self, line: bytes, number: int) -> None:
        try:
            row: dict[str, Any] = json.loads(line)
            cost = row["cost"]
            written = Written(
                text=str(row["text"]),
                refused=bool(row["refused"]),
                prompt_tokens=int(row["prompt_tokens"]),
                answer_tokens=int(row["answer_tokens"]),
                cost=math.nan if cost is None else float(cost),
            )
            self._known[str(row["key"])] = (written, float(row["seconds"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{self.path}, line {number} is not an answer of a teacher ({error!r}); remove the "
                "file to ask again"
            ) from None


class Asking:
    """Asks a teacher what the journal does not know yet, and counts what it takes."""

    def __init__(self, teacher: Teacher, journal: Journal | None) -> None:
        self.teacher, self.journal = teacher, journal
        self.account = Account()
        self._fingerprint = teacher.fingerprint()

    def __call__(self, requests: Sequence[WritingRequest]) -> list[Written]:
        """Return an answer for each request, in order."""
        keys = [request_key(self._fingerprint, request) for request in requests]
        known = {key: self.journal.get(key) for key in keys} if self.journal else {}
        todo = {
            key: request
            for key, request in zip(keys, requests, strict=True)
            if known.get(key) is None
        }
        fresh: dict[str, tuple[Written, float]] = {}
        if todo:
            started = time.monotonic()
            answers = self.teacher.write(list(todo.values()))
            each = (time.monotonic() - started) / len(todo)
            fresh = {key: (one, each) for key, one in zip(todo, answers, strict=True)}
            if self.journal is not None:
                self.journal.append([(key, *answer) for key, answer in fresh.items()])
        written = []
        for key in keys:
            answer, seconds = fresh.get(key) or known[key] or _missing(key)
            self.account += Account.of(answer, seconds, remembered=key not in fresh)
            written.append(answer)
        return written


def _missing(key: str) -> tuple[Written, float]:
    raise AssertionError(f"request {key} was neither known nor asked")


def _line(key: str, written: Written, seconds: float) -> str:
    row = {
        "key": key,
        "text": written.text,
        "refused": written.refused,
        "prompt_tokens": written.prompt_tokens,
        "answer_tokens": written.answer_tokens,
        "cost": None if math.isnan(written.cost) else written.cost,
        "seconds": round(seconds, 4),
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def request_key(fingerprint: str, request: WritingRequest) -> str:
    """Return what an answer depends on as a hash: teacher, texts, pictures' bytes, schema."""
    return _hash([fingerprint, _marks(request.messages), request.schema, request.max_tokens])


def prompt_hash(messages: Sequence[Message]) -> str:
    """Return a hash of texts and pictures' bytes."""
    return _hash(_marks(messages))


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


def _marks(messages: Sequence[Message]) -> list[list[object]]:
    """Return messages as JSON values; a picture is a list, so that no text can look like one."""
    return [
        [
            message.role,
            *([_picture_hash(p.path)] if isinstance(p, Image) else p.text for p in message.parts),
        ]
        for message in messages
    ]


@lru_cache(maxsize=100_000)
def _picture_hash(path: Path | None) -> str:
    """Return the hash of a picture's bytes; files do not change while a corpus is built."""
    try:
        data = path.read_bytes() if path is not None else b""
    except OSError:
        data = b""
    return hashlib.sha256(data).hexdigest()
