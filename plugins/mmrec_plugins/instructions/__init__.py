"""Built-in instruction builders and teachers; the classes are imported on use."""

from typing import TYPE_CHECKING

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry

if TYPE_CHECKING:
    import click


@hookimpl
def mmrec_register_instructions() -> list[Entry]:
    """Register the built-in instruction builders."""
    return [
        Entry(
            "ranking",
            "mmrec_plugins.instructions.ranking:Ranking",
            "history and labelled candidates as text, what the pictures show as words",
        ),
        Entry(
            "next-item",
            "mmrec_plugins.instructions.ranking:Ranking",
            "the history alone; candidates are judged by the likelihood of their text",
            options={"list_candidates": False},
        ),
        Entry(
            "zero-shot",
            "mmrec_plugins.instructions.recommendation:Recommendation",
            "rank labelled candidates in one of many wordings, English or Chinese",
        ),
        Entry(
            "few-shot",
            "mmrec_plugins.instructions.recommendation:Recommendation",
            "zero-shot behind answered examples of other training users",
            options={"demonstrations": 4},
        ),
    ]


@hookimpl
def mmrec_register_teachers() -> list[Entry]:
    """Register the teachers that need no server."""
    return [
        Entry(
            "template",
            "mmrec_plugins.instructions.teachers.template:Template",
            "rules alone: drafts from the catalog's words and the pictures' words",
        ),
        Entry(
            "lm",
            "mmrec_plugins.instructions.teachers.lm:LanguageModelTeacher",
            "a language model that runs here, e.g. lm:smollm2",
        ),
    ]


@hookimpl
def mmrec_register_commands(cli: "click.Group") -> None:
    """Add the command group `instructions`; its commands are imported when they are called."""
    from mmrec_plugins.instructions.building.lazy import group  # noqa: PLC0415 - click: not at start

    cli.add_command(group)
