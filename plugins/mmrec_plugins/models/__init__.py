"""Built-in recommenders of one file each; the classes are imported on use."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry


@hookimpl
def mmrec_register_models() -> list[Entry]:
    """Register the small models."""
    return [
        Entry("random", "mmrec_plugins.models.random:Random", "a seeded random score an item"),
        Entry(
            "popularity",
            "mmrec_plugins.models.popularity:Popularity",
            "number of train interactions (PopRec)",
        ),
    ]
