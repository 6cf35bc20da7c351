"""Tables for people, as blocks that `terminal.show` prints."""

from collections.abc import Iterator, Mapping, Sequence

from mmrec_bench.comparison import Comparison, Group, Pair
from mmrec_bench.evaluation import STRICT, paired_difference
from mmrec_bench.evaluation import Interval as Difference
from mmrec_bench.records import Interval, RunRecord
from mmrec_bench.runner import FinishedRun
from mmrec_bench.terminal import Block, Heading, Role, Table

Roles = dict[tuple[int, int], Role]


def run_table(finished: Sequence[FinishedRun], *, compare: bool = True) -> list[Block]:
    """Compare the runs of one call, best first by the first metric.

    The last run is the one asked for; the column `difference` is its first metric minus the
    row's, with the paired 95 % bootstrap interval over the same cases. Without `compare` (the
    asked-for model failed, these are its baselines) there is no such column.
    """
    main = finished[-1]
    metrics = {name: one for run in finished for name, one in run.record.metrics.items()}
    if not metrics:
        return ["no metric could be measured", "", f"run_id: {main.record.run_id}"]
    first = next(iter(main.record.metrics or metrics))
    others = [n for n in metrics if n != first and not n.startswith(STRICT)]
    compared = [f"difference in {first}"] if len(finished) > 1 and compare else []
    header = ["model", f"{first} [95 %]", *others, *compared, "fit s", "score s"]
    sign = 1.0 if metrics[first].higher_is_better else -1.0
    ordered = sorted(finished, key=lambda one: -sign * _value(one, first))
    rows = [[*_cells(one, first, others), *_costs(one)] for one in ordered]
    roles = _best_cells(ordered, [first, *others], metrics)
    for number, (row, one) in enumerate(zip(rows, ordered, strict=True)):
        if not compared:
            continue
        found = None if one is main else _difference(main, one, first)
        row.insert(2 + len(others), "" if one is main else _signed(found))
        if role := _sign(found, higher_is_better=sign > 0):
            roles[number, 2 + len(others)] = role
    title = Heading(_run_title(main.record))
    return [title, "", Table(header, rows, roles), "", f"run_id: {main.record.run_id}"]


def _run_title(record: RunRecord) -> str:
    protocol = record.spec.protocol
    candidates = (
        "whole catalog"
        if protocol["candidates"] == "full"
        else f"{protocol['n_candidates']} candidates ({protocol['candidates']})"
    )
    transfer = "; ".join(["", ", ".join(words)]) if (words := record.spec.transfer_words()) else ""
    return (
        f"{record.spec.dataset.name}: {record.counts['n_cases']} cases, {protocol['split']}, "
        f"{candidates}, seed {record.spec.seed}{transfer}"
    )


def _best_cells(
    ordered: Sequence[FinishedRun], names: Sequence[str], metrics: Mapping[str, Interval]
) -> Roles:
    """Point out the best row of each metric; its column is one after its place in `names`."""
    roles: Roles = {}
    for place, name in enumerate(names):
        sign = 1.0 if metrics[name].higher_is_better else -1.0
        values = [
            None if (found := one.record.metrics.get(name)) is None else found.value
            for one in ordered
        ]
        defined = [sign * value for value in values if value is not None]
        roles |= {
            (row, place + 1): "best"
            for row, value in enumerate(values)
            if value is not None and len(defined) > 1 and sign * value == max(defined)
        }
    return roles


def _sign(found: Difference | None, *, higher_is_better: bool) -> Role | None:
    """Colour a difference whose interval leaves zero out."""
    if found is None or not (found.low > 0 or found.high < 0):
        return None
    return "good" if (found.low > 0) == higher_is_better else "bad"


def ablation_table(finished: Sequence[FinishedRun]) -> list[Block]:
    """Show what the pictures are worth: each run beside the one with the real pictures, paired."""
    real = next(one for one in finished if one.record.spec.images == "real")
    names = [name for name in real.record.metrics if not name.startswith(STRICT)]
    header = ["pictures", f"{names[0]} [95 %]", *names[1:], f"real less this, in {names[0]}"]
    rows = [
        [
            one.record.spec.images,
            *_cells(one, names[0], names[1:])[1:],
            "" if one is real else _signed(_difference(real, one, names[0])),
        ]
        for one in finished
    ]
    record = real.record
    title = f"{record.title} on {record.spec.dataset.name}: {record.counts['n_cases']} cases"
    ids = [f"{one.record.spec.images}: {one.record.run_id}" for one in finished]
    roles = _best_cells(finished, names, real.record.metrics)
    return [Heading(title), "", Table(header, rows, roles), "", *ids]


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


def comparison_table(found: Comparison, level: float) -> list[Block]:
    """Show each metric's rows with both kinds of noise, and then its pairs, best first."""
    blocks: list[Block] = []
    for name in found.metrics:
        pairs = [pair for pair in found.pairs if pair.metric == name]
        blocks += [Heading(f"{found.n_cases} cases"), "", _noise_table(found, name, pairs), ""]
        roles: Roles = {
            (row, len(_PAIR_HEADER) - 1): "best" if pair.better else "dim"
            for row, pair in enumerate(pairs)
        }
        blocks += [Table(_PAIR_HEADER, [_pair_cells(pair) for pair in pairs], roles), ""]
        blocks += [_verdict(pairs, level), ""]
    return blocks[:-1]


def _noise_table(found: Comparison, name: str, pairs: Sequence[Pair]) -> Table:
    header = [name, "seeds", "mean", "error by seeds", "error by cases", "larger"]
    rows = []
    for group in found.groups:
        one = found.spreads[name, group.title]
        rows.append(
            [
                *(group.title, str(one.n_seeds), _plain(one.mean)),
                *(_plain(one.seed_error), _plain(one.case_error), one.larger),
            ]
        )
    best = _best_group(found.groups, pairs)
    return Table(header, rows, {} if best is None else {(best, 0): "best", (best, 2): "best"})


def _best_group(groups: Sequence[Group], pairs: Sequence[Pair]) -> int | None:
    """Return the row that no other beats and that beats one; None where that is not decided."""
    beaten = {pair.a if pair.better == pair.b else pair.b for pair in pairs if pair.better}
    better = {pair.better for pair in pairs if pair.better} - beaten
    return next((i for i, group in enumerate(groups) if {group.title} == better), None)


_PAIR_HEADER = (
    *("pair", "difference [95 %]", "p bootstrap", "p Wilcoxon", "p permutation", "p Holm"),
    *("d_z", "wins", "ties", "losses", "better"),
)


def _pair_cells(pair: Pair) -> list[str]:
    test = pair.test
    return [
        f"{pair.a} - {pair.b}",
        f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]",
        *(f"{p:.2g}" for p in (test.p_bootstrap, test.p_wilcoxon, test.p_permutation, pair.p_holm)),
        f"{test.effect:+.2f}",
        *(str(count) for count in (test.wins, test.ties, test.losses)),
        pair.better or "undecided",
    ]


def _verdict(pairs: Sequence[Pair], level: float) -> str:
    """Say in words what the corrected p-values mean."""
    decided = sum(pair.better is not None for pair in pairs)
    # Holm multiplies the smallest one by the number of pairs.
    least = min(1.0, len(pairs) * min(pair.test.p_least for pair in pairs))
    said = (
        f"{decided} of {len(pairs)} differences are real at level {level:g} (sign-flip permutation "
        f"test over cases, Holm over {len(pairs)}); seeds are averaged first, their noise is not "
        "in the intervals"
    )
    if least < level:
        return said
    return f"{said}; in these cases no corrected p-value can be below {least:.2g}"


def _plain(value: float) -> str:
    return "-" if value != value else f"{value:.4f}"  # noqa: PLR0124 - NaN


def number(value: float | None) -> str:
    """Format a metric; `-` where it is undefined."""
    return "-" if value is None else f"{value:.4f}"


def _value(one: FinishedRun, name: str) -> float:
    found = one.record.metrics.get(name)
    return float("-inf") if found is None or found.value is None else found.value


def _cells(one: FinishedRun, first: str, others: Sequence[str]) -> list[str]:
    metrics = one.record.metrics
    return [
        one.record.title,
        _interval(metrics[first]) if first in metrics else "-",
        *(number(metrics[o].value) if o in metrics else "-" for o in others),
    ]


def _interval(interval: Interval) -> str:
    if interval.low is None:
        return number(interval.value)
    return f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"


def _difference(main: FinishedRun, other: FinishedRun, name: str) -> Difference | None:
    if name not in main.measurements or name not in other.measurements:
        return None
    ours, theirs = main.measurements[name].per_case, other.measurements[name].per_case
    return None if ours is None or theirs is None else paired_difference(ours, theirs, seed=0)


def _signed(one: Difference | None) -> str:
    return "-" if one is None else f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"


def _costs(one: FinishedRun) -> list[str]:
    resources = one.record.resources
    return [f"{resources[name] or 0:.1f}" for name in ("fit_seconds", "score_seconds")]


def record_table(record: RunRecord) -> list[Block]:
    """Show a record: its metrics, and then everything else by the name that it has in the file."""
    metrics = [
        [name, number(one.value), number(one.low), number(one.high), str(one.n)]
        for name, one in record.metrics.items()
    ]
    values = record.model_dump(mode="json", exclude={"metrics"})
    rest = [[name, value] for name, value in _flat(values)]
    return [
        Heading(f"{record.title} on {record.spec.dataset.name}"),
        "",
        Table(["metric", "value", "low", "high", "cases"], metrics),
        "",
        Table(["in the record", "value"], rest, n_left=2, wraps=True),
    ]


def _flat(values: Mapping[str, object], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and values; lists stand in one line."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        elif isinstance(value, list):
            yield f"{before}{key}", ", ".join(map(str, value)) or "-"
        else:
            yield f"{before}{key}", "-" if value is None or value == {} else str(value)
