"""Exact values of rank metrics when scores tie; no Python loop over cases.

A target with `n_better = b` and `n_tied = g - 1` stands in a group of g candidates with one score,
at the places b + 1 ... b + g. `expected` is the exact mean over all orders of each group, each
equally likely; `optimistic` puts the targets of a group first, `pessimistic` last.
See McSherry and Najork, Computing information retrieval performance measures efficiently in the
presence of tied scores, ECIR 2008.

Letters: B cases, T targets; per group b better candidates, g members, m targets.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.types import Int64Array, Ranks

Ties = Literal["expected", "optimistic", "pessimistic"]
Float64Array = NDArray[np.float64]
_KEPT = "_tied_targets"


@dataclass(frozen=True)
class TiedTargets:
    """Ranked targets, sorted by case and place, with the groups that they stand in.

    Attributes:
        n_cases: B.
        case: (T,) int64 case of each ranked target.
        better: (T,) int64 b.
        group: (T,) int64 g.
        targets: (T,) int64 m.
        within: (T,) int64 0 ... m - 1, number among the targets of its group.
        before: (T,) int64 targets of the same case in better groups.
    """

    n_cases: int
    case: Int64Array
    better: Int64Array
    group: Int64Array
    targets: Int64Array
    within: Int64Array
    before: Int64Array

    @classmethod
    def of(cls, ranks: Ranks) -> Self:
        """Group the ranked targets; targets that a model left out are not here.

        Kept with the ranks: a dozen metrics look at the same groups.
        """
        known = vars(ranks).get(_KEPT)
        if known is None:
            known = vars(ranks)[_KEPT] = cls._grouped(ranks)
        return cast("Self", known)

    @classmethod
    def _grouped(cls, ranks: Ranks) -> Self:
        rows = np.flatnonzero(ranks.ranked)
        rows = rows[np.lexsort((ranks.n_better[rows], ranks.case[rows]))]
        case = ranks.case[rows]
        better = ranks.n_better[rows].astype(np.int64)
        new_case = np.ones(len(rows), np.bool_)
        new_case[1:] = case[1:] != case[:-1]
        new_group = new_case.copy()
        new_group[1:] |= better[1:] != better[:-1]
        first = np.flatnonzero(new_group)
        targets = np.diff(np.append(first, len(rows)))
        start = np.repeat(first, targets)
        case_start = np.repeat(
            np.flatnonzero(new_case), np.diff(np.append(np.flatnonzero(new_case), len(rows)))
        )
        return cls(
            n_cases=len(ranks),
            case=case,
            better=better,
            group=ranks.n_tied[rows].astype(np.int64) + 1,
            targets=np.repeat(targets, targets),
            within=np.arange(len(rows)) - start,
            before=start - case_start,
        )

    def spans(self, ties: Ties) -> tuple[Int64Array, Int64Array]:
        """Return (T,) low and high: a target stands at low + 1 ... high, equally likely."""
        if ties == "expected":
            return self.better, self.better + self.group
        low = self.better + self.within
        if ties == "pessimistic":
            low = low + self.group - self.targets
        return low, low + 1

    @cached_property
    def first(self) -> "TiedTargets":
        """One target of each case's best group, cases without a ranked target left out."""
        rows = np.flatnonzero((self.before == 0) & (self.within == 0))
        columns = (self.case, self.better, self.group, self.targets, self.within, self.before)
        return TiedTargets(self.n_cases, *(column[rows] for column in columns))

    def sum(self, values: Float64Array) -> Float64Array:
        """Return (B,) float64 sums of (T,) values over each case."""
        total = np.bincount(self.case, weights=values, minlength=self.n_cases)
        return total.astype(np.float64, copy=False)


def gain_sum(ranks: Ranks, gains: Float64Array, ties: Ties) -> Float64Array:
    """Sum a gain over the places of each case's targets.

    Args:
        ranks: where the targets stand.
        gains: (k,) gain of the places 1 ... k; places after k gain nothing.
        ties: how equal scores count.

    Returns:
        (B,) float64; 0 where no target is ranked.
    """
    tied = TiedTargets.of(ranks)
    low, high = tied.spans(ties)
    upto = np.concatenate(([0.0], np.cumsum(gains)))
    last = len(gains)
    total = upto[np.minimum(high, last)] - upto[np.minimum(low, last)]
    return tied.sum(total / (high - low))


def hit_probability(ranks: Ranks, k: int, ties: Ties) -> Float64Array:
    """Return (B,) float64 probability that at least one target stands at a place <= k.

    A group that lies across place k holds s = k - b of its g members above the cut; it has no
    target there with probability C(g - m, s) / C(g, s) (hypergeometric).
    """
    first = TiedTargets.of(ranks).first
    if ties != "expected":
        low, _ = first.spans(ties)
        return first.sum((low < k).astype(np.float64))
    slots = np.clip(k - first.better, 0, first.group)
    none = np.ones(len(slots))
    for i in range(int(first.targets.max(initial=0))):
        factor = np.maximum(first.group - slots - i, 0) / np.maximum(first.group - i, 1)
        none *= np.where(i < first.targets, factor, 1.0)
    return first.sum(1.0 - none)


def first_reciprocal(ranks: Ranks, k: int, ties: Ties) -> Float64Array:
    """Return (B,) float64 mean of 1 / place of the best target, 0 where that is after k.

    In a group of g with m targets the best one is its j-th member with probability
    m / (g - j + 1) times the chance that the j - 1 before are no targets.
    """
    first = TiedTargets.of(ranks).first
    if ties != "expected":
        low, _ = first.spans(ties)
        return first.sum(np.where(low < k, 1.0 / (low + 1), 0.0))
    harmonic = _harmonic(k)
    high = np.minimum(first.better + first.group, k)
    value = (harmonic[high] - harmonic[np.minimum(first.better, k)]) / first.group
    several = np.flatnonzero((first.targets > 1) & (first.better < k))
    if len(several):
        value[several] = _first_of_several(
            first.better[several], first.group[several], first.targets[several], k
        )
    return first.sum(value)


def average_precision_sum(ranks: Ranks, k: int, ties: Ties) -> Float64Array:
    """Return (B,) float64 sum over targets at places <= k of the precision at their place.

    Given that a target is the j-th member of its group, (m - 1)(j - 1) / (g - 1) other targets of
    the group stand before it on average, so that its mean precision there is
    (a + 1 + (m - 1)(j - 1) / (g - 1)) / (b + j), with a targets in better groups; the sum over j
    has a closed form in harmonic numbers.
    """
    tied = TiedTargets.of(ranks)
    if ties != "expected":
        low, _ = tied.spans(ties)
        precision = (tied.before + tied.within + 1) / (low + 1)
        return tied.sum(np.where(low < k, precision, 0.0))
    harmonic = _harmonic(k)
    n_places = np.clip(k - tied.better, 0, tied.group)
    low = np.minimum(tied.better, k)
    inverse = harmonic[low + n_places] - harmonic[low]
    slope = (tied.targets - 1) / np.maximum(tied.group - 1, 1)
    others = n_places - (tied.better + 1) * inverse
    return tied.sum(((tied.before + 1) * inverse + slope * others) / tied.group)


def pairs_won(ranks: Ranks, ties: Ties) -> Float64Array:
    """Return (B,) float64 count of (target, negative) pairs with the target above.

    A tied pair counts 1/2 (expected), 1 (optimistic) or 0 (pessimistic); a target that the model
    left out wins none.
    """
    tied = TiedTargets.of(ranks)
    n_negatives = (ranks.n_candidates - ranks.n_targets)[tied.case]
    above = tied.better - tied.before
    level = tied.group - tied.targets
    share = {"expected": 0.5, "optimistic": 0.0, "pessimistic": 1.0}[ties]
    return tied.sum(n_negatives - above - share * level)


def _harmonic(n: int) -> Float64Array:
    return np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, n + 1))))


def _first_of_several(
    better: Int64Array, group: Int64Array, targets: Int64Array, k: int
) -> Float64Array:
    value = np.zeros(len(better))
    none_yet = np.ones(len(better))
    # Place b + j must be <= k, so that j runs at most to k.
    for j in range(1, int(np.minimum(group, k - better).max()) + 1):
        hit = np.minimum(targets / np.maximum(group - j + 1, 1), 1.0)
        value += np.where(better + j <= k, none_yet * hit / (better + j), 0.0)
        none_yet *= 1.0 - hit
    return value
