"""Sequences: one user a line, `user item item ...` in time order (the S3-Rec = P5 layout)."""

import csv
import logging
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field

from mmrec_bench.config import ComponentConfig, added
from mmrec_bench.errors import ConfigError, DataFormatError, DataMissingError
from mmrec_bench.types import Catalog, DataCard, Interactions, RecData, Vocabulary
from mmrec_plugins.datasets.raw import Digest, Tally, read_lines, slug

log = logging.getLogger("mmrec_bench")

_FAULTS = {
    "truncated_files": "the compressed file ends early or is damaged",
    "broken_lines": "the line is not UTF-8 text",
    "lines_without_items": "the line has a user and no item",
    "broken_title_lines": "the title table's line has no item, or is no CSV",
    "duplicate_titles": "the title table names an item again",
}
_DEFAULT_TITLES = ("titles.csv.gz", "titles.csv")
_LONGEST_ID = 128


class Sequences:
    """A file of sequences and, optionally, a table of titles.

    Ids are kept as strings and numbered in the order in which they appear. The time of an
    interaction is its position in the user's line; there are no ratings. A user who has several
    lines goes on where the line before ended.
    """

    class Config(ComponentConfig):
        """Which files to read; paths are relative to the root."""

        file: Path | None = Field(None, description="default: the only *.txt at the root")
        titles: Path | None = Field(
            None,
            description="CSV with the columns item, title and, if known, asin; default: "
            "titles.csv.gz or titles.csv where there is one",
        )
        label: str | None = Field(
            None, description="name in records and tables; default: the file's, without its ending"
        )
        source: str = Field("not stated", description="who published the file, for the card")
        licence: str = Field("none stated", description="for the card")
        strict: bool = Field(default=False, description="stop at the first unusable line")
        max_users: int | None = added(
            None, ge=1, description="keep only the file's first n users, for what is costly"
        )

    def __init__(self, config: Config) -> None:
        self.config = config

    def load(self, root: Path) -> RecData:
        """Read the sequences and titles.

        Raises:
            ConfigError: several files fit.
            DataMissingError: no file fits, or one that was named is not there.
            DataFormatError: there is no usable line, or `strict` and a fault.
        """
        path, titles_path = self._find(root)
        tally = Tally(strict=self.config.strict, reasons=_FAULTS)
        digest = Digest()
        digest.mark("sequences")
        users, items, user, item = _read(path, tally, digest)
        n_users = self.config.max_users
        if n_users is not None:
            digest.mark("users", n_users)
            users, items, user, item = _first_users(n_users, users, items, user, item)
            tally.counts["rows_kept"] = len(item)
        if not item:
            raise DataFormatError(
                f"{path} holds no line of the form `user item item ...`; read: {dict(tally.counts)}"
            )
        rows: dict[str, tuple[str, str]] = {}
        if titles_path is not None:
            digest.mark("titles")
            rows = _read_titles(titles_path, tally, digest)
        nothing = ("", "")
        tally.counts["items_without_title"] = sum(not rows.get(name, nothing)[0] for name in items)
        asins = [rows.get(name, nothing)[1] for name in items]
        name = self.config.label or slug(path.name.partition(".")[0])
        tally.report(name)
        log.info("%s: %d interactions, %d users, %d items", name, len(item), len(users), len(items))
        return RecData(
            name=name,
            version=digest.version(),
            users=Vocabulary(list(users)),
            catalog=Catalog(
                items=Vocabulary(list(items)),
                title=[rows.get(name, nothing)[0] for name in items],
                attributes=[{"asin": a} if a else {} for a in asins] if any(asins) else (),
            ),
            interactions=_interactions(user, item),
            card=DataCard(
                source=self.config.source,
                licence=self.config.licence,
                counts=dict(tally.counts),
                notes=("no times: order is the order of the line",),
            ),
        )

    def _find(self, root: Path) -> tuple[Path, Path | None]:
        if self.config.file is not None:
            path = root / self.config.file
        else:
            files = sorted(root.glob("*.txt")) + sorted(root.glob("*.txt.gz"))
            if len(files) > 1:
                names = ", ".join(file.name for file in files)
                raise ConfigError(f"several text files in {root}: {names}; choose: dataset.file=")
            path = files[0] if files else root / "*.txt"
        if not path.is_file():
            raise DataMissingError(
                f"no sequence file {path}; expected lines `user item item ...`, oldest first, e.g. "
                "data/Beauty.txt of https://github.com/RUCAIBox/CIKM2020-S3Rec; put it there or "
                "name it with dataset.file="
            )
        if self.config.titles is not None:
            titles = root / self.config.titles
            if not titles.is_file():
                raise DataMissingError(f"no title table {titles}; expected CSV with item, title")
            return path, titles
        there = (path.parent / name for name in _DEFAULT_TITLES)
        return path, next((titles for titles in there if titles.is_file()), None)


def _read(
    path: Path, tally: Tally, digest: Digest
) -> tuple[dict[str, int], dict[str, int], "array[int]", "array[int]"]:
    """Return users, items, and the two columns in file order."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user, item = array("i"), array("i")
    n_read = 0
    for number, line in enumerate(read_lines(path, tally, digest), 1):
        if not line or line.isspace():
            continue
        n_read += 1
        try:
            words = line.decode("utf-8").split()
        except UnicodeDecodeError:
            words = []
        if not words or max(map(len, words)) > _LONGEST_ID:
            tally.fault("broken_lines", path, number)
        elif len(words) == 1:
            tally.fault("lines_without_items", path, number)
        else:
            index = users.setdefault(words[0], len(users))
            user.extend([index] * (len(words) - 1))
            item.extend([items.setdefault(word, len(items)) for word in words[1:]])
    tally.counts["lines_read"] = n_read
    tally.counts["rows_kept"] = len(item)
    return users, items, user, item


def _first_users(
    n_users: int,
    users: dict[str, int],
    items: dict[str, int],
    user: "array[int]",
    item: "array[int]",
) -> tuple[dict[str, int], dict[str, int], "array[int]", "array[int]"]:
    """Keep the first users and the items that they took; numbers stay, gaps close."""
    keep = np.frombuffer(user, np.int32) < n_users
    kept, renumbered = np.unique(np.frombuffer(item, np.int32)[keep], return_inverse=True)
    names = list(items)
    return (
        {name: index for name, index in users.items() if index < n_users},
        {names[old]: new for new, old in enumerate(kept.tolist())},
        array("i", np.frombuffer(user, np.int32)[keep].tolist()),
        array("i", renumbered.tolist()),
    )


def _interactions(user: "array[int]", item: "array[int]") -> Interactions:
    """Sort by user; the time is the position in the user's row."""
    rows = Interactions.build(np.frombuffer(user, np.int32), np.frombuffer(item, np.int32))
    counts = np.bincount(rows.user)
    starts = np.cumsum(counts) - counts
    position = np.arange(len(rows), dtype=np.int64) - np.repeat(starts, counts)
    return Interactions(rows.user, rows.item, position, rows.rating)


def _read_titles(path: Path, tally: Tally, digest: Digest) -> dict[str, tuple[str, str]]:
    """Return item -> (title, asin); the first line of each item counts."""
    rows: dict[str, tuple[str, str]] = {}
    table = csv.reader(_text_lines(path, tally, digest))
    try:
        header = [name.strip().casefold() for name in next(table, [])]
        if "item" not in header or "title" not in header:
            raise DataFormatError(f"{path} has the columns {header}, expected item and title")
        at_item, at_title = header.index("item"), header.index("title")
        at_asin = header.index("asin") if "asin" in header else None
        while True:
            try:
                row = next(table)
                item, title = row[at_item].strip(), " ".join(row[at_title].split())
                asin = row[at_asin].strip() if at_asin is not None else ""
            except StopIteration:
                break
            except (csv.Error, IndexError):
                tally.fault("broken_title_lines", path, table.line_num)
                continue
            if not item:
                tally.fault("broken_title_lines", path, table.line_num)
            elif item in rows:
                tally.fault("duplicate_titles", path, table.line_num)
            else:
                rows[item] = (title, asin)
    except csv.Error as error:
        raise DataFormatError(f"{path}, line {table.line_num}: {error}") from None
    return rows


def _text_lines(path: Path, tally: Tally, digest: Digest) -> Iterator[str]:
    for line in read_lines(path, tally, digest):
        yield line.decode("utf-8", "replace") + "\n"
