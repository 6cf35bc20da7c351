"""Settings: strict models beside each component, and the RunConfig that a command line builds."""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmrec_bench.errors import ConfigError, did_you_mean

C = TypeVar("C", bound="ComponentConfig")


class ComponentConfig(BaseModel):
    """Base of every component's options: typed, immutable, unknown keys refused."""

    # An infinity and a NaN would be one and the same null in a spec's JSON, and so one run.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


def operational(default: Any, **field: Any) -> Any:  # noqa: ANN401 - as pydantic's own Field
    """Return a field that says how something is done and never what comes out.

    Such options (concurrency, time-outs, budgets, addresses) are no part of a run's identity.
    """
    return Field(default, json_schema_extra={"operational": True}, **field)


def added(default: Any, **field: Any) -> Any:  # noqa: ANN401 - as pydantic's own Field
    """Return a field that joined later: runs that leave it alone keep the identity they had."""
    return Field(default, json_schema_extra={"added": True}, **field)


def searched(
    default: Any,  # noqa: ANN401 - as pydantic's own Field
    *,
    low: float | None = None,
    high: float | None = None,
    log: bool = False,
    step: float | None = None,
    choices: Iterable[bool | int | float | str | None] | None = None,
    **field: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Return a field that `mmrec-bench tune` searches unless it is told otherwise.

    The range says where good values were found before; it is no bound on the option itself, and no
    part of a run's identity. Read by `spaces.declared`.

    Args:
        default: the field's default.
        low: smallest value tried.
        high: largest value tried.
        log: try each order of magnitude alike.
        step: distance of the values tried; None = 1 for whole numbers, anything for others.
        choices: the values tried, in place of a range.
        field: further arguments of pydantic's Field.

    Raises:
        ValueError: neither a range nor choices, or both.
    """
    if (choices is None) == (low is None or high is None):
        raise ValueError("a searched field needs low and high, or choices")
    domain: dict[str, Any] = {"low": low, "high": high, "log": log, "step": step}
    marks = {
        **field.pop("json_schema_extra", {}),
        "search": domain if choices is None else {"choices": list(choices)},
    }
    return Field(default, json_schema_extra=marks, **field)


def identity(config: ComponentConfig) -> dict[str, Any]:
    """Return the options, JSON values, that decide what comes out."""
    idle = set()
    for name, field in type(config).model_fields.items():
        marks = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        untouched = getattr(config, name) == field.get_default()
        if marks.get("operational") or (marks.get("added") and untouched):
            idle.add(name)
    return config.model_dump(mode="json", exclude=idle)


class ProtocolConfig(ComponentConfig):
    """How a data set is filtered, split and asked; part of every result's identity."""

    split: Literal["leave-one-out", "user-ratio", "random-ratio", "global-time", "given"] = Field(
        "leave-one-out",
        description="leave-one-out leaks across users in time, global-time does not; given = as "
        "the data set is published, which needs k_core=0",
    )
    ratios: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1), description="train, validation, test shares of the ratio and time splits"
    )
    k_core: int = Field(5, ge=0, description="drop users and items with fewer interactions")
    min_rating: float | None = Field(None, description="keep interactions rated at least this")
    repeats: Literal["first", "last", "keep"] = Field(
        "first", description="which of a user's repeated interactions with one item are kept"
    )
    history_length: int = Field(50, ge=1, description="newest items of the history shown")
    validation_in_history: bool = Field(
        default=True, description="test histories end with the validation items"
    )
    candidates: Literal["uniform", "popular", "full", "file"] = Field(
        "uniform", description="how negatives are drawn; full = rank the whole catalog"
    )
    n_candidates: int = Field(20, ge=2, description="size of a candidate set, targets included")
    candidates_file: Path | None = Field(
        None, description="JSONL lines {user, candidates: [item ids]} for candidates=file"
    )
    mask_seen: bool = Field(default=True, description="leave seen items out of the ranking")
    ties_in_time: Literal["file", "shuffle"] = Field(
        "file", description="order of a user's interactions at one time"
    )
    permute_ids: bool = Field(
        default=True, description="renumber items by seed, so that numbers tell nothing"
    )
    data_seed: int = Field(0, ge=0, description="seed of the split, the permutation and candidates")

    @model_validator(mode="after")
    def _check(self) -> "ProtocolConfig":
        if min(self.ratios) < 0 or abs(sum(self.ratios) - 1) > 1e-6 or self.ratios[2] == 0:
            raise ValueError(f"ratios {self.ratios} must be >= 0, sum to 1 and leave a test share")
        if self.split == "given" and (self.k_core > 1 or self.min_rating is not None):
            raise ValueError(
                "split=given keeps the published division whole: set k_core=0 and no min_rating"
            )
        if (self.candidates == "file") != (self.candidates_file is not None):
            raise ValueError("candidates_file goes with candidates=file, and the reverse")
        return self


class Component(ComponentConfig):
    """A registered name and the options that differ from its defaults."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        """Accept `name` and `{name: ..., option: value, ...}`, as configuration files write it."""
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "options" not in value:
            options = dict(value)
            return {"name": options.pop("name", ""), "options": options}
        return value


DEFAULT_METRICS = ("ndcg@10", "hit_rate@1", "hit_rate@5", "hit_rate@10", "mrr@10", "auc")


class TransferConfig(ComponentConfig):
    """What is held out from tuning, so that a test shows transfer; see `transfer`."""

    source: Component | None = Field(
        None, description="tune on this data set and test on the run's; None = on the same one"
    )
    hold_out: Literal["none", "users", "items", "both"] = Field(
        "none", description="users and items of the run's data set that no training sees"
    )
    share: float = Field(0.2, gt=0, lt=1, description="share of users, of items, held out")
    shots: int | None = Field(
        None,
        ge=0,
        description="interactions of a test user that are shown: 0 = zero-shot, k = few-shot",
    )

    @model_validator(mode="after")
    def _check(self) -> "TransferConfig":
        if self.source is None and self.hold_out == "none":
            raise ValueError("name a source data set, or hold out users, items or both")
        return self


Images = Literal["real", "none", "shuffled", "grey"]


class RunConfig(ComponentConfig):
    """One run as asked for: components with their options, protocol, seed.

    A configuration file has the same shape; a component is a name or a mapping with `name` and
    its options.
    """

    model: Component
    dataset: Component
    instructions: Component = Field(
        Component(name=""), description="instruction builder; without a name the model's choice"
    )
    encoder: Component | None = Field(
        Component(name="image-tags"), description="says in words what the pictures show"
    )
    vectors: Component | None = Field(
        None, description="encoder whose vectors a model reads, e.g. as soft visual tokens"
    )
    text_vectors: Component | None = Field(
        None, description="encoder whose vectors of the items' words a multimodal model reads"
    )
    audio_vectors: Component | None = Field(
        None, description="encoder whose vectors of the items' sound a multimodal model reads"
    )
    metrics: tuple[str, ...] = DEFAULT_METRICS
    protocol: ProtocolConfig = ProtocolConfig()
    seed: int = Field(0, ge=0, description="seed of the model; protocol.data_seed is the data's")
    limit_cases: int | None = Field(None, ge=1, description="score only the first n test cases")
    images: Images = Field(
        "real",
        description="pictures as they are, none, shuffled between items, or replaced by grey",
    )
    permutations: int = Field(
        1, ge=1, description="orders of the candidates in which each case is asked"
    )
    transfer: TransferConfig | None = Field(None, description="test on what was not tuned on")

    @classmethod
    def parse(cls, values: Mapping[str, Any], overrides: Iterable[str] = ()) -> "RunConfig":
        """Validate a configuration with `section.key=value` overrides laid over it.

        Raises:
            ConfigError: unknown section or key, or a value of the wrong type.
        """
        return build_config(cls, merge_overrides(values, overrides), "")


MODALITIES = {"vectors": "image", "text_vectors": "text", "audio_vectors": "audio"}
"""Section of a run -> the modality whose vectors its encoder gives."""

COMPONENTS = ("model", "dataset", "instructions", "encoder", *MODALITIES)
SECTIONS = (*COMPONENTS, "protocol", "transfer")
"""Sections of a configuration that `-o section.key=value` reaches."""


def build_config(cls: type[C], values: Mapping[str, Any], where: str) -> C:
    """Validate options; one line that names the section, the key and the nearest known key.

    Raises:
        ConfigError: an unknown key or a value of the wrong type.
    """
    odd = [key for key in values if not isinstance(key, str)]
    if odd:
        raise ConfigError(f"{where or 'configuration'}: the key {odd[0]!r} is no name of an option")
    try:
        return cls(**values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(cls, where, e) for e in error.errors())) from None


def _explain(cls: type[BaseModel], where: str, error: Mapping[str, Any]) -> str:
    path = [str(part) for part in error["loc"]]
    key = ".".join(([where] if where else []) + path) or "options"
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg']} (got {error.get('input')!r})"
    owner = cls
    for part in path[:-1]:
        annotation = owner.model_fields[part].annotation if part in owner.model_fields else None
        for kind in get_args(annotation) or (annotation,):  # also X | None
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                owner = kind
    return f"unknown option {key}{did_you_mean(path[-1], owner.model_fields)}"


class _Loader(yaml.SafeLoader):
    """YAML in which `on`, `off`, `yes` and `no` are words, as in YAML 1.2; options use them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF")
)


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    value: int = loader.construct_yaml_int(node)
    if abs(value) > sys.float_info.max:  # neither a float can hold it nor a message print it
        raise ValueError("a whole number of more than 300 digits")
    return value


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def _load(text: str, what: str) -> Any:  # noqa: ANN401 - whatever YAML holds
    """Read YAML.

    Raises:
        yaml.YAMLError: it is none.
        ConfigError: it is, but holds a date or a number that cannot be, or is nested too deeply.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise ConfigError(f"{what} is nested too deeply") from None
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{what} holds what cannot be read: {error}") from None


def parse_override(text: str) -> tuple[str, str, Any]:
    """Split `section.key=value`; the value is read as YAML, so 3, true, [a, b] are typed.

    Raises:
        ConfigError: not of that form, or a value that cannot be.
    """
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise ConfigError(f"option {text!r} is not of the form section.key=value")
    try:
        return section, key, _load(value, f"option {section}.{key}")
    except yaml.YAMLError:
        return section, key, value


def merge_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return the configuration with `section.key=value` overrides laid over it."""
    merged = dict(values)
    for text in overrides:
        section, key, value = parse_override(text)
        if section not in SECTIONS:
            raise ConfigError(
                f"unknown section {section!r} in {text!r}{did_you_mean(section, SECTIONS)}"
            )
        merged[section] = {**section_options(merged, section), key: value}
    return merged


def section_options(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Return a section of a configuration as a mapping, so that something can be laid over it.

    A component that is not there is its default, and its options stand beside its `name`.

    Raises:
        ConfigError: it is neither a name nor a mapping.
    """
    old = values.get(section)
    if old is None and section in COMPONENTS:
        old = getattr(RunConfig.model_fields[section].get_default(), "name", None)
    if isinstance(old, str) and section in COMPONENTS:
        return {"name": old}
    if old is None:
        return {}
    if not isinstance(old, Mapping):
        what = "a name or a mapping" if section in COMPONENTS else "a mapping"
        raise ConfigError(f"{section} is {old!r}, expected {what} of options")
    options = dict(old)
    if section in COMPONENTS and isinstance(options.get("options"), Mapping):
        options |= options.pop("options")
    return options


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file: a mapping of sections.

    Raises:
        ConfigError: missing, not YAML, not a mapping, or a value that cannot be.
    """
    try:
        data = _load(path.read_text(encoding="utf-8"), f"configuration {path}")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read configuration {path}: {reason}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"configuration {path} holds a {type(data).__name__}, not a mapping")
    return data
