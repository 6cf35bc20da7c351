"""Choosing a model's options by what they are worth on validation.

Not to be confused with tuning a language model's weights, which is a fit like any other.
"""

import gc
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrec_bench import planning
from mmrec_bench.config import ComponentConfig, RunConfig
from mmrec_bench.errors import ConfigError, MMRecError, ModelError, PluginError
from mmrec_bench.objective import Objective, Search
from mmrec_bench.observers import observed
from mmrec_bench.planning import PlannedRun, Task, Workspace
from mmrec_bench.plugins import Plugins
from mmrec_bench.records import RunSpec, fingerprint
from mmrec_bench.spaces import SECTIONS, Scalar, Space, as_text
from mmrec_bench.studies import Claim, Study, Trial

log = logging.getLogger("mmrec_bench")

_OF_A_SETTING = (ModelError, ConfigError, MemoryError, ArithmeticError, np.linalg.LinAlgError)
"""Errors that another setting may not meet."""

_OF_A_VALUE = (ValueError, IndexError)
"""Errors that a wrong program raises too: of a setting only where another one has worked."""


@dataclass(frozen=True)
class Selection:
    """What a search found.

    Attributes:
        folder: of the study; its name says which study it is.
        search: what was asked for.
        higher_is_better: of the metric.
        n_cases: validation cases.
        trials: all that were begun, in order; those of earlier calls too.
        best: of the complete ones.
        own: the trial of the model as it is; None where its options lie outside of the space.
        planned: the run that the best one stands for.
    """

    folder: Path
    search: Search
    higher_is_better: bool
    n_cases: int
    trials: tuple[Trial, ...]
    best: Trial
    own: Trial | None
    planned: PlannedRun

    def ranking(self) -> list[Trial]:
        """Return the complete trials that were fitted, best first; the earlier of equals first."""
        sign = -1.0 if self.higher_is_better else 1.0
        whole = [one for one in self.trials if one.value is not None and one.same_as is None]
        return sorted(whole, key=lambda one: (sign * (one.value or 0.0), one.number))

    def median(self) -> float:
        """Return the median value of the complete trials that were fitted."""
        return float(np.median([one.value for one in self.ranking() if one.value is not None]))

    def count(self) -> str:
        """Say how many trials there were, and what came of them."""
        n_failed = sum(one.state == "failed" for one in self.trials)
        n_equal = sum(one.same_as is not None for one in self.trials)
        n_running = sum(one.state == "running" for one in self.trials)
        parts = [
            f"{n_failed} failed" if n_failed else "",
            f"{n_equal} equal to another and not fitted" if n_equal else "",
            f"{n_running} unfinished" if n_running else "",
        ]
        told = ", ".join(part for part in parts if part)
        return f"{len(self.trials)} trials" + (f" ({told})" if told else "")


def searchable(
    config: RunConfig, plugins: Plugins
) -> dict[str, tuple[type[ComponentConfig], dict[str, Any]]]:
    """Return, for each section that can be searched, its Config class and options as given.

    Raises:
        ConfigError: an unknown name.
    """
    found = {}
    for section in SECTIONS:
        component = getattr(config, section)
        if component is None or not component.name:
            continue
        registry = plugins[planning.registry_of(section)]
        entry = registry.find(component.name).entry
        cls = registry.load(component.name).Config
        found[section] = (cls, {**entry.options, **component.options})
    return found


def study_id(spec: RunSpec, search: Search) -> str:
    """Name the study: all that decides its values, and nothing that only says how many trials."""
    values = spec.model_dump(mode="json", exclude={"limit_cases"})
    space = {key: repr(domain) for key, domain in search.space.items()}
    asked = [values, space, search.metric, search.seed, search.fit_seeds]
    return f"{spec.model.name}-{spec.dataset.name}-s{spec.seed}-{fingerprint(asked)[:10]}"


def select(task: Task, search: Search, workspace: Workspace, plugins: Plugins) -> Selection:
    """Try settings until there are enough, beginning with the run's own, and return the best.

    Raises:
        ConfigError: the run's own options cannot be used, or there is no validation case.
        ModelError: every trial failed.
    """
    objective = Objective(task, workspace, plugins, search)
    planned = objective.plan({})
    for notice in planned.notices:
        log.info("%s", notice)
    better = objective.higher_is_better
    folder = workspace.results / "tuning" / study_id(planned.spec, search)
    objective.training_data(planned)  # what every trial lacks is told before the first
    objective.check_metric()
    start = own_settings(planned, search.space, plugins)
    with (
        _ended_by_sigterm(),
        Study.open(
            folder, search.space, seed=search.seed, higher_is_better=better, start=start
        ) as study,
    ):
        log.info("study %s: %s on %d validation cases", folder, search.metric, objective.n_cases)
        deadline = math.inf if search.timeout is None else time.monotonic() + search.timeout
        while time.monotonic() < deadline:
            claim = study.claim(search.n_trials, wait=math.isinf(deadline))
            if claim is None:
                break
            _run_trial(claim, study, objective)
        trials = study.trials()
    best = _best(trials, higher_is_better=better)
    if best is None:
        raise _nothing_found(trials, search)
    return Selection(
        folder=folder,
        search=search,
        higher_is_better=better,
        n_cases=objective.n_cases,
        trials=tuple(trials),
        best=best,
        own=next((one for one in trials if one.settings == start), None),
        planned=objective.plan(best.settings),
    )


class _Terminated(KeyboardInterrupt):
    """SIGTERM: as Ctrl-C, no plugin's code takes it for a fault of its own."""


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM put back what runs, and end the process by it all the same.

    A machine that is taken away says so with SIGTERM; its trial has not died of what it does.
    """
    default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not default or threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() == own:
            raise _Terminated
        signal.signal(number, signal.SIG_DFL)  # a forked child, which has nothing to put back
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(own, signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def own_settings(planned: PlannedRun, space: Space, plugins: Plugins) -> dict[str, Scalar] | None:
    """Return the run's own values of what is searched; None where one lies outside of the space."""
    own: dict[str, Scalar] = {}
    sections = searchable(planned.config, plugins)
    for key, domain in space.items():
        section, _, name = key.partition(".")
        cls, options = sections[section]
        value = getattr(planned.options if section == "model" else cls(**options), name)
        if value not in domain:
            log.info(
                "the model's own %s=%s is outside of %s, so its own settings are no trial",
                key,
                as_text(value) if isinstance(value, Scalar) else value,
                domain,
            )
            return None
        own[key] = value
    return own


def _run_trial(claim: Claim, study: Study, objective: Objective) -> None:
    """Try one setting; what a model or the memory cannot do is a failed trial.

    A process that is stopped, or meets a fault that is not of the setting, leaves the trial to
    whoever comes next.
    """
    started = time.monotonic()
    name = f"trial {claim.number + 1}/{objective.search.n_trials}"
    shown = "  ".join(f"{key}={as_text(value)}" for key, value in claim.settings.items())
    log.info("%s: %s", name, shown)
    try:
        _fit_trial(claim, study, objective, name)
    except (KeyboardInterrupt, OSError):
        study.put_back(claim)
        raise
    except MMRecError as error:
        worked = any(one.state == "complete" for one in study.trials())
        if not _of_a_setting(error, worked=worked):
            # To be tried when the code or the disk is mended.
            study.put_back(claim)
            raise
        reason = _reason(error)
        study.fail(claim, reason, seconds=time.monotonic() - started)
        log.warning("%s failed: %s", name, reason)
    finally:
        claim.release()
        if "torch" in sys.modules:
            gc.collect()  # a model's circle of references can hold a device's memory


def _fit_trial(claim: Claim, study: Study, objective: Objective, name: str) -> None:
    started = time.monotonic()
    planned = objective.plan(claim.settings)
    spec_hash = planned.spec.hash
    same = _equal(study.trials(), spec_hash, claim.number)
    if same is not None and same.value is not None:
        log.info("%s is the same run as trial %d", name, same.number + 1)
        study.complete(claim, same.value, spec_hash=spec_hash, same_as=same.number)
        return
    claim.note(spec_hash=spec_hash)
    value = float(np.mean(_fits(claim, objective, planned)))
    seconds = time.monotonic() - started
    study.complete(claim, value, seconds=seconds)
    best = _best(study.trials(), higher_is_better=objective.higher_is_better)
    metric = objective.search.metric
    told = "" if best is None else f" (best: {best.value:.4f}, trial {best.number + 1})"
    log.info("%s: %s %.4f in %.1f s%s", name, metric, value, seconds, told)


def _fits(claim: Claim, objective: Objective, planned: PlannedRun) -> list[float]:
    """Return the value of each seed's fit; those that a killed process finished are kept."""
    known: dict[str, float] = dict(claim.noted("values") or {})
    first = planned.spec.seed
    for seed in range(first, first + objective.search.fit_seeds):
        if str(seed) in known:
            continue
        one = planned if seed == first else objective.plan(claim.settings, seed)
        scratch = claim.folder / str(seed)
        scratch.mkdir(exist_ok=True)
        with observed(one.spec, f"{one.spec.run_id}-trial") as tell:
            known[str(seed)] = objective.value(one, scratch)
            tell(objective.told(one, known[str(seed)]))
        claim.note(values=known)
    return list(known.values())


def _equal(trials: Sequence[Trial], spec_hash: str, number: int) -> Trial | None:
    """Return the earlier, fitted trial that was the same run."""
    for one in trials:
        if one.state == "complete" and one.spec_hash == spec_hash and one.number != number:
            return one if one.same_as is None else trials[one.same_as]
    return None


def _best(trials: Sequence[Trial], *, higher_is_better: bool) -> Trial | None:
    sign = 1.0 if higher_is_better else -1.0
    whole = [one for one in trials if one.value is not None and one.same_as is None]
    return max(whole, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)


def _cause(error: MMRecError) -> BaseException:
    """Return what a plugin's code raised, where `guard` wrapped it."""
    return error.__cause__ or error if isinstance(error, PluginError) else error


def _of_a_setting(error: MMRecError, *, worked: bool) -> bool:
    """Whether an error says that this setting does not work, and not that the code is wrong.

    Args:
        error: of a fit or its measurement.
        worked: another setting was fitted and measured.
    """
    kinds = (*_OF_A_SETTING, *(_OF_A_VALUE if worked else ()))
    return isinstance(_cause(error), kinds) or _out_of_memory(_cause(error))


def _out_of_memory(error: BaseException) -> bool:
    told = isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    return told or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _reason(error: MMRecError) -> str:
    return "out of memory" if _out_of_memory(_cause(error)) else str(error)


def _nothing_found(trials: Sequence[Trial], search: Search) -> ModelError:
    failed = [one for one in trials if one.state == "failed"]
    if failed:
        return ModelError(f"all {len(failed)} trials failed, the last: {failed[-1].reason}")
    return ModelError(
        f"no trial was finished within {search.timeout:g} seconds; give it longer"
        if search.timeout is not None
        else "no trial is finished"
    )
