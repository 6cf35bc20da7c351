"""From records to rows: one row a model with its options, its seeds folded.

Rows are ranked only within one data set and protocol.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.cases import CaseTable, read_cases
from mmrec_bench.comparison import labels, variant
from mmrec_bench.errors import ConfigError, StorageError, did_you_mean
from mmrec_bench.evaluation import interval
from mmrec_bench.records import RunRecord, Stored
from mmrec_bench.statistics import holm, paired_test

LEVEL = 0.05
_RESAMPLES = 2000
"""Enough for marks at `LEVEL` on boards of a hundred rows; `compare` draws more."""
_MEANT = ("fit_seconds", "score_seconds", "cases_per_second", "prompt_tokens", "answer_tokens")
_ADDED = ("cost_usd", "retries")


@dataclass(frozen=True)
class Cell:
    """One metric of a row.

    Attributes:
        value: mean over seeds; None = undefined.
        low: lower end of the 95 % bootstrap interval over cases, seeds averaged first.
        high: upper end; both None where several seeds have no per-case values here.
        seed_sd: standard deviation of the seeds' values; None with one seed.
        p_best: corrected p-value of the difference from the best row; None for the best one, or
            where per-case values are not here.
        p_baseline: the same from the baseline that was asked for.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    seed_sd: float | None = None
    p_best: float | None = None
    p_baseline: float | None = None


@dataclass(frozen=True)
class Row:
    """One model with its options.

    Attributes:
        rank: within the board, by its first metric; equal values share a rank.
        label: its model and backbone, and what tells it apart from others of the same.
        records: one a seed, by seed.
        cells: metric -> cell.
        facts: columns of the table beside the metrics, raw values.
    """

    rank: int
    label: str
    records: tuple[RunRecord, ...]
    cells: Mapping[str, Cell]
    facts: Mapping[str, object]


@dataclass(frozen=True)
class Board:
    """Rows of one data set and protocol.

    Attributes:
        dataset: its name.
        version: hash of its content.
        protocol_id: short hash of all that rows share.
        protocol: what it stands for.
        metrics: names, the one that ranks first.
        higher_is_better: metric -> bool.
        rows: best first.
        baseline: the row that p_baseline is about; None = none was asked for, or it is not here.
        note: what tells it from another board of the same title, e.g. "permute_ids=False".
    """

    dataset: str
    version: str
    protocol_id: str
    protocol: Mapping[str, object]
    metrics: tuple[str, ...]
    higher_is_better: Mapping[str, bool]
    rows: tuple[Row, ...]
    baseline: str | None = None
    note: str = ""

    @property
    def title(self) -> str:
        """Data set, cases, split and candidates in a line."""
        facts = self.rows[0].facts
        shown = (
            "the whole catalog"
            if facts["candidates"] == "full"
            else f"{facts['n_candidates']} candidates ({facts['candidates']})"
        )
        words = [f"{self.dataset}: {facts['n_cases']} cases", str(facts["split"]), shown]
        words += self.rows[0].records[0].spec.transfer_words()
        return ", ".join([*words, self.note] if self.note else words)


@dataclass
class _Seeds:
    """Records of one variant while a row is made."""

    stored: list[Stored]
    tables: list[CaseTable] | None = field(default=None)

    def per_case(self, metric: str) -> NDArray[np.float64] | None:
        """Return (B,) values, seeds averaged; None where they are not here."""
        if self.tables is None or any(metric not in table.values for table in self.tables):
            return None
        values = np.stack([table.values[metric] for table in self.tables])
        return np.asarray(values.mean(axis=0), np.float64)


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
        ConfigError: no record has such a metric.
        StorageError: per-case values that do not belong to their record.
    """
    known = {name for one in stored for name in one.record.metrics}
    for name in (*metrics, *([sort] if sort else [])):
        if name not in known:
            raise ConfigError(f"no record has metric {name!r}{did_you_mean(name, known)}")
    groups: dict[tuple[str, str, str], list[Stored]] = defaultdict(list)
    for one in stored:
        spec = one.record.spec
        groups[spec.dataset.name, spec.dataset.version, spec.protocol_id].append(one)
    boards = [_board(groups[key], tuple(metrics), sort, baseline) for key in sorted(groups)]
    return _told_apart([board for board in boards if board.metrics])


def _told_apart(boards: list[Board]) -> list[Board]:
    """Add to boards of equal titles the parts of the protocol, or the version, that differ."""
    found = []
    for board in boards:
        others = [one for one in boards if one.title == board.title and one is not board]
        notes = [
            f"{name}={value}"
            for name, value in board.protocol.items()
            if any(one.protocol.get(name) != value for one in others)
        ]
        if any(one.version != board.version for one in others):
            notes.append(f"data {board.version[:8]}")
        found.append(replace(board, note=", ".join(notes)))
    return found


def _board(
    group: list[Stored], metrics: tuple[str, ...], sort: str | None, baseline: str | None
) -> Board:
    variants: dict[str, list[Stored]] = defaultdict(list)
    for one in sorted(group, key=lambda one: one.record.run_id):
        variants[variant(one.record.spec)].append(one)
    seeds = [_seeds(members) for members in variants.values()]
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
        rows.append(Row(rank, label, tuple(records), values, _facts(records)))
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


def _seeds(members: list[Stored]) -> _Seeds:
    """Put seeds in order and read their per-case values, where all of them have any."""
    members = sorted(members, key=lambda one: one.record.spec.seed)
    found = _Seeds(members)
    if all(one.record.cases for one in members):
        try:
            found.tables = [read_cases(one.path, one.record.cases) for one in members]
        except StorageError:
            if any(one.path.with_name(f"{one.path.stem}.cases.npz").exists() for one in members):
                raise
    return found


def _names(
    seeds: list[_Seeds], have: list[set[str]], metrics: tuple[str, ...], sort: str | None
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


def _cell(one: _Seeds, name: str) -> Cell:
    records = [stored.record for stored in one.stored]
    found = [record.metrics[name] for record in records if name in record.metrics]
    values = [each.value for each in found if each.value is not None]
    if not values or len(values) < len(records):
        return Cell(None)
    if len(records) == 1:
        return Cell(values[0], found[0].low, found[0].high)
    sd = float(np.std(values, ddof=1))
    per_case = one.per_case(name)
    if per_case is None:
        return Cell(float(np.mean(values)), seed_sd=sd)
    ends = interval(per_case)
    return Cell(float(np.mean(values)), _finite(ends.low), _finite(ends.high), sd)


def _key(
    cells: Mapping[str, Cell], one: _Seeds, metric: str, better: Mapping[str, bool]
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
    seeds: list[_Seeds],
    cells: list[dict[str, Cell]],
    name: str,
    higher_is_better: bool,
    reference: int | None,
) -> None:
    """Test each row against the best and the baseline, corrected over the rows of the board."""
    sign = 1.0 if higher_is_better else -1.0
    defined = [i for i, row in enumerate(cells) if row[name].value is not None]
    if not defined:
        return
    best = max(defined, key=lambda i: (sign * (cells[i][name].value or 0.0), -i))
    p_best = _p_values(seeds, defined, best, name)
    p_base = {} if reference is None else _p_values(seeds, defined, reference, name)
    for i in defined:
        old = cells[i][name]
        cells[i][name] = Cell(
            *(old.value, old.low, old.high, old.seed_sd), p_best.get(i), p_base.get(i)
        )


def _p_values(
    seeds: list[_Seeds], defined: Sequence[int], reference: int, name: str
) -> dict[int, float]:
    ours = seeds[reference].per_case(name)
    if ours is None or seeds[reference].tables is None:
        return {}
    found: dict[int, float] = {}
    for i in defined:
        theirs = seeds[i].per_case(name)
        if i != reference and theirs is not None and theirs.shape == ours.shape:
            found[i] = paired_test(theirs, ours, resamples=_RESAMPLES).p_bootstrap
    return dict(zip(found, holm(list(found.values())), strict=True))


def _facts(records: list[RunRecord]) -> dict[str, object]:
    """Return what stands beside the metrics: what ran, on what, and what it took."""
    first = records[0]
    spec = first.spec
    full = spec.protocol["candidates"] == "full"
    facts: dict[str, object] = {
        "dataset": spec.dataset.name,
        "dataset_version": spec.dataset.version[:12],
        "protocol_id": spec.protocol_id,
        "split": spec.protocol["split"],
        "candidates": spec.protocol["candidates"],
        "n_candidates": first.counts["n_items"] if full else spec.protocol["n_candidates"],
        "n_cases": first.counts["n_cases"],
        "model": spec.model.name,
        "images": spec.images,
        "permutations": spec.permutations,
        "transfer": json.dumps(spec.transfer, sort_keys=True) if spec.transfer else None,
        "n_seeds": len(records),
        "seeds": " ".join(str(record.spec.seed) for record in records),
        "options": json.dumps(spec.model.options, sort_keys=True),
        "protocol": json.dumps(spec.protocol, sort_keys=True),
        "run_id": " ".join(record.run_id for record in records),
        **first.facts,
    }
    for section in ("instructions", "encoder", "vectors", "text_vectors", "audio_vectors"):
        part = getattr(spec, section)
        facts[section] = part.name if part else None
    for package, column in (("mmrec-bench", "mmrec_bench"), ("torch", "torch")):
        facts[column] = first.environment.get(package)
    facts["device"] = first.environment.get("device")
    for name in _MEANT:
        facts[name] = _over([record.resources.get(name) for record in records], "mean")
    for name in _ADDED:
        facts[name] = _over([record.resources.get(name) for record in records], "sum")
    memory = [record.resources.get("peak_memory_bytes") for record in records]
    facts["peak_memory_bytes"] = _over(memory, "max")
    return facts


def _over(values: Sequence[float | int | None], how: str) -> float | int | None:
    """Fold a resource over seeds; None where one of them is not known."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    if len(known) == 1:
        return known[0]
    if how == "mean":
        return sum(known) / len(known)
    return sum(known) if how == "sum" else max(known)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
