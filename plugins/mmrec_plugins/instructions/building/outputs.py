"""The files of a corpus folder."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmrec_bench.errors import DataFormatError
from mmrec_bench.files import atomic_write
from mmrec_bench.types import Catalog
from mmrec_plugins.instructions.building.card import dataset_card
from mmrec_plugins.instructions.building.report import BuildReport, readable
from mmrec_plugins.instructions.building.sources import Prepared
from mmrec_plugins.instructions.corpus import KINDS, CorpusEntry, Kind, read_corpus, write_corpus

ITEMS = "items.json"
REPORT = "report.json"


def write_outputs(
    output: Path,
    corpus: Sequence[CorpusEntry],
    kinds: Iterable[Kind],
    report: BuildReport,
    prepared: Prepared,
) -> None:
    """Write one file a kind, the items that entries show, reports and card; the report last.

    Args:
        output: the folder.
        corpus: entries of `kinds`.
        kinds: what was built now; files of other kinds stay.
        report: of all kinds in the folder.
        prepared: what they were built from.

    Raises:
        StorageError: the files cannot be written.
    """
    for kind in kinds:
        own = (entry for entry in corpus if entry.kind == kind)
        write_corpus(output / f"{kind}.jsonl", own)
    shown = read_items(output) if (output / ITEMS).exists() else {}
    shown |= _items(corpus, prepared.sources.catalog)
    text = json.dumps(dict(sorted(shown.items())), ensure_ascii=False, indent=1)
    atomic_write(output / ITEMS, text.encode())
    atomic_write(output / "report.md", readable(report).encode())
    atomic_write(output / "README.md", dataset_card(report).encode())
    atomic_write(output / REPORT, report.model_dump_json(indent=2).encode())


def _items(corpus: Iterable[CorpusEntry], catalog: Catalog) -> dict[str, dict[str, str]]:
    """Return id -> title and picture's path of the items that entries name."""
    names = {
        name for entry in corpus for name in (*entry.items, *entry.candidates, *entry.demonstrated)
    }
    rows = {}
    for name in names:
        item = catalog[catalog.items.index(name)]
        picture = {"image": str(item.images[0].absolute())} if item.images else {}
        rows[name] = {"title": item.title, **picture}
    return rows


def read_items(folder: Path) -> dict[str, dict[str, str]]:
    """Return id -> title and, where there is one, the picture's path of a corpus folder.

    Raises:
        DataFormatError: the file is missing or not of that form.
    """
    path = folder / ITEMS
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {key: str(value) for key, value in row.items()} for name, row in rows.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise DataFormatError(
            f"{path} cannot be read as the items of an instruction corpus: {error}"
        ) from None


def read_folder(folder: Path) -> list[CorpusEntry]:
    """Return all entries of a corpus folder, kind by kind.

    Raises:
        DataFormatError: no corpus is there, or a line is not an entry.
    """
    paths = [path for kind in KINDS if (path := folder / f"{kind}.jsonl").is_file()]
    if not paths:
        raise DataFormatError(
            f"{folder} holds no instruction corpus (none of {', '.join(KINDS)}.jsonl); build one: "
            "mmrec-bench instructions build"
        )
    return [entry for path in paths for entry in read_corpus(path)]


def read_earlier(folder: Path) -> BuildReport | None:
    """Return the report that lies in a folder; None where there is none."""
    return read_report(folder) if (folder / REPORT).exists() else None


def read_report(folder: Path) -> BuildReport:
    """Read a corpus folder's report.

    Raises:
        DataFormatError: missing, or not a report.
    """
    path = folder / REPORT
    try:
        return BuildReport.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataFormatError(
            f"{path} cannot be read as the report of a build: {reason}; remove the folder to "
            "build anew"
        ) from None
