"""Built-in data sets; the classes are imported on use."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry


@hookimpl
def mmrec_register_datasets() -> list[Entry]:
    """Register the built-in data sets."""
    return [
        Entry(
            "amazon",
            "mmrec_plugins.datasets.amazon:Amazon",
            "Amazon Reviews 2014 / 2018 / 2023 raw files with product photos; else a small sample",
        ),
        Entry(
            "sequences",
            "mmrec_plugins.datasets.sequences:Sequences",
            "`user item item ...` lines in time order (S3-Rec, P5), optional title table",
        ),
        Entry(
            "movielens",
            "mmrec_plugins.datasets.movielens:MovieLens",
            "MovieLens 100k, 1M and latest, with posters by movie id",
        ),
        Entry(
            "tiktok",
            "mmrec_plugins.datasets.tiktok:TikTok",
            "TikTok videos with their published split (MMSSL, DiffMM)",
        ),
    ]
