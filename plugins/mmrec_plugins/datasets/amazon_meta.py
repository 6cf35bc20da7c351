"""Reading the metadata files of the three Amazon layouts: titles, texts, attributes, addresses."""

import ast
import re
import warnings
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrec_plugins.datasets.amazon_raw import (
    FIELDS,
    ITEM_ID,
    Format,
    Row,
    numbered,
    read_object,
)
from mmrec_plugins.datasets.raw import Digest, Tally
from mmrec_plugins.datasets.text import clean, is_page_code, repair_latin

META_FAULTS = {
    "meta_broken_lines": "the metadata line is not an object",
    "meta_bad_ids": "the metadata line has no usable item id",
}

_LARGEST_LITERAL = 1 << 20
_DEEPEST_LITERAL = 16
_STRING = r"""u?(?:'[^'\\]*+(?:\\.[^'\\]*+)*+'|"[^"\\]*+(?:\\.[^"\\]*+)*+")"""
_NUMBER = r"-?\d[\d.]*+(?:e[+-]?\d++)?+"
# Possessive throughout: one pass from left to right, however hostile the line. A number or name is
# taken only behind an opening mark, which leaves no way to write an operator.
_PLAIN_LITERAL = re.compile(
    rf"(?:[\s\]}})]++|{_STRING}|[\[{{(,:]\s*+(?:{_NUMBER}|None|True|False)?+)*+", re.DOTALL
)
_STRINGS = re.compile(_STRING, re.DOTALL)
_ITEM_IN_LITERAL = re.compile(rb"""asin['"]\s*:\s*['"]([^'"]*)""")
_PRICE = re.compile(r"\$?\s*(\d{1,3}(?:,\d{3})*|\d+)(\.\d{1,2})?\d*")


@dataclass(slots=True)
class Meta:
    """What is kept of an item's metadata."""

    title: str = ""
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    image_urls: tuple[str, ...] = ()


def read_meta(
    path: Path, layout: Format, wanted: Container[str], tally: Tally, digest: Digest
) -> dict[str, Meta]:
    """Read the metadata of the wanted items; the first line of each counts.

    `meta_rows_read` = `meta_kept + meta_unused + meta_duplicates` + what is in `META_FAULTS`. A
    Python-literal line whose item is told to be unwanted by a plain search is not parsed, so that
    its faults do not show.
    """
    kept: dict[str, Meta] = {}
    counts = tally.counts
    counts.update(dict.fromkeys(("meta_rows_read", "meta_unused", "meta_duplicates"), 0))
    item_field = FIELDS[layout].item
    build = _BUILDERS[layout]
    with warnings.catch_warnings():
        # A broken literal makes the parser warn of bad escapes and numbers; it is counted below.
        warnings.simplefilter("ignore")
        for number, line in numbered(path, tally, digest):
            counts["meta_rows_read"] += 1
            if layout == "2014" and _unwanted_literal(line, wanted):
                counts["meta_unused"] += 1
                continue
            row = _meta_object(line, literal=layout == "2014")
            if row is None:
                tally.fault("meta_broken_lines", path, number)
                continue
            item = row.get(item_field) or row.get("asin")
            if not isinstance(item, str) or not ITEM_ID.fullmatch(item):
                tally.fault("meta_bad_ids", path, number)
            elif item not in wanted:
                counts["meta_unused"] += 1
            elif item in kept:
                counts["meta_duplicates"] += 1
            else:
                kept[item] = build(row, tally)
    counts["meta_kept"] = len(kept)
    return kept


def _unwanted_literal(line: bytes, wanted: Container[str]) -> bool:
    """Tell by a plain search that a line is of an unwanted item; literals are slow to parse."""
    found = _ITEM_IN_LITERAL.findall(line)
    return bool(found) and not any(name.decode("latin-1") in wanted for name in found)


def _meta_object(line: bytes, *, literal: bool) -> Row | None:
    row, fault = read_object(line)
    if fault == "broken_lines" and literal:
        return parse_literal(line)
    return row if fault is None else None


def parse_literal(line: bytes) -> Row | None:
    """Read a Python dict display, without running anything; None when it is not one.

    What is not a string must be brackets, numbers and constants, so that no call, operator or
    attribute reaches the parser; size and depth are limited before it sees them.
    """
    if len(line) > _LARGEST_LITERAL:
        return None
    text = line.decode("utf-8", "replace")
    if not _PLAIN_LITERAL.fullmatch(text) or _depth(_STRINGS.sub("", text)) > _DEEPEST_LITERAL:
        return None
    try:
        row = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _depth(skeleton: str) -> int:
    depth = deepest = 0
    for mark in re.findall(r"[\[\]{}()]", skeleton):
        depth += 1 if mark in "[{(" else -1
        deepest = max(deepest, depth)
    return deepest


# What is kept of an item ------------------------------------------------------------------------


def _meta_2014(row: Row, tally: Tally) -> Meta:
    paths = [_category_path(path) for path in _list(row.get("categories"))]
    url = row.get("imUrl")
    repaired = {
        key: repair_latin(value) if isinstance(value, str) else value for key, value in row.items()
    }
    return _meta(
        repaired,
        tally,
        category=max(paths, key=len, default=[])[-1:],
        brand=repaired.get("brand"),
        urls=[url],
    )


def _meta_2018(row: Row, tally: Tally) -> Meta:
    urls = row.get("imageURLHighRes") or row.get("imageURL") or row.get("image")
    return _meta(
        row,
        tally,
        category=_category_path(row.get("category"))[-1:] or _category_path([row.get("main_cat")]),
        brand=row.get("brand"),
        urls=_list(urls),
    )


def _meta_2023(row: Row, tally: Tally) -> Meta:
    pictures = [p for p in _list(row.get("images")) if isinstance(p, dict)]
    pictures.sort(key=lambda p: p.get("variant") != "MAIN")  # stable: the main one first
    details = row.get("details")
    brand = details.get("Brand") if isinstance(details, dict) else None
    return _meta(
        row,
        tally,
        category=(
            _category_path(row.get("categories"))[-1:] or _category_path([row.get("main_category")])
        ),
        brand=brand or row.get("store"),
        urls=[p.get("hi_res") or p.get("large") or p.get("thumb") for p in pictures],
    )


_BUILDERS: Mapping[Format, Callable[[Row, Tally], Meta]] = {
    "2014": _meta_2014,
    "2018": _meta_2018,
    "2023": _meta_2023,
}


def _meta(row: Row, tally: Tally, *, category: list[str], brand: Any, urls: list[Any]) -> Meta:  # noqa: ANN401
    title = row.get("title")
    title = title if isinstance(title, str) else ""
    if is_page_code(title):
        tally.counts["broken_titles"] += 1
        title = ""
    text = _joined(row.get("description")) or _joined(row.get("feature") or row.get("features"))
    attributes = {
        "brand": clean(brand, 100) if isinstance(brand, str) else "",
        "category": category[0] if category else "",
        "price": _price(row.get("price")),
        **_details(row.get("details")),
    }
    return Meta(
        title=clean(title, 500),
        text=text,
        attributes={name: value for name, value in attributes.items() if value},
        image_urls=tuple(url for url in urls if _is_url(url)),
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _joined(value: object) -> str:
    return clean(" ".join(part for part in _list(value) if isinstance(part, str)))


def _category_path(value: object) -> list[str]:
    """Return the leading entries that look like category names.

    In the 2018 files, bullet points and tags of the page follow the names in the same list.
    """
    path: list[str] = []
    for entry in _list(value):
        if not isinstance(entry, str) or "<" in entry:
            break
        name = clean(entry, 100)
        if not name or len(name) > 50 or len(name.split()) > 7 or name[-1] in ".!?:;":
            break
        path.append(name)
    return path


def _price(value: object) -> str:
    """Return a price in dollars with two decimals; "" for ranges and what is no price."""
    match = _PRICE.fullmatch(str(value).strip()) if isinstance(value, str | int | float) else None
    if match is None or isinstance(value, bool):
        return ""
    amount = float(match[1].replace(",", "") + (match[2] or ""))
    return f"{amount:.2f}" if 0 < amount < 1e6 else ""


def _details(value: object) -> dict[str, str]:
    """Return colour and material where the details name them (2018 keys hold colons and breaks)."""
    if not isinstance(value, dict):
        return {}
    named = {str(key).strip(" \n\t:").casefold(): entry for key, entry in value.items()}
    return {
        name: clean(entry, 100)
        for name in ("color", "material")
        if isinstance(entry := named.get(name), str)
    }


def _is_url(value: object) -> bool:
    return (
        isinstance(value, str)
        and value.startswith(("http://", "https://"))
        and len(value) <= 2000
        and value.isprintable()
        and " " not in value
    )
