import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmrec_bench.evaluation import paired_difference
from mmrec_bench.resampling import flip_p_values, flips_for, resampled_means
from mmrec_bench.statistics import (
    PairedTest,
    centre,
    differences,
    holm,
    paired_test,
    paired_tests,
    spread,
)

NAN = float("nan")


def against_zero(values: np.ndarray, *, seed: int = 0) -> PairedTest:
    return paired_test(values, np.zeros(len(values)), seed=seed)


def drawn(n: int, *, places: int = 12, mean: float = 0.2) -> np.ndarray:
    return np.round(np.random.default_rng(n).normal(mean, 1.0, n), places)


def by_scipy(values: np.ndarray) -> float:
    found = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=99_999, rng=0
    )
    return float(found.pvalue)


# Differences


def test_wins_ties_losses_and_the_mean_are_counted_by_hand() -> None:
    a = np.array([1.0, 0.5, 0.0, 0.2, np.nan])
    b = np.array([0.0, 0.5, 0.5, 0.1, 1.0])
    found = paired_test(a, b)
    assert (found.n, found.wins, found.ties, found.losses) == (4, 2, 1, 1)
    assert found.difference == pytest.approx((1.0 + 0.0 - 0.5 + 0.1) / 4)


@pytest.mark.parametrize("n_seeds", [3, 7])
def test_equal_seeds_against_one_equal_run_have_no_difference(n_seeds: int) -> None:
    one = np.random.default_rng(0).random(2000)
    # Taken as they are, a share of the means differs from the value in its last digit.
    means = np.stack([one] * n_seeds).mean(axis=0)
    assert (means != one).any()
    for values in (means, centre(np.stack([one] * n_seeds))):
        found = paired_test(values, one)
        assert (found.wins, found.ties, found.losses) == (0, 2000, 0)
        assert (found.difference, found.low, found.high) == (0, 0, 0)
        assert found.p_permutation == found.p_wilcoxon == found.p_bootstrap == 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4), st.integers(1, 9))
def test_the_centre_of_equal_values_is_exactly_theirs(values: list[float], n_seeds: int) -> None:
    assert centre(np.stack([np.array(values)] * n_seeds)).tolist() == values


def test_the_centre_is_the_mean() -> None:
    assert centre(np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 8.0]])).tolist() == [1.0, 4.0]


def test_differences_of_rounding_are_none_and_small_ones_stay() -> None:
    a = np.array([0.1 + 0.2, 1e6 + 1e-7, 1e-9, 0.5 + 3e-12, NAN])
    b = np.array([0.3, 1e6, 0.0, 0.5, 0.0])
    assert differences(a, b)[:4].tolist() == [0.0, 0.0, 1e-9, a[3] - 0.5]
    assert np.isnan(differences(a, b)[4])


def test_differences_equal_but_for_rounding_share_a_rank_and_do_not_vary() -> None:
    a = np.array([0.3, 0.4, 0.9, 0.2, 0.7])
    b = np.array([0.2, 0.3, 0.8, 0.1, 0.6])
    assert len(np.unique(a - b)) > 1
    found = paired_test(a, b)
    assert np.isnan(found.effect)
    # b wins the last one: ranks are 3 each, 4 of 5 signs are one way
    turned = paired_test(np.append(a[:4], b[4]), np.append(b[:4], a[4]))
    assert turned.rank_biserial == pytest.approx(3 / 5)
    assert turned.p_wilcoxon == pytest.approx(2 * (1 + 5) / 2**5)


def test_equal_runs_have_no_difference() -> None:
    a = np.random.default_rng(0).random(50)
    found = paired_test(a, a.copy())
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.p_permutation == found.p_bootstrap == found.p_wilcoxon == 1
    assert np.isnan(found.effect)


def test_no_common_case_is_undefined() -> None:
    found = paired_test(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))
    assert found.n == 0
    assert np.isnan([found.difference, found.p_permutation, found.p_bootstrap, found.low]).all()


def test_one_case_has_neither_an_interval_nor_a_sure_difference() -> None:
    found = against_zero(np.ones(1))
    assert (found.difference, found.p_permutation, found.p_wilcoxon) == (1, 1, 1)
    assert np.isnan([found.low, found.high, found.p_bootstrap]).all()


def test_other_numbers_of_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="must be the same"):
        paired_test(np.zeros(3), np.zeros(4))


# Effect sizes


def test_effect_is_the_mean_over_the_deviation_of_the_differences() -> None:
    # mean 2, squared deviations 1 + 1 + 0, over n - 1 = 2: standard deviation 1
    assert against_zero(np.array([3.0, 1.0, 2.0])).effect == pytest.approx(2.0)


def test_rank_biserial_is_worked_by_hand() -> None:
    # |differences| 1, 2, 3 have the ranks 1, 2, 3; wins hold 1 + 3, losses 2: (4 - 2) / 6
    assert against_zero(np.array([1.0, -2.0, 3.0])).rank_biserial == pytest.approx(2 / 6)


# The Wilcoxon test


@pytest.mark.parametrize(
    "values", [[1.5, -0.5, 2.5, 3.5, 0.75], [1, 1, -1, 2, 1], [1, 1, 1, -1, 0, 0, 2, -2]]
)
def test_wilcoxon_of_a_small_sample_counts_all_signs(values: list[float]) -> None:
    moved = np.array([value for value in values if value])
    ranks = stats.rankdata(np.abs(moved))
    observed = ranks[moved > 0].sum()
    sums = np.array([sum(s) for s in itertools.product(*[(0, r) for r in ranks])])
    expected = min(1.0, 2 * min((sums >= observed).mean(), (sums <= observed).mean()))
    assert against_zero(np.array(values)).p_wilcoxon == pytest.approx(expected)


def test_wilcoxon_of_five_equal_wins_is_a_sixteenth() -> None:
    assert against_zero(np.ones(5)).p_wilcoxon == pytest.approx(2 / 2**5)


@pytest.mark.parametrize(("n", "places", "method"), [
    (40, 12, "exact"), (100, 12, "exact"), (101, 12, "asymptotic"), (300, 1, "asymptotic"),
])  # fmt: skip
def test_wilcoxon_agrees_with_scipy(n: int, places: int, method: str) -> None:
    values = drawn(n, places=places)
    expected = stats.wilcoxon(values[values != 0], method=method).pvalue
    assert against_zero(values).p_wilcoxon == pytest.approx(expected, rel=1e-9)


# The permutation test


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0, -1.0], [0.5, 0.5, -0.5, 0.0, 1.0, 0.5, -1.0]])
def test_all_flips_of_few_cases_are_counted(values: list[float]) -> None:
    sums = [abs(sum(s)) for s in itertools.product(*[(-v, v) for v in values])]
    expected = np.mean([s >= abs(sum(values)) for s in sums])
    assert against_zero(np.array(values)).p_permutation == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_as_many_wins_as_cases_are_as_rare_as_coins_say(n: int) -> None:
    found = against_zero(np.ones(n))
    assert found.p_permutation == found.p_least == pytest.approx(2 / 2**n)


@pytest.mark.parametrize("n", [6, 12, 14])
def test_exact_flips_agree_with_scipy(n: int) -> None:
    values = drawn(n, mean=0.5)
    assert against_zero(values).p_permutation == pytest.approx(by_scipy(values))


@pytest.mark.parametrize(("n", "places", "mean"), [(15, 12, 0.6), (80, 1, 0.15), (200, 12, 0.1)])
def test_drawn_flips_agree_with_scipy(n: int, places: int, mean: float) -> None:
    values = drawn(n, places=places, mean=mean)
    expected = by_scipy(values)
    assert 0.01 < expected < 0.6
    error = np.sqrt(expected * (1 - expected) * (1 / 10_000 + 1 / 100_000))
    assert against_zero(values).p_permutation == pytest.approx(expected, abs=4 * error)


def test_drawn_flips_agree_with_the_exact_sign_test_on_ties() -> None:
    values = np.repeat([1.0, -1.0, 0.0], [30, 16, 54]) / 3
    expected = stats.binomtest(30, 46).pvalue
    error = np.sqrt(expected * (1 - expected) / 10_000)
    assert against_zero(values).p_permutation == pytest.approx(expected, abs=4 * error)
    assert against_zero(-values).p_permutation == against_zero(values).p_permutation


def test_the_observed_signs_are_one_of_the_flips_drawn() -> None:
    found = against_zero(np.ones(40))
    assert found.p_permutation == found.p_least == 1 / 10_001


def test_flips_follow_the_seed_and_not_the_blocks_or_the_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.column_stack([drawn(70), drawn(70, mean=0)[::-1], np.full(70, NAN)])
    values[:5, 1] = NAN
    whole = flip_p_values(values, flips=1000)
    np.testing.assert_array_equal(flip_p_values(values[:, :1], flips=1000), whole[:1])
    assert flip_p_values(values, seed=1, flips=1000)[0] != whole[0]
    monkeypatch.setattr("mmrec_bench.resampling._BLOCK", 150)
    np.testing.assert_array_equal(flip_p_values(values, flips=1000), whole)
    assert np.isnan(whole[2])


def test_so_many_flips_are_drawn_that_many_pairs_can_be_decided() -> None:
    for n_pairs, level in ((1, 0.05), (528, 0.05), (45, 0.001), (4950, 0.01)):
        assert n_pairs / (flips_for(n_pairs, level) + 1) <= level / 2
    assert flips_for(7, 0.05) == 10_000
    best = np.ones(30)
    pairs = [(best, np.zeros(30))] + [(best, best)] * 527
    found = paired_tests(pairs, flips=flips_for(528, 0.05))
    assert holm([one.p_permutation for one in found])[0] <= 0.025


# The bootstrap


@pytest.mark.parametrize(("n", "places"), [(30, 12), (400, 1), (800, 0)])
def test_the_interval_and_its_p_value_agree_with_scipy(n: int, places: int) -> None:
    values = drawn(n, places=places, mean=1 / np.sqrt(n))
    found = against_zero(values)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=0.95, method="percentile", n_resamples=20_000, rng=1
    )
    # An end of 10,000 resamples has an error of about .027 standard errors of the mean.
    error = 4 * 0.027 * np.sqrt(1.5) * values.std() / np.sqrt(n)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=error)
    away = np.abs(theirs.bootstrap_distribution - values.mean()) >= abs(values.mean())
    p = away.mean()
    assert 0.05 < p < 0.95
    assert found.p_bootstrap == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) * 1.5e-4))


def test_the_interval_of_two_cases_is_worked_by_hand() -> None:
    # resampled means 0, .5, 1 with the chances 1/4, 1/2, 1/4; the middle one is the observed
    found = against_zero(np.array([0.0, 1.0]))
    assert (found.low, found.high) == (0, 1)
    assert found.p_bootstrap == pytest.approx(0.5, abs=0.02)


def test_drawing_equal_values_together_gives_the_same_distribution() -> None:
    rng = np.random.default_rng(1)
    few = rng.choice([0.0, 0.3, 1.0], size=400, p=[0.6, 0.3, 0.1])
    many = few + rng.normal(scale=1e-9, size=400)  # all different, so drawn one by one
    together, alone = resampled_means(np.column_stack([few, many]), resamples=4000).T
    assert stats.ks_2samp(together, alone).pvalue > 0.001
    assert together.std() == pytest.approx(few.std() / 20, rel=0.05)


@pytest.mark.parametrize("places", [0, 12])
def test_all_ways_to_compare_a_pair_give_one_interval(places: int) -> None:
    a, b, c = drawn(300, places=places), drawn(301, places=places)[1:], drawn(302)[2:]
    a[:7] = NAN
    alone = paired_test(a, b)
    beside = paired_tests([(c, b), (a, b), (b, a), (b, c)])
    table = paired_difference(a, b)
    for found in (beside[1], table):
        assert (found.n, found.low, found.high) == pytest.approx((293, alone.low, alone.high))
    turned = beside[2]
    assert (-turned.high, -turned.low) == pytest.approx((alone.low, alone.high))
    assert turned.p_permutation == alone.p_permutation == beside[1].p_permutation
    assert turned.p_bootstrap == alone.p_bootstrap == beside[1].p_bootstrap


def test_pairs_in_blocks_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(drawn(60 + i)[:60], np.zeros(60)) for i in range(5)]
    whole = paired_tests(pairs)
    monkeypatch.setattr("mmrec_bench.statistics._BLOCK", 1)
    for one, other in zip(paired_tests(pairs), whole, strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high))
        assert (one.p_permutation, one.p_bootstrap) == (other.p_permutation, other.p_bootstrap)
    assert paired_tests([]) == []


# Many tests


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


# Seeds and cases


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


def test_the_error_by_cases_is_that_of_the_mean_over_seeds() -> None:
    # over seeds 1, 2, 3: squared deviations 1 + 0 + 1 over n - 1 = 2, so a deviation of 1
    found = spread(np.array([[0.0, 4.0, 2.0, NAN], [2.0, 0.0, 4.0, 1.0]]))
    assert found.case_error == pytest.approx(1 / np.sqrt(3))
    assert (found.mean, found.by_seed, found.seed_error) == (2.0, (2.0, 2.0), 0.0)


def test_a_planted_difference_is_found_and_a_planted_equality_is_not() -> None:
    # 60 comparisons of 400 cases; benchmarks/comparisons.py draws ndcg@10 instead, and more often
    rng = np.random.default_rng(5)
    found, false_alarms = 0, 0
    for number in range(60):
        base = rng.beta(1, 2, size=400) * (rng.random(400) < 0.6)
        noise = rng.normal(scale=0.2, size=(3, 400))
        better = differences(base + noise[0] + 0.06, base + noise[1])
        equal = differences(base + noise[2], base + noise[1])
        p = flip_p_values(np.column_stack([better, equal]), seed=number, flips=2000)
        found += p[0] < 0.05
        false_alarms += p[1] < 0.05
    assert found >= 54  # the power is .99 (0.06 is 4.24 standard errors)
    assert false_alarms <= 9  # 5 % of 60 is 3; more than 9 has a chance of .0007


def test_few_cases_raise_no_more_false_alarms_than_the_level() -> None:
    values = np.random.default_rng(3).normal(size=(10, 1000))
    assert (flip_p_values(values) < 0.05).mean() <= 0.072  # .05 + 3.2 standard errors
    assert (flip_p_values(values[:5]) < 0.05).mean() == 0  # no p-value of 5 cases is below 1/16
