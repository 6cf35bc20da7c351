"""Finds plugins by entry point or file, loads them on use, reports a broken one and goes on."""

import hashlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, cast

import pluggy

from mmrec_bench import guard, hookspecs
from mmrec_bench.errors import ConfigError, PluginError
from mmrec_bench.hookspecs import GROUP
from mmrec_bench.registry import Entry, Registry

if TYPE_CHECKING:
    from importlib.abc import Loader

    import click

log = logging.getLogger("mmrec_bench")

OWN_DISTRIBUTION = "mmrec-bench"
FILES_VARIABLE = "MMREC_PLUGINS"
"""Names one-file plugins to load, separated as in PATH."""
KINDS = ("dataset", "instructions", "encoder", "model", "metric", "teacher", "tracker")


def plural_of(kind: str) -> str:
    """Return a kind as hooks and pages name many of it: "models", "instructions"."""
    return kind if kind.endswith("s") else f"{kind}s"


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
    with_commands: set[str] = field(default_factory=set)
    commands: dict[str, str] = field(default_factory=dict)
    """Command -> the distribution that added it."""
    files: dict[Path, LoadedPlugin] = field(default_factory=dict)
    """Real path of a one-file plugin -> what was loaded, whose distribution is the path given."""

    def __getitem__(self, kind: str) -> Registry:
        return self.registries[kind]


@dataclass(frozen=True, slots=True)
class Found:
    """An entry point and the distribution that declares it."""

    point: EntryPoint
    distribution: str
    version: str


class Origin(NamedTuple):
    """Where entries come from.

    Attributes:
        owner: the distribution's name, or the path of a one-file plugin.
        module: of the hooks.
        mark: content hash of a one-file plugin; "" = a distribution.
    """

    owner: str
    module: str
    mark: str = ""


def find_entry_points() -> list[Found]:
    """Return the group's entry points without importing them, our own distribution first."""
    found = []
    seen = set()
    for dist in distributions():
        points = [point for point in dist.entry_points if point.group == GROUP]
        if not points:  # most: their metadata is long to read, and says nothing to us
            continue
        name = dist.metadata["Name"] or "unknown"
        for point in points:
            key = (name.lower(), point.name)
            if key not in seen:  # editable installs can show twice
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
    step = f"import of {found.point.name} of {found.distribution}"
    try:
        with guard.blaming("failed on import", whole=True, step=step):
            plugin = found.point.load()
        _register(plugins, plugin, name, Origin(found.distribution, found.point.module))
    except PluginError as error:  # the rest goes on
        _leave_out(plugins, found.point.name, found.distribution, error)
        return
    plugins.loaded.append(
        LoadedPlugin(found.point.name, found.distribution, found.version, found.point.value)
    )


def _register(plugins: Plugins, module: object, name: str, origin: Origin) -> None:
    """Take a module's hooks into use, all or none of them.

    Raises:
        PluginError: a hook is misspelt or raises, or an entry is malformed or taken.
    """
    try:
        with guard.blaming("failed on registration", whole=True, step=f"registration of {name}"):
            plugins.manager.register(module, name=name)
            plugins.manager.check_pending()
            _check_hooks(plugins, module)
            entries = [(kind, entry) for kind in KINDS for entry in _entries(plugins, module, kind)]
            for i, (kind, entry) in enumerate(entries):
                plugins[kind].check(entry, origin.owner)
                if any(entry.name == other.name for k, other in entries[:i] if k == kind):
                    raise PluginError(f"registers the {kind} name {entry.name!r} twice")
    except PluginError:
        if plugins.manager.has_plugin(name):
            plugins.manager.unregister(name=name)
        raise
    for kind, entry in entries:
        plugins[kind].add(entry, *origin)


def _check_hooks(plugins: Plugins, module: object) -> None:
    """Raise PluginError where a module has no hook, or one that pluggy cannot see."""
    found = {hook.name for hook in plugins.manager.get_hookcallers(module) or ()}
    names = [name for name in vars(hookspecs) if name.startswith("mmrec_register_")]
    unmarked = [n for n in names if n not in found and callable(getattr(module, n, None))]
    if unmarked:
        raise PluginError(f"{unmarked[0]} is not marked: write @hookimpl above it")
    if not found:
        raise PluginError(f"has no hook, expected one of {', '.join(names)}")


def _leave_out(plugins: Plugins, name: str, owner: str, error: PluginError) -> None:
    plugins.broken.append(BrokenPlugin(name, owner, str(error)))
    log.warning("plugin %s of %s is left out: %s", name, owner, error)
    log.debug("why %s is left out:", name, exc_info=error)


def _entries(plugins: Plugins, module: object, kind: str) -> list[Entry]:
    """Call the module's own register hook of one kind, if it has one."""
    name = f"mmrec_register_{plural_of(kind)}"
    hook = getattr(plugins.manager.hook, name)
    entries: list[Entry] = []
    for implementation in hook.get_hookimpls():
        if implementation.plugin is module:
            returned = implementation.function()
            if not isinstance(returned, Iterable):
                raise PluginError(f"{name} returned {returned!r:.200}, expected a list of Entry")
            entries += returned
    return entries


def load_file(plugins: Plugins, path: Path) -> LoadedPlugin:
    """Load a one-file plugin: a Python file with the hooks, and the classes that they name.

    Its distribution is the file's path, its version a hash of its content. The module is named
    after the file, so that an Entry's target is e.g. "my_plugin:MyModel".

    Raises:
        PluginError: not there, or it fails on import or registration; names the file and line.
        ConfigError: its name is taken by another module, or is that of no Python file.
    """
    path = path.absolute()
    owner = str(path)
    if not owner.isprintable():  # a file's name is bytes, and need not be a text
        raise ConfigError(f"plugin file {owner!r} has a name that cannot be shown; rename it")
    if (known := plugins.files.get(path.resolve())) is not None:
        return known
    try:
        mark = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise PluginError(f"plugin file {path} cannot be read: {error.strerror}") from None
    module = _module_of(path)
    what = f"plugin file {path} cannot be loaded"
    with guard.blaming(what, whole=True, step=f"import of the file {path}"):
        _execute(module)
    try:
        _register(plugins, module, owner, Origin(owner, module.__name__, mark))
    except PluginError as error:
        raise PluginError(f"{what}: {error}") from error
    loaded = LoadedPlugin(path.stem, owner, mark, module.__name__)
    plugins.loaded.append(loaded)
    plugins.files[path.resolve()] = loaded
    return loaded


def _module_of(path: Path) -> ModuleType:
    """Return the module that a file will be, which is called after it; nothing runs yet.

    Raises:
        ConfigError: there is another module of that name.
    """
    name = re.sub(r"\W", "_", path.stem)
    taken = sys.modules.get(name) or importlib.util.find_spec(name)
    where = getattr(taken, "origin", None) or getattr(taken, "__file__", None) or "Python itself"
    if taken is not None and Path(where).resolve() != path.resolve():
        raise ConfigError(
            f"plugin file {path} would hide the module {name!r} of {where}; rename the file"
        )
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"plugin file {path} is no Python file; its name must end in .py")
    return importlib.util.module_from_spec(spec)


def _execute(module: ModuleType) -> None:
    """Run a file's module, which is importable from now on unless it raises."""
    name, loader = module.__name__, cast("Loader", module.__loader__)
    sys.modules[name] = module  # entries name their classes by it
    try:
        loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise


def register_commands(plugins: Plugins, cli: "click.Group") -> None:
    """Let plugins add commands, each once; one that raises is reported and the rest goes on."""
    for implementation in plugins.manager.hook.mmrec_register_commands.get_hookimpls():
        name = implementation.plugin_name
        if name in plugins.with_commands:
            continue
        plugins.with_commands.add(name)
        distribution, _, point = name.partition(":")
        step = f"mmrec_register_commands of {name}"
        before = dict(cli.commands)
        try:
            with guard.blaming("failed to register commands", whole=True, step=step):
                implementation.function(**{"cli": cli} if implementation.argnames else {})
            _check_commands(plugins, cli, before, distribution)
        except PluginError as error:
            cli.commands = before  # all of its commands or none
            _leave_out(plugins, point or name, distribution, error)


def _check_commands(
    plugins: Plugins, cli: "click.Group", before: dict[str, "click.Command"], owner: str
) -> None:
    """Raise PluginError where a command that was just added has the name of another."""
    from click import Context  # noqa: PLC0415 - there already, where there is a group

    taken = set(type(cli)(commands=before).list_commands(Context(cli)))
    added = [name for name, one in cli.commands.items() if one is not before.get(name)]
    for name in added:
        if name in taken:
            other = plugins.commands.get(name, OWN_DISTRIBUTION)
            raise PluginError(
                f"the command {name!r} is registered twice: by {other} and by {owner}; "
                "rename it, or uninstall one of them"
            )
    plugins.commands.update(dict.fromkeys(added, owner))


@cache
def installed() -> Plugins:
    """Return the plugins of this installation, found and loaded once a process.

    One-file plugins that $MMREC_PLUGINS names are among them; a broken one is reported.
    """
    plugins = load(find_entry_points())
    for name in filter(None, os.environ.get(FILES_VARIABLE, "").split(os.pathsep)):
        try:
            load_file(plugins, Path(name))
        except (PluginError, ConfigError) as error:
            _leave_out(plugins, Path(name).stem, name, PluginError(str(error)))
    return plugins
