"""MovieLens: ratings, titles, genres and years as GroupLens publishes them, posters by movie id."""

import csv
import logging
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import ConfigError, DataFormatError, DataMissingError
from mmrec_bench.progress import progress
from mmrec_bench.types import Catalog, DataCard, Int32Array, Interactions, RecData, Vocabulary
from mmrec_plugins.datasets import pictures
from mmrec_plugins.datasets.raw import Digest, Tally, read_blocks, read_lines, same_time_rows

log = logging.getLogger("mmrec_bench")

Layout = Literal["ml-100k", "ml-1m", "ml-10m", "ml-latest"]

_FAULTS = {
    "truncated_files": "the compressed file ends early or is damaged",
    "broken_lines": "the line does not have the fields user, movie, rating, time",
    "bad_ids": "the user's or the movie's id is not a number",
    "bad_ratings": "the rating is not a number from 0 to 5",
    "bad_timestamps": "the time is not between 1990 and 2040",
    "broken_movie_lines": "the movie line has no id or no title",
    "duplicate_movies": "the movie table names a movie again",
}
_EARLIEST, _LATEST = 631_152_000, 2_208_988_800  # 1990-01-01, 2040-01-01
_ID = re.compile(rb"\d{1,18}")
_YEAR = re.compile(r"\((\d{4})\)\s*$")
# The order of the 19 flags in u.item.
_GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_NO_GENRES = {"unknown", "(no genres listed)"}


@dataclass(frozen=True)
class _Files:
    """A layout's file of ratings, file of movies, and separator between fields of a rating."""

    ratings: str
    movies: str
    separator: bytes


_LAYOUTS: dict[Layout, _Files] = {
    "ml-100k": _Files("u.data", "u.item", b"\t"),
    "ml-1m": _Files("ratings.dat", "movies.dat", b"::"),
    "ml-10m": _Files("ratings.dat", "movies.dat", b"::"),
    "ml-latest": _Files("ratings.csv", "movies.csv", b","),
}


class MovieLens:
    """MovieLens 100k, 1M, 10M, or the `ratings.csv` layout (latest, 20M and later).

    The layout is told from the files present. Titles stay as published, with their year. Users and
    movies keep their published ids and are numbered in the order of the ratings file; movies nobody
    rated are left out.
    """

    class Config(ComponentConfig):
        """Which layout to read."""

        layout: Literal["auto", "ml-100k", "ml-1m", "ml-10m", "ml-latest"] = Field(
            "auto", description="layout of the raw files; auto = by the files that are there"
        )
        posters: Path | None = Field(
            None, description="folder of <movie id>.* pictures; default: posters beside the ratings"
        )
        strict: bool = Field(
            default=False, description="stop at the first unusable line or broken poster"
        )

    def __init__(self, config: Config) -> None:
        self.config = config

    def load(self, root: Path) -> RecData:
        """Read the set at `root` or in a folder `root/ml-*`.

        Raises:
            ConfigError: several sets are there.
            DataMissingError: none is.
            DataFormatError: no usable rating, or `strict` and a fault.
        """
        layout, folder = _find(root, self.config.layout)
        files = _LAYOUTS[layout]
        tally = Tally(strict=self.config.strict, reasons={**_FAULTS, **pictures.FAULTS})
        digest = Digest()
        digest.mark("movielens", layout)
        ratings = _read_ratings(folder / files.ratings, files.separator, tally, digest)
        if not ratings.user:
            faults = {name: n for name, n in tally.counts.items() if n}
            raise DataFormatError(
                f"{folder / files.ratings} holds no usable rating; read: {faults}"
            )
        digest.mark("movies")
        movies = _read_movies(folder / files.movies, layout, tally, digest)
        items = list(ratings.items)
        tally.counts["items_without_title"] = sum(item not in movies for item in items)
        posters = self.config.posters or folder / "posters"
        images = pictures.find_all([posters], items, tally, digest)
        interactions = ratings.interactions()
        tally.counts["same_time_rows"] = same_time_rows(interactions)
        tally.report(layout)
        log.info(
            "%s: %d ratings of %d users of %d movies, %d of them with a poster",
            layout,
            len(interactions),
            len(ratings.users),
            len(items),
            len(items) - tally.counts["items_without_image"],
        )
        return RecData(
            name=layout,
            version=digest.version(),
            users=Vocabulary(list(ratings.users)),
            catalog=_catalog(items, movies, images),
            interactions=interactions,
            card=DataCard(
                source="GroupLens, https://grouplens.org/datasets/movielens/; Harper and Konstan, "
                "The MovieLens datasets, TiiS 2015",
                licence="research use, no redistribution, no commercial use without permission",
                counts=dict(tally.counts),
                notes=("language models have memorised MovieLens titles and popularity",),
            ),
        )


def _catalog(
    items: list[str], movies: dict[str, tuple[str, str]], images: list[tuple[Path, ...]]
) -> Catalog:
    nothing = ("", "")
    return Catalog(
        items=Vocabulary(items),
        title=[movies.get(item, nothing)[0] for item in items],
        attributes=[_attributes(*movies.get(item, nothing)) for item in items],
        images=images,
    )


def _find(
    root: Path, wanted: Literal["auto", "ml-100k", "ml-1m", "ml-10m", "ml-latest"]
) -> tuple[Layout, Path]:
    folders = [root, *sorted(root.glob("ml-*"))] if root.is_dir() else []
    found: list[tuple[Layout, Path]] = []
    for folder in folders:
        for layout, files in _LAYOUTS.items():
            here = (folder / files.ratings).is_file() and (folder / files.movies).is_file()
            # 1M and 10M differ in the file of tags only.
            tags = (folder / "tags.dat").is_file()
            if here and (files.separator != b"::" or tags == (layout == "ml-10m")):
                found.append((layout, folder))
    fitting = [pair for pair in found if wanted in ("auto", pair[0])]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        shown = ", ".join(f"{layout} in {folder}" for layout, folder in fitting)
        raise ConfigError(
            f"several MovieLens sets: {shown}; choose with dataset.layout= or --data-root"
        )
    shown = "; ".join(
        f"{f.ratings} and {f.movies} ({layout})"
        for layout, f in _LAYOUTS.items()
        if wanted in ("auto", layout)
    )
    raise DataMissingError(
        f"no MovieLens files in {root} or {root / 'ml-*'}; expected {shown}; get them from "
        "https://grouplens.org/datasets/movielens/ and unpack them there"
    )


class _Ratings:
    """Kept ratings in file order."""

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        self.items: dict[str, int] = {}
        self.user, self.item = array("i"), array("i")
        self.time, self.rating = array("q"), array("f")

    def interactions(self) -> Interactions:
        return Interactions.build(
            np.frombuffer(self.user, np.int32),
            np.frombuffer(self.item, np.int32),
            np.frombuffer(self.time, np.int64),
            np.frombuffer(self.rating, np.float32),
        )


def _read_ratings(path: Path, separator: bytes, tally: Tally, digest: Digest) -> _Ratings:
    """Read `user sep movie sep rating sep time` lines.

    `rows_read` = `rows_kept` + what is in the faults of a line.
    """
    kept = _Ratings()
    clean = _clean_lines(separator)
    n_read = n_lines = 0
    with progress(f"reading {path.name}", unit="lines") as bar:
        for block in read_blocks(path, tally, digest):
            lines = block
            if n_lines == 0 and block.startswith(b"userId"):
                _, more, lines = block.partition(b"\n")
                n_lines = 1
                if not more:
                    continue
            n_here = lines.count(b"\n") + 1
            if clean.fullmatch(lines) and _add_clean(kept, lines, separator):
                n_read += n_here
            else:
                n_read += _add_each(kept, lines, separator, tally, path, n_lines)
            n_lines += n_here
            bar.advance(n_here)
    tally.counts["rows_read"] = n_read
    tally.counts["rows_kept"] = len(kept.user)
    return kept


def _clean_lines(separator: bytes) -> re.Pattern[bytes]:
    """Return what matches lines in which nothing but the time can be wrong.

    Ids have no leading zero and at most 15 digits, so that a float64 holds them and gives the
    same text back.
    """
    sep = re.escape(separator)
    identifier, rating = rb"(?:0|[1-9]\d{0,14})", rb"(?:[0-4](?:\.\d{1,9})?|5(?:\.0{1,9})?)"
    line = identifier + sep + identifier + sep + rating + sep + rb"\d{9,10}\r?"
    return re.compile(rb"(?:%b\n)*+%b" % (line, line))


def _add_clean(kept: _Ratings, lines: bytes, separator: bytes) -> bool:
    """Add clean lines all at once; or none, where a time is not one."""
    values = np.fromstring(lines.replace(separator, b" ").decode("ascii"), sep=" ")
    user, item, rating, time = values.reshape(-1, 4).T
    if time.min() < _EARLIEST or time.max() >= _LATEST:
        return False
    kept.user.frombytes(_numbered(kept.users, user).tobytes())
    kept.item.frombytes(_numbered(kept.items, item).tobytes())
    kept.time.frombytes(time.astype(np.int64).tobytes())
    kept.rating.frombytes(rating.astype(np.float32).tobytes())
    return True


def _numbered(numbers: dict[str, int], ids: NDArray[np.float64]) -> Int32Array:
    """Number ids in the order in which they come, as those before them were."""
    known, first, place = np.unique(ids, return_index=True, return_inverse=True)
    number = np.zeros(len(known), np.int32)
    for i in np.argsort(first).tolist():
        number[i] = numbers.setdefault(str(int(known[i])), len(numbers))
    return number[place]


def _add_each(
    kept: _Ratings, lines: bytes, separator: bytes, tally: Tally, path: Path, before: int
) -> int:
    """Add lines one by one and count their faults; return how many were not empty."""
    n_read = 0
    for number, line in enumerate(lines.split(b"\n"), before + 1):
        if not line or line.isspace():
            continue
        n_read += 1
        fault = _add(kept, line.split(separator))
        if fault is not None:
            tally.fault(fault, path, number)
    return n_read


def _add(kept: _Ratings, parts: list[bytes]) -> str | None:
    """Add one line's rating; or return its fault."""
    if len(parts) != 4:
        return "broken_lines"
    user, item = parts[0], parts[1]
    if not _ID.fullmatch(user) or not _ID.fullmatch(item):
        return "bad_ids"
    try:
        rating = float(parts[2])
    except ValueError:
        return "bad_ratings"
    if not 0 <= rating <= 5:
        return "bad_ratings"
    time = parts[3].strip()
    if not _ID.fullmatch(time) or not _EARLIEST <= int(time) < _LATEST:
        return "bad_timestamps"
    kept.user.append(kept.users.setdefault(user.decode(), len(kept.users)))
    kept.item.append(kept.items.setdefault(item.decode(), len(kept.items)))
    kept.time.append(int(time))
    kept.rating.append(rating)
    return None


def _read_movies(
    path: Path, layout: Layout, tally: Tally, digest: Digest
) -> dict[str, tuple[str, str]]:
    """Return movie id -> (title, genres joined by `|`); the first line of each movie counts."""
    movies: dict[str, tuple[str, str]] = {}
    for number, parts in _movie_rows(path, layout, tally, digest):
        ok = len(parts) >= 3 and parts[0].isdigit() and parts[1].strip()
        if not ok:
            tally.fault("broken_movie_lines", path, number)
            continue
        if parts[0] in movies:
            tally.fault("duplicate_movies", path, number)
            continue
        genres = parts[2]
        if layout == "ml-100k":
            genres = "|".join(
                genre
                for genre, flag in zip(_GENRES, parts[-len(_GENRES) :], strict=False)
                if flag.strip() == "1"
            )
        movies[parts[0]] = (" ".join(parts[1].split()), genres)
    return movies


def _movie_rows(
    path: Path, layout: Layout, tally: Tally, digest: Digest
) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and fields; 100k and 1M are Latin-1, the others UTF-8."""
    encoding = "latin-1" if layout in ("ml-100k", "ml-1m") else "utf-8"
    lines = (
        line.decode(encoding, "replace").rstrip("\r") for line in read_lines(path, tally, digest)
    )
    if layout != "ml-latest":
        separator = "|" if layout == "ml-100k" else "::"
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, line.split(separator)
        return
    table = csv.reader(line + "\n" for line in lines)
    while True:
        try:
            row = next(table)
        except StopIteration:
            return
        except csv.Error:
            row = ["not CSV"]
        if row and row[0] != "movieId":
            yield table.line_num, row


def _attributes(title: str, genres: str) -> dict[str, str]:
    known = [g for g in genres.split("|") if g.strip() and g.strip() not in _NO_GENRES]
    year = _YEAR.search(title)
    return {
        **({"genres": ", ".join(known)} if known else {}),
        **({"year": year[1]} if year else {}),
    }
