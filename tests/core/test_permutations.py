import numpy as np
import orjson
import pytest

from mmrec_bench.counting import rank
from mmrec_bench.permutations import (
    by_position,
    combine,
    draw_orders,
    places_shown,
    put_back,
    show,
)
from mmrec_bench.types import Answers, Cases, Queries, Ragged, Scores


def cases_of(candidates: list[list[int]], targets: list[int]) -> Cases:
    n = len(candidates)
    queries = Queries(
        np.arange(n, dtype=np.int32),
        Ragged.from_rows([[0]] * n),
        np.array(candidates, np.int32),
    )
    return Cases(queries, Ragged.from_rows([[t] for t in targets]))


def answers_of(texts: list[str], outcome: str, cost: float | None = None) -> Answers:
    n = len(texts)
    ones = np.ones(n, np.int32)
    return Answers(
        tuple(texts),
        (outcome,) * n,  # type: ignore[arg-type]
        ones,
        ones * 10,
        ones * 2,
        cost=None if cost is None else np.full(n, cost),
    )


def test_the_first_order_is_the_candidate_sets_own() -> None:
    orders = draw_orders(5, 4, 3, seed=0)
    assert (orders[:, 0] == np.arange(4)).all()


def test_every_order_holds_every_candidate_once() -> None:
    orders = draw_orders(50, 7, 4, seed=3)
    assert (np.sort(orders, axis=2) == np.arange(7)).all()


def test_a_limit_of_cases_does_not_change_the_orders_of_the_first_ones() -> None:
    assert (draw_orders(100, 6, 3, seed=1)[:9] == draw_orders(9, 6, 3, seed=1)).all()


def test_orders_change_with_the_seed() -> None:
    assert (draw_orders(20, 6, 2, seed=1)[:, 1] != draw_orders(20, 6, 2, seed=2)[:, 1]).any()


def test_scores_of_a_shown_order_go_back_to_their_candidates() -> None:
    cases = cases_of([[10, 11, 12], [20, 21, 22]], [11, 20])
    order = draw_orders(2, 3, 4, seed=5)[:, 3]
    shown = show(cases.queries, order)
    assert shown.candidates is not None
    values = shown.candidates.astype(np.float32)
    assert cases.queries.candidates is not None
    assert (put_back(values, order) == cases.queries.candidates).all()


def test_likelihoods_are_averaged_and_what_no_answer_scores_stays_left_out() -> None:
    nan = np.nan
    one = Scores(np.array([[1, nan, 3]], np.float32))
    two = Scores(np.array([[3, nan, nan]], np.float32))
    np.testing.assert_array_equal(combine([one, two]).values, [[2, nan, 3]])


def test_written_lists_are_combined_by_mean_place() -> None:
    nan = np.nan
    # first list: b, a and nothing else; second: a, c. Places: a (1, 0), b (0, 2.5), c (2.5, 1),
    # d is named by neither.
    one = Scores(np.array([[-1, 0, nan, nan]], np.float32), answers_of(["b a"], "ok"))
    two = Scores(np.array([[0, nan, -1, nan]], np.float32), answers_of(["a c"], "ok"))
    np.testing.assert_allclose(combine([one, two]).values, [[-0.5, -1.25, -1.75, nan]])


def test_combined_answers_keep_all_texts_the_worst_outcome_and_sums() -> None:
    values = np.zeros((1, 2), np.float32)
    one = Scores(values, answers_of(["A"], "ok", cost=0.25))
    two = Scores(values, answers_of(["?"], "invalid", cost=float("nan")))
    answers = combine([one, two]).answers
    assert answers is not None
    assert orjson.loads(answers.text[0]) == ["A", "?"]
    assert answers.outcome == ("invalid",)
    assert answers.prompt_tokens.tolist() == [20]
    assert answers.retries is None
    assert answers.cost is not None
    assert np.isnan(answers.cost[0])  # one price is not known, so the sum is not


def test_places_say_where_the_target_stood_and_what_came_before_it() -> None:
    cases = cases_of([[10, 11, 12, 13]], [12])
    orders = np.array([[[0, 1, 2, 3], [2, 0, 1, 3]]])
    scores = [
        np.array([[3, 2, 2, 1]], np.float32),  # one better, one level
        np.array([[1, 2, np.nan, 0]], np.float32),  # left out
    ]
    shown = places_shown(cases, orders, [rank(one, cases) for one in scores])
    assert shown.tolist() == [[[2, 1, 1], [0, -1, 0]]]


def test_hits_by_position_share_a_tie_and_leave_unseen_places_undefined() -> None:
    shown = np.array([[[0, 0, 0]], [[0, 0, 1]], [[0, 2, 0]], [[2, -1, 0]]], np.int32)
    found = by_position(shown, 3)
    assert found == {"n": [3, 0, 1], "hit_rate@1": [0.5, None, 0.0]}


def test_an_order_of_the_whole_catalog_is_refused() -> None:
    queries = Queries(np.zeros(1, np.int32), Ragged.from_rows([[0]]))
    with pytest.raises(ValueError, match="whole catalog"):
        show(queries, np.zeros((1, 1), np.int64))
