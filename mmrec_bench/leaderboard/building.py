"""From records to boards: one row a model with its options, its seeds folded.

Rows are ranked only within one data set and protocol.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.comparison import labels, variant
from mmrec_bench.errors import ConfigError, did_you_mean
from mmrec_bench.evaluation import interval
from mmrec_bench.leaderboard.facts import facts_of
from mmrec_bench.leaderboard.rows import LEVEL, Board, Cell, Row, best_place, told_apart
from mmrec_bench.leaderboard.seeds import Seeds, averaged, read_seeds
from mmrec_bench.records import Stored
from mmrec_bench.registry import check_unique
from mmrec_bench.resampling import flip_p_values, flips_for
from mmrec_bench.statistics import differences, holm


def build(
    stored: Sequence[Stored],
    *,
    metrics: Sequence[str] = (),
    sort: str | None = None,
    baseline: str | None = None,
) -> list[Board]:
    """Return a board for each data set and protocol, in the order of their names.

    Args:
        stored: records, in any order.
        metrics: which to show, in this order; () = all that any row has.
        sort: the metric that ranks; None = the first of `metrics`, else of the records.
        baseline: name of a model that every row is tested against.

    Raises:
        ConfigError: no record has such a metric or is of such a model, or a metric is given twice.
        StorageError: per-case values that do not belong to their record.
    """
    check_unique(metrics, "metric")
    known = {name for one in stored for name in one.record.metrics}
    for name in (*metrics, *([sort] if sort else [])):
        if name not in known:
            raise ConfigError(f"no record has metric {name!r}{did_you_mean(name, known)}")
    models = {one.record.spec.model.name for one in stored}
    if baseline is not None and baseline not in models:
        raise ConfigError(f"no record of model {baseline!r}{did_you_mean(baseline, models)}")
    boards = [_board(group, tuple(metrics), sort, baseline) for group in by_board(stored)]
    return told_apart([board for board in boards if board.metrics])


def by_board(stored: Sequence[Stored]) -> list[list[Stored]]:
    """Put the records of one data set, version and protocol together, in the order of boards."""
    groups: dict[tuple[str, str, str], list[Stored]] = defaultdict(list)
    for one in stored:
        spec = one.record.spec
        groups[spec.dataset.name, spec.dataset.version, spec.protocol_id].append(one)
    return [groups[key] for key in sorted(groups)]


def _board(
    group: list[Stored], metrics: tuple[str, ...], sort: str | None, baseline: str | None
) -> Board:
    variants: dict[str, list[Stored]] = defaultdict(list)
    for one in sorted(group, key=lambda one: one.record.run_id):
        variants[variant(one.record.spec)].append(one)
    seeds = [read_seeds(members) for members in variants.values()]
    have = [set(one.stored[0].record.metrics) for one in seeds]
    names = _names(seeds, have, metrics, sort)
    better = {
        name: one.record.metrics[name].higher_is_better
        for one in group
        for name in names
        if name in one.record.metrics
    }
    cells = [{name: _cell(one, name) for name in names} for one in seeds]
    order = sorted(
        range(len(seeds)), key=lambda i: _key(cells[i], seeds[i], names[0], better) if names else 0
    )
    seeds, cells = [seeds[i] for i in order], [cells[i] for i in order]
    reference = next(
        (i for i, one in enumerate(seeds) if one.stored[0].record.spec.model.name == baseline), None
    )
    for name in names:
        _mark(seeds, cells, name, better[name], reference)
    told = labels([one.stored[0].record for one in seeds])
    places = _ranks(cells, names)
    rows = []
    for rank, label, own, values in zip(places, told, seeds, cells, strict=True):
        records = [each.record for each in own.stored]
        rows.append(Row(rank, label, tuple(records), values, facts_of(records), own.tables))
    spec = group[0].record.spec
    return Board(
        dataset=spec.dataset.name,
        version=spec.dataset.version,
        protocol_id=spec.protocol_id,
        protocol=spec.protocol,
        metrics=names,
        higher_is_better=better,
        rows=tuple(rows),
        baseline=None if reference is None else rows[reference].label,
    )


def _names(
    seeds: list[Seeds], have: list[set[str]], metrics: tuple[str, ...], sort: str | None
) -> tuple[str, ...]:
    """Return the metrics of a board; the first one ranks, and where it can all rows have it."""
    any_row = set.union(*have)
    if metrics:
        names = [name for name in metrics if name in any_row]
    else:
        first = seeds[0].stored[0].record.metrics
        shared = [name for name in first if name in set.intersection(*have)]
        names = [*shared, *sorted(any_row - set(shared))]
    if sort in names:
        names.remove(sort)
        names.insert(0, sort)
    return tuple(names)


def _cell(one: Seeds, name: str) -> Cell:
    records = [stored.record for stored in one.stored]
    found = [record.metrics[name] for record in records if name in record.metrics]
    values = [each.value for each in found if each.value is not None]
    if not values or len(values) < len(records):
        return Cell(None)
    if len(records) == 1:
        return Cell(values[0], found[0].low, found[0].high)
    sd = float(np.std(values, ddof=1))
    per_case = averaged(one.tables, name)
    if per_case is None:
        return Cell(float(np.mean(values)), seed_sd=sd)
    ends = interval(per_case)
    return Cell(float(np.mean(values)), _finite(ends.low), _finite(ends.high), sd)


def _key(
    cells: Mapping[str, Cell], one: Seeds, metric: str, better: Mapping[str, bool]
) -> tuple[float, str, str]:
    value = cells[metric].value
    record = one.stored[0].record
    sign = -1.0 if better[metric] else 1.0
    return (math.inf if value is None else sign * value), record.title, record.run_id


def _ranks(cells: list[dict[str, Cell]], names: tuple[str, ...]) -> list[int]:
    """Return places from 1; equal values share one."""
    ranks: list[int] = []
    for place, values in enumerate(cells, start=1):
        same = place > 1 and values[names[0]].value == cells[place - 2][names[0]].value
        ranks.append(ranks[-1] if same else place)
    return ranks


def _mark(
    seeds: list[Seeds],
    cells: list[dict[str, Cell]],
    name: str,
    higher_is_better: bool,
    reference: int | None,
) -> None:
    """Test each row against the best and the baseline, corrected over the rows of the board."""
    best = best_place([row[name].value for row in cells], higher_is_better=higher_is_better)
    if best is None:
        return
    p_best = _p_values(seeds, cells, best, name)
    p_base = {} if reference is None else _p_values(seeds, cells, reference, name)
    for i, row in enumerate(cells):
        if row[name].value is not None:
            row[name] = replace(row[name], p_best=p_best.get(i), p_baseline=p_base.get(i))


def _p_values(
    seeds: list[Seeds], cells: list[dict[str, Cell]], reference: int, name: str
) -> dict[int, float]:
    """Return place -> corrected p-value of the rows that met the same cases as the reference."""
    ours = averaged(seeds[reference].tables, name)
    if ours is None:
        return {}
    users = seeds[reference].tables[0].users_hash
    found: dict[int, NDArray[np.float64]] = {}
    for i, one in enumerate(seeds):
        theirs = averaged(one.tables, name)
        if i == reference or cells[i][name].value is None or theirs is None:
            continue
        if one.tables[0].users_hash == users:
            found[i] = differences(theirs, ours)
    if not found:
        return {}
    values = np.column_stack(list(found.values()))
    p = flip_p_values(values, flips=flips_for(len(found), LEVEL))
    return dict(zip(found, holm(p.tolist()), strict=True))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
