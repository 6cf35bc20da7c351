"""Raises when it may add commands."""

import click

from mmrec_bench.hookspecs import hookimpl


@hookimpl
def mmrec_register_commands(cli: click.Group) -> None:
    """Ask for what a group does not have."""
    cli.no_such_method()  # type: ignore[attr-defined]
