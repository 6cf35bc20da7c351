"""A plugin as a stranger would write it: popularity that fades with age."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry


@hookimpl
def mmrec_register_models() -> list[Entry]:
    """Register the model; its class is imported when it is used."""
    return [
        Entry(
            "recent-popularity",
            "recent_popularity.model:RecentPopularity",
            "popularity that halves with every `half_life_days`",
        )
    ]
