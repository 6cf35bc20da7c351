"""Options that several commands share: what runs, where it reads and writes, on which device."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from mmrec_bench.config import RunConfig, read_yaml, section_options

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


class Decorator(Protocol):
    """Adds to a command."""

    def __call__(self, command: F, /) -> F:
        """Return the command with it."""
        ...


def together(*options: Decorator) -> Decorator:
    """Return one decorator that adds options in the order given."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


what_runs = together(
    click.option("--model", "-m", help="A registered model; see `mmrec-bench list models`."),
    click.option("--dataset", "-d", help="A registered data set; see `mmrec-bench list datasets`."),
    click.option(
        "--instructions",
        help="A registered instruction builder.  [default: the model's choice]",
    ),
    click.option(
        "--protocol",
        help="leave-one-out | user-ratio | random-ratio | global-time | given",
    ),
    click.option("--config", type=FILE, help="A YAML configuration."),
    click.option(
        "overrides",
        "-o",
        "--option",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Set one option, e.g. -o model.backbone=smollm2 -o protocol.n_candidates=50.",
    ),
    click.option("--seed", type=int, help="Seed of the model.  [default: 0]"),
)
"""The options that make a RunConfig: model, data set, protocol, configuration, seed."""

where_it_runs = together(
    click.option(
        "--data-root",
        type=FOLDER,
        help="Where the data set's files lie.  [default: $MMREC_DATA, data]",
    ),
    click.option("--results", type=FOLDER, default=Path("results"), show_default=True),
    click.option(
        "--device", default="auto", show_default=True, help="auto | cpu | cuda | cuda:1 ..."
    ),
)
"""The options that change no number: folders and device."""

who_hears = click.option(
    "--track",
    "trackers",
    multiple=True,
    metavar="NAME[:TARGET]",
    help="Also tell a tracker how the runs go, e.g. --track tensorboard:runs; can be given "
    "again. It changes nothing of them. See `mmrec-bench list trackers`.",
)
"""The option that lets trackers hear the runs."""


def hear(trackers: Sequence[str]) -> None:
    """Let trackers hear all runs of the command that is being called."""
    from mmrec_bench.observers import observing  # noqa: PLC0415 - pydantic: not for --help
    from mmrec_bench.plugins import installed  # noqa: PLC0415

    if trackers:
        click.get_current_context().with_resource(observing(trackers, installed()))


def resolve_config(
    path: Path | None, chosen: dict[str, Any], overrides: tuple[str, ...]
) -> RunConfig:
    """Lay the command line's choices over the configuration file.

    Raises:
        ConfigError: no model or data set, an unknown key, or a value of the wrong type.
    """
    values: dict[str, Any] = read_yaml(path) if path is not None else {}
    for key, value in chosen.items():
        if value is None:
            continue
        if key == "metrics":
            values[key] = tuple(name.strip() for name in value.split(","))
        elif key == "protocol":
            values[key] = {**section_options(values, key), "split": value}
        else:
            values[key] = value
    for key in ("model", "dataset"):
        if key not in values:
            raise click.UsageError(
                f"--{key} is missing; `mmrec-bench list {key}s` shows what there is"
            )
    return RunConfig.parse(values, overrides)
