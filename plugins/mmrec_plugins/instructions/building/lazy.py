"""The command group `instructions`; a command's module is imported when it is called."""

from importlib import import_module

import click

_COMMANDS = {
    "build": "let a teacher write profiles, attributes and recommendation instructions",
    "preview": "show examples with their pictures as one HTML page",
    "export": "write LLaMA-Factory's alpaca or sharegpt files",
}


class InstructionsGroup(click.Group):
    """A group that imports a command only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        """Return the commands in the order of use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"mmrec_plugins.instructions.building.command_{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


group = InstructionsGroup(
    "instructions",
    help="Build, preview and export instruction corpora.",
    short_help="build, preview and export instruction corpora",
)
