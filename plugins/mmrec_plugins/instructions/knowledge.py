"""What teachers wrote about users and items, read from instruction corpora for other instructions.

The fields of a profile (likes, dislikes, visual taste, summary) and of attributes (name -> value
and its source) are our design; the paper says only that ChatGPT and GPT-4 generate both.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmrec_bench.config import ComponentConfig, operational
from mmrec_bench.errors import ConfigError, DataFormatError
from mmrec_bench.interfaces import InstructionContext
from mmrec_bench.types import Query
from mmrec_plugins.instructions.corpus import (
    CorpusEntry,
    Kind,
    corpus_fingerprint,
    read_corpus,
)
from mmrec_plugins.instructions.templates import Language

log = logging.getLogger("mmrec_bench")

_SPACES = re.compile(r"[\s()]+")
_NAMES: Mapping[Language, Mapping[str, str]] = {
    "en": {"likes": "likes", "dislikes": "dislikes", "visual_taste": "visual taste"},
    "zh": {"likes": "喜欢", "dislikes": "不喜欢", "visual_taste": "视觉偏好"},
}
_JOINTS: Mapping[Language, tuple[str, str, str]] = {
    "en": (": ", ", ", "; "),
    "zh": ("：", "、", "；"),
}


class KnowledgeOptions(ComponentConfig):
    """Options of every builder that can show what teachers wrote."""

    profile: bool = Field(default=False, description="show the user's profile from `corpus`")
    attributes: bool = Field(default=False, description="show items' attributes from `corpus`")
    attribute_source: Literal["all", "text", "image"] = Field(
        "all", description="show attributes of every source, or those from text or picture alone"
    )
    # where the files are decides nothing; what is in them is the builder's fingerprint
    corpus: tuple[Path, ...] = operational(
        (), description="JSONL files with profiles and attributes, of `instructions build`"
    )


class ProfileFields(BaseModel):
    """`CorpusEntry.value` of a profile."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    likes: tuple[str, ...] = ()
    dislikes: tuple[str, ...] = ()
    visual_taste: tuple[str, ...] = ()
    summary: str = ""

    def line(self, language: Language) -> str:
        """Return the profile in one line."""
        colon, comma, semicolon = _JOINTS[language]
        said = [_clean(self.summary).rstrip(".。")]
        for field, name in _NAMES[language].items():
            if values := [text for value in getattr(self, field) if (text := _clean(value))]:
                said.append(f"{name}{colon}{comma.join(values)}")
        return semicolon.join(text for text in said if text)


class AttributeField(BaseModel):
    """One attribute of an item and where it was seen."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    value: str
    source: Literal["text", "image"]


class AttributeFields(BaseModel):
    """`CorpusEntry.value` of attributes."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    attributes: dict[str, AttributeField]


F = TypeVar("F", ProfileFields, AttributeFields)


class Knowledge:
    """Profiles by user and attributes by item of a run, as far as the corpora have them."""

    def __init__(self, options: KnowledgeOptions) -> None:
        self.options = options
        self._profiles: dict[int, tuple[ProfileFields, frozenset[int]]] = {}
        self._attributes: dict[int, tuple[tuple[str, str], ...]] = {}
        self._ready = not (options.profile or options.attributes)
        self._told = False

    def prepare(self, context: InstructionContext) -> None:
        """Read the corpora; the last entry of a user or an item counts.

        Raises:
            ConfigError: no corpus, none of the data set's entries in it, or a profile that was
                written from interactions that this run holds out.
            DataFormatError: a line is no entry, or its fields are not those of its kind.
        """
        if self._ready:
            return
        kinds = _wanted(self.options)
        _require_corpus(self.options, context.dataset)
        entries = [
            entry
            for path in self.options.corpus
            for entry in read_corpus(path)
            if entry.kind in kinds and entry.dataset == context.dataset
        ]
        for kind in kinds:
            if not any(entry.kind == kind for entry in entries):
                raise ConfigError(
                    f"{_names(self.options.corpus)}: no entry of kind {kind} for the data set "
                    f"{context.dataset}; build them: {_command(context.dataset, kind)}"
                )
        if self.options.profile:
            self._read_profiles(entries, context)
        if self.options.attributes:
            self._read_attributes(entries, context)
        self._ready = True

    def profile_of(self, query: Query, language: Language) -> str:
        """Return the profile of a query's user in one line; "" where there is none to show.

        A profile that was written from one of the candidates would give the target away (it does
        so in training, where targets are train interactions), so it is not shown there.
        """
        self._check_ready()
        fields, written_from = self._profiles.get(query.user, (None, frozenset()))
        if fields is None:
            return ""
        if query.candidates is not None and not written_from.isdisjoint(query.candidates.tolist()):
            if not self._told:
                self._told = True
                log.info("profiles are not shown beside a candidate that they were written from")
            return ""
        return fields.line(language)

    def attributes_of(self, item: int) -> tuple[tuple[str, str], ...]:
        """Return an item's attributes, name and value; () where there are none, or not wanted."""
        self._check_ready()
        return self._attributes.get(item, ())

    def _read_profiles(self, entries: list[CorpusEntry], context: InstructionContext) -> None:
        histories = context.train.histories(len(context.users))
        items = context.catalog.items
        n_dropped = 0
        for entry in entries:
            if entry.kind != "profile" or entry.user is None or entry.user not in context.users:
                continue
            user = context.users.index(entry.user)
            own = set(histories[user].tolist())
            written_from = frozenset(items.index(item) for item in entry.items if item in items)
            if written_from <= own:
                self._profiles[user] = (_fields(ProfileFields, entry), written_from)
                continue
            n_dropped += 1
            if context.held_out is None:
                strange = items[min(written_from - own)]
                raise ConfigError(
                    f"the profile of user {entry.user} was written from item {strange}, which is "
                    "not among the user's train interactions of this run; build the profiles "
                    f"under the same protocol: {_command(context.dataset, 'profile')}"
                )
        if n_dropped:
            log.warning("profiles: %d were written from what is held out, and left out", n_dropped)
        log.info("profiles: %d of %d users have one", len(self._profiles), len(context.users))

    def _read_attributes(self, entries: list[CorpusEntry], context: InstructionContext) -> None:
        wanted = self.options.attribute_source
        for entry in entries:
            items = context.catalog.items
            if entry.kind != "attributes" or not entry.items or entry.items[0] not in items:
                continue
            fields = _fields(AttributeFields, entry).attributes
            self._attributes[items.index(entry.items[0])] = tuple(
                (_clean(name), value)
                for name, field in fields.items()
                if wanted in {"all", field.source} and (value := _clean(field.value))
            )
        n_known = sum(bool(each) for each in self._attributes.values())
        log.info("attributes: %d of %d items have some", n_known, len(context.catalog))

    def _check_ready(self) -> None:
        if not self._ready:
            raise ConfigError(
                "profiles and attributes are read by prepare(context), which was not called "
                "before the first build"
            )


def knowledge_fingerprint(config: ComponentConfig) -> str:
    """Return a hash of the corpora that `config` shows something of, else "".

    Raises:
        ConfigError: something of a corpus is asked for, and none is named.
        DataFormatError: a file cannot be read.
    """
    if not isinstance(config, KnowledgeOptions) or not _wanted(config):
        return ""
    _require_corpus(config, "NAME")
    return corpus_fingerprint(config.corpus)


def _wanted(options: KnowledgeOptions) -> list[Kind]:
    kinds: list[tuple[Kind, bool]] = [
        ("profile", options.profile),
        ("attributes", options.attributes),
    ]
    return [kind for kind, asked in kinds if asked]


def _require_corpus(options: KnowledgeOptions, dataset: str) -> None:
    """Raise ConfigError where no corpus is named, or one is not there."""
    kinds = _wanted(options)
    missing = [path for path in options.corpus if not path.is_file()]
    if options.corpus and not missing:
        return
    asked = " and ".join(f"instructions.{kind}=true" for kind in kinds)
    found = f"{_names(missing)} not found" if missing else "no instructions.corpus is named"
    raise ConfigError(
        f"{asked} needs a corpus, but {found}; build it ("
        + "; ".join(_command(dataset, kind) for kind in kinds)
        + ") and name its files: -o instructions.corpus=[FILE, ...]"
    )


def _command(dataset: str, kind: Kind) -> str:
    return f"mmrec-bench instructions build --dataset {dataset} --kind {kind}"


def _names(paths: tuple[Path, ...] | list[Path]) -> str:
    return ", ".join(str(path) for path in paths)


def _fields(cls: type[F], entry: CorpusEntry) -> F:
    try:
        return cls.model_validate(entry.value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataFormatError(
            f"the {entry.kind} of {entry.user or entry.items[0]} in an instruction corpus: "
            f"value.{place}: {first['msg']}; build it again"
        ) from None


def _clean(text: str) -> str:
    """Return a text as one line without brackets, which a builder puts around it."""
    return _SPACES.sub(" ", text).strip()
