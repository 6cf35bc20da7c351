import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmrec_bench.config import ProtocolConfig
from mmrec_bench.counting import rank
from mmrec_bench.errors import ModelError, PluginError, ProtocolError
from mmrec_bench.evaluation import (
    interval,
    intervals,
    measure,
    only_valid,
    paired_difference,
    validate,
)
from mmrec_bench.protocol import make_split
from mmrec_bench.ranks import concat, take
from mmrec_bench.types import (
    Answers,
    Cases,
    Catalog,
    DataCard,
    FloatArray,
    Int32Array,
    Interactions,
    Measurement,
    Outcomes,
    Queries,
    Ragged,
    Ranks,
    RecData,
    Scores,
    Vocabulary,
)

NAN, INF = math.nan, math.inf


def explicit(candidates: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Cases:
    n = len(candidates)
    queries = Queries(
        np.arange(n, dtype=np.int32), Ragged.from_rows([[]] * n), np.array(candidates, np.int32)
    )
    return Cases(queries, Ragged.from_rows(targets))


def full(targets: Sequence[Sequence[int]], masked: Sequence[Sequence[int]] | None = None) -> Cases:
    n = len(targets)
    queries = Queries(np.arange(n, dtype=np.int32), Ragged.from_rows([[]] * n))
    return Cases(
        queries, Ragged.from_rows(targets), None if masked is None else Ragged.from_rows(masked)
    )


def array(rows: Sequence[Sequence[float]]) -> FloatArray:
    return np.array(rows, np.float32)


def test_better_and_level_candidates_are_counted_apart() -> None:
    ranks = rank(array([[0.5, 2, 0.5, 1, 0.5]]), explicit([[10, 11, 12, 13, 14]], [[12]]))

    assert (ranks.n_better.tolist(), ranks.n_tied.tolist()) == ([2], [2])
    assert ranks.n_candidates.tolist() == [5]


def test_masked_items_are_out_of_the_ranking() -> None:
    ranks = rank(array([[9, 8, 7, 6, 6]]), full([[3]], [[0, 2]]), top_k=3)

    assert (ranks.n_better.tolist(), ranks.n_tied.tolist()) == ([1], [1])
    assert ranks.n_candidates.tolist() == [3]
    assert ranks.top.tolist() == [[1, 3, 4]]


def test_other_targets_of_a_case_are_candidates_like_any_other() -> None:
    ranks = rank(array([[3, 2, 1], [1, 1, 1]]), full([[2, 0], [1]]))

    assert ranks.n_better.tolist() == [2, 0, 0]
    assert ranks.n_tied.tolist() == [0, 0, 2]
    assert ranks.case.tolist() == [0, 0, 1]
    assert ranks.n_targets.tolist() == [2, 1]


def test_a_target_without_a_score_is_not_ranked() -> None:
    ranks = rank(array([[NAN, 1, NAN, 2]]), full([[0]]), top_k=4)

    assert ranks.ranked.tolist() == [False]
    assert (ranks.n_better.tolist(), ranks.n_tied.tolist()) == ([2], [1])
    assert ranks.top.tolist() == [[3, 1, -1, -1]]


def test_candidates_without_a_score_are_below_every_scored_one_and_tied_with_none() -> None:
    ranks = rank(array([[NAN, -INF, NAN, NAN]]), full([[1]]))

    assert ranks.ranked.tolist() == [True]
    assert (ranks.n_better.tolist(), ranks.n_tied.tolist()) == ([0], [0])
    assert ranks.n_candidates.tolist() == [4]


def test_infinities_are_scores() -> None:
    ranks = rank(array([[INF, -INF, INF, 0, -INF]]), full([[2, 4]]), top_k=5)

    assert (ranks.n_better.tolist(), ranks.n_tied.tolist()) == ([0, 3], [1, 1])
    assert ranks.top.tolist() == [[0, 2, 3, 1, 4]]


def test_the_top_breaks_ties_by_item_number_whatever_the_shown_order() -> None:
    scores = array([[1, 1, 2, 1], [1, 2, 1, 1]])
    ranks = rank(scores, explicit([[40, 10, 30, 20], [20, 30, 10, 40]], [[10], [10]]), top_k=3)

    assert ranks.top.tolist() == [[30, 10, 20], [30, 10, 20]]
    assert ranks.n_tied.tolist() == [2, 2]


def test_scores_of_another_shape_are_an_error_that_names_both() -> None:
    with pytest.raises(ModelError, match=r"\(1, 3\), not 1 cases x 2 candidates"):
        rank(array([[1, 2, 3]]), explicit([[1, 2]], [[1]]))
    with pytest.raises(ModelError, match=r"not 1 cases x the whole catalog"):
        rank(array([[1], [2]]), full([[0]]))
    with pytest.raises(ModelError, match="cover 2 items, but a target has the number 5"):
        rank(array([[1, 2]]), full([[5]]))
    with pytest.raises(ModelError, match="cover 2 items, but a masked item has the number 3"):
        rank(array([[1, 2], [1, 2]]), full([[1], [1]], [[3], []]))


def test_targets_that_cannot_be_ranked_are_an_error() -> None:
    with pytest.raises(ProtocolError, match=r"1 of 2 targets are masked.*repeats=first"):
        rank(array([[1, 2, 3]]), full([[0, 1]], [[1]]))
    with pytest.raises(ProtocolError, match="1 of 1 targets are not among"):
        rank(array([[1, 2, 3]]), explicit([[1, 2, 3]], [[4]]))


def test_no_cases_give_no_ranks() -> None:
    ranks = rank(np.zeros((0, 3), np.float32), full([]))

    assert len(ranks) == 0
    assert ranks.top.shape == (0, 20)


VALUES = st.sampled_from([0.0, 1.0, 2.0, 3.0, NAN, INF, -INF])


@st.composite
def scored_cases(draw: st.DrawFn) -> tuple[FloatArray, Cases]:
    n, width = draw(st.integers(1, 12)), draw(st.integers(1, 300))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    values = np.array(draw(st.lists(VALUES, min_size=1, max_size=7)))
    scores = rng.choice(values, (n, width)).astype(np.float32)
    if draw(st.booleans()):
        scores += rng.random(scores.shape, np.float32) * (rng.random(scores.shape) < 0.5)
    targets = [rng.permutation(width)[: rng.integers(1, 4)].tolist() for _ in range(n)]
    if draw(st.booleans()):
        candidates = rng.permuted(np.tile(np.arange(width), (n, 1)) * 3, axis=1)
        targets = [candidates[i, row].tolist() for i, row in enumerate(targets)]
        return scores, explicit(candidates.tolist(), targets)
    masked = [
        [i for i in np.flatnonzero(rng.random(width) < 0.2).tolist() if i not in targets[row]]
        for row in range(n)
    ]
    return scores, full(targets, masked if draw(st.booleans()) else None)


@settings(deadline=None)
@given(scored_cases(), st.integers(1, 30))
def test_ranks_agree_with_sorting_each_case_in_plain_python(
    drawn: tuple[FloatArray, Cases], top_k: int
) -> None:
    scores, cases = drawn
    ranks = rank(scores, cases, top_k=top_k)
    at = 0
    for row in range(len(cases)):
        candidates = cases.queries.candidates
        items = range(scores.shape[1]) if candidates is None else candidates[row].tolist()
        hidden = set() if cases.masked is None else set(cases.masked[row].tolist())
        pairs = zip(items, scores[row].tolist(), strict=True)
        seen = {item: score for item, score in pairs if item not in hidden}
        known = {item: score for item, score in seen.items() if not math.isnan(score)}
        for target in cases.targets[row].tolist():
            score = seen[target]
            assert bool(ranks.ranked[at]) == (not math.isnan(score))
            if not math.isnan(score):
                assert ranks.n_better[at] == sum(other > score for other in known.values())
                assert ranks.n_tied[at] == sum(other == score for other in known.values()) - 1
            at += 1
        best = sorted(known, key=lambda item: (-known[item], item))[:top_k]
        assert ranks.top[row].tolist() == best + [-1] * (top_k - len(best))
        assert ranks.n_candidates[row] == len(seen)


def test_blocks_do_not_change_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, (50, 40)).astype(np.float32)
    cases = full([rng.permutation(40)[: 1 + i % 3].tolist() for i in range(50)])
    whole = rank(scores, cases)
    monkeypatch.setattr("mmrec_bench.counting.CACHED", 130)

    assert_same(rank(scores, cases), whole)


def assert_same(one: Ranks, other: Ranks) -> None:
    for name in ("n_better", "n_tied", "ranked", "case", "n_targets", "n_candidates", "top"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


def test_ranks_can_be_joined_and_chosen() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (9, 30)).astype(np.float32)
    cases = full([rng.permutation(30)[: 1 + i % 4].tolist() for i in range(9)])
    whole = rank(scores, cases, top_k=7)
    parts = [rank(scores[a:b], cases.take(np.arange(a, b)), top_k=7) for a, b in [(0, 2), (2, 9)]]
    rows = np.array([8, 0, 3])

    assert_same(concat(parts), whole)
    assert_same(take(whole, rows), rank(scores[rows], cases.take(rows), top_k=7))


def test_joining_fills_a_narrower_top_with_none() -> None:
    one = rank(array([[1, 2, 3]]), full([[0]]), top_k=1)
    other = rank(array([[1, 2, 3]]), full([[0]]), top_k=2)

    assert concat([one, other]).top.tolist() == [[2, -1], [2, 1]]


def test_counting_survives_more_than_255_words_of_true_values() -> None:
    width = 8 * 255 * 3 + 5
    scores = np.ones((2, width), np.float32)
    scores[:, -1] = 0

    ranks = rank(scores, full([[width - 1], [0]]))

    assert ranks.n_better.tolist() == [width - 1, 0]
    assert ranks.n_tied.tolist() == [0, width - 2]


def test_validation_ndcg_takes_the_first_rows_that_were_scored() -> None:
    cases = explicit([[1, 2, 3]] * 3, [[1], [2], [3]])
    scores = Scores(array([[3, 2, 1], [3, 2, 1]]))

    assert validate(scores, cases) == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert math.isnan(validate(Scores(array([]).reshape(0, 3)), cases))


def test_validation_ndcg_with_level_scores_is_the_mean_over_their_orders() -> None:
    cases = explicit([[1, 2, 3]], [[1, 2]])
    ideal = 1 + 1 / math.log2(3)
    gains = [1, 1 / math.log2(3), 1 / 2]
    orders = [sum(gains[i] for i in pair) / ideal for pair in itertools.combinations(range(3), 2)]

    assert validate(Scores(array([[0, 0, 0]])), cases) == pytest.approx(sum(orders) / 3)


def normal(n: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(2.0, 3.0, n)


def test_the_interval_of_many_cases_is_that_of_the_normal_approximation() -> None:
    values = normal(4000)
    found = interval(values, resamples=4000)
    half = 1.96 * values.std() / math.sqrt(len(values))

    assert found.value == values.mean()
    assert found.n == 4000
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_undefined_cases_are_left_out_of_value_and_interval() -> None:
    values = normal(3000)
    holes = np.insert(values, np.arange(0, 3000, 3), NAN)
    found, plain = interval(holes), interval(values)

    assert found.value == pytest.approx(plain.value)
    assert found.n == 3000
    assert found.low == pytest.approx(plain.low, abs=0.02)
    assert found.high == pytest.approx(plain.high, abs=0.02)


@pytest.mark.parametrize("values", [[], [NAN, NAN], [1.0], [1.0, NAN]])
def test_fewer_than_two_defined_cases_have_no_interval(values: list[float]) -> None:
    found = interval(np.array(values))

    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.value) == (1.0 not in values)


def test_intervals_follow_the_seed_and_not_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = normal(500)
    first = interval(values, seed=1)

    assert interval(values, seed=1) == first
    assert interval(values, seed=2) != first
    monkeypatch.setattr("mmrec_bench.resampling._BLOCK", 1)
    # Sums in another order may differ in their last digit.
    assert interval(values, seed=1).low == pytest.approx(first.low, rel=1e-12)


def test_list_level_values_have_no_interval() -> None:
    found = intervals({"coverage@10": Measurement(0.25)})["coverage@10"]

    assert (found.value, found.n) == (0.25, 0)
    assert math.isnan(found.low)


def test_a_paired_difference_is_narrower_than_the_runs_apart() -> None:
    a = normal(800)
    b = a - 0.1 + np.random.default_rng(1).normal(0, 0.2, 800)
    found = paired_difference(a, b, seed=0)

    assert found.value == pytest.approx((a - b).mean())
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < 0.05
    assert interval(a).low < interval(b).high


def test_a_paired_difference_uses_cases_defined_in_both() -> None:
    found = paired_difference(np.array([1, NAN, 3, 5]), np.array([0, 1, NAN, 2]), seed=0)

    assert (found.value, found.n) == (2.0, 2)


def test_runs_on_other_cases_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="must be the same"):
        paired_difference(np.zeros(3), np.zeros(4), seed=0)


class FirstCandidate:
    """A metric for this test: the share of cases whose best item is item 2."""

    name = "best_is_2"
    higher_is_better: ClassVar[bool] = True

    def measure(self, outcomes: Outcomes) -> Measurement:
        return Measurement.mean((outcomes.ranks.top[:, 0] == 2).astype(np.float64))


def test_metrics_are_measured_by_name_with_their_interval() -> None:
    cases = full([[0]] * 40)
    scores = np.zeros((40, 3), np.float32)
    scores[:10, 2] = 1
    catalog = Catalog(Vocabulary(["a", "b", "c"]), ["", "", ""])
    outcomes = Outcomes(rank(scores, cases), catalog, np.zeros(3, np.int64))

    found = measure([FirstCandidate()], outcomes)["best_is_2"]

    assert (found.value, found.n) == (0.25, 40)
    assert 0.1 < found.low < 0.25 < found.high < 0.42


@pytest.mark.parametrize(
    ("gave", "reason"),
    [
        ("high", "gave str for 2"),
        (Measurement("high"), "a value of type str"),  # type: ignore[arg-type]
        (Measurement(0.5, [1.0, 0.0]), "values in a list"),  # type: ignore[arg-type]
        (Measurement(0.5, np.array(["a", "b"], object)), "that holds no numbers"),
        (Measurement(0.5, np.zeros(3)), r"gave \(3,\) values for 2"),
    ],
)
def test_a_malformed_measurement_is_refused_by_name(gave: object, reason: str) -> None:
    class Malformed(FirstCandidate):
        def measure(self, outcomes: Outcomes) -> Measurement:  # noqa: ARG002
            return gave  # type: ignore[return-value]

    cases, catalog = full([[0]] * 2), Catalog(Vocabulary(["a"]), [""])
    outcomes = Outcomes(rank(np.zeros((2, 1), np.float32), cases), catalog, np.zeros(1, np.int64))
    with pytest.raises(PluginError, match=reason):
        measure([Malformed()], outcomes)


def test_candidate_order_never_decides() -> None:
    rng = np.random.default_rng(0)
    n = 300
    rows = [(u, i) for u in range(n) for i in rng.permutation(50)[:6].tolist()]
    catalog = Catalog(Vocabulary([f"i{i}" for i in range(50)]), [""] * 50)
    data = RecData(
        "toy",
        "1",
        Vocabulary([f"u{u}" for u in range(n)]),
        catalog,
        Interactions.build(np.array([u for u, _ in rows]), np.array([i for _, i in rows])),
        DataCard("test", "none"),
    )
    split = make_split(data, ProtocolConfig(k_core=0))
    counts: Int32Array = rng.integers(0, 4, 50).astype(np.int32)
    candidates = split.test.queries.candidates
    assert candidates is not None
    turned = Cases(
        Queries(split.test.queries.user, split.test.queries.history, candidates[:, ::-1]),
        split.test.targets,
    )

    scores = counts.astype(np.float32)

    assert_same(rank(scores[candidates], split.test), rank(scores[candidates[:, ::-1]], turned))


def test_repaired_and_unread_answers_are_misses_in_the_strict_reading() -> None:
    scores = np.array([[2, 1], [2, 1], [2, 1]], np.float32)
    queries = Queries(
        np.arange(3, dtype=np.int32),
        Ragged.from_rows([[0]] * 3),
        np.array([[5, 6]] * 3, np.int32),
    )
    cases = Cases(queries, Ragged.from_rows([[5]] * 3))
    zeros = np.zeros(3, np.int32)
    answers = Answers(("A",) * 3, ("ok", "repaired", "invalid"), zeros, zeros, zeros)
    outcomes = Outcomes(
        rank(scores, cases), Catalog(Vocabulary([]), []), np.zeros(0, np.int64), answers
    )
    assert only_valid(outcomes).ranks.ranked.tolist() == [True, False, False]
    assert outcomes.ranks.ranked.all()
