"""The contract of a `Metric`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmrec_bench import ranks as ranking
from mmrec_bench.contract import toys
from mmrec_bench.contract.findings import Check, DoesNotApplyError, demand, demand_equal
from mmrec_bench.interfaces import Metric
from mmrec_bench.types import Measurement, Outcomes


@dataclass
class MetricSubject:
    """A metric and what it measures.

    Attributes:
        make: returns a new one.
        outcomes: toy scores (B, C) -> what a metric sees; e.g. `toys.toy_outcomes`. Most checks
            then rank several targets in some of the cases.
        name: as asked for, e.g. "ndcg@10"; "" where that is not known.
    """

    make: Callable[[], Metric]
    outcomes: Callable[[Sequence[Sequence[float]]], Outcomes]
    name: str = ""

    def drawn(self) -> Outcomes:
        """Outcomes of random scores, with one to three targets a case."""
        return self._several(np.random.default_rng(0).normal(size=(10, 6)))

    def tied(self) -> Outcomes:
        """Outcomes of random scores that often tie, some of them left out."""
        scores = np.random.default_rng(1).integers(0, 3, size=(10, 6)).astype(np.float64)
        scores[3] = np.nan
        scores[5, ::2] = np.nan
        return self._several(scores)

    def _several(self, scores: NDArray[np.float64]) -> Outcomes:
        ranks = toys.toy_outcomes(scores, n_targets=3).ranks
        return replace(self.outcomes(scores.tolist()), ranks=ranks)

    def last_and_left_out(self) -> tuple[Outcomes, Outcomes]:
        """Outcomes of one target a case: ranked last, and left out; the lists are the same."""
        scores = np.tile(np.arange(6.0), (10, 1))
        column = toys.target_columns(len(scores))[:, None]
        np.put_along_axis(scores, column, -1.0, axis=1)
        last = self.outcomes(scores.tolist())
        np.put_along_axis(scores, column, np.nan, axis=1)
        ranks = replace(self.outcomes(scores.tolist()).ranks, top=last.ranks.top)
        return last, replace(last, ranks=ranks)


def check_says(subject: MetricSubject) -> None:
    """Its name is the one asked for, and it says which way is better."""
    metric = subject.make()
    demand(
        isinstance(metric.name, str) and metric.name == (subject.name or metric.name),
        f"name {metric.name!r}",
        f"{subject.name!r}, the name it was asked for by",
        'set self.name in __init__, with a cutoff as f"...@{config.k}"',
    )
    better = getattr(type(metric), "higher_is_better", None)
    demand(
        isinstance(better, bool),
        f"higher_is_better={better!r}",
        "True or False on the class: tables sort by it",
        "write `higher_is_better: ClassVar[bool] = True`",
    )


def check_value(subject: MetricSubject) -> None:
    """The number in the table is the mean of the defined cases."""
    outcomes = subject.drawn()
    measured = subject.make().measure(outcomes)
    demand(
        isinstance(measured, Measurement),
        f"a {type(measured).__name__}",
        "a Measurement",
        "return Measurement.mean(per_case), or Measurement(value) for a list-level metric",
    )
    per_case, n = measured.per_case, len(outcomes.ranks)
    demand(
        not np.isinf(measured.value) and (per_case is None or not np.isinf(per_case).any()),
        f"an infinite value: {measured.value}, or that of a case",
        "a finite value, or NaN where it is undefined",
        "return NaN where a division by zero leaves it undefined",
    )
    if per_case is None:
        undefined = "it is undefined on the toy outcomes"
        listed = "a list-level metric has no value a case"
        raise DoesNotApplyError(undefined if np.isnan(measured.value) else listed)
    demand(
        per_case.shape == (n,),
        f"per_case of shape {per_case.shape}",
        f"({n},): one value a case, NaN = undefined",
        "reduce the targets of each case, e.g. with np.bincount(ranks.case, ...)",
    )
    wanted = np.array([np.nan if np.isnan(per_case).all() else np.nanmean(per_case)])
    demand_equal(
        np.array([measured.value]),
        wanted,
        "that the value is the mean over the defined cases",
        "return Measurement.mean(per_case)",
        rtol=1e-6,
        atol=1e-12,
    )
    if np.isnan(measured.value):
        raise DoesNotApplyError("it is undefined on the toy outcomes")


def check_alone(subject: MetricSubject) -> None:
    """A case's value is the same alone and among others."""
    outcomes = subject.tied()
    whole = subject.make().measure(outcomes).per_case
    if whole is None:
        raise DoesNotApplyError("a list-level metric has no value a case")
    for i in range(len(whole)):
        alone = subject.make().measure(_take(outcomes, [i])).per_case
        demand_equal(
            np.zeros(0) if alone is None else alone,
            whole[i : i + 1],
            f"the same value for case {i} alone and among others: intervals resample cases",
            "normalise within the case",
            rtol=1e-9,
            atol=1e-12,
        )


def _take(outcomes: Outcomes, cases: Sequence[int]) -> Outcomes:
    """Return the outcomes of the chosen cases."""
    rows, histories = np.array(cases, np.int64), outcomes.histories
    return replace(
        outcomes,
        ranks=ranking.take(outcomes.ranks, rows),
        histories=None if histories is None else histories.take(rows),
    )


def check_given(subject: MetricSubject) -> None:
    """A metric reads, and does not write."""
    outcomes = subject.drawn()
    arrays = {
        name: getattr(outcomes.ranks, name)
        for name in ("n_better", "n_tied", "ranked", "case", "n_targets", "n_candidates", "top")
    }
    arrays["item_counts"] = outcomes.item_counts
    if outcomes.histories is not None:
        arrays["histories"] = outcomes.histories.values
    arrays |= {f"vectors[{name!r}]": one for name, one in outcomes.vectors.items()}
    before = {name: array.copy() for name, array in arrays.items()}
    subject.make().measure(outcomes)
    for name, array in arrays.items():
        demand_equal(
            array, before[name], f"{name} as it was: other metrics read it too", "work on a copy"
        )


def check_repeats(subject: MetricSubject) -> None:
    """The same outcomes have the same value."""
    outcomes = subject.drawn()
    first, again = (subject.make().measure(outcomes).value for _ in range(2))
    demand_equal(
        np.array([again]),
        np.array([first]),
        "the same value for the same outcomes",
        "draw nothing, or by a seed of its own",
    )


def check_ties(subject: MetricSubject) -> None:
    """With ties, the expected value lies between the bounds."""
    outcomes, metric = subject.tied(), subject.make()
    expected = metric.measure(outcomes).value
    ends = [
        metric.measure(replace(outcomes, ties="optimistic")).value,
        metric.measure(replace(outcomes, ties="pessimistic")).value,
    ]
    inside = min(ends) - 1e-9 <= expected <= max(ends) + 1e-9
    demand(
        inside or bool(np.isnan([expected, *ends]).any()),
        f"{expected} for expected ties, {ends[0]} and {ends[1]} for the best and worst order",
        "a value between these",
        "use mmrec_bench.ties, which has the exact means",
    )


def check_left_out(subject: MetricSubject) -> None:
    """A target that the model left out counts as a miss: never more than the last place."""
    last, left_out = subject.last_and_left_out()
    metric = subject.make()
    for ties in ("expected", "optimistic", "pessimistic"):
        wanted = metric.measure(replace(last, ties=ties)).per_case
        found = metric.measure(replace(left_out, ties=ties)).per_case
        if wanted is None or found is None:
            raise DoesNotApplyError("a list-level metric has no value a case")
        sign = 1.0 if metric.higher_is_better else -1.0
        better = sign * found > sign * wanted + 1e-9
        gone = np.isnan(found) & ~np.isnan(wanted)
        demand(
            not (better | gone).any(),
            f"{found[(better | gone).argmax()]} where the target was left out, "
            f"{wanted[(better | gone).argmax()]} where it is last",
            "a miss: what a model leaves out must not raise its mean",
            "look at ranks.ranked, and give such a target the value of a miss, not NaN",
        )


def check_nothing(subject: MetricSubject) -> None:
    """No case at all is undefined: NaN, and no exception."""
    found = subject.make().measure(_take(subject.drawn(), []))
    demand(
        bool(np.isnan(found.value)),
        f"{found.value} over no case",
        "NaN: undefined is never 0",
        "return Measurement.mean(per_case), which is NaN where nothing is defined",
    )


CHECKS: tuple[Check[MetricSubject], ...] = (
    Check("says", "it says its name and which way is better", check_says),
    Check("value", "the value is the mean of the defined cases", check_value),
    Check("alone", "a case's value does not depend on other cases", check_alone),
    Check("ties", "expected ties lie between the best and the worst order", check_ties),
    Check("left-out", "a target that was left out counts as a miss", check_left_out),
    Check("nothing", "no case is undefined, not 0", check_nothing),
    Check("given", "what is given is not changed", check_given),
    Check("repeats", "the same outcomes have the same value", check_repeats),
)
