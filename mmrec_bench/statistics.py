"""How sure a difference between two runs is: paired over the same cases, corrected for many tests.

Letters: B cases, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmrec_bench.types import Int64Array

Float64Array = NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
_BLOCK = 1 << 22
"""Numbers drawn at a time."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Run a less run b, over the cases in which both are defined.

    Attributes:
        n: cases.
        difference: mean of a - b.
        low: lower end of its 95 % bootstrap interval.
        high: upper end.
        p_bootstrap: two-sided, of the centred bootstrap; at least 1 / (R + 1).
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
    p_bootstrap: float
    p_wilcoxon: float
    effect: float
    rank_biserial: float
    wins: int
    ties: int
    losses: int


def paired_test(
    a: Float64Array, b: Float64Array, *, seed: int = 0, resamples: int = RESAMPLES
) -> PairedTest:
    """Compare two runs case by case.

    The bootstrap resamples cases (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapters 13 and 16); its p-value is the share of resampled means that lie farther from the
    observed difference than that lies from 0. The Wilcoxon signed-rank test leaves out cases
    without a difference, as Wilcoxon did (Biometrics Bulletin 1945).

    Args:
        a: (B,) per-case values of one run, NaN = undefined.
        b: (B,) per-case values of another run on the same cases in the same order.
        seed: of the resamples.
        resamples: R.

    Raises:
        ValueError: different numbers of cases.
    """
    if a.shape != b.shape:
        raise ValueError(f"paired runs have {a.shape} and {b.shape} cases; they must be the same")
    both = ~(np.isnan(a) | np.isnan(b))
    values = a[both] - b[both]
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    nan = float("nan")
    if not len(values):
        return PairedTest(0, nan, nan, nan, nan, nan, nan, nan, 0, 0, 0)
    mean = float(values.mean())
    means = bootstrap_means(values, seed=seed, resamples=resamples)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, (tail, 1 - tail)).tolist()
    # Rounding must not decide where every resample has the same mean.
    farther = np.abs(means - mean) >= abs(mean) * (1 - 1e-12)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    p_wilcoxon, biserial = _signed_ranks(values)
    return PairedTest(
        n=len(values),
        difference=mean,
        low=low,
        high=high,
        p_bootstrap=float((1 + farther.sum()) / (1 + len(means))),
        p_wilcoxon=p_wilcoxon,
        effect=mean / spread if spread > 0 else nan,
        rank_biserial=biserial,
        wins=wins,
        ties=len(values) - wins - losses,
        losses=losses,
    )


def _signed_ranks(values: Float64Array) -> tuple[float, float]:
    """Return the two-sided p-value and the rank-biserial correlation of (B,) differences."""
    from scipy import stats  # noqa: PLC0415 - most commands need none of it

    moved = values[values != 0]
    if not len(moved):
        return 1.0, float("nan")
    ranks = stats.rankdata(np.abs(moved))
    total = float(ranks.sum())
    biserial = (2 * float(ranks[moved > 0].sum()) - total) / total
    exact = len(moved) <= 50 and len(np.unique(np.abs(moved))) == len(moved)
    found = stats.wilcoxon(moved, method="exact" if exact else "asymptotic")
    return float(found.pvalue), biserial


def bootstrap_means(values: Float64Array, *, seed: int, resamples: int) -> Float64Array:
    """Return (R,) means of resamples of (B,) values, with replacement.

    Metrics of single targets take few values, so equal ones are drawn together: their counts in a
    resample are multinomial, which is the same distribution and costs no draw a case.
    """
    rng = np.random.default_rng([seed, len(values)])
    distinct, counts = np.unique(values, return_counts=True)
    n = len(values)
    if len(distinct) == 1:
        return np.full(resamples, distinct[0])
    means = np.empty(resamples)
    if 4 * len(distinct) <= n:
        step = max(1, _BLOCK // len(distinct))
        for start in range(0, resamples, step):
            size = min(step, resamples - start)
            drawn = rng.multinomial(n, counts / n, size=size)
            means[start : start + size] = drawn @ distinct / n
        return means
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(n, size=(size, n), dtype=np.int32)
        means[start : start + size] = values[drawn].mean(axis=1)
    return means


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
