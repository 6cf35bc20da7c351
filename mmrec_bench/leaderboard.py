"""Leaderboards: a pure function of records."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmrec_bench.files import atomic_write
from mmrec_bench.records import RunRecord

_BEFORE = (
    "dataset",
    "dataset_version",
    "protocol_id",
    "split",
    "candidates",
    "n_candidates",
    "n_cases",
    "rank",
    "model",
    "backbone",
    "instructions",
    "encoder",
    "vectors",
    "images",
    "permutations",
    "transfer",
    "seed",
)
_AFTER = (
    "valid_rate",
    "n_parameters",
    "n_tuned_parameters",
    "fit_seconds",
    "score_seconds",
    "cases_per_second",
    "peak_memory_bytes",
    "prompt_tokens",
    "answer_tokens",
    "retries",
    "cost_usd",
    "device",
    "mmrec_bench",
    "torch",
    "options",
    "protocol",
    "run_id",
)


def tables(records: Sequence[RunRecord], folder: Path, output: Path | None) -> dict[Path, str]:
    """Return CSV texts by path: one for all records, or one a data set below `folder`."""
    if output is not None:
        return {output: to_csv(records)}
    by_dataset: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_dataset[record.spec.dataset.name].append(record)
    return {folder / f"{name}.csv": to_csv(some) for name, some in sorted(by_dataset.items())}


def to_csv(records: Iterable[RunRecord]) -> str:
    """Write one row a record, ranked within its data set and protocol, raw numbers.

    Rows are ordered by data set, protocol, then the group's first metric; equal values share a
    rank. Records of different protocols are never ranked together.
    """
    groups: dict[tuple[str, str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        spec = record.spec
        groups[spec.dataset.name, spec.dataset.version, spec.protocol_id].append(record)
    names = sorted({name for group in groups.values() for one in group for name in one.metrics})
    columns = [part for name in names for part in (name, f"{name}_low", f"{name}_high")]
    text = io.StringIO()
    after = [name for name in _AFTER if name not in columns]
    writer = csv.DictWriter(text, [*_BEFORE, *columns, *after], lineterminator="\n")
    writer.writeheader()
    for key in sorted(groups):
        for row in _ranked(groups[key]):
            writer.writerow(
                {name: _cell(value) for name, value in row.items() if name in writer.fieldnames}
            )
    return text.getvalue()


def _ranked(group: list[RunRecord]) -> list[dict[str, object]]:
    """Order one group by its first metric that all records have, else by the first of all."""
    shared = set.intersection(*(set(record.metrics) for record in group))
    order = [name for name in group[0].metrics if name in shared] or list(group[0].metrics)
    metric = order[0]

    def key(record: RunRecord) -> tuple[float, str, int, str]:
        one = record.metrics.get(metric)
        value = None if one is None else one.value
        worst = value is None
        sign = -1.0 if one is None or one.higher_is_better else 1.0
        return (
            float("inf") if worst else sign * (value or 0.0),
            record.title,
            record.spec.seed,
            record.run_id,
        )

    rows, rank, last = [], 0, None
    for position, record in enumerate(sorted(group, key=key), start=1):
        if last is None or key(record)[0] != last:
            rank, last = position, key(record)[0]
        rows.append(_row(record, rank))
    return rows


def _row(record: RunRecord, rank: int) -> dict[str, object]:
    spec = record.spec
    row: dict[str, object] = {
        "dataset": spec.dataset.name,
        "dataset_version": spec.dataset.version[:12],
        "protocol_id": spec.protocol_id,
        "split": spec.protocol["split"],
        "candidates": spec.protocol["candidates"],
        "n_candidates": (
            record.counts["n_items"]
            if spec.protocol["candidates"] == "full"
            else spec.protocol["n_candidates"]
        ),
        "n_cases": record.counts["n_cases"],
        "rank": rank,
        "model": spec.model.name,
        "instructions": spec.instructions.name if spec.instructions else None,
        "encoder": spec.encoder.name if spec.encoder else None,
        "vectors": spec.vectors.name if spec.vectors else None,
        "images": spec.images,
        "permutations": spec.permutations,
        "transfer": json.dumps(spec.transfer, sort_keys=True) if spec.transfer else None,
        "seed": spec.seed,
        "device": record.environment["device"],
        "mmrec_bench": record.environment.get("mmrec-bench"),
        "torch": record.environment.get("torch"),
        "options": json.dumps(spec.model.options, sort_keys=True),
        "protocol": json.dumps(spec.protocol, sort_keys=True),
        "run_id": record.run_id,
        **record.resources,
        **record.facts,
    }
    for name, one in record.metrics.items():
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    return row


def _cell(value: object) -> object:
    """Keep numbers raw; a text that a spreadsheet would run as a formula is quoted."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return "'" + value
    return value


def is_current(path: Path, text: str) -> bool:
    """Say whether the file holds exactly this text."""
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def write(path: Path, text: str) -> None:
    """Write a table atomically."""
    atomic_write(path, text.encode())
