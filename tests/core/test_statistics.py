import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmrec_bench.statistics import bootstrap_means, holm, paired_test, spread


def test_wins_ties_losses_and_the_mean_are_counted_by_hand() -> None:
    a = np.array([1.0, 0.5, 0.0, 0.2, np.nan])
    b = np.array([0.0, 0.5, 0.5, 0.1, 1.0])
    found = paired_test(a, b)
    assert (found.n, found.wins, found.ties, found.losses) == (4, 2, 1, 1)
    assert found.difference == pytest.approx((1.0 + 0.0 - 0.5 + 0.1) / 4)


def test_effect_is_the_mean_over_the_deviation_of_the_differences() -> None:
    a, b = np.array([3.0, 1.0, 2.0]), np.zeros(3)
    # mean 2, squared deviations 1 + 1 + 0, over n - 1 = 2: standard deviation 1
    assert paired_test(a, b).effect == pytest.approx(2.0)


def test_rank_biserial_is_worked_by_hand() -> None:
    # |differences| 1, 2, 3 have the ranks 1, 2, 3; wins hold 1 + 3, losses 2: (4 - 2) / 6
    assert paired_test(np.array([1.0, -2.0, 3.0]), np.zeros(3)).rank_biserial == pytest.approx(
        2 / 6
    )


def test_wilcoxon_of_a_small_sample_counts_all_signs() -> None:
    values = np.array([1.5, -0.5, 2.5, 3.5, 0.75])
    ranks = stats.rankdata(np.abs(values))
    observed = ranks[values > 0].sum()
    sums = np.array([sum(s) for s in itertools.product(*[(0, r) for r in ranks])])
    expected = min(1.0, 2 * min((sums >= observed).mean(), (sums <= observed).mean()))
    assert paired_test(values, np.zeros(5)).p_wilcoxon == pytest.approx(expected)


def test_equal_runs_have_no_difference() -> None:
    a = np.random.default_rng(0).random(50)
    found = paired_test(a, a.copy())
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.p_bootstrap == found.p_wilcoxon == 1
    assert np.isnan(found.effect)


def test_no_common_case_is_undefined() -> None:
    found = paired_test(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))
    assert found.n == 0
    assert np.isnan(found.difference)


def test_other_numbers_of_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="must be the same"):
        paired_test(np.zeros(3), np.zeros(4))


def test_drawing_equal_values_together_gives_the_same_distribution() -> None:
    rng = np.random.default_rng(1)
    few = rng.choice([0.0, 0.3, 1.0], size=400, p=[0.6, 0.3, 0.1])
    many = few + rng.normal(scale=1e-9, size=400)  # all different, so drawn one by one
    together = bootstrap_means(few, seed=0, resamples=4000)
    alone = bootstrap_means(many, seed=0, resamples=4000)
    assert stats.ks_2samp(together, alone).pvalue > 0.001
    assert together.std() == pytest.approx(few.std() / 20, rel=0.05)


def test_holm_agrees_with_a_table_worked_by_hand() -> None:
    # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, made monotone: .04 .06 .06 .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_leaves_undefined_out() -> None:
    corrected = holm([0.01, float("nan"), 0.5])
    assert corrected[0] == pytest.approx(0.02)
    assert np.isnan(corrected[1])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_and_keeps_the_order(p: list[float]) -> None:
    corrected = holm(p)
    assert all(c >= q for c, q in zip(corrected, p, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


def test_seeds_and_cases_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    cases = rng.normal(size=1000)
    steady = np.stack([cases, cases + 0.001, cases - 0.001])
    found = spread(steady)
    assert found.larger == "cases"
    assert found.seed_error == pytest.approx(0.001 / np.sqrt(3))
    wild = np.stack([cases * 0.01 + shift for shift in (0.0, 1.0, 2.0)])
    assert spread(wild).larger == "seeds"
    assert spread(cases[None]).larger == "unknown"


def test_a_planted_difference_is_found_and_a_planted_equality_is_not() -> None:
    # 60 comparisons of 400 cases; the long run is benchmarks/comparisons.py
    rng = np.random.default_rng(5)
    found, false_alarms = 0, 0
    for number in range(60):
        base = rng.beta(1, 2, size=400) * (rng.random(400) < 0.6)
        noise = rng.normal(scale=0.2, size=(3, 400))
        better = paired_test(base + noise[0] + 0.06, base + noise[1], seed=number, resamples=2000)
        equal = paired_test(base + noise[2], base + noise[1], seed=number, resamples=2000)
        found += better.p_bootstrap < 0.05
        false_alarms += equal.p_bootstrap < 0.05
    assert found >= 54  # the power is .98
    assert false_alarms <= 9  # 5 % of 60 is 3; more than 9 has a chance of .002
