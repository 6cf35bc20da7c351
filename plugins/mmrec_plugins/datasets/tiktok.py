"""TikTok: users, videos and a published split, as MMSSL and DiffMM use it."""

import logging
import re
from array import array
from pathlib import Path

import numpy as np
from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import DataFormatError, DataMissingError
from mmrec_bench.types import Catalog, DataCard, Interactions, RecData, Vocabulary
from mmrec_plugins.datasets.raw import Digest, Tally, read_lines

log = logging.getLogger("mmrec_bench")

PARTS = ("train", "validation", "test")
"""Files in the order of `Interactions.part`: 0, 1, 2."""

_COLUMNS = ("user", "item")
_FAULTS = {
    "truncated_files": "the compressed file ends early or is damaged",
    "broken_lines": "the line does not have the two numbers user and item",
}
_ID = re.compile(rb"\d{1,18}")


class TikTok:
    """Three tables with the columns user and item, one a part of the published split.

    The item's number is its row in the feature files `image_feat.npy` and `audio_feat.npy`, which
    the encoder `features` reads. There are no times: the order of a user's interactions is train,
    validation, test, and within a part that of the file. `protocol.split=given` keeps the parts.
    """

    class Config(ComponentConfig):
        """How strictly the files are read."""

        strict: bool = Field(default=False, description="stop at the first unusable line")

    def __init__(self, config: Config) -> None:
        self.config = config

    def load(self, root: Path) -> RecData:
        """Read the tables at `root` or in `root/tiktok`.

        Raises:
            DataMissingError: one of the three is not there.
            DataFormatError: a table has other columns or no usable line, or `strict` and a fault.
        """
        paths = _find(root)
        tally = Tally(strict=self.config.strict, reasons=_FAULTS)
        digest = Digest()
        digest.mark("tiktok")
        columns = [_read(path, tally, digest) for path in paths]
        user, item = (
            np.concatenate([np.asarray(column[i], np.int64) for column in columns]) for i in (0, 1)
        )
        part = np.repeat(np.arange(len(PARTS), dtype=np.int8), [len(users) for users, _ in columns])
        users, user = np.unique(user, return_inverse=True)
        items, item = np.unique(item, return_inverse=True)
        pairs = user * len(items) + item
        tally.counts["repeated_pairs"] = len(pairs) - len(np.unique(pairs))
        tally.report("tiktok")
        log.info("tiktok: %d interactions, %d users, %d items", len(part), len(users), len(items))
        names = [str(number) for number in items.tolist()]
        return RecData(
            name="tiktok",
            version=digest.version(),
            users=Vocabulary([str(number) for number in users.tolist()]),
            catalog=Catalog(items=Vocabulary(names), title=[""] * len(names)),
            interactions=_interactions(user, item, part),
            card=DataCard(
                source="TikTok Micro-Video challenge, in the files of MMSSL (Wei et al., WWW 2023) "
                "and DiffMM (Jiang et al., MM 2024), https://github.com/HKUDS/DiffMM",
                licence="none stated",
                counts=dict(tally.counts),
                notes=("no times: order is train, validation, test, then that of the file",),
            ),
        )


def _find(root: Path) -> list[Path]:
    """Return the three files, packed or not, of one folder."""
    for folder in (root, root / "tiktok"):
        found = [
            path
            for part in PARTS
            for path in (folder / f"{part}.tsv.gz", folder / f"{part}.tsv")
            if path.is_file()
        ]
        if not found:
            continue
        here = {path.name.partition(".")[0]: path for path in reversed(found)}
        if missing := [part for part in PARTS if part not in here]:
            raise DataMissingError(
                f"{folder} has {', '.join(path.name for path in found)}, but no "
                f"{' and no '.join(f'{part}.tsv.gz' for part in missing)}"
            )
        return [here[part] for part in PARTS]
    raise DataMissingError(
        f"no TikTok files in {root} or {root / 'tiktok'}; expected train.tsv.gz, validation.tsv.gz "
        "and test.tsv.gz with the columns user and item, made from trnMat, valMat and tstMat of "
        "https://github.com/HKUDS/DiffMM"
    )


def _read(path: Path, tally: Tally, digest: Digest) -> "tuple[array[int], array[int]]":
    """Return the columns user and item in file order."""
    user, item = array("q"), array("q")
    digest.mark(path.name.partition(".")[0])
    lines = enumerate(read_lines(path, tally, digest), 1)
    header = next(lines, (1, b""))[1].decode("utf-8", "replace").split()
    if sorted(header) != sorted(_COLUMNS):
        raise DataFormatError(
            f"{path} has the columns {header}, expected {' and '.join(_COLUMNS)}, tab-separated"
        )
    at_user, at_item = (header.index(name) for name in _COLUMNS)
    for number, line in lines:
        words = line.split()
        if not words:
            continue
        if len(words) != len(_COLUMNS) or not all(_ID.fullmatch(word) for word in words):
            tally.fault("broken_lines", path, number)
            continue
        user.append(int(words[at_user]))
        item.append(int(words[at_item]))
    if not user:
        raise DataFormatError(f"{path} holds no line of a user and an item")
    tally.counts[f"rows_{path.name.partition('.')[0]}"] = len(user)
    return user, item


def _interactions(
    user: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    item: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    part: "np.ndarray[tuple[int], np.dtype[np.int8]]",
) -> Interactions:
    """Sort by user; the time is the position in the user's row."""
    rows = Interactions.build(user, item, part=part)
    counts = np.bincount(rows.user)
    starts = np.cumsum(counts) - counts
    position = np.arange(len(rows), dtype=np.int64) - np.repeat(starts, counts)
    return Interactions(rows.user, rows.item, position, rows.rating, rows.part)
