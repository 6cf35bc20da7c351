"""What every component keeps, whatever its kind."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from mmrec_bench.config import ComponentConfig
from mmrec_bench.contract.findings import Check, DoesNotApplyError, demand

HEAVY = frozenset(
    (
        *("jax", "keras", "tensorflow", "torch", "torchaudio", "torchvision"),
        *("lightning", "pytorch_lightning", "peft", "sentence_transformers", "transformers"),
        *("datasets", "gensim", "onnxruntime", "openai", "spacy"),
        *("lightgbm", "matplotlib", "numba", "scipy", "sklearn", "xgboost"),
        *("pandas", "polars", "pyarrow"),
    )
)
"""Packages that take a tenth of a second or more to import."""

_FOUND = "mmrec-bench found: "
"""Before our line: a plugin may print when it is imported, and when Python ends."""

_LOOK = f"""
import importlib, json, sys
from inspect import signature
sys.path[:] = json.loads(sys.argv[2])
import mmrec_bench.hookspecs, mmrec_bench.registry
before = set(sys.modules)
module = importlib.import_module(sys.argv[1])
for name, hook in vars(module).items():
    if name.startswith("mmrec_register_") and callable(hook) and not signature(hook).parameters:
        hook()
found = sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})
print("\\n{_FOUND}" + json.dumps(found), flush=True)
"""


@dataclass(frozen=True)
class Component:
    """A component's class, the options that it is checked with, and the module of its hooks.

    Attributes:
        cls: the class.
        config: as it is built for the checks.
        module: that the entry point names; None = a one-file plugin.
    """

    cls: type[Any]
    config: ComponentConfig
    module: str | None


def check_config(config: ComponentConfig) -> None:
    """Check that options are strict and survive JSON.

    Raises:
        BrokenContractError: they do not.
    """
    cls = type(config)
    demand(
        isinstance(config, ComponentConfig),
        f"a Config of type {cls.__name__}",
        "a class that derives from ComponentConfig",
        "write `class Config(ComponentConfig)`",
    )
    lost = sorted(set(cls.model_fields) - set(config.model_dump()))
    demand(
        not lost,
        f"{', '.join(lost)} left out of what is written",
        "every option: a run is known by its options, and two that differ must not be one",
        "write no exclude=True",
    )
    for one in (config, *_others(config)):
        again = cls.model_validate_json(one.model_dump_json())
        demand(
            again == one,
            f"{again!r} after JSON, from {one!r}",
            "the same options",
            "use types that JSON holds whole, e.g. float, str, tuple[str, ...], Path",
        )
    try:
        cls.model_validate({**config.model_dump(), "no_such_option": 1})
    except ValidationError as error:
        if "no_such_option" in str(error):
            return
    demand(
        False,
        "an unknown option was taken",
        "that it is refused by name",
        "keep ComponentConfig's extra='forbid'",
    )


def _others(config: ComponentConfig) -> Iterator[ComponentConfig]:
    """Yield the options with another value of one of them, for each that such is found of."""
    cls, given = type(config), config.model_dump()
    for name, field in cls.model_fields.items():
        for value in _values(getattr(config, name), field.annotation):
            try:
                other = cls.model_validate({**given, name: value})
            except ValidationError:
                continue
            if other != config:
                yield other


def _values(value: Any, annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - of an option
    """Yield values like one of an option's, some of which its type and bounds may allow."""
    yield from get_args(annotation)  # of a Literal
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value - 1)
        case float():  # with all its digits
            yield from (value * 1.0123456789, value / 1.0123456789, 0.123456789, 1.23456789)
        case Path():
            yield Path("Other") / "path.txt"
        case str():
            yield from (f"{value}_Other", "Other, ä")
        case tuple() | list():
            yield from ([*value, *value], list(value)[::-1])
        case None:
            yield from (3, 0.123456789, "Other", True, ["Other"])


def check_options(config: type[ComponentConfig]) -> None:
    """Check that every option is described, and that none takes the component's own key.

    Raises:
        BrokenContractError: one is not.
    """
    silent = [name for name, field in config.model_fields.items() if not field.description]
    demand(
        not silent,
        f"no description of {', '.join(silent)}",
        "a description of every option: `mmrec-bench list` shows it",
        f'write `{silent[0] if silent else ""}: ... = Field(..., description="...")`',
    )
    demand(
        "name" not in config.model_fields,
        "an option called `name`",
        "another name: `name` is the component's own key in a configuration",
        "rename the option",
    )


def check_light_import(module: str) -> None:
    """Check in a fresh Python that a plugin's hook module and its hooks import nothing heavy.

    Raises:
        BrokenContractError: it does, or cannot be imported.
    """
    done = subprocess.run(  # noqa: S603 - this Python, and a module that is installed
        [sys.executable, "-P", "-c", _LOOK, module, json.dumps(sys.path)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
    )
    reason = done.stderr.strip().splitlines() or [f"Python ended with {done.returncode}"]
    told = [line for line in done.stdout.splitlines() if line.startswith(_FOUND)]
    demand(
        bool(told),
        f"import {module} failed: {reason[-1]}",
        "that the module of the hooks can be imported alone",
        "import what it needs, or move it into the module of the class",
    )
    heavy = sorted(HEAVY & set(json.loads(told[-1].removeprefix(_FOUND))))
    demand(
        not heavy,
        f"import {module} imports {', '.join(heavy)}",
        "a light module: it is imported whenever names are listed",
        "register an Entry that names the class as a string, and import in the class's module",
    )


def _module(component: Component) -> None:
    if component.module is None:
        raise DoesNotApplyError("a one-file plugin is imported whole, and only where it is named")
    check_light_import(component.module)


CHECKS: tuple[Check[Component], ...] = (
    Check("import", "listing names imports nothing heavy", _module),
    Check(
        "config",
        "options survive JSON, and an unknown one is refused",
        lambda component: check_config(component.config),
    ),
    Check(
        "options",
        "every option is described, and none is called `name`",
        lambda component: check_options(component.cls.Config),
    ),
)
