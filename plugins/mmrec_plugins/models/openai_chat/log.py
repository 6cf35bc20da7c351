"""The log of requests and answers: cache, resume and account at once.

One SQLite file (write-ahead log) that any number of threads and processes share. `requests` and
`attempts` only grow: triggers refuse updates and deletions. `claims` says who is asking what right
now, `features` what a server refused, `batches` what was handed in.
"""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mmrec_bench.errors import StorageError
from mmrec_plugins.models.openai_chat.log_file import LogFile
from mmrec_plugins.models.openai_chat.owners import Owner, this_process

ANSWERED = "answered"
DIRECT, BATCH = "direct", "batch"


@dataclass(frozen=True)
class Attempt:
    """One sending of a request and what came back.

    Attributes:
        status: "answered", or what went wrong, e.g. "HTTP 429", "timeout", "lost".
        answer: the server's JSON, where there was one.
        started: Unix seconds.
        seconds: until the answer or the failure; None = not known.
        channel: "direct" or "batch".
        prompt_tokens: as counted by the server; None where it does not.
        cached_tokens: those of them that cost less.
        answer_tokens: as counted by the server.
    """

    status: str
    answer: Mapping[str, Any] | None = None
    started: float = 0.0
    seconds: float | None = None
    channel: str = DIRECT
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    answer_tokens: int | None = None


@dataclass(frozen=True)
class Kept:
    """A request's answer with the number of attempts that came before it."""

    attempt: Attempt
    failures: int


@dataclass(frozen=True)
class Held:
    """Somebody else asks this request now: a process, or a batch."""

    owner: Owner
    batch: str | None


@dataclass(frozen=True)
class BatchRow:
    """A batch as the log knows it; state is preparing, creating or submitted."""

    ref: str
    state: str
    file: str | None
    id: str | None
    n: int
    owner: Owner
    lease: float


class RequestLog(LogFile):
    """The open log; `with RequestLog(path) as log`. Threads may share one."""

    def find(self, key: str) -> Kept | None:
        """Return the answer to a request, if there is one."""
        return self.find_all([key]).get(key)

    def find_all(self, keys: Collection[str]) -> dict[str, Kept]:
        """Return the answers that are there, by key."""
        with self._lock, self._guarded():
            rows = self._db.execute(
                "SELECT a.key, a.status, a.answer, a.started, a.seconds, a.channel, "
                "a.prompt_tokens, a.cached_tokens, a.answer_tokens, "
                "(SELECT count(*) FROM attempts b WHERE b.key = a.key AND b.id < a.id) "
                "FROM attempts a WHERE a.status = 'answered' "
                "AND a.key IN (SELECT value FROM json_each(?))",
                (json.dumps(list(keys)),),
            ).fetchall()
        return {
            key: Kept(Attempt(status, self._load(answer, key), *rest), failures)
            for key, status, answer, *rest, failures in rows
        }

    def claim(
        self, key: str, described: Mapping[str, Any], characters: int, lease: float
    ) -> Kept | Held | None:
        """Claim a request before it is sent; None = it is ours to send.

        The claim of a process that died is taken over, and its attempt is noted as lost.

        Args:
            key: of the request.
            described: what the key was made from.
            characters: of the request's text, for estimates.
            lease: Unix seconds until which processes of other machines believe the claim.
        """
        with self._transaction():
            if (kept := self.find(key)) is not None:
                return kept
            held, dead = self._holder(key)
            if held is not None:
                return held
            if dead is not None:
                self._insert(key, Attempt("lost", started=dead), str(this_process()))
            self._add_request(key, described, characters)
            self._put_claim(key, lease, None)
        return None

    def record(self, key: str, attempt: Attempt, *, release: bool) -> Kept:
        """Keep an attempt; with `release` the claim ends in the same transaction.

        Returns:
            What is kept: a second answer to one request is noted but never takes its place.
        """
        with self._transaction():
            self._insert(key, attempt, str(this_process()))
            if release:
                self._db.execute("DELETE FROM claims WHERE key = ?", (key,))
            return self.find(key) or Kept(attempt, 0)

    def release(self, key: str) -> None:
        """Give up this process' claim without an answer."""
        owner = this_process()
        with self._transaction():
            self._db.execute(
                "DELETE FROM claims WHERE key = ? AND host = ? AND pid = ? AND batch IS NULL",
                (key, owner.host, owner.pid),
            )

    def renew(self, key: str, lease: float) -> None:
        """Extend the lease of this process' claim (Unix seconds)."""
        with self._transaction():
            self._db.execute("UPDATE claims SET lease = ? WHERE key = ?", (lease, key))

    def feature(self, who: tuple[str, str, str], name: str) -> str | None:
        """Return what a server (provider, model, revision) was found to want, if anything."""
        with self._lock, self._guarded():
            row = self._db.execute(
                "SELECT value FROM features "
                "WHERE provider = ? AND model = ? AND revision = ? AND name = ?",
                (*who, name),
            ).fetchone()
        return None if row is None else str(row[0])

    def set_feature(self, who: tuple[str, str, str], name: str, value: str) -> None:
        """Remember what a server wants."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?, ?)", (*who, name, value)
            )

    def token_rate(self, who: tuple[str, str, str]) -> tuple[int, int, float]:
        """Return characters and prompt tokens of a model's answered requests without pictures.

        Returns:
            Characters, prompt tokens, and the mean of the answers' tokens (NaN without any).
        """
        with self._lock, self._guarded():
            row = self._db.execute(
                "SELECT sum(r.characters), sum(a.prompt_tokens), avg(a.answer_tokens) "
                "FROM attempts a JOIN requests r USING(key) WHERE a.status = 'answered' "
                "AND a.prompt_tokens > 0 AND r.provider = ? AND r.model = ? AND r.revision = ? "
                "AND r.request NOT LIKE '%\"picture\":%'",
                who,
            ).fetchone()
        return int(row[0] or 0), int(row[1] or 0), float("nan" if row[2] is None else row[2])

    def account(self) -> list[tuple[Any, ...]]:
        """Return one row a model, status and channel: requests, attempts, seconds and tokens."""
        with self._lock, self._guarded():
            return self._db.execute(
                "SELECT r.provider, r.model, r.revision, a.channel, a.status, "
                "count(DISTINCT a.key), count(*), sum(a.seconds), sum(a.prompt_tokens), "
                "sum(a.cached_tokens), sum(a.answer_tokens) "
                "FROM attempts a JOIN requests r USING(key) GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3"
            ).fetchall()

    # batches: see `batches.py` for the order of the states

    def open_batches(self, provider: str) -> list[BatchRow]:
        """Return the batches of a provider that have not been brought in."""
        with self._lock, self._guarded():
            rows = self._db.execute(
                "SELECT ref, state, file, id, n, host, pid, started, lease FROM batches "
                "WHERE provider = ? AND state != 'done' ORDER BY created",
                (provider,),
            ).fetchall()
        return [
            BatchRow(ref, state, file, batch, n, Owner(*owner), lease)
            for ref, state, file, batch, n, *owner, lease in rows
        ]

    def begin_batch(
        self,
        ref: str,
        provider: str,
        requests: Mapping[str, tuple[Mapping[str, Any], int]],
        lease: float,
    ) -> list[str]:
        """Claim requests (described, characters) for a batch; return the keys that are ours."""
        ours = []
        with self._transaction():
            answered = self.find_all(requests.keys())
            for key, (described, characters) in requests.items():
                if key in answered:
                    continue
                held, dead = self._holder(key)
                if held is not None:
                    continue
                if dead is not None:
                    self._insert(key, Attempt("lost", started=dead), str(this_process()))
                self._add_request(key, described, characters)
                self._put_claim(key, lease, ref)
                ours.append(key)
            if ours:
                owner = this_process()
                self._db.execute(
                    "INSERT INTO batches VALUES (?, ?, ?, 'preparing', NULL, NULL, ?, ?, ?, ?, ?)",
                    (ref, provider, time.time(), len(ours), *_columns(owner), lease),
                )
        return ours

    def take_batch(self, row: BatchRow, lease: float) -> bool:
        """Take over a batch that a dead process left; False = another process was faster."""
        with self._transaction():
            done = self._db.execute(
                "UPDATE batches SET host = ?, pid = ?, started = ?, lease = ? "
                "WHERE ref = ? AND state = ? AND host = ? AND pid = ? AND started = ?",
                (*_columns(this_process()), lease, row.ref, row.state, *_columns(row.owner)),
            )
            return done.rowcount == 1

    def set_batch(self, ref: str, state: str, **columns: str) -> None:
        """Move a batch on; `file` and `id` as the server names them. This process owns it now."""
        with self._transaction():
            owner = this_process()
            self._db.execute(
                "UPDATE batches SET state = ?, file = coalesce(?, file), id = coalesce(?, id), "
                "host = ?, pid = ?, started = ? WHERE ref = ?",
                (state, columns.get("file"), columns.get("id"), *_columns(owner), ref),
            )

    def end_batch(self, ref: str, results: Mapping[str, Attempt]) -> None:
        """Keep what a batch brought (may be nothing) and give up its claims, all or nothing."""
        with self._transaction():
            row = self._db.execute("SELECT state FROM batches WHERE ref = ?", (ref,)).fetchone()
            if row is None or row[0] == "done":
                return  # another process brought it in meanwhile
            for key, attempt in results.items():
                self._insert(key, attempt, f"batch {ref}")
            self._db.execute("DELETE FROM claims WHERE batch = ?", (ref,))
            self._db.execute("UPDATE batches SET state = 'done' WHERE ref = ?", (ref,))

    def batch_keys(self, ref: str) -> list[str]:
        """Return the requests that a batch holds."""
        with self._lock, self._guarded():
            rows = self._db.execute("SELECT key FROM claims WHERE batch = ?", (ref,)).fetchall()
        return [str(row[0]) for row in rows]

    # inside

    def _holder(self, key: str) -> tuple[Held | None, float | None]:
        """Return who holds a claim, and since when a dead process held it."""
        row = self._db.execute(
            "SELECT host, pid, started, since, lease, batch FROM claims WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None, None
        owner = Owner(*row[:3])
        if row[5] is not None or owner.lives(row[4]):
            return Held(owner, row[5]), None
        return None, row[3]

    def _put_claim(self, key: str, lease: float, batch: str | None) -> None:
        owner = this_process()
        self._db.execute(
            "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, *_columns(owner), time.time(), lease, batch),
        )

    def _add_request(self, key: str, described: Mapping[str, Any], characters: int) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                time.time(),
                described["provider"],
                described["model"],
                described["revision"],
                characters,
                json.dumps(described, sort_keys=True),
            ),
        )

    def _insert(self, key: str, attempt: Attempt, process: str) -> None:
        status = attempt.status
        if status == ANSWERED and self.find(key) is not None:
            status = "answered again"
        self._db.execute(
            "INSERT INTO attempts VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                attempt.started,
                attempt.seconds,
                attempt.channel,
                status,
                process,
                None if attempt.answer is None else json.dumps(attempt.answer),
                attempt.prompt_tokens,
                attempt.cached_tokens,
                attempt.answer_tokens,
            ),
        )

    def _load(self, answer: str, key: str) -> Mapping[str, Any]:
        try:
            value: Mapping[str, Any] = json.loads(answer)
        except (TypeError, ValueError):
            raise StorageError(
                f"{self.path} is damaged: the answer of request {key[:12]} is no JSON; move the "
                "file away and start a new one"
            ) from None
        return value


def _columns(owner: Owner) -> tuple[str, int, int]:
    return owner.host, owner.pid, owner.started
