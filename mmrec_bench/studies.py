"""Trials of a search in SQLite, by Optuna: claimed by locks, so that what was killed is put back.

A study is a folder: `study.db`, and `trials/<number>` for each trial that runs, which is locked by
the process that runs it. Whoever finds a running trial whose lock is free takes it over with what
its fit had written, so that a search that was killed ends as one that was not.
"""

import logging
import shutil
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mmrec_bench.errors import ConfigError, StorageError
from mmrec_bench.files import RunLock, locked
from mmrec_bench.spaces import Choices, Domain, Scalar, Space, grid

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("mmrec_bench")

State = Literal["complete", "failed", "running"]

_MOST_DEATHS = 5
"""A trial that died so often (out of memory, say) is given up."""

_SECONDS_TO_WAIT = 120
"""For another process's writing to the database."""

_ASKED = "asked"
"""Attribute of a trial that was asked for: its settings, to the last digit."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        number: from 0, in the order of asking.
        state: how it stands.
        settings: option -> value.
        value: of the metric; None unless complete.
        values: of each seed of the fit.
        seconds: of fits and validation; 0 where an equal trial was taken over.
        reason: why it failed; "" otherwise.
        same_as: an earlier trial that was the same run; None = it was fitted.
        spec_hash: of the run that it stands for.
    """

    number: int
    state: State
    settings: dict[str, Scalar]
    value: float | None = None
    values: tuple[float, ...] = ()
    seconds: float = 0.0
    reason: str = ""
    same_as: int | None = None
    spec_hash: str = ""


@dataclass
class Claim:
    """A trial that this process runs.

    Attributes:
        number: of the trial.
        settings: what to try.
        folder: for its checkpoints; a trial that was killed finds those that it wrote.
    """

    number: int
    settings: dict[str, Scalar]
    folder: Path
    _trial: "optuna.Trial" = field(repr=False)
    _lock: RunLock = field(repr=False)

    def note(self, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        """Keep facts beside the trial at once."""
        known = self._trial.user_attrs.get("facts") or {}
        self._trial.set_user_attr("facts", {**known, **facts})

    def release(self) -> None:
        """Let the trial go, if it was not: unless it is settled, whoever comes next takes it."""
        self._lock.release()

    def noted(self, name: str) -> Any:  # noqa: ANN401
        """Return a fact that was kept, also by a process that died; None where there is none."""
        return (self._trial.user_attrs.get("facts") or {}).get(name)


def load_optuna() -> Any:  # noqa: ANN401 - the module
    """Import Optuna, and keep it quiet: what a search does is told in our own lines.

    Raises:
        ConfigError: not installed.
    """
    try:
        import optuna  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ConfigError(
            f"`mmrec-bench tune` needs Optuna ({error}): pip install 'mmrec-bench[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Study:
    """One search that any number of processes share."""

    def __init__(self, folder: Path, study: "optuna.Study", space: Space, seed: int) -> None:
        self.folder, self._study, self._space, self._seed = folder, study, space, seed
        self._optuna = load_optuna()

    @classmethod
    @contextmanager
    def open(
        cls,
        folder: Path,
        space: Space,
        *,
        seed: int,
        higher_is_better: bool,
        start: Mapping[str, Scalar] | None,
    ) -> Iterator["Study"]:
        """Open a study, or begin one with `start` as its first trial.

        Raises:
            ConfigError: Optuna is missing.
            StorageError: the database cannot be used.
        """
        optuna = load_optuna()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "study.db"
        storage = None
        try:
            with locked(folder):
                storage = _connect(path)
                inner = optuna.create_study(
                    storage=storage,
                    study_name=folder.name,
                    direction="maximize" if higher_is_better else "minimize",
                    load_if_exists=True,
                )
                if start is not None and not inner.get_trials(deepcopy=False):
                    inner.enqueue_trial(dict(start), user_attrs={_ASKED: dict(start)})
                study = cls(folder, inner, space, seed)
                study._sweep()
            yield study
        except (optuna.exceptions.StorageInternalError, _database_error()) as error:
            reason = " ".join(str(error).split("\n")[0].split())
            raise StorageError(
                f"cannot use {path}: {reason}; remove the folder to begin again"
            ) from None
        finally:
            if storage is not None:
                storage.remove_session()
                storage.engine.dispose()

    def trials(self) -> list[Trial]:
        """Return all trials that were begun, in order."""
        return [
            self._read(one)
            for one in self._study.get_trials(deepcopy=False)
            if one.state.name != "WAITING"
        ]

    def claim(self, n_trials: int, *, wait: bool = True) -> Claim | None:
        """Return a trial to run; None when `n_trials` have been settled.

        First a killed one, then a new one. Where others run the last ones, this waits for them:
        should one die, its trial is taken over.

        Args:
            n_trials: in all, over all processes and calls.
            wait: False = return None instead of waiting.
        """
        told = False
        while True:
            with locked(self.folder):
                claim = self._take_over() or self._begin(n_trials)
            running = [one for one in self.trials() if one.state == "running"]
            if claim is not None or not running or not wait:
                return claim
            if not told:
                log.info("waiting for %d trials that other processes run", len(running))
                told = True
            with locked(self._place(running[0].number)):
                pass

    def complete(self, claim: Claim, value: float, **facts: Any) -> None:  # noqa: ANN401
        """Keep a trial's value, and let the trial go."""
        claim.note(**facts)
        self._study.tell(claim.number, value)
        self._let_go(claim)

    def fail(self, claim: Claim, reason: str, **facts: Any) -> None:  # noqa: ANN401
        """Keep why a trial has no value, and let the trial go."""
        claim.note(reason=reason, **facts)
        self._study.tell(claim.number, state=self._optuna.trial.TrialState.FAIL)
        self._let_go(claim)

    def put_back(self, claim: Claim) -> None:
        """Leave a trial to whoever comes next, on purpose: it does not count as a death."""
        claim.note(put_back=True)
        claim.release()

    def _let_go(self, claim: Claim) -> None:
        shutil.rmtree(claim.folder.parent, ignore_errors=True)
        claim.release()

    def _place(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def _take_over(self) -> Claim | None:
        """Claim a trial whose process is dead; called under the study's lock."""
        for one in self.trials():
            lock = RunLock(self._place(one.number))
            if one.state != "running" or not _free(lock):
                continue
            now = self._study.get_trials(deepcopy=False)[one.number]
            if now.state.name != "RUNNING":  # settled between reading and locking
                shutil.rmtree(lock.path.parent, ignore_errors=True)
                lock.release()
                continue
            claim = self._claimed(self._optuna.Trial(self._seeded(one.number), now._trial_id), lock)
            deaths = (claim.noted("deaths") or 0) + (not claim.noted("put_back"))
            claim.note(deaths=deaths, put_back=False)
            if deaths < _MOST_DEATHS:
                log.info("trial %d goes on where a killed process left it", one.number)
                return claim
            self.fail(claim, f"its process died {deaths} times (out of memory?)")
        return None

    def _begin(self, n_trials: int) -> Claim | None:
        """Ask for a new trial; called under the study's lock."""
        trials = self._study.get_trials(deepcopy=False)
        waiting = [one for one in trials if one.state.name == "WAITING"]
        if len(trials) - len(waiting) >= n_trials:
            return None
        number = waiting[0].number if waiting else len(trials)
        points = grid(self._space, n_trials)
        if points is not None and not waiting:
            tried = [
                {key: _tidy(self._space[key], value) for key, value in one.settings.items()}
                for one in self.trials()
            ]
            left = [point for point in points if point not in tried]
            if not left:
                return None
            order = np.random.default_rng([self._seed, 1]).permutation(len(points)).tolist()
            point = next(points[i] for i in order if points[i] in left)
            self._study.enqueue_trial(dict(point))
        return self._claimed(self._seeded(number).ask(), None)

    def _seeded(self, number: int) -> "optuna.Study":
        """Return the study with a sampler of the trial's own stream, whoever asks and when."""
        stream = np.random.SeedSequence([self._seed, 0, number]).generate_state(1)
        with warnings.catch_warnings():
            # What Optuna calls experimental: known, and pinned by a test of the values it gives.
            warnings.simplefilter("ignore")
            self._study.sampler = self._optuna.samplers.TPESampler(
                seed=int(stream[0]), multivariate=True, constant_liar=True
            )
        return self._study

    def _claimed(self, trial: "optuna.Trial", lock: RunLock | None) -> Claim:
        """Draw what is not yet drawn of a trial, under its lock."""
        place = self._place(trial.number)
        if lock is None:
            lock = RunLock(place)
            lock.acquire(wait=False)
        drawn = {key: _suggest(trial, key, domain) for key, domain in self._space.items()}
        settings = drawn | (trial.user_attrs.get(_ASKED) or {})
        folder = place / "scratch"
        folder.mkdir(exist_ok=True)
        return Claim(trial.number, settings, folder, trial, lock)

    def _sweep(self) -> None:
        """Remove folders of settled trials that a killed process left; under the study's lock."""
        running = {self._place(t.number) for t in self.trials() if t.state == "running"}
        for place in sorted((self.folder / "trials").glob("*")):
            if place not in running:
                shutil.rmtree(place, ignore_errors=True)

    def _read(self, one: "optuna.trial.FrozenTrial") -> Trial:
        facts = one.user_attrs.get("facts") or {}
        asked = one.user_attrs.get(_ASKED) or {}
        states: dict[str, State] = {"COMPLETE": "complete", "RUNNING": "running"}
        return Trial(
            number=one.number,
            state=states.get(one.state.name, "failed"),
            settings={
                key: asked[key] if key in asked else _tidy(domain, one.params[key])
                for key, domain in self._space.items()
                if key in one.params
            },
            value=one.value if one.state.name == "COMPLETE" else None,
            values=tuple((facts.get("values") or {}).values()),
            seconds=facts.get("seconds", 0.0),
            reason=facts.get("reason", ""),
            same_as=facts.get("same_as"),
            spec_hash=facts.get("spec_hash", ""),
        )


def _connect(path: Path) -> "optuna.storages.RDBStorage":
    def connect() -> sqlite3.Connection:
        # As SQLAlchemy's own for a file; its pool hands a connection from thread to thread.
        return sqlite3.connect(path, timeout=_SECONDS_TO_WAIT, check_same_thread=False)

    try:
        # The path is in no URL, where `?`, `%` and `{` of a folder's name would mean something.
        storage: optuna.storages.RDBStorage = load_optuna().storages.RDBStorage(
            f"sqlite:///{path.name}", engine_kwargs={"creator": connect}
        )
    except RuntimeError as error:  # tables of another version of Optuna
        reason = " ".join(str(error).split())
        raise StorageError(f"cannot use {path}: {reason}") from None
    return storage


def _free(lock: RunLock) -> bool:
    """Claim a lock where nobody holds it."""
    try:
        lock.acquire(wait=False)
    except StorageError:
        return False
    return True


def _suggest(trial: "optuna.Trial", key: str, domain: Domain) -> Scalar:
    if isinstance(domain, Choices):
        return trial.suggest_categorical(key, domain.values)
    if domain.whole:
        step = int(domain.step or 1)
        low, high = int(domain.low), int(domain.high)
        return trial.suggest_int(key, low, high, step=step, log=domain.log)
    drawn = trial.suggest_float(key, domain.low, domain.high, step=domain.step, log=domain.log)
    return domain.tidy(drawn)


def _tidy(domain: Domain, value: Any) -> Scalar:  # noqa: ANN401 - what Optuna kept
    return value if isinstance(domain, Choices) else domain.tidy(value)


def _database_error() -> type[Exception]:
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - comes with Optuna

    return SQLAlchemyError
