"""Where files are looked for and kept, outside the results folder."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the cache folder: MMREC_CACHE, else XDG_CACHE_HOME/mmrec-bench, else ~/.cache/...

    All that is in it can be made again.
    """
    if folder := os.environ.get("MMREC_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mmrec-bench"


def data_root() -> Path:
    """Return the folder where data sets are looked for: MMREC_DATA, else ./data."""
    return Path(os.environ.get("MMREC_DATA") or "data")
