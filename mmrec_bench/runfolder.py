"""The folder of one run: claimed by a lock, holding spec, model, checkpoints and predictions."""

import json
import logging
import resource
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, get_args

from mmrec_bench.cases import CaseTable, cases_path, write_cases
from mmrec_bench.config import RunConfig
from mmrec_bench.errors import StorageError
from mmrec_bench.evaluation import Interval as MeasuredInterval
from mmrec_bench.files import LockHolder, atomic_write, locked, remove_temporary
from mmrec_bench.permutations import by_position
from mmrec_bench.predictions import Predictions
from mmrec_bench.records import (
    Interval,
    RunRecord,
    RunSpec,
    digest,
    environment,
    finite,
    now,
    record_path,
    write_record,
)
from mmrec_bench.types import Answers, Outcome, RecData, Split

log = logging.getLogger("mmrec_bench")


@dataclass(frozen=True)
class Request:
    """What was asked for in a run folder."""

    spec: RunSpec
    config: RunConfig
    data_root: Path


def read_request(results: Path, run_id: str) -> Request:
    """Read what a run folder was made for.

    Raises:
        StorageError: there is no such run here, or its files are torn.
    """
    folder = results / "runs" / run_id
    if not (folder / "spec.json").exists():
        raise StorageError(
            f"no predictions of {run_id!r} below {results / 'runs'}; they stay on the machine that "
            "made them, so run it again here"
        )
    try:
        spec = RunSpec.model_validate_json((folder / "spec.json").read_bytes())
        request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
        config = RunConfig.model_validate(request["config"])
        return Request(spec, config, Path(request["data_root"]))
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(f"{folder} is torn: {error}; run it again with --fresh") from None


class RunFolder:
    """results/runs/<run_id>/, while this process holds its lock."""

    def __init__(self, results: Path, spec: RunSpec) -> None:
        self.results, self.spec = results, spec
        self.path = results / "runs" / spec.run_id
        self.predictions = self.path / "predictions"
        self.model = self.path / "model"
        self.scratch = self.path / "scratch"
        self.draft = self.path / "model.draft"

    @classmethod
    @contextmanager
    def claim(
        cls,
        results: Path,
        spec: RunSpec,
        config: RunConfig,
        data_root: Path,
        *,
        fresh: bool = False,
    ) -> Iterator[Self]:
        """Hold the run's lock; a process that dies loses it. Waits while another one runs it.

        Raises:
            StorageError: the folder belongs to another spec.
        """
        folder = cls(results, spec)
        folder.path.mkdir(parents=True, exist_ok=True)
        with locked(folder.path, on_wait=lambda who: _say_waiting(folder.path, who)):
            folder.sweep()
            if fresh:
                folder.clear()
            else:
                folder.check_spec()
            request = {
                "config": config.model_dump(mode="json"),
                "data_root": str(data_root.absolute()),
            }
            atomic_write(folder.path / "spec.json", spec.model_dump_json(indent=2).encode())
            atomic_write(folder.path / "request.json", json.dumps(request, indent=2).encode())
            folder.scratch.mkdir(exist_ok=True)
            yield folder

    def sweep(self) -> None:
        """Remove half-written files that a killed process of this run left."""
        for place in (self.path, self.scratch, self.predictions):
            remove_temporary(place)
        record = record_path(self.results, self.spec)
        for path in (record, cases_path(record)):
            remove_temporary(path.parent, of=path.name)
        shutil.rmtree(self.draft, ignore_errors=True)

    def check_spec(self) -> None:
        """Refuse a folder in which another spec ran."""
        path = self.path / "spec.json"
        if not path.exists():
            return
        try:
            found = RunSpec.model_validate_json(path.read_bytes()).hash
        except ValueError:
            log.warning("%s is torn and is written anew", path)
            return
        if found != self.spec.hash:
            raise StorageError(
                f"{self.path} belongs to another run: its spec has hash {found[:10]}, this one "
                f"{self.spec.hash[:10]}; use --fresh to clear it or another --results folder"
            )

    def clear(self) -> None:
        """Remove everything but the lock."""
        for path in (self.predictions, self.model, self.scratch):
            shutil.rmtree(path, ignore_errors=True)
        for name in ("timing.json", "machine.json", "memory.json", "spec.json", "request.json"):
            (self.path / name).unlink(missing_ok=True)

    @property
    def fitted(self) -> bool:
        """Whether a whole model lies in the folder; it is renamed into place when complete."""
        return (self.model / "fit.json").exists()

    @contextmanager
    def saving(self, seconds: float, facts: Mapping[str, str | int | float]) -> Iterator[Path]:
        """Give a folder to save the model in; it takes its place only when all was written."""
        self.draft.mkdir()
        yield self.draft
        fit = {"seconds": seconds, "facts": dict(facts)}
        atomic_write(self.draft / "fit.json", json.dumps(fit, indent=2).encode())
        shutil.rmtree(self.model, ignore_errors=True)
        self.draft.rename(self.model)
        self._keep_machine()

    def fit_report(self) -> tuple[float, dict[str, str | int | float]]:
        """Return the seconds and facts of the fit."""
        report = json.loads((self.model / "fit.json").read_text(encoding="utf-8"))
        return report["seconds"], report["facts"]

    def keep_facts(self, facts: Mapping[str, str | int | float]) -> None:
        """Keep what is known only after scoring, e.g. which model a server says has answered."""
        seconds, known = self.fit_report()
        fit = {"seconds": seconds, "facts": known | dict(facts)}
        atomic_write(self.model / "fit.json", json.dumps(fit, indent=2).encode())

    def keep_memory_facts(self, facts: Mapping[str, float]) -> None:
        """Keep what a memorisation probe found; every later record of the run tells it."""
        atomic_write(self.path / "memory.json", json.dumps(dict(facts), indent=2).encode())

    def memory_facts(self) -> dict[str, float]:
        """Return what a memorisation probe found; {} where none was asked for."""
        path = self.path / "memory.json"
        if not path.exists():
            return {}
        facts: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return facts

    def add_score_time(self, seconds: float, cases: int) -> None:
        """Add to the seconds spent scoring, over all processes that worked on this run."""
        before = self.score_time()
        timing = {"seconds": before[0] + seconds, "cases": before[1] + cases}
        atomic_write(self.path / "timing.json", json.dumps(timing).encode())
        self._keep_machine()

    def score_time(self) -> tuple[float, int]:
        """Return seconds and cases scored so far."""
        try:
            timing = json.loads((self.path / "timing.json").read_text(encoding="utf-8"))
            return float(timing["seconds"]), int(timing["cases"])
        except (OSError, ValueError, KeyError):
            return 0.0, 0

    def _keep_machine(self) -> None:
        """Keep this process's largest memory and versions; evaluating later changes neither."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        machine = {
            "peak_memory_bytes": max(peak, self.machine()[0] or 0),
            "environment": environment(),
        }
        atomic_write(self.path / "machine.json", json.dumps(machine, indent=2).encode())

    def machine(self) -> tuple[int | None, dict[str, str]]:
        """Return the largest memory of those that fitted or scored, and the last one's versions.

        (None, {}) where that is not known.
        """
        try:
            machine = json.loads((self.path / "machine.json").read_text(encoding="utf-8"))
            return int(machine["peak_memory_bytes"]), dict(machine["environment"])
        except (OSError, ValueError, KeyError):
            return None, {}

    def write_record(self, record: RunRecord, cases: CaseTable) -> Path:
        """Write the record, and the per-case values beside it."""
        write_cases(record_path(self.results, record.spec), cases)
        path = write_record(self.results, record)
        log.info("record: %s", path)
        return path


def _say_waiting(path: Path, who: LockHolder) -> None:
    log.warning("%s is being run by %s; waiting for it (Ctrl-C to stop waiting)", path.name, who)


def make_record(
    spec: RunSpec,
    data: RecData,
    split: Split,
    predictions: Predictions,
    intervals: Mapping[str, MeasuredInterval],
    better: Mapping[str, bool],
    folder: RunFolder,
    cases: str,
) -> RunRecord:
    """Put together the record of a finished run."""
    fit_seconds, facts = folder.fit_report()
    facts |= folder.memory_facts()
    score_seconds, n_scored = folder.score_time()
    peak_memory, versions = folder.machine()
    answers = predictions.answers
    metrics = {name: _interval(one, better[name]) for name, one in intervals.items()}
    counts = {**split.counts, "n_cases": len(split.test), **_answer_counts(answers)}
    candidates = split.test.queries.candidates
    n_shown = 0 if candidates is None else candidates.shape[1]
    return RunRecord(
        run_id=spec.run_id,
        created=now(),
        spec=spec,
        counts=counts,
        card=asdict(data.card),
        facts=facts,
        metrics=metrics,
        resources={
            "fit_seconds": round(fit_seconds, 3),
            "score_seconds": round(score_seconds, 3),
            "cases_per_second": round(n_scored / score_seconds, 2) if score_seconds else None,
            "peak_memory_bytes": peak_memory,
            "prompt_tokens": int(answers.prompt_tokens.sum()) if answers else None,
            "answer_tokens": int(answers.answer_tokens.sum()) if answers else None,
            **_request_costs(answers),
        },
        environment=versions | {"device": str(facts.get("device", "cpu"))},
        digest=digest(spec, counts, metrics),
        cases=cases,
        positions={} if predictions.shown is None else by_position(predictions.shown, n_shown),
    )


def _interval(one: MeasuredInterval, higher_is_better: bool) -> Interval:
    return Interval(
        value=finite(one.value),
        n=one.n,
        low=finite(one.low),
        high=finite(one.high),
        higher_is_better=higher_is_better,
    )


def _answer_counts(answers: Answers | None) -> dict[str, int]:
    """Count how written answers were read, and what they named that was no candidate."""
    if answers is None:
        return {}
    counts = {f"n_{name}_answers": answers.outcome.count(name) for name in get_args(Outcome)}
    return counts | {"n_hallucinated_items": int(answers.hallucinated.sum())}


def _request_costs(answers: Answers | None) -> dict[str, float | int | None]:
    """Sum what a server's answers cost; None = not known, {} = nothing was asked of a server."""
    if answers is None or answers.cost is None:
        return {}
    retries, seconds = answers.retries, answers.seconds
    return {
        "cost_usd": finite(float(answers.cost.sum())),
        "retries": None if retries is None else int(retries.sum()),
        "answer_seconds": None if seconds is None else finite(round(float(seconds.sum()), 3)),
    }
