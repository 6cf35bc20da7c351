"""Tests of a `Metric`."""

from collections.abc import Sequence

import pytest

from mmrec_bench.contract import metrics
from mmrec_bench.contract.toys import toy_outcomes
from mmrec_bench.interfaces import Metric
from mmrec_bench.testing.components import ComponentTests, keep
from mmrec_bench.types import Outcomes


def _asked_by(metric: Metric) -> str:
    """Return the name that a metric is asked for by: with the cutoff of its Config, if it has one.

    "" where it keeps neither its `config` nor its `k`, so that no one knows.
    """
    family = str(metric.name).partition("@")[0]
    if "k" not in type(metric).Config.model_fields:  # type: ignore[attr-defined]
        return family
    k = getattr(getattr(metric, "config", metric), "k", None)
    return "" if k is None else f"{family}@{k}"


class MetricTests(ComponentTests):
    """What every `Metric` must keep; inherit and override `make`."""

    def make(self) -> Metric:
        """Return the metric."""
        raise NotImplementedError

    def outcomes(self, scores: Sequence[Sequence[float]]) -> Outcomes:
        """Rank toy scores (B, C) and return what a metric sees."""
        return toy_outcomes(scores)

    @pytest.fixture
    def subject(self) -> metrics.MetricSubject:
        """Return what the checks look at."""
        return metrics.MetricSubject(self.make, self.outcomes, _asked_by(self.make()))

    def test_it_says_its_name_and_which_way_is_better(self, subject: metrics.MetricSubject) -> None:
        """Tables sort by it."""
        keep(metrics.check_says, subject)

    def test_value_is_the_mean_of_the_defined_cases(self, subject: metrics.MetricSubject) -> None:
        """The number in the table follows from the per-case values."""
        keep(metrics.check_value, subject)

    def test_a_case_does_not_depend_on_others(self, subject: metrics.MetricSubject) -> None:
        """Intervals resample cases."""
        keep(metrics.check_alone, subject)

    def test_expected_ties_lie_between_the_bounds(self, subject: metrics.MetricSubject) -> None:
        """The best and the worst order of equal scores."""
        keep(metrics.check_ties, subject)

    def test_a_target_that_was_left_out_is_a_miss(self, subject: metrics.MetricSubject) -> None:
        """Leaving out what is hard raises no mean."""
        keep(metrics.check_left_out, subject)

    def test_no_case_is_undefined(self, subject: metrics.MetricSubject) -> None:
        """NaN, never 0."""
        keep(metrics.check_nothing, subject)

    def test_outcomes_are_not_changed(self, subject: metrics.MetricSubject) -> None:
        """A metric reads."""
        keep(metrics.check_given, subject)

    def test_the_same_outcomes_have_the_same_value(self, subject: metrics.MetricSubject) -> None:
        """Nothing is drawn anew."""
        keep(metrics.check_repeats, subject)
