"""Every ranking metric beside a second public implementation, on random data without ties.

Where definitions differ, the difference is spelled out here and in the metric's docstring.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from mmrec_bench.counting import rank
from mmrec_bench.interfaces import Metric
from mmrec_bench.types import Cases, Catalog, FloatArray, Outcomes, Queries, Ragged, Vocabulary
from mmrec_plugins.metrics.ranking import (
    AUC,
    MAP,
    MRR,
    NDCG,
    CutConfig,
    HitRate,
    Precision,
    Recall,
)

N_CASES, N_ITEMS = 60, 40
KS = (1, 3, 10)


@pytest.fixture(scope="module")
def scores() -> FloatArray:
    """(B, N) scores, all different within a case."""
    rng = np.random.default_rng(0)
    ladder = np.tile(np.arange(N_ITEMS, dtype=np.float32), (N_CASES, 1))
    return rng.permuted(ladder, axis=1)


@pytest.fixture(scope="module")
def targets() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.choice(N_ITEMS, rng.integers(1, 7), False).tolist() for _ in range(N_CASES)]


@pytest.fixture(scope="module")
def outcomes(scores: FloatArray, targets: list[list[int]]) -> Outcomes:
    queries = Queries(np.arange(N_CASES, dtype=np.int32), Ragged.from_rows([[]] * N_CASES))
    ranks = rank(scores, Cases(queries, Ragged.from_rows(targets)))
    names = [str(i) for i in range(N_ITEMS)]
    return Outcomes(ranks, Catalog(Vocabulary(names), names), np.zeros(N_ITEMS, np.int64))


def ours(metric: Metric, outcomes: Outcomes) -> list[float]:
    per_case = metric.measure(outcomes).per_case
    assert per_case is not None
    return [float(value) for value in per_case]


def judged(targets: list[list[int]]) -> dict[str, dict[str, int]]:
    return {f"q{q}": {str(item): 1 for item in row} for q, row in enumerate(targets)}


def ran(scores: FloatArray) -> dict[str, dict[str, float]]:
    return {
        f"q{q}": {str(item): float(value) for item, value in enumerate(row)}
        for q, row in enumerate(scores)
    }


def of_achievable(targets: list[list[int]], k: int) -> NDArray[np.float64]:
    """Return (B,) n / min(k, n): trec_eval and RecTools divide AP by n, we by what fits in k."""
    n = np.array([len(row) for row in targets])
    return np.asarray(n / np.minimum(n, k), np.float64)


TREC: dict[str, Callable[[CutConfig], Metric]] = {
    "success": HitRate,
    "ndcg_cut": NDCG,
    "recall": Recall,
    "P": Precision,
}


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("name", list(TREC))
def test_cut_metrics_are_those_of_trec_eval(
    name: str, k: int, scores: FloatArray, targets: list[list[int]], outcomes: Outcomes
) -> None:
    trec = pytest.importorskip("pytrec_eval", reason="pip install pytrec-eval-terrier")
    evaluator = trec.RelevanceEvaluator(judged(targets), {f"{name}.{k}"})
    found = evaluator.evaluate(ran(scores))
    theirs = [found[f"q{q}"][f"{name}_{k}"] for q in range(N_CASES)]
    cls = TREC[name]
    assert ours(cls(CutConfig(k=k)), outcomes) == pytest.approx(theirs)


def test_reciprocal_rank_is_that_of_trec_eval(
    scores: FloatArray, targets: list[list[int]], outcomes: Outcomes
) -> None:
    trec = pytest.importorskip("pytrec_eval", reason="pip install pytrec-eval-terrier")
    found = trec.RelevanceEvaluator(judged(targets), {"recip_rank"}).evaluate(ran(scores))
    theirs = [found[f"q{q}"]["recip_rank"] for q in range(N_CASES)]
    assert ours(MRR(CutConfig(k=N_ITEMS)), outcomes) == pytest.approx(theirs)


@pytest.mark.parametrize("k", KS)
def test_average_precision_is_that_of_trec_eval_but_for_its_divisor(
    k: int, scores: FloatArray, targets: list[list[int]], outcomes: Outcomes
) -> None:
    trec = pytest.importorskip("pytrec_eval", reason="pip install pytrec-eval-terrier")
    found = trec.RelevanceEvaluator(judged(targets), {f"map_cut.{k}"}).evaluate(ran(scores))
    theirs = [found[f"q{q}"][f"map_cut_{k}"] for q in range(N_CASES)]
    expected = np.array(theirs) * of_achievable(targets, k)
    assert ours(MAP(CutConfig(k=k)), outcomes) == pytest.approx(expected.tolist())


def test_auc_is_that_of_scikit_learn(
    scores: FloatArray, targets: list[list[int]], outcomes: Outcomes
) -> None:
    truth = np.zeros((N_CASES, N_ITEMS))
    for row, items in enumerate(targets):
        truth[row, items] = 1
    theirs = [roc_auc_score(t, s) for t, s in zip(truth, scores, strict=True)]
    assert ours(AUC(), outcomes) == pytest.approx(theirs)


@pytest.mark.parametrize("k", KS)
def test_rectools_agrees_but_for_two_divisors(
    k: int, scores: FloatArray, targets: list[list[int]], outcomes: Outcomes
) -> None:
    metrics = pytest.importorskip("rectools.metrics", reason="pip install rectools")
    pandas = pytest.importorskip("pandas")
    order = np.argsort(-scores, axis=1)
    reco = pandas.DataFrame(
        {
            "user_id": np.repeat(np.arange(N_CASES), N_ITEMS),
            "item_id": order.ravel(),
            "rank": np.tile(np.arange(1, N_ITEMS + 1), N_CASES),
        }
    )
    truth = pandas.DataFrame(
        [(user, item) for user, row in enumerate(targets) for item in row],
        columns=["user_id", "item_id"],
    )
    pairs: dict[str, Callable[[CutConfig], Metric]] = {
        "HitRate": HitRate,
        "Recall": Recall,
        "Precision": Precision,
        "MRR": MRR,
        "MAP": MAP,
        "NDCG": NDCG,
    }
    # By default its NDCG divides by the ideal of k hits, ours by that of min(k, n) hits.
    options = {"NDCG": {"divide_by_achievable": True}}
    for name, cls in pairs.items():
        metric = getattr(metrics, name)(k=k, **options.get(name, {}))
        theirs = metric.calc_per_user(reco, truth).sort_index().to_numpy()
        expected = theirs * of_achievable(targets, k) if name == "MAP" else theirs
        assert ours(cls(CutConfig(k=k)), outcomes) == pytest.approx(expected.tolist()), name
