"""Every hook a plugin may implement, typed; the built-in components come through the same door.

A plugin is a module named by an entry point of the group `mmrec_bench`::

    [project.entry-points.mmrec_bench]
    my-baseline = "my_baseline"

Register hooks run when names are listed, so a plugin's module must stay light: `Entry` names the
class as "package.module:Class", which is imported on use.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from mmrec_bench.registry import Entry

GROUP = "mmrec_bench"
"""The entry-point group, and pluggy's project name."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def mmrec_register_datasets() -> "Iterable[Entry]":  # type: ignore[empty-body]
    """Called once, when data sets are first listed or looked up; returns Entries of `Dataset`s."""


@hookspec
def mmrec_register_instructions() -> "Iterable[Entry]":  # type: ignore[empty-body]
    """Called once, when names are first needed; returns Entries of `InstructionBuilder`s."""


@hookspec
def mmrec_register_encoders() -> "Iterable[Entry]":  # type: ignore[empty-body]
    """Called once, when names are first needed; returns Entries of `Encoder`s or `Describer`s."""


@hookspec
def mmrec_register_models() -> "Iterable[Entry]":  # type: ignore[empty-body]
    """Called once, when names are first needed; returns Entries of `Recommender`s."""


@hookspec
def mmrec_register_metrics() -> "Iterable[Entry]":  # type: ignore[empty-body]
    """Called once, when names are first needed; returns Entries of `Metric`s.

    A metric that takes a cutoff is asked for as `name@k`; its Config then has a field `k`.
    """


@hookspec
def mmrec_register_teachers() -> "Iterable[Entry]":  # type: ignore[empty-body]
    """Called once, when names are first needed; returns Entries of `Teacher`s.

    A teacher is asked for as `name` or `name:model`; its Config then has a field `model`.
    """


@hookspec
def mmrec_register_trackers() -> "Iterable[Entry]":  # type: ignore[empty-body]
    """Called once, when names are first needed; returns Entries of `Tracker`s.

    A tracker is asked for as `name` or `name:target`; its Config then has a field `target`.
    """


@hookspec
def mmrec_register_commands(cli: "click.Group") -> None:
    """Called at the start of the command line, before arguments are read; adds commands to it."""
