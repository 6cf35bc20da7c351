"""From one name to those of the distribution, the package, the component and the class."""

import builtins
import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass
from importlib.metadata import distributions

from mmrec_bench.errors import ConfigError
from mmrec_bench.plugins import Plugins

LONGEST = 30
"""So that no line of what is written grows past its width."""

_UNSEEN = frozenset({"build", "dist", "node_modules", "tests", "venv"})
"""Folders that a build, ruff, pytest or our own .gitignore passes over."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_IMPORTED = frozenset(
    (
        *("Catalog", "ClassVar", "ComponentConfig", "Config", "DataCard", "DataFormatError"),
        *("DataMissingError", "Entry", "Field", "FloatArray", "Image", "Instruction"),
        *("Int32Array", "Int64Array", "Interactions", "Item", "Measurement", "Message"),
        *("NDArray", "Outcomes", "Path", "Queries", "Query", "Ragged", "RecData", "Scores"),
        *("Sequence", "Text", "TrainingData", "Vocabulary", "TestContract"),
        *("DatasetTests", "EncoderTests", "InstructionBuilderTests", "MetricTests"),
        *("RecommenderTests",),
    )
)
"""Names that the written files import: a class of such a name would hide them."""


@dataclass(frozen=True)
class Names:
    """What one name becomes.

    Attributes:
        distribution: e.g. my-baseline, for pip.
        package: my_baseline, for import.
        component: my-baseline, on the command line; my_baseline for a metric, which takes `@k`.
        cls: MyBaseline.
    """

    distribution: str
    package: str
    component: str
    cls: str


def names_of(name: str, kind: str, plugins: Plugins) -> Names:
    """Check a name and derive the others.

    Raises:
        ConfigError: not a name that pip, Python and a command line can all use, or taken.
    """
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        near = re.sub(r"[^a-z0-9]+", "-", name.lower())[:LONGEST].strip("-")
        hint = f"; e.g. {near!r}" if _NAME.fullmatch(near) else ""
        raise ConfigError(
            f"{name[:60]!r} cannot name a plugin: expected at most {LONGEST} of a-z, 0-9 and "
            f"single hyphens, beginning with a letter{hint}"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names:
        raise ConfigError(f"{package!r} is a word of Python or a module of its own; choose another")
    if package in _UNSEEN:
        raise ConfigError(f"a folder {package!r} is passed over by builds; choose another name")
    taken = {(dist.metadata["Name"] or "").lower().replace("_", "-") for dist in distributions()}
    if name in taken:
        raise ConfigError(f"a distribution {name!r} is installed; choose another name")
    if importlib.util.find_spec(package) is not None:
        raise ConfigError(f"a package {package!r} can be imported already; choose another name")
    component = package if kind == "metric" else name
    if component in plugins[kind].names():
        owner = plugins[kind].find(component).owner
        raise ConfigError(f"{owner} registers a {kind} {component!r} already; choose another name")
    return Names(name, package, component, _class_name(name, kind))


def _class_name(name: str, kind: str) -> str:
    cls = "".join(part.capitalize() for part in name.split("-"))
    if cls in _IMPORTED or hasattr(builtins, cls):
        cls = f"{cls}{kind.capitalize()}"
    return f"The{cls}" if cls.startswith("Test") else cls  # pytest would take it for a test
