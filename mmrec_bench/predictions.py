"""Predictions on disk: parts by shard of cases, so that a killed run goes on where it was."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from mmrec_bench.errors import StorageError
from mmrec_bench.files import (
    atomic_write,
    read_arrays,
    remove_temporary,
    storage_error,
    write_arrays,
)
from mmrec_bench.ranks import concat, take
from mmrec_bench.types import Answers, FloatArray, Int32Array, Int64Array, Ranks, Scores

SCHEMA = 1
MANIFEST = "predictions.json"

RANK_COLUMNS = ("n_better", "n_tied", "ranked", "case", "n_targets", "n_candidates", "top")
TEXT_COLUMNS = ("text", "outcome")
COUNT_COLUMNS = ("hallucinated", "prompt_tokens", "answer_tokens")
OPTIONAL_COLUMNS = {"retries": np.int32, "seconds": np.float32, "cost": np.float64}

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Predictions:
    """What was stored, in case order.

    Attributes:
        rows: (B,) int64 case rows, increasing.
        ranks: ranks of these cases.
        scores: (B, C) float32 in the shown order of the candidates; None where not kept.
        answers: per case, for models that generate text.
        shown: (B, n, 3) int32 where the target was shown and put, see `permutations.places_shown`;
            None for models that are shown no list.
    """

    rows: Int64Array
    ranks: Ranks
    scores: FloatArray | None
    answers: Answers | None
    shown: Int32Array | None = None


class PredictionStore:
    """Keeps the predictions of one run in `folder`.

    Each part is an `.npz` without pickles that holds some case rows and a checksum over its
    content and the spec's hash, written atomically. A part that cannot be read or whose checksum is
    wrong is logged, listed in `damaged` and treated as missing; it is removed with the next
    `append`. Where two parts hold the same row, the first by name counts.

    Whoever appends holds the run's lock; reading needs none.
    """

    def __init__(
        self, folder: Path, spec_hash: str, n_cases: int, *, keep_scores: bool = True
    ) -> None:
        """Open or begin a store; nothing is written before the first `append`.

        Args:
            folder: where the parts are.
            spec_hash: hash of the run's spec.
            n_cases: number of cases of the run.
            keep_scores: keep (B, C) scores beside the ranks; for explicit candidates. Scores over
                the whole catalog would be large, and the ranks hold what metrics need.

        Raises:
            StorageError: the folder belongs to another spec or another number of cases.
        """
        self.folder, self.spec_hash, self.n_cases = folder, spec_hash, n_cases
        self.keep_scores = keep_scores
        self.damaged: list[Path] = []
        self._begun = self._check_manifest()
        self._clean = False

    def missing(self) -> Int64Array:
        """Return (M,) int64 case rows that are still to be scored, increasing."""
        todo = np.ones(self.n_cases, np.bool_)
        for arrays in self._parts():
            todo[arrays["rows"]] = False
        return np.flatnonzero(todo)

    def append(
        self, rows: Int64Array, scores: Scores, ranks: Ranks, shown: Int32Array | None = None
    ) -> None:
        """Write one part.

        Args:
            rows: (b,) different case rows.
            scores: their scores and answers.
            ranks: their ranks.
            shown: (b, n, 3) where their targets were shown and put.

        Raises:
            StorageError: the disk is full or the folder cannot be written; earlier parts are whole.
            ValueError: numbers of rows that differ, or rows outside the run's cases.
        """
        rows = np.asarray(rows, np.int64)
        if not len(rows) == len(ranks) == len(scores.values):
            raise ValueError(
                f"{len(rows)} rows, {len(ranks)} ranks and {len(scores.values)} scores must match"
            )
        if len(np.unique(rows)) != len(rows) or not _within(rows, self.n_cases):
            raise ValueError(f"rows must be different and in 0 ... {self.n_cases - 1}")
        if not len(rows):
            return
        self._begin()
        arrays: Arrays = {"rows": rows}
        arrays |= {name: getattr(ranks, name) for name in RANK_COLUMNS}
        if self.keep_scores:
            arrays["scores"] = np.ascontiguousarray(scores.values, np.float32)
        if shown is not None:
            arrays["shown"] = shown
        if scores.answers is not None:
            arrays["answers"] = _pack_answers(scores.answers)
        checksum = self._checksum(arrays)
        arrays["checksum"] = np.frombuffer(checksum, np.uint8)
        name = f"part-{rows.min():08d}-{rows.max():08d}-{checksum.hex()[:8]}.npz"
        write_arrays(self.folder / name, arrays)

    def read(self) -> Predictions:
        """Return all predictions in case order.

        Raises:
            StorageError: some cases are missing (not scored yet, or their part is damaged).
        """
        parts, fresh_rows = [], []
        done = np.zeros(self.n_cases, np.bool_)
        for arrays in self._parts():
            fresh = np.flatnonzero(~done[arrays["rows"]])
            if len(fresh):
                done[arrays["rows"]] = True
                parts.append(_Part.of(arrays, fresh))
                fresh_rows.append(arrays["rows"][fresh])
        if not done.all() or not parts:
            damaged = f", {len(self.damaged)} parts are damaged" if self.damaged else ""
            raise StorageError(
                f"{self.folder} lacks predictions of {int((~done).sum())} of {self.n_cases} cases"
                f"{damaged}; run the same command again to fill them in"
            )
        rows = np.concatenate(fresh_rows)
        order = np.argsort(rows)
        scores = [part.scores for part in parts if part.scores is not None]
        answers = [part.answers for part in parts if part.answers is not None]
        shown = [part.shown for part in parts if part.shown is not None]
        if not {len(scores), len(answers), len(shown)} <= {0, len(parts)}:
            raise StorageError(f"{self.folder}: some parts have scores or answers and some do not")
        return Predictions(
            rows=rows[order],
            ranks=take(concat([part.ranks for part in parts]), order),
            scores=np.concatenate(scores)[order] if scores else None,
            answers=_join_answers(answers, order) if answers else None,
            shown=np.concatenate(shown)[order] if shown else None,
        )

    def clear(self) -> None:
        """Remove all parts and the manifest; for `--fresh`. The lock's holder calls it."""
        # The manifest last: a folder without one is taken by whichever spec comes next.
        for path in [*self.folder.glob("part-*.npz"), self.folder / MANIFEST]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(path, error, 0) from None
        self.damaged, self._begun = [], False

    def _check_manifest(self) -> bool:
        path = self.folder / MANIFEST
        try:
            found = orjson.loads(path.read_bytes())
            ours = (found["schema"], found["spec_hash"], found["n_cases"])
        except FileNotFoundError:
            return False
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise StorageError(
                f"cannot read {path}: {error}; remove {self.folder} and run again"
            ) from None
        if ours != (SCHEMA, self.spec_hash, self.n_cases):
            raise StorageError(
                f"{self.folder} holds predictions of spec {found['spec_hash']} "
                f"({found['n_cases']} cases, schema {found['schema']}), not of {self.spec_hash} "
                f"({self.n_cases} cases, schema {SCHEMA}); choose another folder or use --fresh"
            )
        return True

    def _begin(self) -> None:
        """Write the manifest and clear away what a killed or damaged run left."""
        if not self._begun:
            manifest = {"schema": SCHEMA, "spec_hash": self.spec_hash, "n_cases": self.n_cases}
            atomic_write(self.folder / MANIFEST, orjson.dumps(manifest))
            self._begun = True
        if not self._clean:
            remove_temporary(self.folder)
            self._clean = True
        for path in self.damaged:
            path.unlink(missing_ok=True)
        self.damaged = []

    def _parts(self) -> list[Arrays]:
        self.damaged = []
        parts = []
        for path in sorted(self.folder.glob("part-*.npz")):
            try:
                parts.append(self._load(path))
            except _DamagedPartError as error:
                log.warning("%s is damaged (%s): its cases count as missing", path, error)
                self.damaged.append(path)
        return parts

    def _load(self, path: Path) -> Arrays:
        try:
            arrays = read_arrays(path)
        except StorageError as error:
            raise _DamagedPartError(str(error)) from None
        found = arrays.pop("checksum", None)
        if found is None or found.tobytes() != self._checksum(arrays):
            raise _DamagedPartError("wrong checksum, or a part of another run")
        if not _within(arrays["rows"], self.n_cases):
            raise _DamagedPartError(f"rows outside the run's {self.n_cases} cases")
        return arrays

    def _checksum(self, arrays: Arrays) -> bytes:
        digest = hashlib.sha256(f"{SCHEMA} {self.spec_hash} {self.n_cases}".encode())
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.digest()


class _DamagedPartError(Exception):
    """A part cannot be used; the message says why."""


@dataclass(frozen=True)
class _Part:
    ranks: Ranks
    scores: FloatArray | None
    answers: Answers | None
    shown: Int32Array | None

    @classmethod
    def of(cls, arrays: Arrays, rows: Int64Array) -> "_Part":
        ranks = take(Ranks(**{name: arrays[name] for name in RANK_COLUMNS}), rows)
        answers = None
        if "answers" in arrays:
            answers = _join_answers([_unpack_answers(arrays["answers"])], rows)
        scores, shown = (
            arrays[name][rows] if name in arrays else None for name in ("scores", "shown")
        )
        return cls(ranks, scores, answers, shown)


def _within(rows: Int64Array, n_cases: int) -> bool:
    return bool(((rows >= 0) & (rows < n_cases)).all())


def _pack_answers(answers: Answers) -> NDArray[np.uint8]:
    """Return the answers as UTF-8 JSON; lone surrogates, which UTF-8 has not, become "?"."""
    columns: dict[str, Any] = {name: list(getattr(answers, name)) for name in TEXT_COLUMNS}
    columns["text"] = [t.encode("utf-8", "replace").decode("utf-8") for t in answers.text]
    for name in (*COUNT_COLUMNS, *OPTIONAL_COLUMNS):
        column = getattr(answers, name)
        if column is not None:  # NaN becomes null
            columns[name] = np.asarray(column).tolist()
    return np.frombuffer(orjson.dumps(columns), np.uint8)


def _unpack_answers(packed: NDArray[np.uint8]) -> Answers:
    columns = orjson.loads(packed.tobytes())
    optional: dict[str, Any] = {
        name: np.array([np.nan if value is None else value for value in columns[name]], dtype)
        for name, dtype in OPTIONAL_COLUMNS.items()
        if name in columns
    }
    counts: dict[str, Any] = {name: np.array(columns[name], np.int32) for name in COUNT_COLUMNS}
    return Answers(tuple(columns["text"]), tuple(columns["outcome"]), **counts, **optional)


def _join_answers(parts: list[Answers], order: Int64Array) -> Answers:
    text = [text for part in parts for text in part.text]
    outcome = [outcome for part in parts for outcome in part.outcome]
    columns: dict[str, Any] = {}
    for name in (*COUNT_COLUMNS, *OPTIONAL_COLUMNS):
        found = [getattr(part, name) for part in parts]
        if all(column is not None for column in found):
            columns[name] = np.concatenate(found)[order]
    chosen = order.tolist()
    return Answers(tuple(text[i] for i in chosen), tuple(outcome[i] for i in chosen), **columns)
