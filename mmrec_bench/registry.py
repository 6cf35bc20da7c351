"""Names of components: light entries, one owner a name, imported on use."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmrec_bench import guard
from mmrec_bench.errors import ConfigError, PluginError, UnknownNameError

if TYPE_CHECKING:
    from mmrec_bench.config import ComponentConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names are folders below results and cache, so that they hold no separator."""

NAME_RULE = "letters, digits, '.', '_' and '-' alone, a letter or digit first"
"""What `is_name` asks for, in words."""


def is_name(value: object) -> bool:
    """Say whether a value can be the name of a component or a data set, and so of a folder."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Baseline:
    """A model that is run beside another in the same call.

    Attributes:
        name: a registered model.
        inherits: options copied from the main model, e.g. ("backbone",).
    """

    name: str
    inherits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered component, before its class is imported.

    Attributes:
        name: as written on the command line.
        target: "package.module:Class".
        summary: one line for `list`.
        options: preset over the defaults of the class's Config.
        extra: what `pip install` brings what the class needs, e.g. "mmrec-bench[efficientnet]".
        baselines: models only: what is run beside it unless --no-baselines.
    """

    name: str
    target: str
    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: str | None = None
    baselines: tuple[Baseline, ...] = ()


@dataclass(frozen=True, slots=True)
class Owned:
    """An entry and the distribution that registered it.

    Attributes:
        entry: as registered.
        owner: the distribution's name, or the path of a one-file plugin.
        module: that registered it, by its hooks; "" where that is not known.
        mark: content hash of a one-file plugin, which is part of a run's identity; "" = a
            distribution, whose version may change without changing what comes out.
    """

    entry: Entry
    owner: str
    module: str = ""
    mark: str = ""


class Registry:
    """Entries of one kind, by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._owned: dict[str, Owned] = {}

    def check(self, entry: Entry, owner: str) -> None:
        """Raise PluginError when the entry is malformed or its name has an owner already."""
        if not isinstance(entry, Entry):
            raise PluginError(f"{owner} registered {entry!r} as a {self.kind}, expected an Entry")
        if not is_name(entry.name):
            raise PluginError(
                f"{owner} registered a {self.kind} under the name {entry.name!r}, expected "
                f"{NAME_RULE}"
            )
        if (odd := _odd_part(entry)) is not None:
            raise PluginError(f"{owner}: {self.kind} {entry.name!r} has {odd}")
        if entry.target.count(":") != 1:
            raise PluginError(
                f"{owner}: {self.kind} {entry.name!r} has target {entry.target!r}, "
                'expected "package.module:Class"'
            )
        if (old := self._owned.get(entry.name)) is not None:
            raise PluginError(
                f"the {self.kind} name {entry.name!r} is registered twice: by {old.owner} "
                f"({old.entry.target}) and by {owner} ({entry.target}); uninstall one of them"
            )

    def add(self, entry: Entry, owner: str, module: str = "", mark: str = "") -> None:
        """Register a name; PluginError as in `check`."""
        self.check(entry, owner)
        self._owned[entry.name] = Owned(entry, owner, module, mark)

    def __iter__(self) -> Iterator[Owned]:
        return iter(self._owned[name] for name in sorted(self._owned))

    def __len__(self) -> int:
        return len(self._owned)

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._owned)

    def find(self, name: str) -> Owned:
        """Return the entry and its owner.

        Raises:
            UnknownNameError: lists what is known and the nearest.
        """
        if name not in self._owned:
            raise UnknownNameError(self.kind, name, self._owned)
        return self._owned[name]

    def load(self, name: str) -> type[Any]:
        """Import the class behind a name.

        Raises:
            UnknownNameError: not registered.
            PluginError: names the distribution and why the import failed.
        """
        owned = self.find(name)
        module, _, attribute = owned.entry.target.partition(":")
        whose = f"{self.kind} {name!r} of {owned.owner}"
        try:
            what = f"{whose} cannot be loaded from {owned.entry.target}"
            with guard.blaming(what, whole=True, step=f"import of the class of {whose}"):
                cls = getattr(import_module(module), attribute)
        except PluginError as error:
            if owned.entry.extra and isinstance(error.__cause__, ImportError):
                raise PluginError(f"{error}; pip install '{owned.entry.extra}'") from error
            raise
        from mmrec_bench.config import ComponentConfig  # noqa: PLC0415 - pydantic: not at start

        config = getattr(cls, "Config", None)
        if not isinstance(config, type) or not issubclass(config, ComponentConfig):
            raise PluginError(
                f"{whose}: {owned.entry.target} has no `class Config(ComponentConfig)`"
            )
        guard.belongs(cls, owned.owner)
        return cls  # type: ignore[no-any-return]

    def configure(self, name: str, options: Mapping[str, Any], where: str) -> "ComponentConfig":
        """Build the component's Config from its preset and the options given.

        Raises:
            ConfigError: names the section, the key and the nearest known key.
        """
        from mmrec_bench.config import build_config  # noqa: PLC0415 - pydantic: not at start

        entry = self.find(name).entry
        cls = self.load(name)
        with guard.calling(self.kind, name, cls, "reading its options"):
            try:
                config: ComponentConfig = build_config(
                    cls.Config, {**entry.options, **options}, where
                )
            except ConfigError as error:
                if not _fits(cls.Config, entry.options):
                    whose = f"{self.kind} {name!r} of {self.find(name).owner}"
                    raise PluginError(
                        f"{whose}: the options of its Entry do not fit its Config: {error}"
                    ) from None
                raise
        return config

    def create(self, name: str, config: "ComponentConfig") -> Any:  # noqa: ANN401
        """Build the component from its validated Config."""
        cls = self.load(name)
        with guard.calling(self.kind, name, cls, "construction"):
            return cls(config)


def _fits(config: "type[ComponentConfig]", preset: Mapping[str, Any]) -> bool:
    """Say whether a Config takes each preset option, whatever else it may need."""
    from pydantic import ValidationError  # noqa: PLC0415 - not at start

    try:
        config(**preset)
    except ValidationError as error:
        return not any(set(one["loc"][:1]) & set(preset) for one in error.errors())
    return True


def _odd_part(entry: Entry) -> str | None:
    """Say which part of an entry is of another type than it says; None where all are well."""
    options = isinstance(entry.options, Mapping) and all(isinstance(k, str) for k in entry.options)
    baselines = isinstance(entry.baselines, tuple | list) and all(
        isinstance(one, Baseline)
        and isinstance(one.name, str)
        and isinstance(one.inherits, tuple | list)
        and all(isinstance(name, str) for name in one.inherits)
        for one in entry.baselines
    )
    checks = {
        "target": (isinstance(entry.target, str), "a string"),
        "summary": (isinstance(entry.summary, str), "a string"),
        "options": (options, "a mapping of names to values"),
        "extra": (entry.extra is None or isinstance(entry.extra, str), "a string or None"),
        "baselines": (baselines, "a tuple of Baseline"),
    }
    for name, (fits, expected) in checks.items():
        if not fits:
            return f"{name} {getattr(entry, name)!r}, expected {expected}"
    return None


def split_cutoff(name: str) -> tuple[str, dict[str, int]]:
    """Split a metric's name: "ndcg@10" -> ("ndcg", {"k": 10}); "auc" -> ("auc", {}).

    Raises:
        ConfigError: the cutoff is not a positive whole number.
    """
    family, at, k = name.partition("@")
    if not at:
        return family, {}
    if not k.isdigit() or int(k) < 1:
        raise ConfigError(f"metric {name!r}: the cutoff {k!r} is not a positive whole number")
    return family, {"k": int(k)}


def check_unique(names: Iterable[str], what: str) -> None:
    """Raise ConfigError when a name is given twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"{what} {name!r} is given twice")
        seen.add(name)
