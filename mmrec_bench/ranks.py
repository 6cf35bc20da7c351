"""Make, join and choose rows of Ranks; no Python loop over cases."""

from collections.abc import Sequence

import numpy as np

from mmrec_bench.types import Int32Array, Int64Array, Ragged, Ranks


def concat(parts: Sequence[Ranks]) -> Ranks:
    """Join ranks of consecutive cases; `top` is as wide as the widest part, -1 = none.

    Raises:
        ValueError: no parts.
    """
    if not parts:
        raise ValueError("no ranks to join")
    first = np.concatenate(([0], np.cumsum([len(part) for part in parts])))
    width = max(part.top.shape[1] for part in parts)
    tops = [np.pad(p.top, ((0, 0), (0, width - p.top.shape[1])), constant_values=-1) for p in parts]
    return Ranks(
        n_better=np.concatenate([part.n_better for part in parts]),
        n_tied=np.concatenate([part.n_tied for part in parts]),
        ranked=np.concatenate([part.ranked for part in parts]),
        case=np.concatenate([part.case + at for part, at in zip(parts, first[:-1], strict=True)]),
        n_targets=np.concatenate([part.n_targets for part in parts]),
        n_candidates=np.concatenate([part.n_candidates for part in parts]),
        top=np.concatenate(tops),
    )


def take(ranks: Ranks, rows: Int64Array) -> Ranks:
    """Return the chosen cases in the order given, renumbered from 0."""
    lengths = ranks.n_targets[rows].astype(np.int64)
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    chosen = np.repeat(ranks.first_target[:-1][rows], lengths) + within
    return Ranks(
        n_better=ranks.n_better[chosen],
        n_tied=ranks.n_tied[chosen],
        ranked=ranks.ranked[chosen],
        case=np.repeat(np.arange(len(rows), dtype=np.int64), lengths),
        n_targets=ranks.n_targets[rows],
        n_candidates=ranks.n_candidates[rows],
        top=ranks.top[rows],
    )


_LIST_BLOCK = 4096


def rank_lists(lists: Int32Array, targets: Ragged, n_candidates: int, *, top_k: int = 20) -> Ranks:
    """Return the ranks of targets in lists that were made elsewhere, best first.

    A target that is not in its case's list is a miss at every k. Lists have no ties: whoever made
    them has broken them.

    Args:
        lists: (B, K) int32 item numbers, -1 = none; of an item that occurs twice the first counts.
        targets: B rows of different item numbers.
        n_candidates: how many items each list was chosen from.
        top_k: items of each list that are kept for list metrics.

    Raises:
        ValueError: other numbers of lists and targets.
    """
    if len(lists) != len(targets):
        raise ValueError(f"{len(lists)} lists for {len(targets)} cases")
    n_targets = targets.lengths
    place = np.full(len(targets.values), -1, np.int64)
    for start in range(0, len(lists), _LIST_BLOCK):
        block = lists[start : start + _LIST_BLOCK]
        lengths = n_targets[start : start + _LIST_BLOCK]
        first = targets.offsets[start : start + len(block)]
        # The j-th targets of all cases at once.
        for j in range(int(lengths.max(initial=0))):
            some = np.flatnonzero(lengths > j)
            rows = block if len(some) == len(block) else block[some]
            at = first[some] + j
            equal = rows == targets.values[at][:, None]
            found = equal.argmax(axis=1)
            place[at] = np.where(equal[np.arange(len(some)), found], found, -1)
    ranked = np.asarray(place >= 0, np.bool_)
    return Ranks(
        n_better=np.where(ranked, place, lists.shape[1]).astype(np.int32),
        n_tied=np.zeros(len(place), np.int32),
        ranked=ranked,
        case=targets.row_ids,
        n_targets=n_targets.astype(np.int32),
        n_candidates=np.full(len(lists), n_candidates, np.int32),
        top=lists[:, :top_k],
    )
