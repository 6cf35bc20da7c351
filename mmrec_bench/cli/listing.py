"""`mmrec-bench list`: registered names, without importing what is behind them."""

from collections.abc import Iterator

import click

from mmrec_bench.cli.output import echo_json
from mmrec_bench.plugins import installed
from mmrec_bench.registry import Registry
from mmrec_bench.terminal import Table, show

_KINDS = {
    "datasets": "dataset",
    "instructions": "instructions",
    "encoders": "encoder",
    "models": "model",
    "metrics": "metric",
    "teachers": "teacher",
    "trackers": "tracker",
}


@click.command(epilog="Example:  mmrec-bench list models chatglm2-ptv2")
@click.argument("kind", type=click.Choice(list(_KINDS)))
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str, name: str | None, as_json: bool) -> None:
    """List what is registered: name, the distribution that brings it, one line about it.

    With NAME, list that one's options: the default, the type and what it does.
    """
    registry = installed()[_KINDS[kind]]
    if name is not None:
        rows = list(options_of(registry, name))
    else:
        rows = [
            {
                "name": owned.entry.name,
                "distribution": owned.owner,
                "summary": owned.entry.summary,
            }
            for owned in registry
        ]
    if as_json:
        echo_json(rows)
        return
    if rows:
        columns, cells = list(rows[0]), [list(row.values()) for row in rows]
        show([Table(columns, cells, n_left=len(columns), headed=False, wraps=True)])


def options_of(registry: Registry, name: str) -> Iterator[dict[str, str]]:
    """Yield name, default (with the entry's preset), type and description of each option."""
    preset = registry.find(name).entry.options
    section = registry.kind
    for key, field in registry.load(name).Config.model_fields.items():
        default = preset.get(key, "(required)" if field.is_required() else field.get_default())
        annotation = field.annotation
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        yield {
            "option": f"{section}.{key}",
            "default": str(default),
            "type": kind.replace("typing.", "").replace("pathlib.", ""),
            "description": field.description or "",
        }
