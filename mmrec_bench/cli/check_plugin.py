"""`mmrec-bench check-plugin`: the contract of a component's kind, run on what is installed."""

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from mmrec_bench.cli.options import FOLDER
from mmrec_bench.cli.output import echo_json
from mmrec_bench.config import parse_override
from mmrec_bench.contract.findings import Result
from mmrec_bench.contract.prepared import Asked
from mmrec_bench.contract.registered import check, components_of
from mmrec_bench.errors import ConfigError, MMRecError
from mmrec_bench.paths import data_root as default_data_root
from mmrec_bench.plugins import KINDS, installed


@dataclass(frozen=True)
class Report:
    """What became of one component.

    Attributes:
        kind: "model", "dataset" ...
        name: as asked for.
        distribution: that registers it.
        checks: in order.
    """

    kind: str
    name: str
    distribution: str
    checks: list[Result]


_MARKS = {"ok": "ok      ", "failed": "FAILED  ", "skipped": "skipped "}


@click.command(
    epilog="Example:  mmrec-bench check-plugin my-baseline   |   "
    "mmrec-bench check-plugin rarest --plugin my_plugin.py"
)
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(KINDS), help="Of the component.  [default: all kinds of this name]"
)
@click.option(
    "overrides",
    "-o",
    "--option",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set one of its options, e.g. -o epochs=2.",
)
@click.option(
    "--data-root",
    type=FOLDER,
    help="Where a data set's files lie.  [default: $MMREC_DATA, data]",
)
@click.option("--device", default="cpu", show_default=True, help="auto | cpu | cuda | cuda:1 ...")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(
    name: str,
    kind: str | None,
    overrides: tuple[str, ...],
    data_root: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Check a component against the contract of its kind, and explain each failure.

    NAME may also be that of a distribution, for all its components. A line a check: ok; failed,
    with what was found, what was expected and how to mend it; or skipped, with the reason. The exit
    code is 1 where one failed. It learns from and is asked on toy data; a data set reads its own
    files.
    """
    plugins = installed()
    options = parse_options(overrides)
    reports = []
    parts = [one for one in components_of(plugins, name) if kind in (None, one[0])]
    if not parts:
        raise ConfigError(f"{name!r} is no {kind}, and has none")
    for one, part in parts:
        with tempfile.TemporaryDirectory(prefix="mmrec-check-") as folder:
            root = data_root or default_data_root()
            asked = Asked(one, part, options, root, Path(folder), device)
            try:
                results = check(asked, plugins)
            except MMRecError as error:
                if len(parts) == 1:
                    raise
                results = [not_loaded(str(error))]  # and the others go on
        owner = plugins[one].find(part.partition("@")[0]).owner
        reports.append(Report(one, part, owner, results))
    for broken in plugins.broken:
        if name == broken.distribution and kind is None:
            results = [not_loaded(f"it is left out: {broken.reason}")]
            reports.append(Report("plugin", broken.name, name, results))
    if as_json:
        echo_json([asdict(report) for report in reports])
    else:
        for report in reports:
            click.echo(f"{report.kind} {report.name} of {report.distribution}")
            click.echo("\n".join(lines(report.checks)))
    if any(result.outcome == "failed" for report in reports for result in report.checks):
        sys.exit(1)


def not_loaded(found: str) -> Result:
    """Return what is said of a component that cannot be checked at all."""
    mend = "mend what it says, or check it alone (--kind) with its options"
    rule = "it can be loaded with its options"
    return Result("load", rule, "failed", found, "no exception", mend)


def parse_options(overrides: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` options; a section before the key, as in `run`, may stand there.

    Raises:
        ConfigError: not of that form.
    """
    options = {}
    for text in overrides:
        before, equals, _ = text.partition("=")
        if not equals:
            raise ConfigError(f"option {text!r} is not of the form key=value")
        _, key, value = parse_override(text if "." in before else f"plugin.{text}")
        options[key] = value
    return options


def lines(results: Sequence[Result]) -> list[str]:
    """Return a line a check, and for a failure what was found, what was expected, what to do.

    What fails several checks alike, e.g. an exception in `fit`, is explained once.
    """
    found = []
    explained: dict[tuple[str, str, str], str] = {}
    for result in results:
        told = (result.found, result.expected, result.mend)
        first = explained.setdefault(told, result.check) if result.outcome == "failed" else ""
        again = first not in ("", result.check)
        reason = f": {result.reason}" if result.reason else f": as {first}" if again else ""
        found.append(f"  {_MARKS[result.outcome]}{result.check:<9} {result.rule}{reason}")
        if result.outcome == "failed" and not again:
            found.append(f"            found     {result.found}")
            found.append(f"            expected  {result.expected}")
            found.append(f"            to mend   {result.mend}")
    counts = Counter(result.outcome for result in results)
    found.append(f"  {counts['ok']} ok, {counts['failed']} failed, {counts['skipped']} skipped")
    return found
