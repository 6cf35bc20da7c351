"""The instruction corpus: what a teacher wrote, one JSON line an entry, with its provenance."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmrec_bench.errors import DataFormatError
from mmrec_bench.files import atomic_write

Kind = Literal["profile", "attributes", "zero-shot", "few-shot"]
KINDS: tuple[Kind, ...] = ("profile", "attributes", "zero-shot", "few-shot")
SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Strict):
    """A piece of a turn: a text, or the picture of an item (its id in the data set)."""

    text: str | None = None
    image: str | None = None


class Turn(_Strict):
    """One turn of the conversation before the answer."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]


class CorpusEntry(_Strict):
    """One instruction and its answer.

    Attributes:
        schema_version: of this format.
        kind: which of the four kinds of instruction.
        split: what it may be used for; both come from train interactions alone.
        dataset: name of the data set.
        dataset_version: its content hash.
        user: the data set's own user id; None for item attributes.
        items: item ids that the question shows of the user's own history (or the item whose
            attributes are asked), in order; all of them train interactions of `user`.
        candidates: item ids of the listed candidates, in order; () for the other kinds.
        demonstrated: item ids that demonstrations of other users show.
        target: item id of the right answer of a recommendation; None for the other kinds.
        turns: the conversation; the answer follows.
        answer: what the teacher wrote, as it is tuned on.
        value: the answer as read: the fields of a profile or of attributes, each attribute with
            its source ("text" or "image"); for a recommendation the ranked item ids.
        outcome: ok, or repaired where something had to be cut away.
        language: "en" or "zh".
        template: which wording asked.
        teacher: who wrote the answer, e.g. `openai:gpt-4o`.
        teacher_fingerprint: what the answer depends on.
        prompt_hash: SHA-256 of turns and pictures.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    split: Literal["train", "validation"]
    dataset: str
    dataset_version: str
    user: str | None = None
    items: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    demonstrated: tuple[str, ...] = ()
    target: str | None = None
    turns: tuple[Turn, ...]
    answer: str
    value: dict[str, Any] = Field(default_factory=dict)
    outcome: Literal["ok", "repaired"] = "ok"
    language: Literal["en", "zh"] = "en"
    template: str = ""
    teacher: str = ""
    teacher_fingerprint: str = ""
    prompt_hash: str = ""

    @property
    def id(self) -> str:
        """Return a short hash of what was asked and answered; equal entries are duplicates."""
        text = json.dumps(
            [self.kind, [turn.model_dump() for turn in self.turns], self.answer], sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_corpus(path: Path, entries: Iterable[CorpusEntry]) -> None:
    """Write entries as JSON lines, the whole file or none of it."""
    lines = [entry.model_dump_json(exclude_none=True) for entry in entries]
    atomic_write(path, "".join(line + "\n" for line in lines).encode())


def read_corpus(path: Path) -> Iterator[CorpusEntry]:
    """Yield the entries of a corpus.

    Raises:
        DataFormatError: missing, or a line that is not an entry; names file and line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield _entry(line, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFormatError(f"{path} cannot be read as an instruction corpus: {error}") from None


def _entry(line: str, where: str) -> CorpusEntry:
    try:
        entry = CorpusEntry.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "entry"
        raise DataFormatError(f"{where}: {place}: {first['msg']}") from None
    if entry.schema_version != SCHEMA_VERSION:
        raise DataFormatError(
            f"{where}: schema_version {entry.schema_version}, this version reads {SCHEMA_VERSION}; "
            "build the corpus again"
        )
    return entry


def corpus_fingerprint(paths: Iterable[Path]) -> str:
    """Return a hash of the files' contents, whatever their names and order, for a run's identity.

    Raises:
        DataFormatError: a file cannot be read.
    """
    digests = []
    for path in paths:
        try:
            digests.append(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise DataFormatError(
                f"{path} cannot be read as an instruction corpus: {error.strerror}"
            ) from None
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def count_kinds(entries: Iterable[CorpusEntry]) -> Mapping[str, int]:
    """Return the number of entries of each kind that occurs."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.kind] = counts.get(entry.kind, 0) + 1
    return counts
