"""Where files are looked for and kept, outside the results folder."""

import os
from contextvars import ContextVar
from pathlib import Path

_data_root: ContextVar[Path | None] = ContextVar("data_root", default=None)


def cache_dir() -> Path:
    """Return the cache folder: MMREC_CACHE, else XDG_CACHE_HOME/mmrec-bench, else ~/.cache/...

    All that is in it can be made again.
    """
    if folder := os.environ.get("MMREC_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mmrec-bench"


def use_data_root(root: Path | None) -> None:
    """Let `data_root` return this folder from now on: what `--data-root` said; None = as before."""
    _data_root.set(root)


def data_root() -> Path:
    """Return where data sets are looked for: `--data-root`, else MMREC_DATA, else ./data."""
    return _data_root.get() or Path(os.environ.get("MMREC_DATA") or "data")
