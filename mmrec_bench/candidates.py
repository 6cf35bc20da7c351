"""Draw negatives, read candidate files, order and hash candidate sets; no Python loop over cases.

Letters: B cases, C candidates, M negatives wanted at most, N items.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from mmrec_bench.errors import ProtocolError
from mmrec_bench.types import BoolArray, Int32Array, Int64Array, Ragged, Vocabulary

BLOCK = 1 << 22
"""Elements of the largest temporary array."""

ROUNDS = 3
"""Rounds of rejection before the rows still open are drawn from their exact complement."""


class SeenItems:
    """Who took what, as sorted keys: membership by binary search.

    Attributes:
        counts: (n_users,) int64 different items of each user.
    """

    def __init__(self, user: Int32Array, item: Int32Array, n_users: int, n_items: int) -> None:
        self.n_items = n_items
        self._keys = np.unique(user.astype(np.int64) * n_items + item)
        self.counts: Int64Array = np.bincount(self._keys // max(n_items, 1), minlength=n_users)
        self._offsets = np.concatenate(([0], np.cumsum(self.counts)))

    def contains(self, user: Int32Array, items: NDArray[np.integer]) -> BoolArray:
        """Return (B, K) bool for users (B,) and items (B, K)."""
        keys = user.astype(np.int64)[:, None] * self.n_items + items
        if not len(self._keys):
            return np.zeros(keys.shape, np.bool_)
        at = np.minimum(np.searchsorted(self._keys, keys.ravel()), len(self._keys) - 1)
        found: BoolArray = self._keys[at].reshape(keys.shape) == keys
        return found

    def rows(self, user: Int32Array) -> Ragged:
        """Return the items of each of the given users."""
        everyone = Ragged((self._keys % max(self.n_items, 1)).astype(np.int32), self._offsets)
        return everyone.take(user.astype(np.int64))

    def available(self, user: Int32Array, weights: NDArray[np.float64] | None) -> Int64Array:
        """Return (B,) items that a user has not taken and that can be drawn (weight above 0)."""
        if weights is None:
            return self.n_items - self.counts[user]
        drawable = np.concatenate(([0], np.cumsum(weights[self._keys % self.n_items] > 0)))
        seen = np.diff(drawable[self._offsets])
        left: Int64Array = int((weights > 0).sum()) - seen[user]
        return left


def draw_negatives(
    rng: np.random.Generator,
    user: Int32Array,
    need: Int64Array,
    seen: SeenItems,
    weights: NDArray[np.float64] | None = None,
) -> Int32Array:
    """Draw, without replacement, items that the users have not taken.

    One after another, each with probability proportional to its weight among what is left:
    rejection for the first rounds; a row that is still open goes on from the state it reached with
    an exponential race over its exact complement, which is the same distribution.

    Args:
        rng: source of randomness.
        user: (B,) user of each row.
        need: (B,) how many to draw for it; at most `seen.available`.
        seen: what each user took.
        weights: (N,) at least 0; None = uniform.

    Returns:
        (B, max need) int32; -1 after the first `need` of a row.
    """
    width = int(need.max(initial=0))
    drawn = np.full((len(user), width), -1, np.int32)
    if not width:
        return drawn
    for _ in range(ROUNDS):
        open_rows = np.flatnonzero((drawn >= 0).sum(axis=1) < need)
        if not len(open_rows):
            return drawn
        step = max(1, BLOCK // (4 * width + 8))
        for start in range(0, len(open_rows), step):
            rows = open_rows[start : start + step]
            drawn[rows] = _reject(rng, drawn[rows], user[rows], need[rows], seen, weights)
    open_rows = np.flatnonzero((drawn >= 0).sum(axis=1) < need)
    step = max(1, BLOCK // (2 * seen.n_items))
    for start in range(0, len(open_rows), step):
        rows = open_rows[start : start + step]
        drawn[rows] = _race(rng, drawn[rows], user[rows], need[rows], seen, weights)
    return drawn


def _reject(
    rng: np.random.Generator,
    drawn: Int32Array,
    user: Int32Array,
    need: Int64Array,
    seen: SeenItems,
    weights: NDArray[np.float64] | None,
) -> Int32Array:
    """Fill rows (b, M) with fresh draws that are neither seen nor drawn before."""
    missing = need - (drawn >= 0).sum(axis=1)
    shape = (len(user), int(1.2 * missing.max()) + 4)
    if weights is None:
        fresh = rng.integers(seen.n_items, size=shape, dtype=np.int32)
    else:
        ladder = np.cumsum(weights)
        at = np.searchsorted(ladder, rng.random(shape) * ladder[-1], side="right")
        fresh = np.minimum(at, int(np.flatnonzero(weights)[-1])).astype(np.int32)
    both = np.concatenate((drawn, fresh), axis=1)
    order = np.argsort(both, axis=1, kind="stable")
    ordered = np.take_along_axis(both, order, axis=1)
    again = np.zeros(both.shape, np.bool_)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.empty_like(again)
    np.put_along_axis(repeated, order, again, axis=1)
    good = (both >= 0) & ~repeated
    good[:, drawn.shape[1] :] &= ~seen.contains(user, fresh)
    place = np.cumsum(good, axis=1) - 1
    good &= place < need[:, None]
    filled = np.full_like(drawn, -1)
    row, column = np.nonzero(good)
    filled[row, place[row, column]] = both[row, column]
    return filled


def _race(
    rng: np.random.Generator,
    drawn: Int32Array,
    user: Int32Array,
    need: Int64Array,
    seen: SeenItems,
    weights: NDArray[np.float64] | None,
) -> Int32Array:
    """Finish rows (b, M): the smallest exponential times among the items still free."""
    times = rng.exponential(size=(len(user), seen.n_items))
    if weights is not None:
        with np.errstate(divide="ignore"):
            times /= weights
    taken = seen.rows(user)
    times[taken.row_ids, taken.values] = np.inf
    row, column = np.nonzero(drawn >= 0)
    times[row, drawn[row, column]] = np.inf
    have = (drawn >= 0).sum(axis=1)
    width = min(int((need - have).max()), seen.n_items)
    best = np.argpartition(times, width - 1, axis=1)[:, :width]
    best = np.take_along_axis(best, np.argsort(np.take_along_axis(times, best, 1), axis=1), 1)
    row, column = np.nonzero(np.arange(width) < (need - have)[:, None])
    drawn[row, have[row] + column] = best[row, column]
    return drawn


def candidate_sets(
    rng: np.random.Generator,
    user: Int32Array,
    targets: Ragged,
    seen: SeenItems,
    n_candidates: int,
    weights: NDArray[np.float64] | None,
    name: Sequence[str],
    kind: str | None = None,
) -> Int32Array:
    """Return (B, n_candidates): each case's targets and enough negatives, targets first.

    Args:
        rng: source of randomness.
        user: (B,) user of each case.
        targets: B rows of different items.
        seen: what each user took in any part.
        n_candidates: size of a set, targets included.
        weights: (N,) of popularity, or None = uniform.
        name: (n_users,) string ids, for messages.
        kind: which items have a weight, for messages, e.g. "that are held out ".

    Raises:
        ProtocolError: too many targets, or too few items that a user has not taken.
    """
    need = n_candidates - targets.lengths
    if (need < 1).any():
        worst = int(np.argmin(need))
        raise ProtocolError(
            f"{int((need < 1).sum())} cases have no room for a negative among {n_candidates} "
            f"candidates (user {name[user[worst]]!r} has {targets.lengths[worst]} targets); "
            f"use protocol.n_candidates >= {targets.lengths[worst] + 1} or protocol.candidates=full"
        )
    available = seen.available(user, weights)
    if (available < need).any():
        worst = int(np.argmin(available - need))
        if kind is None:
            kind = "" if weights is None else "with train interactions "
        fit = int((available + targets.lengths).min())
        smaller = f"protocol.n_candidates <= {fit} or " if fit > targets.lengths.max() else ""
        raise ProtocolError(
            f"{int((available < need).sum())} cases lack negatives: user {name[user[worst]]!r} "
            f"needs {need[worst]}, but only {available[worst]} of {seen.n_items} items {kind}were "
            f"never taken by that user; use {smaller}protocol.candidates=full"
        )
    negatives = draw_negatives(rng, user, need, seen, weights)
    sets = np.empty((len(user), n_candidates), np.int32)
    is_target = np.arange(n_candidates) < targets.lengths[:, None]
    sets[is_target] = targets.values
    sets[~is_target] = negatives[negatives >= 0]
    return sets


def read_candidates(
    path: Path, users: Vocabulary, items: Vocabulary, n_candidates: int
) -> dict[str, dict[int, Int32Array]]:
    """Read JSONL lines `{"user": id, "candidates": [ids], "part": "test" | "validation"}`.

    `part` may be left out and is then "test". Users that have no case are for the caller to judge.

    Args:
        path: the file.
        users: users of the data set as read.
        items: items after the filter.
        n_candidates: size that each set must have.

    Returns:
        Per part, user number -> (n_candidates,) item numbers.

    Raises:
        ProtocolError: unreadable, unknown ids, another size, an item or a user twice.
    """
    found: dict[str, dict[int, Int32Array]] = {"test": {}, "validation": {}}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ProtocolError(f"cannot read candidates_file {path}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        part, user, ids = _parse_line(line, where)
        if user not in users:
            raise ProtocolError(f"{where}: user {user!r} is not in the data set")
        unknown = [name for name in ids if name not in items]
        if unknown:
            raise ProtocolError(
                f"{where}: {len(unknown)} candidates are not among the {len(items)} items after "
                f"the filter, e.g. {unknown[0]!r}; check the file, protocol.k_core and min_rating"
            )
        if len(ids) != n_candidates or len(set(ids)) != len(ids):
            raise ProtocolError(
                f"{where}: {len(ids)} candidates, {len(set(ids))} of them different; every line "
                f"must hold protocol.n_candidates={n_candidates} different items"
            )
        if users.index(user) in found[part]:
            raise ProtocolError(f"{where}: user {user!r} has more than one line for {part}")
        found[part][users.index(user)] = np.array([items.index(name) for name in ids], np.int32)
    return found


def _parse_line(line: bytes, where: str) -> tuple[str, str, list[str]]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict) or not isinstance(row.get("candidates"), list):
        raise ProtocolError(f'{where}: expected {{"user": id, "candidates": [ids]}}')
    part = row.get("part", "test")
    if part not in ("test", "validation"):
        raise ProtocolError(f"{where}: part {part!r} is neither 'test' nor 'validation'")
    return part, str(row.get("user")), [str(name) for name in row["candidates"]]


def file_sets(
    sets: dict[int, Int32Array], user: Int32Array, targets: Ragged, name: Sequence[str], part: str
) -> Int32Array:
    """Return (B, n_candidates) of the cases' users, checked to hold every target.

    Raises:
        ProtocolError: a case has no line, or its line lacks a target.
    """
    absent = [u for u in user.tolist() if u not in sets]
    if absent:
        raise ProtocolError(
            f"candidates_file has no line for {len(absent)} of {len(user)} {part} cases, "
            f"e.g. user {name[absent[0]]!r}"
        )
    chosen = np.stack([sets[u] for u in user.tolist()])
    held = (chosen[targets.row_ids] == targets.values[:, None]).any(axis=1)
    if not held.all():
        case = int(targets.row_ids[np.flatnonzero(~held)[0]])
        raise ProtocolError(
            f"candidates_file lacks {int((~held).sum())} of {len(held)} {part} targets, "
            f"e.g. of user {name[user[case]]!r}; each set must hold all targets of its case"
        )
    return chosen


def hash_candidates(
    parts: Sequence[tuple[Int32Array, Ragged, Int32Array]],
    users: Sequence[str],
    items: Sequence[str],
) -> str:
    """Return sha256 over cases and candidate sets in string ids.

    Numbers of users and items and the shown order do not enter, given that numbers follow the
    order of the string ids.

    Args:
        parts: per part, (B,) users in increasing order, their targets and (B, C) candidates.
        users: string ids in order.
        items: string ids in order.
    """
    user_ids = np.array([name.encode() for name in users], np.bytes_)
    item_ids = np.array([name.encode() for name in items], np.bytes_)
    digest = hashlib.sha256()
    for user, targets, candidates in parts:
        digest.update(f"part {candidates.shape}\n".encode())
        digest.update(user_ids[user].tobytes())
        digest.update(targets.lengths.astype("<i8").tobytes())
        digest.update(item_ids[targets.values].tobytes())
        step = max(1, BLOCK // max(1, candidates.shape[1] * item_ids.itemsize))
        for start in range(0, len(candidates), step):
            block = np.sort(candidates[start : start + step], axis=1)
            digest.update(item_ids[block].tobytes())
    return digest.hexdigest()
