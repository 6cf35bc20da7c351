"""Encoder `features`: vectors that somebody computed before, from a NumPy file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmrec_bench.config import ComponentConfig, operational
from mmrec_bench.errors import ConfigError, DataFormatError, DataMissingError
from mmrec_bench.paths import data_root
from mmrec_bench.types import FloatArray, Item


class Features:
    """Rows of a `.npy` file, e.g. the image features that a data set is published with.

    With `ids`, row i belongs to the i-th id of that file. Without, items are numbered: row 0
    belongs to the item whose id is `first_id`, the next row to the next number. The file is mapped
    and only rows that are asked for are read; they are float32 before anything is computed.
    """

    encodes: ClassVar[str] = "item"

    class Config(ComponentConfig):
        """Options of `features`."""

        # Where the files lie is no part of a run's identity; their content is, by the fingerprint.
        file: Path = operational(
            ...,
            description="`.npy` of (n, D) numbers, one row an item; from the current folder, or "
            "from the one in MMREC_DATA",
        )
        ids: Path | None = operational(
            None,
            description="item ids of the rows: a text file with one a line, or a JSON list; None = "
            "items are numbered",
        )
        first_id: int = Field(0, ge=0, description="number of row 0's item, where there is no ids")

    def __init__(self, config: Config) -> None:
        if config.ids is not None and config.first_id:
            raise ConfigError(
                f"first_id={config.first_id} is for numbered items, and ids={config.ids} names "
                "them; leave one out"
            )
        self.config = config
        self._table = _open_table(config.file)
        self._row = None if config.ids is None else _read_ids(config.ids, len(self._table))

    def fingerprint(self) -> str:
        """Name the content of the files."""
        files = [path for path in (self.config.file, self.config.ids) if path is not None]
        marks = " ".join(_hash(path) for path in files)
        return f"features {self.config.first_id} {marks}"

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Return (n_items, D) float32; a row of NaN for an item that the file does not have.

        Raises:
            ConfigError: ids are needed, since an item's id is not a number.
            DataFormatError: a row is neither finite in float32 nor all NaN.
        """
        vectors = np.full((len(items), self._table.shape[1]), np.nan, np.float32)
        rows = [self._find(item.id) for item in items]
        here = [i for i, row in enumerate(rows) if row is not None]
        with np.errstate(over="ignore"):  # found below, as infinite
            vectors[here] = self._table[[row for row in rows if row is not None]]
        odd = ~np.isfinite(vectors).all(axis=1) & ~np.isnan(vectors).all(axis=1)
        if odd.any():
            i = int(odd.argmax())
            raise DataFormatError(
                f"{self.config.file}: row {rows[i]} (item {items[i].id!r}) holds NaN or infinite "
                "numbers; expected numbers that float32 can hold, or all NaN for no vector"
            )
        return vectors

    def _find(self, name: str) -> int | None:
        if self._row is not None:
            return self._row.get(name)
        if not (name.isascii() and name.isdigit()):
            raise ConfigError(
                f"item {name!r} has no number to find its row in {self.config.file} by; give the "
                "rows' ids: -o vectors.ids=FILE with one id a line"
            )
        row = int(name) - self.config.first_id if len(name) < 20 else -1
        return row if 0 <= row < len(self._table) else None


def _open_table(path: Path) -> NDArray[Any]:
    path = _present(path)
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataFormatError(
            f"{path} cannot be read as a `.npy` file of numbers: {reason}"
        ) from None
    if not isinstance(table, np.ndarray):
        table.close()
        raise DataFormatError(f"{path} holds several arrays; expected a `.npy` file of one")
    if table.ndim != 2 or 0 in table.shape or table.dtype.kind not in "fiu":
        raise DataFormatError(
            f"{path} holds {table.dtype} {table.shape}; expected numbers of shape (rows, columns)"
        )
    return table


def _read_ids(path: Path, n_rows: int) -> Mapping[str, int]:
    """Item id -> row."""
    path = _present(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        ids = json.loads(text) if path.suffix == ".json" else text.rstrip("\n").split("\n")
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(ids, list) or not all(type(one) in (str, int) for one in ids):
        raise DataFormatError(f"{path} is not a JSON list of item ids")
    rows = {str(one).strip(): row for row, one in enumerate(ids)}
    if len(ids) != n_rows or len(rows) != n_rows:
        raise DataFormatError(
            f"{path} holds {len(ids)} ids, {len(rows)} of them different; expected one for each of "
            f"the {n_rows} rows"
        )
    return rows


def _present(path: Path) -> Path:
    """Return where a file lies: from the current folder, or from the folder of the data sets."""
    path = path.expanduser()
    places = [path] if path.is_absolute() else [path, data_root() / path]
    for place in places:
        if place.is_file():
            return place
    raise DataMissingError(
        f"{' or '.join(map(str, places))} is not there; -o vectors.file and vectors.ids name "
        "files, from the current folder or from the one in MMREC_DATA"
    )


def _hash(path: Path) -> str:
    with _present(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
