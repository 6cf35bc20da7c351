"""Tables for people: aligned text that is as wide as it needs to be."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmrec_bench.evaluation import STRICT, paired_difference
from mmrec_bench.records import Interval
from mmrec_bench.runner import FinishedRun


def run_table(finished: Sequence[FinishedRun]) -> str:
    """Compare the runs of one call, best first by the first metric.

    The last run is the one asked for; the column `difference` is its first metric minus the
    row's, with the paired 95 % bootstrap interval over the same cases.
    """
    main = finished[-1]
    first = next(iter(main.record.metrics))
    others = [n for n in main.record.metrics if n != first and not n.startswith(STRICT)]
    compared = [f"difference in {first}"] if len(finished) > 1 else []
    header = ["model", f"{first} [95 %]", *others, *compared, "fit s", "score s"]
    sign = 1.0 if main.record.metrics[first].higher_is_better else -1.0
    ordered = sorted(finished, key=lambda one: -sign * _value(one, first))
    rows = [[*_cells(one, first, others), *_costs(one)] for one in ordered]
    for row, one in zip(rows, ordered, strict=True):
        if compared:
            row.insert(2 + len(others), "" if one is main else _difference(main, one, first))
    record = main.record
    protocol = record.spec.protocol
    candidates = (
        "whole catalog"
        if protocol["candidates"] == "full"
        else f"{protocol['n_candidates']} candidates ({protocol['candidates']})"
    )
    title = (
        f"{record.spec.dataset.name}: {record.counts['n_cases']} cases, {protocol['split']}, "
        f"{candidates}, seed {record.spec.seed}{_transfer(record.spec.transfer)}"
    )
    return "\n".join([title, "", *align(header, rows), "", f"run_id: {record.run_id}"])


def ablation_table(finished: Sequence[FinishedRun]) -> str:
    """Show what the pictures are worth: each run beside the one with the real pictures, paired."""
    real = next(one for one in finished if one.record.spec.images == "real")
    names = [name for name in real.record.metrics if not name.startswith(STRICT)]
    header = ["pictures", f"{names[0]} [95 %]", *names[1:], f"real less this, in {names[0]}"]
    rows = [
        [
            one.record.spec.images,
            *_cells(one, names[0], names[1:])[1:],
            "" if one is real else _difference(real, one, names[0]),
        ]
        for one in finished
    ]
    record = real.record
    title = f"{record.title} on {record.spec.dataset.name}: {record.counts['n_cases']} cases"
    ids = [f"{one.record.spec.images}: {one.record.run_id}" for one in finished]
    return "\n".join([title, "", *align(header, rows), "", *ids])


def ablation_rows(finished: Sequence[FinishedRun]) -> list[dict[str, object]]:
    """Return the same for scripts: a row a run, with the paired difference of every metric."""
    real = next(one for one in finished if one.record.spec.images == "real")
    rows: list[dict[str, object]] = []
    for one in finished:
        row: dict[str, object] = {"images": one.record.spec.images, "run_id": one.record.run_id}
        for name, metric in one.record.metrics.items():
            ours, theirs = real.measurements[name].per_case, one.measurements[name].per_case
            row[name] = metric.value
            if one is real or ours is None or theirs is None:
                continue
            found = paired_difference(ours, theirs, seed=0)
            row[f"{name}_lost"] = {"value": found.value, "low": found.low, "high": found.high}
        rows.append(row)
    return rows


def _transfer(spec: Mapping[str, Any] | None) -> str:
    """Say what was not tuned on, and how much of a test user is shown."""
    if spec is None:
        return ""
    parts = [f"tuned on {spec['source']['name']}"] if "source" in spec else []
    if spec["hold_out"] != "none":
        parts.append(
            f"{'users and items' if spec['hold_out'] == 'both' else spec['hold_out']} "
            f"held out ({spec['share']:.0%})"
        )
    if spec["shots"] is not None:
        parts.append(f"{spec['shots']} shots")
    return "; " + ", ".join(parts)


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table: first column left, the others right, a rule below the header."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    return [line(header), "  ".join("-" * width for width in widths), *map(line, rows)]


def number(value: float | None) -> str:
    """Format a metric; `-` where it is undefined."""
    return "-" if value is None else f"{value:.4f}"


def _value(one: FinishedRun, name: str) -> float:
    value = one.record.metrics[name].value
    return float("-inf") if value is None else value


def _cells(one: FinishedRun, first: str, others: Sequence[str]) -> list[str]:
    metrics = one.record.metrics
    return [
        one.record.title,
        _interval(metrics[first]),
        *(number(metrics[o].value) for o in others),
    ]


def _interval(interval: Interval) -> str:
    if interval.low is None:
        return number(interval.value)
    return f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"


def _difference(main: FinishedRun, other: FinishedRun, name: str) -> str:
    ours, theirs = main.measurements[name].per_case, other.measurements[name].per_case
    if ours is None or theirs is None:
        return "-"
    one = paired_difference(ours, theirs, seed=0)
    return f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"


def _costs(one: FinishedRun) -> list[str]:
    resources = one.record.resources
    return [f"{resources[name] or 0:.1f}" for name in ("fit_seconds", "score_seconds")]
