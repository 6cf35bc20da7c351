"""How sure a difference between two runs is: paired over the same cases, corrected for many tests.

Letters: B cases, P pairs of runs, R resamples or flips.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.resampling import (
    RESAMPLES,
    ends,
    flip_p_values,
    least_p,
    resampled_means,
)

if TYPE_CHECKING:
    from mmrec_bench.types import Int64Array

Float64Array = NDArray[np.float64]

_ALL_RANKS = 100
"""So many differing cases at most have the exact distribution of their signed ranks."""

_ROUNDING = 1e-12
"""Values closer than this share of their size, or of 1, differ by rounding alone."""

_BLOCK = 1 << 22
"""Numbers held at a time."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Run a less run b, over the cases in which both are defined.

    Attributes:
        n: cases.
        difference: mean of a - b.
        low: lower end of its 95 % percentile bootstrap interval; NaN with fewer than 2 cases.
        high: upper end.
        p_permutation: two-sided, of the sign-flip permutation test; the one that decides.
        p_least: the smallest p_permutation that so many differing cases and flips can give.
        p_bootstrap: two-sided, of the centred bootstrap, at least 1 / (R + 1); too small where
            cases are few. NaN with fewer than 2 cases.
        p_wilcoxon: two-sided, of the signed-rank test; 1 where no case differs.
        effect: Cohen's d_z, the mean over the standard deviation of the differences (Lakens,
            Frontiers in Psychology 2013, equation 6); NaN where they do not vary.
        rank_biserial: (sum of the ranks of wins - of losses) / sum of all, in [-1, 1] (Kerby,
            Comprehensive Psychology 2014); NaN where no case differs.
        wins: cases with a > b.
        ties: cases with a = b.
        losses: cases with a < b.
    """

    n: int
    difference: float
    low: float
    high: float
    p_permutation: float
    p_least: float
    p_bootstrap: float
    p_wilcoxon: float
    effect: float
    rank_biserial: float
    wins: int
    ties: int
    losses: int


def paired_test(
    a: Float64Array, b: Float64Array, *, seed: int = 0, flips: int = RESAMPLES
) -> PairedTest:
    """Compare two runs case by case; see `paired_tests`."""
    return paired_tests([(a, b)], seed=seed, flips=flips)[0]


def paired_tests(
    pairs: Sequence[tuple[Float64Array, Float64Array]], *, seed: int = 0, flips: int = RESAMPLES
) -> list[PairedTest]:
    """Compare pairs of runs case by case; all pairs share the resamples and the flips.

    The bootstrap resamples cases (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapters 13 and 16); its p-value is the share of resampled means that lie farther from the
    observed difference than that lies from 0. The permutation test is that of `flip_p_values`.
    The Wilcoxon signed-rank test leaves out cases without a difference, as Wilcoxon did
    (Biometrics Bulletin 1945).

    Args:
        pairs: (a, b), each (B,) per-case values of a run, NaN = undefined; all on the same cases in
            the same order.
        seed: of the resamples and the flips.
        flips: how many are drawn for pairs with many differing cases.

    Raises:
        ValueError: different numbers of cases.
    """
    found: list[PairedTest] = []
    step = max(1, _BLOCK // max(RESAMPLES, *(len(a) for a, _ in pairs))) if pairs else 1
    for start in range(0, len(pairs), step):
        some = pairs[start : start + step]
        values = np.column_stack([differences(a, b) for a, b in some])
        p_permutation = flip_p_values(values, seed=seed, flips=flips)
        means = resampled_means(values, seed=seed)
        low, high = ends(means)
        for i, column in enumerate(values.T):
            chances = (float(p_permutation[i]), _p_bootstrap(column, means[:, i]))
            found.append(_test(column, (float(low[i]), float(high[i])), chances, flips))
    return found


def differences(a: Float64Array, b: Float64Array) -> Float64Array:
    """Return (B,) a - b, NaN where one is undefined, 0 where they differ by rounding alone.

    Means over other numbers of seeds differ in their last digits where nothing else does; a test
    that counts signs or ranks would take each for a win or a loss.

    Raises:
        ValueError: different numbers of cases.
    """
    if a.shape != b.shape:
        raise ValueError(f"paired runs have {a.shape} and {b.shape} cases; they must be the same")
    values = np.asarray(a - b, np.float64)
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), 1.0)
    values[np.abs(values) <= _ROUNDING * size] = 0.0
    return values


def centre(values: Float64Array) -> Float64Array:
    """Return the mean over the first axis, e.g. seeds; that of equal values is exactly theirs."""
    return np.asarray(values[0] + (values - values[0]).mean(axis=0), np.float64)


def _test(
    column: Float64Array, interval: tuple[float, float], chances: tuple[float, float], flips: int
) -> PairedTest:
    """Put together what is known of (B,) differences; `chances`: of flips and bootstrap."""
    nan = float("nan")
    values = column[~np.isnan(column)]
    if not len(values):
        return PairedTest(0, nan, nan, nan, nan, 1.0, nan, nan, nan, nan, 0, 0, 0)
    mean = float(values.mean())
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    p_wilcoxon, biserial = _signed_ranks(values)
    return PairedTest(
        n=len(values),
        difference=mean,
        low=interval[0],
        high=interval[1],
        p_permutation=chances[0],
        p_least=least_p(wins + losses, flips),
        p_bootstrap=chances[1],
        p_wilcoxon=p_wilcoxon,
        effect=mean / spread if spread > _ROUNDING * max(1.0, abs(mean)) else nan,
        rank_biserial=biserial,
        wins=wins,
        ties=len(values) - wins - losses,
        losses=losses,
    )


def _signed_ranks(values: Float64Array) -> tuple[float, float]:
    """Return the two-sided p-value and the rank-biserial correlation of (B,) differences."""
    moved = values[values != 0]
    if not len(moved):
        return 1.0, float("nan")
    ranks = _midranks(np.abs(moved))
    total, won = float(ranks.sum()), float(ranks[moved > 0].sum())
    if len(moved) <= _ALL_RANKS:
        p = _all_rank_sums(ranks, won)
    else:
        # The variance of a sum of independent signs; equals the usual one, corrected for ties.
        z = (won - total / 2) / math.sqrt(float((ranks**2).sum()) / 4)
        p = math.erfc(abs(z) / math.sqrt(2))
    return p, (2 * won - total) / total


def _midranks(sizes: Float64Array) -> Float64Array:
    """Return ranks from 1; sizes that differ by rounding alone share their mean rank."""
    order = np.argsort(sizes, kind="stable")
    ordered = sizes[order]
    starts = np.diff(ordered, prepend=-np.inf) > _ROUNDING * max(1.0, float(ordered[-1]))
    group = np.cumsum(starts) - 1
    counts = np.bincount(group)
    ranks = np.empty(len(sizes))
    ranks[order] = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return ranks


def _all_rank_sums(ranks: Float64Array, won: float) -> float:
    """Return the exact two-sided p-value of a sum of the ranks of wins, ties included."""
    steps = np.rint(2 * ranks).astype(np.int64)  # mean ranks are halves
    at = round(2 * won)
    chances = np.zeros(int(steps.sum()) + 1)
    chances[0] = 1.0
    for step in steps:
        chances[step:] += chances[:-step].copy()
        chances /= 2
    return min(1.0, 2 * float(min(chances[: at + 1].sum(), chances[at:].sum())))


def _p_bootstrap(column: Float64Array, means: Float64Array) -> float:
    """Return the share of (R,) resampled means farther from the observed one than that from 0."""
    values = column[~np.isnan(column)]
    if len(values) < 2:
        return float("nan")
    mean = values.mean()
    # Rounding must not decide where a resample lies just as far.
    farther = np.abs(means - mean) >= abs(mean) - _ROUNDING * np.abs(values).mean()
    return float((1 + farther.sum()) / (1 + len(means)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given; NaN stays NaN, not counted.

    The i-th smallest of m is multiplied by m - i + 1, then made monotone (Holm, Scandinavian
    Journal of Statistics 1979): the chance of any false alarm among them stays below the level.
    """
    p = np.asarray(p_values, np.float64)
    corrected = np.full(len(p), np.nan)
    order: Int64Array = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]
    m = len(order)
    steps = p[order] * (m - np.arange(m))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if m else steps
    return [float(value) for value in corrected]


@dataclass(frozen=True, slots=True)
class Spread:
    """The two sources of noise of a mean, told apart.

    Attributes:
        n_seeds: runs that differ by their seed alone.
        mean: over seeds and cases.
        by_seed: the mean of each seed.
        seed_error: standard error of the mean from the seeds alone; NaN with one seed.
        case_error: standard error of the mean from the cases alone, seeds averaged.
    """

    n_seeds: int
    mean: float
    by_seed: tuple[float, ...]
    seed_error: float
    case_error: float

    @property
    def larger(self) -> str:
        """Return which source is larger: "seeds", "cases", or "unknown" with one seed."""
        if np.isnan(self.seed_error) or np.isnan(self.case_error):
            return "unknown"
        return "seeds" if self.seed_error > self.case_error else "cases"


def spread(values: Float64Array) -> Spread:
    """Tell noise of seeds from noise of cases.

    Args:
        values: (S, B) per-case values of S seeds, NaN = undefined.
    """
    defined = ~np.isnan(values).any(axis=0)
    kept = values[:, defined]
    n_seeds, n = kept.shape
    nan = float("nan")
    if not n:
        return Spread(n_seeds, nan, (nan,) * n_seeds, nan, nan)
    by_seed = kept.mean(axis=1)
    seeds = float(by_seed.std(ddof=1) / np.sqrt(n_seeds)) if n_seeds > 1 else nan
    cases = float(kept.mean(axis=0).std(ddof=1) / np.sqrt(n)) if n > 1 else nan
    return Spread(n_seeds, float(kept.mean()), tuple(by_seed.tolist()), seeds, cases)
