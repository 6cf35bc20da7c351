"""What a search may try: a domain for each option, declared by a Config or written by the user.

As text, on the command line or in a file::

    model.learning_rate  log:1e-4..1e-1      each order of magnitude alike
    model.dropout        0..0.5              evenly
    model.k              10..200/10          in steps of 10
    model.embedding_size 32,64,128           these
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from mmrec_bench.config import (
    COMPONENTS,
    Component,
    ComponentConfig,
    RunConfig,
    parse_override,
    read_yaml,
)
from mmrec_bench.errors import ConfigError, did_you_mean

Scalar = bool | int | float | str | None

SECTIONS = tuple(name for name in COMPONENTS if name != "dataset")
"""Sections that can be searched: what changes the cases is no setting of a model."""

_KEYS = ("low", "high", "log", "step", "choices")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: smallest value.
        high: largest value.
        log: drawn by order of magnitude.
        step: distance of the values; None = 1 for whole numbers, anything for others.
        whole: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def __str__(self) -> str:
        step = "" if self.step is None else f"/{self.step:.12g}"
        return f"{'log:' if self.log else ''}{self.low:.12g}..{self.high:.12g}{step}"

    def tidy(self, value: float) -> int | float:
        """Return the value as it is used, without digits that make no difference.

        Whole; or three significant digits of a log range, a thousandth of another's width.
        """
        if self.whole:
            return round(value)
        if self.step is not None:
            return float(f"{value:.12g}")
        decimals = 3 - math.floor(math.log10(self.high - self.low))
        value = float(f"{value:.3g}") if self.log else round(value, decimals)
        return min(max(value, self.low), self.high)

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        fits = math.isclose(steps, round(steps), abs_tol=1e-9)
        return self.low <= value <= self.high and fits and not (self.whole and value % 1)

    def size(self) -> float:
        """Return how many values there are; infinite where they cannot be counted."""
        step = self.step or (1 if self.whole else None)
        return math.inf if step is None else math.floor((self.high - self.low) / step + 1e-9) + 1

    def points(self) -> list[Scalar]:
        """Return every value, where they can be counted."""
        return [self.tidy(self.low + i * (self.step or 1)) for i in range(int(self.size()))]


@dataclass(frozen=True, slots=True)
class Choices:
    """A few values."""

    values: tuple[Scalar, ...]

    def __str__(self) -> str:
        return ",".join(as_text(value) for value in self.values)

    def tidy(self, value: Scalar) -> Scalar:
        """Return the value."""
        return value

    def __contains__(self, value: object) -> bool:
        return any(value == one and type(value) is type(one) for one in self.values)

    def size(self) -> float:
        """Return how many values there are."""
        return len(self.values)

    def points(self) -> list[Scalar]:
        """Return every value."""
        return list(self.values)


Domain = Range | Choices
Space = Mapping[str, Domain]
"""Option ("model.learning_rate") -> what is tried for it."""


def as_text(value: Scalar) -> str:
    """Write a value as a command line does."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def declared(cls: type[ComponentConfig], section: str = "model") -> dict[str, Domain]:
    """Return what a Config declares with `config.searched`."""
    found = {}
    for name, field in cls.model_fields.items():
        marks = field.json_schema_extra
        if isinstance(marks, dict) and "search" in marks:
            key = f"{section}.{name}"
            found[key] = parse_domain(key, marks["search"], cls)
    return found


def build_space(
    config: RunConfig,
    classes: Mapping[str, tuple[type[ComponentConfig], Mapping[str, Any]]],
    *,
    fixed: Iterable[str] = (),
    file: Path | None = None,
    texts: Iterable[str] = (),
) -> Space:
    """Put together what is tried: declared, then from a file, then from the command line.

    Args:
        config: of the run.
        classes: section -> the Config of its component, and the options it starts from.
        fixed: options that the user set to one value: not searched, although declared.
        file: YAML, option -> domain.
        texts: `section.key=domain`.

    Raises:
        ConfigError: nothing to search, an unknown option, or values that the option does not take.
    """
    fixed = set(fixed)
    known = declared(classes["model"][0])
    space = {key: domain for key, domain in known.items() if key not in fixed}
    wanted: dict[str, Any] = {} if file is None else _read_space(file)
    wanted |= dict(_split(text) for text in texts)
    for key, value in wanted.items():
        section, _, name = key.partition(".")
        _check_key(key, config, classes)
        if key in fixed:
            raise ConfigError(f"{key} is both set with -o and searched with -s; leave out one")
        space[key] = parse_domain(key, value, classes[section][0])
        _check_values(space[key], section, name, *classes[section])
    if not space:
        raise _nothing_to_search(config.model.name, classes["model"][0], declared=bool(known))
    return {key: space[key] for key in sorted(space)}


def parse_domain(key: str, value: object, cls: type[ComponentConfig]) -> Domain:
    """Read a domain: text as above, a list of values, or a mapping with low, high, log, step.

    Raises:
        ConfigError: not a domain, or not one for this option's type.
    """
    name = key.rpartition(".")[2]
    kinds = _kinds(cls.model_fields[name].annotation)
    if isinstance(value, str) and ".." not in value:
        value = [parse_override(f"{key}={part}")[2] for part in value.split(",")]
    if isinstance(value, dict) and value.get("choices") is not None:
        value = value["choices"]
    if isinstance(value, list):
        return _choices(key, [_number(one, kinds) for one in value])
    if isinstance(value, str):
        value = _parse_range(value)
    if not isinstance(value, dict) or not {"low", "high"} <= set(value) <= set(_KEYS):
        raise ConfigError(
            f"cannot search {key} over {value!r}; write e.g. log:1e-4..1e-1, 0..0.5, 10..200/10 "
            "or 32,64,128"
        )
    return _range(key, value, kinds)


def _parse_range(text: str) -> dict[str, Any]:
    low, _, rest = text.removeprefix("log:").partition("..")
    high, slash, step = rest.partition("/")
    log = text.startswith("log:")
    return {"low": low, "high": high, "log": log, "step": step if slash else None}


def _number(value: object, kinds: set[type]) -> object:
    """Return a value as the option's type has it: YAML reads 1e-4 as text, and 0 as whole."""
    if isinstance(value, str) and str not in kinds and kinds & {int, float}:
        try:
            value = float(value)
        except ValueError:
            return value
    return float(value) if type(value) is int and float in kinds and int not in kinds else value


def _range(key: str, value: Mapping[str, Any], kinds: set[type]) -> Range:
    if not kinds & {int, float}:
        raise ConfigError(f"{key} takes no numbers, so it has no range; write the values: a,b,c")
    numbers = {}
    for name in ("low", "high", "step"):
        raw = value.get(name)
        try:
            numbers[name] = None if raw is None else float(raw)
        except (TypeError, ValueError):
            raise ConfigError(f"{key}: {name} is {raw!r}, not a number") from None
        except OverflowError:
            raise ConfigError(f"{key}: {name} is larger than any number may be") from None
    low, high, step = numbers["low"], numbers["high"], numbers["step"]
    log, whole = value.get("log"), float not in kinds
    log = False if log is None else log
    if not isinstance(log, bool):  # `no` and `off` are words here, see `config`
        raise ConfigError(f"{key}: log is {log!r}, expected true or false")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"{key}: the range from {low} to {high} needs two finite ends")
    if not low < high:
        raise ConfigError(f"{key}: the range from {low:g} to {high:g} is empty or a single value")
    if log and (low <= 0 or step is not None):
        raise ConfigError(f"{key}: a log range begins above 0 and has no step")
    if not math.isfinite((high - low) / (step or 1)):
        raise ConfigError(f"{key}: the range from {low:g} to {high:g} has too many values")
    if step is not None and not 0 < step <= high - low:
        raise ConfigError(f"{key}: the step {step:g} does not fit between {low:g} and {high:g}")
    if whole and any(number is not None and number % 1 for number in (low, high, step)):
        raise ConfigError(f"{key} takes whole numbers; the range {low:g}..{high:g} has others")
    if step is not None:  # the last value that the steps reach
        high = low + math.floor((high - low) / step + 1e-9) * step
    return Range(low, high, log, step, whole)


def _choices(key: str, values: list[Any]) -> Choices:
    odd = [value for value in values if not isinstance(value, Scalar)]
    if odd:
        raise ConfigError(f"{key}: {odd[0]!r} is not a single value; only such can be searched")
    if len(values) < 2 or len({(type(value), value) for value in values}) < len(values):
        raise ConfigError(
            f"{key}: {', '.join(map(str, values))} are not two or more different values; one value "
            f"is set with -o {key}=VALUE"
        )
    return Choices(tuple(values))


def _kinds(annotation: object) -> set[type]:
    """Return the plain types that a field takes: `int | None` -> {int, NoneType}."""
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*(_kinds(one) for one in get_args(annotation)))
    return {annotation} if isinstance(annotation, type) else set()


def _split(text: str) -> tuple[str, Any]:
    section, key, _ = parse_override(text)
    return f"{section}.{key}", text.partition("=")[2].strip()


def _read_space(path: Path) -> dict[str, Any]:
    """Read `model.k: 10..200` or `model: {k: 10..200}`."""
    found: dict[str, Any] = {}
    for key, value in read_yaml(path).items():
        if "." in str(key):
            found[str(key)] = value
        elif isinstance(value, dict):
            found |= {f"{key}.{name}": domain for name, domain in value.items()}
        else:
            raise ConfigError(f"{path}: {key!r} is neither section.key nor a section of keys")
    return found


def _check_key(
    key: str,
    config: RunConfig,
    classes: Mapping[str, tuple[type[ComponentConfig], Mapping[str, Any]]],
) -> None:
    section, _, name = key.partition(".")
    if section not in SECTIONS:
        if section in RunConfig.model_fields:
            raise ConfigError(
                f"{key} cannot be searched: it changes the cases or the question, not the model; "
                f"set it with -o (searched are: {', '.join(SECTIONS)})"
            )
        raise ConfigError(f"unknown section {section!r} in {key}{did_you_mean(section, SECTIONS)}")
    if section not in classes:
        raise ConfigError(f"{key} cannot be searched: the run names no {section}")
    cls = classes[section][0]
    if name not in cls.model_fields:
        raise ConfigError(f"unknown option {key}{did_you_mean(name, cls.model_fields)}")
    marks = cls.model_fields[name].json_schema_extra
    if isinstance(marks, dict) and marks.get("operational"):
        component: Component = getattr(config, section)
        raise ConfigError(
            f"{key} cannot be searched: it says how {component.name} works, and not what comes out"
        )


def _check_values(
    domain: Domain,
    section: str,
    name: str,
    cls: type[ComponentConfig],
    options: Mapping[str, Any],
) -> None:
    """Refuse values that the option never takes; combinations are judged when they are tried."""
    ends: tuple[Scalar, ...]
    if isinstance(domain, Range):
        ends = (domain.tidy(domain.low), domain.tidy(domain.high))
    else:
        ends = domain.values
    for end in ends:
        try:
            cls(**{**options, name: end})
        except ValidationError as error:
            for one in error.errors():
                if one["loc"][:1] == (name,):
                    raise ConfigError(
                        f"{section}.{name}: {as_text(end)} cannot be tried: {one['msg']}"
                    ) from None


def _nothing_to_search(model: str, cls: type[ComponentConfig], *, declared: bool) -> ConfigError:
    options = cls.model_fields
    if not options:
        return ConfigError(f"model {model!r} has no options, so that there is nothing to search")
    numbers = [name for name, one in options.items() if _kinds(one.annotation) & {int, float}]
    floats = [name for name in numbers if float in _kinds(options[name].annotation)]
    example = f"-s model.{next(iter(options))}=a,b"
    if numbers:
        example = f"-s model.{numbers[0]}=1..10"
    if floats:
        example = f"-s model.{floats[0]}=log:1e-4..1e-2"
    what = "only options that -o sets" if declared else "no option to search"
    return ConfigError(f"model {model!r} declares {what}; say what to try, e.g. {example}")


def grid(space: Space, limit: int) -> list[dict[str, Scalar]] | None:
    """Return every combination where there are at most `limit` of them; else None."""
    if math.prod(domain.size() for domain in space.values()) > limit:
        return None
    points = [domain.points() for domain in space.values()]
    return [dict(zip(space, values, strict=True)) for values in product(*points)]


def with_settings(config: RunConfig, settings: Mapping[str, Scalar]) -> RunConfig:
    """Return the configuration with `section.key` -> value laid over it."""
    changed: dict[str, Component] = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        component: Component = changed.get(section) or getattr(config, section)
        changed[section] = component.model_copy(
            update={"options": {**component.options, name: value}}
        )
    return config.model_copy(update=changed)
