"""Resamples of cases, for intervals, and flips of signs, for p-values.

Letters: B cases, P pairs of runs, R resamples or flips.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmrec_bench.types import Int64Array

Float64Array = NDArray[np.float64]

RESAMPLES = 10_000
"""Resamples of the bootstrap, and the least number of flips drawn."""

LEVEL = 0.95
"""Of intervals."""

_MOST_FLIPS = 1_000_000

_ALL_FLIPS = 14
"""So many differing cases at most have all flips counted: no more than are drawn of others."""

_SLACK = 1e-10
"""Sums closer than this share of the sum of all sizes differ by rounding alone."""

_BLOCK = 1 << 20
"""Numbers drawn at a time."""


def flip_p_values(values: Float64Array, *, seed: int = 0, flips: int = RESAMPLES) -> Float64Array:
    """Return (P,) two-sided p-values of the paired sign-flip permutation test of the mean.

    Where two runs are the same but for chance, each difference could as well have the other sign:
    p is the share of all ways to flip signs whose mean is as far from 0 as the observed one
    (Fisher, The Design of Experiments, 1935, section 21; for retrieval Smucker, Allan and
    Carterette, CIKM 2007). All flips are counted where few cases differ. Else `flips` of them are
    drawn, the same for all pairs, and p is (1 + as far) / (1 + flips), which counts the observed
    one (Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 2010).

    Args:
        values: (B, P) differences, NaN = undefined.
        seed: of the flips drawn.
        flips: how many are drawn.

    Returns:
        1 where no case differs, NaN where none is defined.
    """
    defined = ~np.isnan(values)
    moved = np.where(defined, values, 0.0)
    n_moved = (moved != 0).sum(axis=0)
    p = np.full(values.shape[1], np.nan)
    for i in np.flatnonzero((n_moved <= _ALL_FLIPS) & defined.any(axis=0)):
        p[i] = _all_flips(moved[moved[:, i] != 0, i])
    many = np.flatnonzero(n_moved > _ALL_FLIPS)
    if len(many):
        p[many] = _drawn_flips(moved[:, many], seed, flips)
    return p


def least_p(n_moved: int, flips: int) -> float:
    """Return the smallest p-value of `flip_p_values` where so many cases differ."""
    return min(1.0, 2.0 ** (1 - n_moved)) if n_moved <= _ALL_FLIPS else 1 / (1 + flips)


def flips_for(n_pairs: int, level: float) -> int:
    """Return how many flips to draw so that `n_pairs` x the smallest p is at most level / 2.

    Never more than a million, whatever the level.
    """
    return min(max(RESAMPLES, math.ceil(2 * n_pairs / level)), _MOST_FLIPS)


def _all_flips(values: Float64Array) -> float:
    """Return the share of flips of (d,) values whose sum is as far from 0 as theirs."""
    if not len(values):
        return 1.0
    # The last sign stays: the opposite of each flip has a sum as far from 0.
    bits = np.arange(1 << (len(values) - 1))[:, None] >> np.arange(len(values)) & 1
    sums = np.abs((1.0 - 2.0 * bits) @ values)
    limit = abs(values.sum()) - _SLACK * np.abs(values).sum()
    return float((sums >= limit).mean())


def _drawn_flips(moved: Float64Array, seed: int, flips: int) -> Float64Array:
    """Return (P,) p-values of (B, P) differences without NaN."""
    n = len(moved)
    total = moved.sum(axis=0)
    limit = np.abs(total) - _SLACK * np.abs(moved).sum(axis=0)
    used = np.flatnonzero(moved.any(axis=1))
    kept = moved[used]
    rng = np.random.default_rng([seed, n, 1])
    counts = np.zeros(moved.shape[1], np.int64)
    step = max(1, _BLOCK // n)
    for start in range(0, flips, step):
        size = min(step, flips - start)
        # Whole words, so that the flips do not depend on the size of a block.
        words = rng.integers(1 << 64, size=(size, -(-n // 64)), dtype=np.uint64)
        bits = np.unpackbits(words.view(np.uint8), axis=1)[:, used]
        sums = total - 2.0 * (bits.astype(np.float64) @ kept)
        counts += (np.abs(sums) >= limit).sum(axis=0)
    return np.asarray((1 + counts) / (1 + flips), np.float64)


def ends(means: Float64Array) -> Float64Array:
    """Return (2, P) lower and upper ends of the percentile interval of (R, P) resampled means."""
    tail = (1 - LEVEL) / 2
    return np.asarray(np.quantile(means, (tail, 1 - tail), axis=0), np.float64)


def resampled_means(
    values: Float64Array, *, seed: int = 0, resamples: int = RESAMPLES
) -> Float64Array:
    """Return (R, P) means of resamples of the defined cases of (B, P) values; NaN below 2 cases.

    What a column gives depends neither on the columns beside it nor, but for its sign, on which
    run is the first, so that all tables have the same interval for one pair.
    """
    means = np.full((resamples, values.shape[1]), np.nan)
    masks, which = np.unique(~np.isnan(values), axis=1, return_inverse=True)
    for i, rows in enumerate(masks.T):
        columns = np.flatnonzero(which.ravel() == i)
        if rows.sum() >= 2:
            means[:, columns] = _means(values[np.ix_(rows, columns)], seed, resamples)
    return means


def _means(values: Float64Array, seed: int, resamples: int) -> Float64Array:
    n = len(values)
    first = values[(values != 0).argmax(axis=0), np.arange(values.shape[1])]
    sign = np.where(first < 0, -1.0, 1.0)
    turned = values * sign
    means = np.empty((resamples, values.shape[1]))
    rest = []
    for i, column in enumerate(turned.T):
        distinct, counts = np.unique(column, return_counts=True)
        if len(distinct) == 1:
            means[:, i] = distinct[0]
        elif 64 * len(distinct) <= n:
            means[:, i] = _grouped_means(distinct, counts, seed, resamples)
        else:
            rest.append(i)
    if rest:
        means[:, rest] = resampled_sums(turned[:, rest], seed=seed, resamples=resamples) / n
    return means * sign


def _grouped_means(
    distinct: Float64Array, counts: "Int64Array", seed: int, resamples: int
) -> Float64Array:
    """Return (R,) means; equal values are drawn together.

    Metrics of single targets take few values. Their counts in a resample are multinomial, which is
    the same distribution and costs no draw a case.
    """
    n = int(counts.sum())
    rng = np.random.default_rng([seed, n])
    means = np.empty(resamples)
    step = max(1, _BLOCK // len(distinct))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        means[start : start + size] = rng.multinomial(n, counts / n, size=size) @ distinct / n
    return means


def resampled_sums(columns: Float64Array, *, seed: int, resamples: int) -> Float64Array:
    """Return (R, P) sums of columns (B, P) over resamples of cases, the same for all columns."""
    n = len(columns)
    rng = np.random.default_rng([seed, n])
    sums = np.empty((resamples, columns.shape[1]))
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        # Row r counts how often each case is in resample r.
        drawn = rng.integers(n, size=(size, n), dtype=np.int32)
        drawn += np.arange(size, dtype=np.int32)[:, None] * np.int32(n)
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        sums[start : start + size] = weights.astype(np.float64) @ columns
    return sums
