"""Built-in instruction builders; the classes are imported on use."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry


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
    ]
