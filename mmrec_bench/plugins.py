"""Finds plugins by entry point, loads them on use, reports a broken one and goes on."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, distributions

import pluggy

from mmrec_bench import hookspecs
from mmrec_bench.hookspecs import GROUP
from mmrec_bench.registry import Entry, Registry

log = logging.getLogger("mmrec_bench")

OWN_DISTRIBUTION = "mmrec-bench"
KINDS = ("dataset", "instructions", "encoder", "model", "metric", "teacher")


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin that could not be loaded or registered."""

    name: str
    distribution: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin whose module was imported and whose hooks are in use."""

    name: str
    distribution: str
    version: str
    module: str


@dataclass
class Plugins:
    """All registries, and what was found on the way."""

    manager: pluggy.PluginManager
    registries: dict[str, Registry] = field(
        default_factory=lambda: {kind: Registry(kind) for kind in KINDS}
    )
    loaded: list[LoadedPlugin] = field(default_factory=list)
    broken: list[BrokenPlugin] = field(default_factory=list)

    def __getitem__(self, kind: str) -> Registry:
        return self.registries[kind]


@dataclass(frozen=True, slots=True)
class Found:
    """An entry point and the distribution that declares it."""

    point: EntryPoint
    distribution: str
    version: str


def find_entry_points() -> list[Found]:
    """Return the group's entry points without importing them, our own distribution first."""
    found = []
    seen = set()
    for dist in distributions():
        name = dist.metadata["Name"] or "unknown"
        for point in dist.entry_points:
            key = (name.lower(), point.name)
            if point.group == GROUP and key not in seen:  # editable installs can show twice
                seen.add(key)
                found.append(Found(point, name, dist.version))
    return sorted(
        found,
        key=lambda f: (f.distribution.lower() != OWN_DISTRIBUTION, f.distribution, f.point.name),
    )


def load(found: Iterable[Found]) -> Plugins:
    """Import the plugins' light modules and collect their entries.

    pluggy's own loader has no `try`, so that one ImportError in a stranger's plugin would end the
    program, and it drops a second entry point of one name without a word: hence this loop.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    plugins = Plugins(manager)
    for one in found:
        _load_one(plugins, one)
    return plugins


def _load_one(plugins: Plugins, found: Found) -> None:
    name = f"{found.distribution}:{found.point.name}"
    try:
        module = found.point.load()
        plugins.manager.register(module, name=name)
        plugins.manager.check_pending()
        entries = [(kind, entry) for kind in KINDS for entry in _entries(plugins, module, kind)]
        for kind, entry in entries:
            plugins[kind].check(entry, found.distribution)
        for kind, entry in entries:
            plugins[kind].add(entry, found.distribution)
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything; the rest goes on
        if plugins.manager.has_plugin(name):
            plugins.manager.unregister(name=name)
        reason = f"{type(error).__name__}: {error}"
        plugins.broken.append(BrokenPlugin(found.point.name, found.distribution, reason))
        log.warning("plugin %s of %s is left out: %s", found.point.name, found.distribution, reason)
        return
    plugins.loaded.append(
        LoadedPlugin(found.point.name, found.distribution, found.version, found.point.value)
    )


def _entries(plugins: Plugins, module: object, kind: str) -> list[Entry]:
    """Call the module's own register hook of one kind, if it has one."""
    plural = kind if kind.endswith("s") else f"{kind}s"
    hook = getattr(plugins.manager.hook, f"mmrec_register_{plural}")
    return [
        entry
        for implementation in hook.get_hookimpls()
        if implementation.plugin is module
        for entry in implementation.function()
    ]


@cache
def installed() -> Plugins:
    """Return the plugins of this installation, found and loaded once a process."""
    return load(find_entry_points())
