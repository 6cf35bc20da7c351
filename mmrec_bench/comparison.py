"""Runs beside one another on the same cases: which differences are real.

Runs that differ in their seed alone are one row: their per-case values are averaged before they are
paired, and the spread over seeds is told apart from that over cases.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.cases import CaseTable
from mmrec_bench.errors import ProtocolError, StorageError
from mmrec_bench.records import RunRecord, RunSpec, Stored
from mmrec_bench.registry import check_unique
from mmrec_bench.resampling import flips_for
from mmrec_bench.statistics import PairedTest, Spread, centre, holm, paired_tests, spread

_MARKS = 4
_MARK_LENGTH = 24
"""Options that tell two rows of one title apart: so many, so long."""


@dataclass(frozen=True)
class Group:
    """Runs of one model with the same options and other seeds.

    Attributes:
        title: model and backbone, with what tells it apart from groups of the same title.
        records: one a seed, by seed.
        cases: per-case values of each.
    """

    title: str
    records: tuple[RunRecord, ...]
    cases: tuple[CaseTable, ...]

    def values(self, metric: str) -> NDArray[np.float64]:
        """Return (S, B) per-case values of the seeds."""
        return np.stack([one.values[metric] for one in self.cases])


@dataclass(frozen=True)
class Pair:
    """One group less another in one metric.

    Attributes:
        metric: its name.
        a: title of the one.
        b: title of the other.
        test: paired over cases, seeds averaged.
        p_holm: p_permutation corrected for all pairs of this metric.
        better: title of the better one, or None where the corrected p-value is not below the level.
    """

    metric: str
    a: str
    b: str
    test: PairedTest
    p_holm: float
    better: str | None


@dataclass(frozen=True)
class Comparison:
    """Groups of runs on the same cases, and every pair of them.

    Attributes:
        groups: best first by the first metric.
        metrics: names, those that all runs have case by case.
        spreads: (metric, title) -> where its noise comes from.
        pairs: metric by metric, pairs in the order of the groups.
        n_cases: cases.
    """

    groups: tuple[Group, ...]
    metrics: tuple[str, ...]
    spreads: Mapping[tuple[str, str], Spread]
    pairs: tuple[Pair, ...]
    n_cases: int


def variant(spec: RunSpec) -> str:
    """Name everything of a run but its seed: runs of one variant are seeds of one row."""
    return spec.model_copy(update={"seed": 0}).hash


def check_comparable(specs: Sequence[RunSpec]) -> None:
    """Check that runs met the same cases.

    Raises:
        ProtocolError: names the first difference of the first run that differs.
    """
    first = specs[0]
    for other in specs[1:]:
        for name, ours, theirs in _facets(first, other):
            if ours != theirs:
                raise ProtocolError(
                    f"{first.run_id} and {other.run_id} did not meet the same cases: {name} is "
                    f"{ours!r} and {theirs!r}"
                )


def _facets(a: RunSpec, b: RunSpec) -> list[tuple[str, Any, Any]]:
    """List what decides a run's cases: (name, of a, of b), the telling ones first."""
    facets: list[tuple[str, Any, Any]] = [
        ("dataset", a.dataset.name, b.dataset.name),
        ("dataset version", a.dataset.version[:12], b.dataset.version[:12]),
    ]
    facets += [
        (f"protocol.{name}", a.protocol.get(name), b.protocol.get(name))
        for name in sorted({*a.protocol, *b.protocol})
    ]
    facets += [
        ("limit_cases", a.limit_cases, b.limit_cases),
        ("transfer", a.transfer, b.transfer),
        ("the hash of the candidate sets", a.candidates_hash[:12], b.candidates_hash[:12]),
    ]
    return facets


def load_groups(stored: Sequence[Stored]) -> list[Group]:
    """Read per-case values and put seeds of one variant together.

    Raises:
        ProtocolError: the runs did not meet the same cases.
        StorageError: per-case values are missing, torn, or of other cases.
    """
    unique = {one.record.run_id: one for one in stored}
    check_comparable([one.record.spec for one in unique.values()])
    groups: dict[str, list[Stored]] = {}
    for one in unique.values():
        groups.setdefault(variant(one.record.spec), []).append(one)
    found = []
    for members in groups.values():
        members.sort(key=lambda one: one.record.spec.seed)
        tables = tuple(one.cases() for one in members)
        records = tuple(one.record for one in members)
        found.append(Group(records[0].title, records, tables))
    users = found[0].cases[0].users_hash
    for group in found:
        for record, table in zip(group.records, group.cases, strict=True):
            if table.users_hash != users:
                raise StorageError(
                    f"the per-case values of {record.run_id} are of other users; evaluate it again"
                )
    told = labels([group.records[0] for group in found])
    return [replace(group, title=label) for group, label in zip(found, told, strict=True)]


def labels(records: Sequence[RunRecord]) -> list[str]:
    """Return the titles of records; equal ones are told apart by as few options as it takes.

    What is still equal then ends with the beginning of its hash.
    """
    flat = [_flat(record.spec) for record in records]
    found = []
    for number, (record, own) in enumerate(zip(records, flat, strict=True)):
        rivals = [
            other
            for place, (one, other) in enumerate(zip(records, flat, strict=True))
            if place != number and one.title == record.title
        ]
        found.append(" ".join([record.title, *_marks(own, rivals)]))
    return [
        f"{label} {variant(record.spec)[:6]}" if found.count(label) > 1 else label
        for label, record in zip(found, records, strict=True)
    ]


def _marks(own: dict[str, object], rivals: list[dict[str, object]]) -> list[str]:
    """Return options that tell one row from its rivals, those first that tell most of them."""
    marks: list[str] = []
    while rivals and len(marks) < _MARKS:
        told = {key: sum(_differ(own, other, key) for other in rivals) for key in own}
        key = max(told, key=lambda name: (told[name], name == "images", name))
        if not told[key]:
            break
        marks.append(f"{key}={_short(own[key])}")
        rivals = [other for other in rivals if not _differ(own, other, key)]
    return marks


def _differ(own: dict[str, object], other: dict[str, object], key: str) -> bool:
    """Say whether both have the option, with other values: versions add options."""
    return key in other and own[key] != other[key]


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _MARK_LENGTH else f"{text[: _MARK_LENGTH - 1]}…"


def _flat(spec: RunSpec) -> dict[str, object]:
    """Return what may differ between rows of one model, as short names."""
    flat: dict[str, object] = dict(spec.model.options)
    for section in ("instructions", "encoder", "vectors", "text_vectors", "audio_vectors"):
        part = getattr(spec, section)
        if part is not None:
            flat[section] = part.name
            flat |= {f"{section}.{key}": value for key, value in part.options.items()}
    flat |= {"images": spec.images, "permutations": spec.permutations}
    if spec.model.fingerprint:
        flat["weights"] = spec.model.fingerprint[:8]
    return flat


def compare(
    groups: Sequence[Group],
    metrics: Sequence[str] = (),
    *,
    baseline: str | None = None,
    level: float = 0.05,
    seed: int = 0,
) -> Comparison:
    """Test every pair of groups, or each against a baseline.

    Args:
        groups: at least two, on the same cases.
        metrics: which; () = the first that all have.
        baseline: title of the group that the others are compared with; None = every pair.
        level: a corrected p-value below it is called a difference.
        seed: of the resamples and flips.

    Raises:
        ConfigError: a metric is given twice.
        StorageError: fewer than two groups, a metric that a run has no per-case values of, or no
            metric that all have.
    """
    check_unique(metrics, "metric")
    if len(groups) < 2:
        raise StorageError(
            "nothing to compare: the runs are seeds of one model; name a run of another"
        )
    shared = _shared(groups)
    names = tuple(metrics) or shared[:1]
    if not names:
        raise StorageError(
            "no metric has per-case values in all of these runs; `mmrec-bench evaluate RUN_ID "
            "--metrics NAME` measures another one"
        )
    for name in names:
        _check_measured(groups, name, shared)
    spreads = {
        (name, group.title): spread(group.values(name)) for name in names for group in groups
    }
    ordered = sorted(groups, key=lambda group: _order(group, names[0], spreads))
    pairs = [
        pair
        for name in names
        for pair in _pairs(ordered, name, baseline=baseline, level=level, seed=seed)
    ]
    return Comparison(tuple(ordered), names, spreads, tuple(pairs), len(groups[0].cases[0]))


def _check_measured(groups: Sequence[Group], metric: str, shared: Sequence[str]) -> None:
    """Check that all runs have the metric case by case.

    Raises:
        StorageError: says whether measuring again can help.
    """
    among = (
        f"choose among {', '.join(shared)}"
        if shared
        else "these runs share no metric that has them"
    )
    members = [
        (record, table)
        for group in groups
        for record, table in zip(group.records, group.cases, strict=True)
    ]
    lacking = [record for record, table in members if metric not in table.values]
    if any(metric in record.metrics and not record.metrics[metric].n for record in lacking):
        raise StorageError(
            f"{metric} measures all lists at once and has no values of single cases to pair; "
            f"{among}"
        )
    if lacking:
        raise StorageError(
            f"{lacking[0].run_id} has no {metric} of each case; run `mmrec-bench evaluate "
            f"{lacking[0].run_id} --metrics {metric}`, or {among}"
        )


def _shared(groups: Sequence[Group]) -> tuple[str, ...]:
    """Return the metrics that all runs have case by case, in the first record's order."""
    have = [set(table.values) for group in groups for table in group.cases]
    shared = set.intersection(*have)
    return tuple(name for name in groups[0].records[0].metrics if name in shared)


def _order(
    group: Group, metric: str, spreads: Mapping[tuple[str, str], Spread]
) -> tuple[float, str]:
    mean = spreads[metric, group.title].mean
    if math.isnan(mean):
        return math.inf, group.title
    return (-mean if _higher_is_better(group, metric) else mean), group.title


def _higher_is_better(group: Group, metric: str) -> bool:
    one = group.records[0].metrics.get(metric)
    return one is None or one.higher_is_better


def _pairs(
    groups: Sequence[Group], metric: str, *, baseline: str | None, level: float, seed: int
) -> list[Pair]:
    means = {group.title: centre(group.values(metric)) for group in groups}
    chosen = [
        (a, b)
        for a, b in combinations(groups, 2)
        if baseline is None or baseline in (a.title, b.title)
    ]
    tests = paired_tests(
        [(means[a.title], means[b.title]) for a, b in chosen],
        seed=seed,
        flips=flips_for(len(chosen), level),
    )
    corrected = holm([test.p_permutation for test in tests])
    found = []
    for (a, b), test, p in zip(chosen, tests, corrected, strict=True):
        a_wins = (test.difference > 0) == _higher_is_better(a, metric)
        better = (a.title if a_wins else b.title) if p < level else None
        found.append(Pair(metric, a.title, b.title, test, p, better))
    return found
