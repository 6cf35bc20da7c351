"""`mmrec-bench compare`: is the difference between runs real?"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mmrec_bench.cli.output import echo_json
from mmrec_bench.cli.show import find_record
from mmrec_bench.comparison import Comparison, compare, load_groups
from mmrec_bench.errors import UnknownNameError
from mmrec_bench.records import finite
from mmrec_bench.tables import comparison_table
from mmrec_bench.terminal import show


@click.command(
    epilog="Example:  mmrec-bench compare sasrec-s0-1f0c2a9b44 popularity-s0 --metrics "
    "ndcg@10,hit_rate@10 --baseline popularity-s0"
)
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN_ID...")
@click.option(
    "--metrics", help="Comma-separated.  [default: the first metric that all of the runs have]"
)
@click.option(
    "--baseline",
    metavar="RUN_ID",
    help="Compare each run with this one only.  [default: every pair]",
)
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Corrected p-values below it are called a difference.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    run_ids: tuple[str, ...],
    metrics: str | None,
    baseline: str | None,
    level: float,
    results: Path,
    as_json: bool,
) -> None:
    """Compare runs case by case: bootstrap, Wilcoxon, permutation test, effect size, wins, losses.

    The beginning of a run's id is enough where it is unique. Runs that differ in their seed alone
    are put together: their cases are averaged, and the table tells which is larger, the noise of
    seeds or of cases. What decides are the p-values of the permutation test, which flips signs of
    differences, corrected for the number of pairs (Holm). Runs that did not meet the same cases are
    refused, and the first difference is named.
    """
    chosen = [*run_ids, *([baseline] if baseline else [])]
    stored = [find_record(results, run_id) for run_id in chosen]
    groups = load_groups(stored)
    title = None
    if baseline:
        own = stored[-1].record.run_id
        title = next(g.title for g in groups if own in {r.run_id for r in g.records})
    names = tuple(name.strip() for name in metrics.split(",")) if metrics else ()
    known = {name: None for one in stored for name in one.record.metrics}
    for name in names:
        if name not in known:
            raise UnknownNameError("metric", name, known)
    found = compare(groups, names, baseline=title, level=level)
    if as_json:
        echo_json(_plain(_values(found)))
    else:
        show(comparison_table(found, level))


def _values(found: Comparison) -> dict[str, object]:
    """Return the comparison for scripts; numbers that are not defined are null."""
    return {
        "n_cases": found.n_cases,
        "metrics": list(found.metrics),
        "groups": [
            {
                "title": group.title,
                "run_ids": [record.run_id for record in group.records],
                **{
                    name: asdict(found.spreads[name, group.title])
                    | {"larger_noise": found.spreads[name, group.title].larger}
                    for name in found.metrics
                },
            }
            for group in found.groups
        ],
        "pairs": [
            {"metric": pair.metric, "a": pair.a, "b": pair.b}
            | asdict(pair.test)
            | {"p_holm": pair.p_holm, "better": pair.better}
            for pair in found.pairs
        ],
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - anything JSON can hold
    """Put None where a number is not defined: JSON has no NaN."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
