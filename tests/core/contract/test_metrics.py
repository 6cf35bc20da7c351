"""Each rule for metrics is broken here, and found."""

import random
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from mmrec_bench.contract import metrics, toys
from mmrec_bench.contract.findings import run_checks
from mmrec_bench.types import Measurement, Outcomes
from tests.core.contract.failing import failed


class ToyMetric:
    higher_is_better: ClassVar[Any] = True
    name = "first"

    def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
        ranks = outcomes.ranks
        first = ranks.ranked & (ranks.n_better == 0)
        share = {
            "expected": 1.0 / (1 + ranks.n_tied),
            "optimistic": np.ones(len(first)),
            "pessimistic": (ranks.n_tied == 0).astype(float),
        }[outcomes.ties]
        return np.bincount(ranks.case, first * share, len(ranks)).astype(np.float64)

    def measure(self, outcomes: Outcomes) -> Measurement:
        return Measurement.mean(self.values(outcomes))


class OtherMean(ToyMetric):
    def measure(self, outcomes: Outcomes) -> Measurement:
        return Measurement(float(np.sum(self.values(outcomes))) + 1, self.values(outcomes))


class Relative(ToyMetric):
    def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
        values = super().values(outcomes)
        return values - values.mean() if len(values) else values


class ZeroOverNothing(ToyMetric):
    def measure(self, outcomes: Outcomes) -> Measurement:
        measured = super().measure(outcomes)
        return replace(measured, value=float(np.nan_to_num(measured.value)))


class LuckyTies(ToyMetric):
    def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
        values = super().values(outcomes)
        return values + 1 if outcomes.ties == "expected" else values


class Writes(ToyMetric):
    def measure(self, outcomes: Outcomes) -> Measurement:
        measured = super().measure(outcomes)
        outcomes.ranks.n_better[:] = 0
        return measured


class Scales(ToyMetric):
    def measure(self, outcomes: Outcomes) -> Measurement:
        for name in outcomes.vectors:
            outcomes.vectors[name][:] *= 2
        return super().measure(outcomes)


class Draws(ToyMetric):
    def measure(self, outcomes: Outcomes) -> Measurement:  # noqa: ARG002
        return Measurement(random.Random().random())


class Undecided(ToyMetric):
    higher_is_better = "yes"


class Endless(ToyMetric):
    def measure(self, outcomes: Outcomes) -> Measurement:
        return Measurement(np.inf if len(outcomes.ranks) else np.nan)


class OneATarget(ToyMetric):
    def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
        return 1.0 / (1.0 + outcomes.ranks.n_better.astype(np.float64))


class FirstTargets(ToyMetric):
    def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
        return super().values(outcomes) + outcomes.ranks.n_better[: len(outcomes.ranks)]


class LeavesOutUndefined(ToyMetric):
    def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
        kept = np.bincount(outcomes.ranks.case, outcomes.ranks.ranked, len(outcomes.ranks)) > 0
        return np.where(kept, super().values(outcomes), np.nan)


class LeftOutIsFirst(ToyMetric):
    def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
        ranks = outcomes.ranks
        place = np.where(ranks.ranked, ranks.n_better, 0)
        return np.bincount(ranks.case, place == 0, len(ranks)).astype(np.float64)


class Renamed(ToyMetric):
    name = "other"


def check_metric(cls: type[ToyMetric]) -> set[str]:
    subject = metrics.MetricSubject(cls, toys.toy_outcomes, "first")
    return set(failed(run_checks(metrics.CHECKS, subject)))


def test_a_good_metric_fails_nothing() -> None:
    assert not check_metric(ToyMetric)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (OtherMean, "value"),
        (Relative, "alone"),
        (ZeroOverNothing, "nothing"),
        (LuckyTies, "ties"),
        (Writes, "given"),
        (Scales, "given"),
        (Draws, "repeats"),
        (Undecided, "says"),
        (Renamed, "says"),
        (Endless, "value"),
        (OneATarget, "value"),
        (FirstTargets, "alone"),
        (LeavesOutUndefined, "left-out"),
        (LeftOutIsFirst, "left-out"),
    ],
)
def test_a_bad_metric_is_found(cls: type[ToyMetric], check: str) -> None:
    assert check in check_metric(cls)


def test_a_metric_that_is_undefined_on_the_toy_outcomes_is_not_said_to_keep_its_mean() -> None:
    class Undefined(ToyMetric):
        def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
            return np.full(len(outcomes.ranks), np.nan)

    subject = metrics.MetricSubject(Undefined, toys.toy_outcomes, "first")
    results = {one.check: one for one in run_checks(metrics.CHECKS, subject)}
    assert results["value"].outcome == "skipped"
    assert results["value"].reason == "it is undefined on the toy outcomes"
