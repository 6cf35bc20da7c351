"""The data of a case explorer: a compact index, the items, and cases and prompts in chunks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.plugins import Plugins
from mmrec_bench.progress import progress
from mmrec_bench.report.draft import Draft
from mmrec_bench.report.gathering import Sheet
from mmrec_bench.report.prompts import Asked, asked, parts_of
from mmrec_bench.report.sources import Explored, ShownRun, explore
from mmrec_bench.report.thumbnails import Thumbnails
from mmrec_bench.types import Answers, Catalog, FloatArray, Message, Ragged

CHUNK = 50
"""Cases of a file."""
_LONGEST = 20_000
"""Characters of an answer that are kept."""


@dataclass(frozen=True)
class Explorer:
    """What was written.

    Attributes:
        n_cases: cases; 0 = there is no explorer.
        notes: a line for each thing that cannot be shown.
    """

    n_cases: int
    notes: tuple[str, ...]


def write_explorer(
    draft: Draft,
    sheet: Sheet,
    folders: Sequence[Path],
    data_roots: Sequence[Path],
    max_cases: int,
    thumbnails: Thumbnails | None,
    plugins: Plugins,
) -> Explorer:
    """Write data/<board>/*.js for the runs whose predictions and cases are here.

    Args:
        draft: of the report.
        sheet: the board.
        folders: results folders.
        data_roots: where data sets are looked for first.
        max_cases: cases that are shown at most.
        thumbnails: of the report; None = without pictures.
        plugins: for data sets, builders and encoders.
    """
    found, notes = explore(sheet, folders, data_roots, max_cases, plugins)
    if found is None:
        return Explorer(0, tuple(notes))
    groups, more = asked(found.runs, found.task, plugins, draft.scratch)
    notes += more
    folder = f"data/{sheet.name}"
    items = _Items(found, thumbnails)
    n_cases = len(found.task.split.test)
    starts = range(0, n_cases, CHUNK)
    with progress(f"cases of {sheet.board.dataset}", total=n_cases, unit="cases") as bar:
        for number, start in enumerate(starts):
            stop = min(start + CHUNK, n_cases)
            draft.script(f"{folder}/c{number}.js", "c", [number, _chunk(found, start, stop)])
            for place, group in enumerate(groups):
                told = [
                    [[_message(m, items) for m in messages] for messages in orders]
                    for orders in group.prompts(start, stop)
                ]
                draft.script(f"{folder}/p{place}-{number}.js", "p", [place, number, told])
            bar.advance(stop - start)
    draft.script(f"{folder}/index.js", "index", _index(found, groups, notes))
    draft.script(f"{folder}/items.js", "items", items.columns())
    return Explorer(n_cases, tuple(notes))


def _index(found: Explored, groups: Sequence[Asked], notes: Sequence[str]) -> dict[str, Any]:
    """Return what the list of cases is searched, filtered and sorted by."""
    split = found.task.split
    cases = split.test
    counts = np.bincount(split.train.item, minlength=len(split.catalog))
    first = cases.targets.values[cases.targets.offsets[:-1]]
    candidates = cases.queries.candidates
    prompt_of = {place: i for i, group in enumerate(groups) for place in group.runs}
    return {
        "chunk": CHUNK,
        "users": [split.users[user] for user in cases.queries.user.tolist()],
        "target": first.tolist(),
        "length": cases.queries.history.lengths.tolist(),
        "popularity": counts[first].tolist(),
        "n_candidates": int(found.runs[0].predictions.ranks.n_candidates.max()),
        "listed": candidates is not None,
        "runs": [
            {
                "number": run.number,
                "label": run.row.label,
                "id": run.record.run_id,
                "seeds": len(run.row.records),
                "prompt": prompt_of.get(place, -1),
                "ranks": _first_ranks(run).tolist(),
            }
            for place, run in enumerate(found.runs)
        ],
        "orders": [int(group.orders.shape[1]) for group in groups],
        "notes": list(notes),
    }


def _first_ranks(run: ShownRun) -> NDArray[np.float64]:
    """Return (B,) rank of each case's best placed target, ties shared; 0 = left out."""
    ranks = run.predictions.ranks
    each = np.where(ranks.ranked, ranks.n_better + 1 + ranks.n_tied / 2, np.inf)
    best = np.minimum.reduceat(each, ranks.first_target[:-1])
    return np.where(np.isinf(best), 0, best)


def _chunk(found: Explored, start: int, stop: int) -> list[dict[str, Any]]:
    """Return the cases of a chunk: what was shown and what each run made of it."""
    cases = found.task.split.test
    candidates = cases.queries.candidates
    outcomes = [_outcomes(run, start, stop, listed=candidates is not None) for run in found.runs]
    return [
        {
            "h": cases.queries.history[row].tolist(),
            "t": cases.targets[row].tolist(),
            "c": None if candidates is None else candidates[row].tolist(),
            "r": [one[row - start] for one in outcomes],
        }
        for row in range(start, stop)
    ]


def _outcomes(run: ShownRun, start: int, stop: int, *, listed: bool) -> list[dict[str, Any]]:
    """Return a run's ranking of each case, and its answer where it wrote one."""
    predictions = run.predictions
    if listed and predictions.scores is not None:
        scores = predictions.scores[start:stop]
        rows = zip(_places(scores), scores.tolist(), strict=True)
        told: list[dict[str, Any]] = [{"k": k, "s": [_rounded(v) for v in s]} for k, s in rows]
    else:
        top = predictions.ranks.top[start:stop]
        told = [{"top": row[row >= 0].tolist()} for row in top]
    if predictions.answers is not None:
        for row, one in zip(range(start, stop), told, strict=True):
            one["a"] = _answer(predictions.answers, row)
    return told


def _answer(answers: Answers, row: int) -> list[Any]:
    text = answers.text[row]
    cut = text if len(text) <= _LONGEST else text[:_LONGEST] + " … (cut here)"
    counts = (answers.prompt_tokens[row], answers.answer_tokens[row], answers.hallucinated[row])
    return [cut, answers.outcome[row], *map(int, counts)]


def _rounded(value: float) -> float | None:
    """Return five digits; None for a candidate that was left out or a score without bounds."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _places(scores: FloatArray) -> list[list[float | None]]:
    """Return the rank of each of (b, C) candidates, ties shared; None = left out."""
    known = ~np.isnan(scores)
    filled = np.where(known, scores, -np.inf)
    better = (filled[:, None, :] > filled[:, :, None]).sum(axis=2)
    same = (filled[:, None, :] == filled[:, :, None]) & known[:, None, :]
    ranks = better + 1 + (same.sum(axis=2) - 1) / 2
    rows = zip(ranks.tolist(), known.tolist(), strict=True)
    return [[r if k else None for r, k in zip(*row, strict=True)] for row in rows]


def _message(message: Message, items: "_Items") -> list[Any]:
    """Return [role, parts]; a part is a text, or [thumbnail or "", item] for a picture."""
    parts = [
        part if isinstance(part, str) else [items.picture(part[0]), part[1]]
        for part in parts_of(message)
    ]
    return [message.role, parts]


class _Items:
    """The items that cases show: titles, ids and thumbnails, empty for all others."""

    def __init__(self, found: Explored, thumbnails: Thumbnails | None) -> None:
        self._catalog: Catalog = found.task.split.catalog
        self._thumbnails = thumbnails
        self._shown = _shown_items(found)

    def picture(self, path: Path | None) -> str:
        """Return a thumbnail's name; "" where there is none."""
        return "" if path is None or self._thumbnails is None else self._thumbnails.name(path)

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns by item number, writing the thumbnails that are missing."""
        catalog = self._catalog
        n_items = len(catalog)
        title, about, picture = [""] * n_items, [""] * n_items, [""] * n_items
        ids = [""] * n_items
        for i in self._shown.tolist():
            title[i], ids[i], about[i] = catalog.title[i], catalog.items[i], _about(catalog, i)
        pictured = [i for i in self._shown.tolist() if catalog.images and catalog.images[i]]
        if self._thumbnails is not None and pictured:
            with progress("pictures", total=len(pictured), unit="items") as bar:
                for i in pictured:
                    picture[i] = self.picture(catalog.images[i][0])
                    bar.advance(1)
        return {"title": title, "id": ids, "about": about, "picture": picture}


def _about(catalog: Catalog, item: int) -> str:
    if not catalog.attributes:
        return ""
    told = [f"{name}: {value}" for name, value in catalog.attributes[item].items() if value]
    return " · ".join(told)[:160]


def _shown_items(found: Explored) -> NDArray[np.int64]:
    """Return increasing numbers of all items that a page of the explorer names."""
    cases = found.task.split.test
    rows: Sequence[Ragged] = (cases.queries.history, cases.targets)
    seen = [row.values.astype(np.int64) for row in rows]
    if cases.queries.candidates is not None:
        seen.append(cases.queries.candidates.astype(np.int64).ravel())
    else:
        seen += [run.predictions.ranks.top.astype(np.int64).ravel() for run in found.runs]
    found_items = np.unique(np.concatenate(seen))
    return found_items[found_items >= 0]
