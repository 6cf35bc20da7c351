"""Ranking metrics over the places of each case's targets, with ties counted exactly.

Letters: n targets of a case, k the cut. A target stands at a place 1, 2, ... among the unmasked
candidates; a target that the model left out (`ranked = False`) is a miss at every k. Where scores
tie, `Outcomes.ties` says whether the exact mean over all orders of equal scores counts (`expected`,
the default), or its bounds. A case without targets is undefined (NaN), never 0.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.ties import (
    average_precision_sum,
    first_reciprocal,
    gain_sum,
    hit_probability,
    pairs_won,
)
from mmrec_bench.types import Measurement, Outcomes, Ranks

Float64Array = NDArray[np.float64]


class CutConfig(ComponentConfig):
    """Options of a metric that looks at the first k places."""

    k: int = Field(ge=1, description="number of places looked at")


class AtK:
    """A metric of the first k places, named `<kind>@<k>`."""

    Config: ClassVar[type[ComponentConfig]] = CutConfig
    higher_is_better: ClassVar[bool] = True
    kind: ClassVar[str]

    def __init__(self, config: CutConfig) -> None:
        self.k = config.k
        self.name = f"{self.kind}@{config.k}"

    def _mean(self, ranks: Ranks, per_case: Float64Array) -> Measurement:
        return Measurement.mean(np.where(ranks.n_targets > 0, per_case, np.nan))


class HitRate(AtK):
    """Share of cases with at least one target among the first k places.

    HR@k = 1 if min place <= k else 0. With one target a case it equals recall@k. Some papers call
    it Hit Ratio, RecBole `hit`; a few call recall@k "HR".

    Source: Deshpande and Karypis, Item-based top-N recommendation algorithms, TOIS 2004.
    """

    kind = "hit_rate"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; per case 0 or 1, or a probability where scores tie across place k."""
        ranks = outcomes.ranks
        return self._mean(ranks, hit_probability(ranks, self.k, outcomes.ties))


class NDCG(AtK):
    """Normalised discounted cumulative gain with binary gains.

    NDCG@k = sum over targets at places p <= k of 1 / log2(p + 1), divided by the largest value
    possible: the sum of 1 / log2(i + 1) for i = 1 ... min(k, n).

    Definitions differ: RecTools divides by the ideal of k hits whatever n is (its default); LensKit
    gives places 1 and 2 the same weight; the base of the logarithm cancels out here, but not in
    an unnormalised DCG (natural logarithm in some codebases).

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002.
    """

    kind = "ndcg"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; per case in [0, 1]."""
        ranks = outcomes.ranks
        gains = 1.0 / np.log2(np.arange(2, self.k + 2))
        ideal = np.concatenate(([1.0], np.cumsum(gains)))[np.minimum(ranks.n_targets, self.k)]
        return self._mean(ranks, gain_sum(ranks, gains, outcomes.ties) / ideal)


class MRR(AtK):
    """Reciprocal place of the best target, 0 where it is after place k.

    MRR@k = 1 / min place if min place <= k else 0.

    Source: Voorhees, The TREC-8 question answering track report, 1999.
    """

    kind = "mrr"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; per case in [0, 1]."""
        ranks = outcomes.ranks
        return self._mean(ranks, first_reciprocal(ranks, self.k, outcomes.ties))


class Recall(AtK):
    """Share of a case's targets among the first k places.

    Recall@k = targets at places <= k / n. Below 1 for a perfect ranking when n > k; LensKit and
    some papers divide by min(n, k) instead.

    Source: Herlocker et al., Evaluating collaborative filtering recommender systems, TOIS 2004.
    """

    kind = "recall"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; per case in [0, 1]."""
        ranks = outcomes.ranks
        found = gain_sum(ranks, np.ones(self.k), outcomes.ties)
        return self._mean(ranks, found / np.maximum(ranks.n_targets, 1))


class Precision(AtK):
    """Share of the first k places that hold targets.

    Precision@k = targets at places <= k / k, also where fewer than k candidates were ranked; some
    libraries divide by the length of a shorter list.

    Source: Herlocker et al., Evaluating collaborative filtering recommender systems, TOIS 2004.
    """

    kind = "precision"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; per case in [0, 1]."""
        ranks = outcomes.ranks
        return self._mean(ranks, gain_sum(ranks, np.ones(self.k), outcomes.ties) / self.k)


class MAP(AtK):
    """Mean average precision.

    AP@k = sum over targets at places p <= k of (targets at places <= p) / p, divided by min(k, n),
    as in RecBole and LensKit. trec_eval's `map_cut` and RecTools divide by n.

    Source: Buckley and Voorhees, Evaluating evaluation measure stability, SIGIR 2000.
    """

    kind = "map"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; per case in [0, 1]."""
        ranks = outcomes.ranks
        total = average_precision_sum(ranks, self.k, outcomes.ties)
        return self._mean(ranks, total / np.maximum(np.minimum(ranks.n_targets, self.k), 1))


class AUC:
    """Probability that a random target of a case stands above a random negative of it.

    AUC = (target, negative) pairs in right order / (n x number of negatives), averaged over cases
    (not pooled over all pairs, as some libraries do). A tied pair counts 1/2 under `expected`, the
    Mann-Whitney convention. A target that the model left out loses against every negative.
    Undefined for a case without negatives.

    Source: Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, UAI 2009.
    """

    class Config(ComponentConfig):
        """AUC looks at all places: no options."""

    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config | None = None) -> None:
        del config  # taken for the contract of components; there is nothing to set
        self.name = "auc"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; per case in [0, 1]."""
        ranks = outcomes.ranks
        n_targets = ranks.n_targets.astype(np.int64)
        n_pairs = n_targets * (ranks.n_candidates - n_targets)
        won = pairs_won(ranks, outcomes.ties)
        return Measurement.mean(np.where(n_pairs > 0, won / np.maximum(n_pairs, 1), np.nan))
