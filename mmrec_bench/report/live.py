"""Runs under way, read from their folders without touching them."""

import io
import json
import socket
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mmrec_bench.files import RunLock
from mmrec_bench.predictions import MANIFEST
from mmrec_bench.report.draft import alive


def runs_under_way(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return a line for each run that a process of this machine holds, or another one may hold.

    Args:
        folders: results folders.

    Returns:
        title, done, total (0 = not known yet), and words for the rest; by title.
    """
    return [
        _progress(path.parent, elsewhere)
        for folder in folders
        for path in sorted((folder / "runs").glob("*/spec.json"))
        if (elsewhere := _claim(path.parent)) is not None
    ]


def _claim(folder: Path) -> str | None:
    """Return words about a claim that may stand; "" = it stands here, None = there is none.

    The lock itself is not tried: that would keep it from a run for a moment. Its text names a
    process, which only its own machine can look up. Elsewhere a run may have ended without clearing
    the text, so nothing is sure.
    """
    holder = RunLock(folder).holder()
    if not holder.pid:
        return None
    if not holder.host:
        return "may be running on an unknown machine"
    if holder.host != socket.gethostname():
        return f"may be running on {holder.host}"
    return "" if alive(holder.pid) else None


def _progress(folder: Path, elsewhere: str) -> dict[str, Any]:
    done = sum(
        _rows(str(part), part.stat().st_mtime_ns)
        for part in (folder / "predictions").glob("part-*.npz")
    )
    total = int(_json(folder / "predictions" / MANIFEST).get("n_cases", 0))
    dataset = _json(folder / "spec.json").get("dataset")
    where = str(dataset.get("name", "")) if isinstance(dataset, dict) else ""
    return {
        "title": f"{folder.name} on {where}",
        "done": done,
        "total": total,
        "words": ", ".join(filter(None, (_words(folder, done, total), elsewhere))),
    }


def _words(folder: Path, done: int, total: int) -> str:
    if not (folder / "model" / "fit.json").exists():
        return "fitting"
    if not total:
        return "scoring has begun"
    timing = _json(folder / "timing.json")
    seconds, cases = timing.get("seconds"), timing.get("cases")
    words = f"{done:,} of {total:,} cases"
    if not isinstance(seconds, int | float) or not isinstance(cases, int) or seconds <= 0:
        return words
    rate = cases / seconds
    if rate <= 0 or done >= total:
        return f"{words}, measuring" if done >= total else words
    minutes, rest = divmod(round((total - done) / rate), 60)
    return f"{words}, {rate:.3g}/s, {minutes}:{rest:02d} left"


def _json(path: Path) -> dict[str, Any]:
    """Read a file that may be missing or half there; {} then."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=100_000)
def _rows(path: str, _changed: int) -> int:
    """Return the cases of a part, from the header of its column of rows."""
    try:
        with zipfile.ZipFile(path) as file, file.open("rows.npy") as column:
            header = io.BytesIO(column.read(4096))
        version = np.lib.format.read_magic(header)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        return int(read(header)[0][0])
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile):
        return 0
