"""Finding Amazon review files: which folders, which names, which layout."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from mmrec_bench.errors import ConfigError, DataFormatError, DataMissingError
from mmrec_plugins.datasets.amazon_raw import Format, recognise
from mmrec_plugins.datasets.raw import read_lines, slug

PAGES = {
    "2014": "https://jmcauley.ucsd.edu/data/amazon/links.html",
    "2018": "https://nijianmo.github.io/amazon/",
    "2023": "https://amazon-reviews-2023.github.io/",
}
NAMES = {
    "2014": "reviews_{category}_5.json.gz and meta_{category}.json.gz",
    "2018": "{category}_5.json.gz and meta_{category}.json.gz",
    "2023": "{category}.jsonl.gz and meta_{category}.jsonl.gz",
}
_NAME = re.compile(
    r"(?P<kind>reviews_|meta_)?(?P<category>[A-Za-z0-9][\w &,.'-]*?)(?P<core>_5)?"
    r"\.(?P<ending>jsonl?)(?:\.gz)?"
)
_LINES_LOOKED_AT = 1000


@dataclass(frozen=True)
class Source:
    """The files of one category in one layout.

    Attributes:
        category: as the publisher spells it, e.g. `Gift_Cards`.
        five_core: the publisher's 5-core file, not the whole one.
        meta: None where there is no metadata file.
    """

    layout: Format
    category: str
    five_core: bool
    reviews: Path
    meta: Path | None


@dataclass(frozen=True)
class Found:
    """What lies below a root: usable sources, and files whose name alone says Amazon."""

    sources: tuple[Source, ...]
    unrecognised: tuple[Path, ...]
    lonely_meta: tuple[Path, ...]


def find(root: Path) -> Found:
    """List the sources at `root` and in its folders named `amazon*`.

    Of a category's 5-core and whole file, the 5-core one; of a plain and a packed file, the plain
    one.
    """
    sources: dict[tuple[str, str], Source] = {}
    unrecognised: list[Path] = []
    lonely: list[Path] = []
    for folder in _folders(root):
        matches = [
            (path, match)
            for path in sorted(folder.iterdir())
            if (match := _NAME.fullmatch(path.name)) and path.is_file()
        ]
        metas = {(slug(m["category"]), m["ending"]): p for p, m in matches if m["kind"] == "meta_"}
        used = set()
        # 5-core files first, so that they win.
        for path, match in sorted(matches, key=lambda pair: not pair[1]["core"]):
            if match["kind"] == "meta_":
                continue
            key = slug(match["category"])
            meta = metas.get((key, match["ending"])) or next(
                (p for (name, _), p in metas.items() if name == key), None
            )
            layout = _layout(path, named_2014=match["kind"] == "reviews_")
            if layout is None:
                if match["kind"] or match["core"] or meta:
                    unrecognised.append(path)
                continue
            used.add(meta)
            five_core = match["core"] is not None
            source = Source(layout, match["category"], five_core, path, meta)
            sources.setdefault((layout, key), source)
        lonely += [path for path in metas.values() if path not in used]
    return Found(tuple(sources.values()), tuple(unrecognised), tuple(lonely))


def choose(
    root: Path, category: str | None, layout: Literal["auto", "2014", "2018", "2023"]
) -> Source | None:
    """Return the source that was asked for; None when nothing was and nothing is there.

    Raises:
        ConfigError: several fit.
        DataMissingError: none fits.
        DataFormatError: a file of the right name does not hold reviews.
    """
    found = find(root)
    fitting = [s for s in found.sources if layout in ("auto", s.layout)]
    if category is not None:
        fitting = [s for s in fitting if slug(s.category) == slug(category)]
    if len(fitting) > 1:
        shown = ", ".join(f"{s.category} ({s.layout})" for s in fitting)
        option = "format" if len({slug(s.category) for s in fitting}) == 1 else "category"
        raise ConfigError(f"several Amazon sets in {root}: {shown}; choose with dataset.{option}=")
    if fitting:
        return fitting[0]
    _explain_unrecognised(found, category)
    if category is None and layout == "auto" and not found.sources and not found.lonely_meta:
        return None
    raise DataMissingError(missing(root, category, layout, found))


def missing(
    root: Path, category: str | None, layout: Literal["auto", "2014", "2018", "2023"], found: Found
) -> str:
    """Say what was expected, what was found, and where to get it."""
    name = (category or "CATEGORY").replace(" ", "_")
    years = [layout] if layout != "auto" else list(PAGES)
    expected = "; ".join(
        f"{NAMES[year].format(category=name)} ({year}: {PAGES[year]})" for year in years
    )
    there = ", ".join(f"{s.category} ({s.layout})" for s in found.sources) or (
        "only metadata: " + ", ".join(p.name for p in found.lonely_meta)
        if found.lonely_meta
        else "none"
    )
    return (
        f"no Amazon reviews{f' of category {category!r}' if category else ''} in {root} or "
        f"{root / 'amazon'}; found: {there}; expected one of: {expected}; "
        f"get them with `mmrec-bench data fetch amazon --category {name}`"
    )


def _explain_unrecognised(found: Found, category: str | None) -> None:
    for path in found.unrecognised:
        match = _NAME.fullmatch(path.name)
        if match and (category is None or slug(match["category"]) == slug(category)):
            raise DataFormatError(
                f"{path} is named like Amazon reviews, but none of its first {_LINES_LOOKED_AT} "
                "lines has the fields of the 2014, 2018 or 2023 layout (reviewerID, asin / "
                "user_id, parent_asin, rating); fetch it again"
            )


def _folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        return
    yield root
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and folder.name.casefold().startswith("amazon"):
            yield folder


def _layout(path: Path, *, named_2014: bool) -> Format | None:
    """Tell the layout by the first lines that have the fields of one."""
    older = False
    for number, line in enumerate(read_lines(path)):
        if number >= _LINES_LOOKED_AT:
            break
        try:
            seen = recognise(orjson.loads(line))
        except ValueError:
            continue
        if seen == "older":
            older = True
        elif seen is not None:
            return seen
    if not older:
        return None
    return "2014" if named_2014 else "2018"
