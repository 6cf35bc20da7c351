from dataclasses import replace

import numpy as np
import pytest

from mmrec_bench.asking import check_scores
from mmrec_bench.errors import PluginError
from mmrec_bench.types import Answers, Queries, Ragged, Scores

QUERIES = Queries(
    np.zeros(2, np.int32), Ragged.from_rows([[], [1]]), np.array([[0, 1], [1, 2]], np.int32)
)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_scores_are_refused_by_name(value: float) -> None:
    scores = Scores(np.array([[np.nan, 1.0], [value, 0.0]], np.float32))
    with pytest.raises(PluginError, match=r"model 'm' of dist returned infinite scores"):
        check_scores(scores, QUERIES, 3, "'m' of dist")


@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_finite_scores_and_what_is_left_out_are_taken(value: float) -> None:
    check_scores(Scores(np.full((2, 2), value, np.float32)), QUERIES, 3, "'m' of dist")


def test_no_queries_have_no_scores() -> None:
    check_scores(Scores(np.zeros((0, 2), np.float32)), QUERIES[0:0], 3, "'m' of dist")


NONE = np.zeros(2, np.int32)
ANSWERS = Answers(("a", "b"), ("ok", "invalid"), NONE, NONE, NONE)


def answered(answers: object) -> Scores:
    return Scores(np.zeros((2, 2), np.float32), answers)  # type: ignore[arg-type]


def test_answers_of_every_query_are_taken() -> None:
    check_scores(answered(ANSWERS), QUERIES, 3, "'m' of dist")
    check_scores(answered(replace(ANSWERS, retries=NONE)), QUERIES, 3, "'m' of dist")


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ("hello", "answers of type str"),
        (replace(ANSWERS, text=("a",)), "text is 1 in a tuple, expected 2 in a tuple"),
        (replace(ANSWERS, text=None), "text is a NoneType"),  # type: ignore[arg-type]
        (replace(ANSWERS, prompt_tokens=NONE[:1]), "prompt_tokens is 1 in a ndarray"),
        (replace(ANSWERS, outcome=("ok", "fine")), "outcome is 'fine', expected one of ok, rep"),  # type: ignore[arg-type]
    ],
)
def test_malformed_answers_are_refused_by_name(answers: object, reason: str) -> None:
    with pytest.raises(PluginError, match=f"model 'm' of dist returned .*{reason}"):
        check_scores(answered(answers), QUERIES, 3, "'m' of dist")
