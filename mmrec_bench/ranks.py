"""Join and choose rows of Ranks; no Python loop over cases."""

from collections.abc import Sequence

import numpy as np

from mmrec_bench.types import Int64Array, Ranks


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
