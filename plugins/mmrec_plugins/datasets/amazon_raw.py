"""The three published raw layouts of Amazon reviews: telling them apart and reading the reviews.

2014 (McAuley et al., SIGIR 2015), 2018 (Ni et al., EMNLP 2019), 2023 (Hou et al., 2024).
"""

import json
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from mmrec_bench.progress import progress
from mmrec_bench.types import Review
from mmrec_plugins.datasets.raw import Digest, Tally, read_lines
from mmrec_plugins.datasets.text import clean

Format = Literal["2014", "2018", "2023"]
Row = dict[str, Any]

REVIEW_FAULTS = {
    "truncated_files": "the compressed file ends early or is damaged",
    "broken_lines": "the line is not JSON",
    "not_objects": "the line is not an object",
    "missing_fields": "user, item, time or rating is missing",
    "wrong_types": "user, item, time or rating has the wrong type",
    "bad_ids": "the user's or the item's id is not one",
    "bad_ratings": "the rating is not a number from 0 to 5",
    "bad_timestamps": "the time is not between 1990 and 2040",
}

_EARLIEST, _LATEST = 631_152_000, 2_208_988_800  # 1990-01-01, 2040-01-01
# An id becomes part of file names and prompts: no dots, slashes, spaces or controls.
ITEM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_USER_ID = re.compile(r"[!-~]{1,128}")
_BAR_EVERY = 1 << 16


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields of a review, and time units a second."""

    user: str
    item: str
    rating: str
    time: str
    summary: str = "summary"
    text: str = "reviewText"
    units: int = 1


FIELDS: Mapping[Format, Fields] = {
    "2014": Fields("reviewerID", "asin", "overall", "unixReviewTime"),
    "2018": Fields("reviewerID", "asin", "overall", "unixReviewTime"),
    "2023": Fields("user_id", "parent_asin", "rating", "timestamp", "title", "text", units=1000),
}


@dataclass
class Columns:
    """Kept rows in file order; 24 bytes a row.

    Attributes:
        users: user id -> number, in the order of first appearance.
        items: item id -> number, likewise.
        time: in the file's units.
        review: what was written, None where nothing was; empty unless asked for.
    """

    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    user: "array[int]" = field(default_factory=lambda: array("i"))
    item: "array[int]" = field(default_factory=lambda: array("i"))
    time: "array[int]" = field(default_factory=lambda: array("q"))
    rating: "array[float]" = field(default_factory=lambda: array("d"))
    review: list[Review | None] = field(default_factory=list)


def recognise(row: object) -> Format | Literal["older"] | None:
    """Tell a review's layout by its fields; "older" = 2014 or 2018, this row does not tell."""
    if not isinstance(row, dict):
        return None
    if "user_id" in row and ("parent_asin" in row or "asin" in row) and "rating" in row:
        return "2023"
    if "reviewerID" not in row or "asin" not in row:
        return None
    if "verified" in row or "vote" in row or "style" in row:
        return "2018"
    return "2014" if "helpful" in row else "older"


def read_reviews(
    path: Path, layout: Format, tally: Tally, digest: Digest, *, texts: bool = False
) -> Columns:
    """Read the usable rows of a review file, with what was written where `texts`.

    `rows_read` is the number of lines that are not blank; each is in the columns or in one of
    `REVIEW_FAULTS`.
    """
    fields, kept = FIELDS[layout], Columns()
    users, items = kept.users, kept.items
    add_user, add_item = kept.user.append, kept.item.append
    add_time, add_rating = kept.time.append, kept.rating.append
    earliest, latest = _EARLIEST * fields.units, _LATEST * fields.units
    n_read = 0
    for number, line in numbered(path, tally, digest):
        n_read += 1
        try:
            row = orjson.loads(line)
            user, item = row[fields.user], row[fields.item]
            rating, time = row[fields.rating], row[fields.time]
            good = (
                user in users or (type(user) is str and _USER_ID.fullmatch(user) is not None)
            ) and (item in items or (type(item) is str and ITEM_ID.fullmatch(item) is not None))
            good = good and type(time) is int and earliest <= time < latest
            good = good and type(rating) in (float, int) and 0 <= rating <= 5
        except (ValueError, TypeError, LookupError):
            good = False
        if not good:
            repaired = _second_look(line, fields, tally, path, number)
            if repaired is None:
                continue
            row, (user, item, time, rating) = repaired
        add_user(users.setdefault(user, len(users)))
        add_item(items.setdefault(item, len(items)))
        add_time(time)
        add_rating(rating)
        if texts:
            kept.review.append(_written(row, fields))
    tally.counts["rows_read"] = n_read
    return kept


def _second_look(
    line: bytes, fields: Fields, tally: Tally, path: Path, number: int
) -> tuple[Row, tuple[str, str, int, float]] | None:
    """Read a line that the fast path refused: repaired, or None and counted under its fault."""
    row, fault = read_object(line)
    if fault is None:
        values = _review(row, fields)
        if not isinstance(values, str):
            return row, values
        fault = values
    tally.fault(fault, path, number)
    return None


def _review(row: Row, fields: Fields) -> tuple[str, str, int, float] | str:
    """Return user, item, time, rating; or the fault."""
    user, item = row.get(fields.user), row.get(fields.item) or row.get("asin")
    time, rating = row.get(fields.time), row.get(fields.rating)
    if user is None or item is None or time is None or rating is None:
        return "missing_fields"
    if isinstance(time, float) and time.is_integer():
        time = int(time)
    texts = isinstance(user, str) and isinstance(item, str)
    if not texts or type(time) is not int or type(rating) not in (int, float):
        return "wrong_types"
    if not _USER_ID.fullmatch(user) or not ITEM_ID.fullmatch(item):
        return "bad_ids"
    if not 0 <= rating <= 5:  # NaN is not either
        return "bad_ratings"
    if not _EARLIEST * fields.units <= time < _LATEST * fields.units:
        return "bad_timestamps"
    return user, item, time, float(rating)


def _written(row: Row, fields: Fields) -> Review | None:
    """Return the cleaned summary and text of a review; None where there is neither."""
    raw = (row.get(fields.summary), row.get(fields.text))
    summary, text = (clean(part) if isinstance(part, str) else "" for part in raw)
    return Review(summary, text) if summary or text else None


def read_object(line: bytes) -> tuple[Row, str | None]:
    """Return a line's object and no fault, or {} and the fault."""
    try:
        row = orjson.loads(line)
    except ValueError:
        row = _lenient_json(line)
        if row is None:
            return {}, "broken_lines"
    return (row, None) if isinstance(row, dict) else ({}, "not_objects")


def _lenient_json(line: bytes) -> object:
    """Read what Python's json writes and JSON forbids (NaN, lone surrogates); else None."""
    if not any(word in line for word in (b"NaN", b"Infinity", b"\\ud", b"\\uD")):
        return None
    try:
        row: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row


def numbered(path: Path, tally: Tally, digest: Digest) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank with their numbers, and report progress."""
    with progress(f"reading {path.name}", unit="lines") as bar:
        number = 0
        for number, line in enumerate(read_lines(path, tally, digest), 1):
            if number % _BAR_EVERY == 0:
                bar.advance(_BAR_EVERY)
            if line and not line.isspace():
                yield number, line
        bar.advance(number % _BAR_EVERY)
