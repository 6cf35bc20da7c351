import numpy as np
import pytest

from mmrec_bench.asking import check_scores
from mmrec_bench.errors import PluginError
from mmrec_bench.types import Queries, Ragged, Scores

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
