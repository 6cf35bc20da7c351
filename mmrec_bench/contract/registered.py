"""Runs the contract on a registered component."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from mmrec_bench import guard
from mmrec_bench.contract import common, datasets, encoders, instructions, metrics, recommenders
from mmrec_bench.contract.findings import Check, Result, run_check, run_checks
from mmrec_bench.contract.prepared import (
    Asked,
    Prepared,
    dataset_subject,
    encoder_subject,
    instruction_subject,
    metric_subject,
    model_subject,
    prepare,
)
from mmrec_bench.contract.processes import PROCESSES
from mmrec_bench.errors import MMRecError, PluginError, UnknownNameError
from mmrec_bench.interfaces import EstimatesCost
from mmrec_bench.plugins import Plugins

log = logging.getLogger("mmrec_bench")

S = TypeVar("S")


def components_of(plugins: Plugins, name: str) -> list[tuple[str, str]]:
    """Return kind and name of each component that is called so, or is of that distribution.

    A metric keeps the cutoff that it is asked for with.

    Raises:
        PluginError: it is a plugin, or a distribution of one, that is left out; says why.
        UnknownNameError: in none; lists the nearest of all kinds.
    """
    family = name.partition("@")[0]
    kinds = plugins.registries
    found = [(kind, name) for kind in kinds if family in plugins[kind].names()]
    found += [
        (kind, one.entry.name)
        for kind in kinds
        for one in plugins[kind]
        if one.owner == name and (kind, one.entry.name) not in found
    ]
    if not found:
        for one in plugins.broken:
            if name in (one.name, one.distribution):
                whose = f"plugin {one.name} of {one.distribution}"
                raise PluginError(f"{whose} is left out: {one.reason}")
        known = {name for registry in kinds.values() for name in registry.names()}
        raise UnknownNameError("plugin", name, known)
    return found


def check(asked: Asked, plugins: Plugins) -> list[Result]:
    """Run every check of a component's kind.

    Raises:
        UnknownNameError: no such component.
        PluginError: its class cannot be imported.
        ConfigError: its options do not fit it.
    """
    one = prepare(asked, plugins)
    owned = plugins[asked.kind].find(one.family)
    module = None if owned.mark else owned.module
    component = common.Component(one.cls, one.config, module)
    results = run_checks(common.CHECKS, component, one.cls)
    kind = _KINDS.get(asked.kind)
    if kind is None:
        reason = f"what a {asked.kind} does costs time or money; run its own tests"
        return [*results, Result("use", f"a {asked.kind} does its work", "skipped", reason=reason)]
    return [*results, *_use(kind, one)]


def _use(kind: "Callable[[Prepared], list[Result]]", one: Prepared) -> list[Result]:
    """Run the checks of a kind; where they cannot be prepared, that is what failed."""
    try:
        with guard.blaming("it raised", owner=one.cls, step=f"checks of {one.name}"):
            return kind(one)
    except MMRecError as error:
        log.debug("the checks of %s:", one.name, exc_info=error)
        ours = not isinstance(error, PluginError)
        mend = "do what it says; -o sets options" if ours else "mend the line that is named"
        mend += "; --debug prints the traceback"
        rule = "it can be prepared for its checks"
        return [Result("use", rule, "failed", str(error), "no exception", mend)]


def _check_model(one: Prepared) -> list[Result]:
    whole = run_check(recommenders.METHODS, one.cls, one.cls)
    if whole.outcome == "failed":
        return [whole, *_skipped("it lacks what every check needs; see `methods`")]
    if issubclass(one.cls, EstimatesCost):
        reason = "asking it costs money; run its own tests against a server of their own"
        return [whole, *_skipped(reason)]
    return [whole, *_checked(recommenders.CHECKS, model_subject(one), one)]


def _skipped(reason: str) -> list[Result]:
    rules = [(one.name, one.rule) for one in recommenders.CHECKS]
    rules.append((PROCESSES.name, PROCESSES.rule))
    return [Result(name, rule, "skipped", reason=reason) for name, rule in rules]


def _checked(checks: Iterable[Check[S]], subject: S, one: Prepared) -> list[Result]:
    return [*run_checks(checks, subject, one.cls), run_check(PROCESSES, one, one.cls)]


_KINDS: dict[str, Callable[[Prepared], list[Result]]] = {
    "model": _check_model,
    "instructions": lambda one: _checked(instructions.CHECKS, instruction_subject(one), one),
    "dataset": lambda one: _checked(datasets.CHECKS, dataset_subject(one), one),
    "encoder": lambda one: _checked(encoders.CHECKS, encoder_subject(one), one),
    "metric": lambda one: _checked(metrics.CHECKS, metric_subject(one), one),
}
