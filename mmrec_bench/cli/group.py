"""The group of all commands: each is imported when it is called, those of plugins are guarded."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import click

from mmrec_bench import guard
from mmrec_bench.cli.output import json_alone
from mmrec_bench.errors import PluginError, did_you_mean

COMMANDS = {
    "run": "run a model on a data set and write its record",
    "tune": "choose a model's options on validation",
    "ablate": "repeat a run without, with shuffled and with grey pictures",
    "evaluate": "measure stored predictions again, without the model",
    "sweep": "run models x data sets x seeds from files",
    "compare": "test whether differences between runs are real",
    "leaderboard": "turn records into a CSV table",
    "report": "write a site of all records that opens from disk",
    "list": "list registered data sets, builders, encoders, models or metrics",
    "plugins": "list plugins with versions, and the broken ones with reasons",
    "new-plugin": "write a new plugin: an installable distribution with its tests",
    "check-plugin": "check a plugin against the contract of its kind, and explain each failure",
    "show": "show the record of a run",
    "doctor": "say what this machine offers and where weights and data were looked for",
    "data": "fetch a data set from its publisher",
}
"""Command -> its line in --help; the module of the same name is imported when it is called."""

_GUARD = "mmrec_bench.guard"
"""Where the guard of a plugin's command is entered, once it is known to be one."""


@contextmanager
def _blaming(name: str, owner: str) -> Iterator[None]:
    """Run a plugin's command: what it raises names it, but for how commands end on purpose."""
    passed: BaseException | None = None
    whose = f"command {name!r} of {owner}"
    with guard.blaming(f"{whose} failed", step=whose):
        try:
            yield
        except (
            *(click.ClickException, click.Abort, click.exceptions.Exit),
            *(SystemExit, BrokenPipeError),
        ) as error:
            passed = error
    if passed is not None:
        raise passed


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the built-in commands in the order of use, then those of plugins."""
        return [*COMMANDS, *sorted(set(super().list_commands(ctx)) - set(COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name in COMMANDS:
            file = cmd_name.replace("list", "listing").replace("-", "_")
            module = import_module(f"mmrec_bench.cli.{file}")
            command: click.Command = module.command
            for option in command.params:
                if option.name == "as_json":
                    option.callback = json_alone
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when one is unknown."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"unknown command {args[0]!r}{hint}", ctx)
        name, command, rest = super().resolve_command(ctx, args)
        from mmrec_bench.plugins import OWN_DISTRIBUTION, installed  # noqa: PLC0415 - not for --help

        owner = installed().commands.get(name or "", OWN_DISTRIBUTION)
        if owner != OWN_DISTRIBUTION and name is not None:
            ctx.meta[_GUARD].enter_context(_blaming(name, owner))
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click says
        """Run the command that was asked for."""
        with ExitStack() as stack:
            ctx.meta[_GUARD] = stack
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = list(COMMANDS.items())
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            if command is not None and name not in COMMANDS:
                rows.append((name, _short_help(command)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _short_help(command: click.Command) -> str:
    try:
        with guard.blaming("(its help cannot be shown", whole=True):
            return command.get_short_help_str()
    except PluginError as error:
        return f"{error})"
