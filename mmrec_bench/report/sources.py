"""Runs whose predictions are here, and the cases that they answered."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmrec_bench import runner
from mmrec_bench.errors import DataMissingError, MMRecError, StorageError
from mmrec_bench.leaderboard import Row
from mmrec_bench.planning import Task, Workspace
from mmrec_bench.plugins import Plugins
from mmrec_bench.predictions import Predictions, PredictionStore
from mmrec_bench.ranks import take
from mmrec_bench.records import DatasetSpec, RunRecord
from mmrec_bench.report.gathering import Sheet
from mmrec_bench.runfolder import Request, read_request
from mmrec_bench.types import Answers

log = logging.getLogger("mmrec_bench")


@dataclass(frozen=True)
class ShownRun:
    """A row's run in the explorer.

    Attributes:
        number: the row's, from 1.
        row: of the board.
        record: of the seed that is shown, the first one whose predictions are here.
        request: what was asked for.
        predictions: of the cases shown.
    """

    number: int
    row: Row
    record: RunRecord
    request: Request
    predictions: Predictions


@dataclass(frozen=True)
class Explored:
    """What an explorer shows.

    Attributes:
        task: data set and split, the test cases cut to those shown.
        runs: in the order of the board.
    """

    task: Task
    runs: tuple[ShownRun, ...]


def explore(
    sheet: Sheet,
    folders: Sequence[Path],
    data_roots: Sequence[Path],
    max_cases: int,
    plugins: Plugins,
) -> tuple[Explored | None, list[str]]:
    """Read a board's predictions and cases; say in a line each what cannot be shown.

    Args:
        sheet: the board.
        folders: results folders.
        data_roots: where data sets are looked for, before the places where runs found them.
        max_cases: cases that are shown at most.
        plugins: for the data set.
    """
    notes: list[str] = []
    requests = _requests(sheet, folders, notes)
    if not requests:
        return None, notes
    asked = [request for _, request, _ in requests.values()]
    roots = [*data_roots, *(request.data_root for request in asked)]
    task, why = _task(asked[0], roots, plugins)
    if task is None:
        return None, [*notes, f"no cases of {sheet.board.dataset}: {why}"]
    n_cases = len(task.split.test)
    runs = []
    for number, (record, request, results) in _flat(requests):
        try:
            predictions = _predictions(request, results, n_cases, max_cases)
        except StorageError as error:
            notes.append(str(error))
            continue
        row = sheet.board.rows[number - 1]
        runs.append(ShownRun(number, row, record, request, predictions))
    if not runs:
        return None, notes
    rows = np.arange(min(max_cases, n_cases), dtype=np.int64)
    task = replace(task, split=replace(task.split, test=task.split.test.take(rows)))
    return Explored(task, tuple(runs)), notes


Found = tuple[RunRecord, Request, Path]


def _flat(requests: Mapping[int, Found]) -> list[tuple[int, Found]]:
    return sorted(requests.items())


def _requests(sheet: Sheet, folders: Sequence[Path], notes: list[str]) -> dict[int, Found]:
    """Return row number -> the first seed whose run folder is here."""
    found: dict[int, Found] = {}
    for number, row in enumerate(sheet.board.rows, start=1):
        for record in row.records:
            places = [f for f in folders if (f / "runs" / record.run_id / "spec.json").exists()]
            if not places:
                continue
            try:
                request = read_request(places[0], record.run_id)
            except StorageError as error:
                notes.append(str(error))
                continue
            if request.spec.hash != record.spec.hash:
                notes.append(f"{record.run_id}: its run folder holds another spec; not shown")
                continue
            found[number] = record, request, places[0]
            break
    return found


def _task(request: Request, roots: Sequence[Path], plugins: Plugins) -> tuple[Task | None, str]:
    """Load the cases that a run answered, from the first place that has them."""
    why = ""
    for root in dict.fromkeys(roots):
        try:
            task = runner.prepare(request.config, Workspace(Path(), root), plugins)
        except MMRecError as error:
            why = why if why and isinstance(error, DataMissingError) else f"{root}: {error}"
            continue
        spec = DatasetSpec(name=task.data.name, version=task.data.version)
        same = task.split.candidates_hash == request.spec.candidates_hash
        if spec == request.spec.dataset and same and task.transfer_spec() == request.spec.transfer:
            return task, ""
        why = (
            f"{root} gives {spec.name} {spec.version[:12]}, the runs met "
            f"{request.spec.dataset.name} {request.spec.dataset.version[:12]}: other cases"
        )
    return None, f"{why}; name the data set's folder with --data-root"


def _predictions(request: Request, results: Path, n_cases: int, limit: int) -> Predictions:
    spec = request.spec
    store = PredictionStore(
        results / "runs" / spec.run_id / "predictions",
        spec.hash,
        n_cases,
        keep_scores=spec.protocol["candidates"] != "full",
    )
    found = store.read()
    rows = np.arange(min(limit, n_cases), dtype=np.int64)
    return Predictions(
        rows=rows,
        ranks=take(found.ranks, rows),
        scores=None if found.scores is None else found.scores[rows],
        answers=None if found.answers is None else _first(found.answers, len(rows)),
        shown=None if found.shown is None else found.shown[rows],
    )


def _first(answers: Answers, n: int) -> Answers:
    return replace(
        answers,
        text=answers.text[:n],
        outcome=answers.outcome[:n],
        hallucinated=answers.hallucinated[:n],
        prompt_tokens=answers.prompt_tokens[:n],
        answer_tokens=answers.answer_tokens[:n],
    )
