"""Options of a corpus build, and the request that a command line makes of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mmrec_bench.config import (
    ComponentConfig,
    RunConfig,
    build_config,
    operational,
    parse_override,
)
from mmrec_bench.errors import ConfigError
from mmrec_plugins.instructions.corpus import KINDS, Kind

Language = Literal["en", "zh"]
Pictures = Literal["auto", "image", "words", "both", "none"]


class BuildingConfig(ComponentConfig):
    """Options `building.*` of `instructions build`."""

    chunk: int = Field(10, ge=1, description="items of a history that one profile request shows")
    min_history: int = Field(
        3, ge=1, description="users with fewer train interactions get no profile"
    )
    leave_newest: int = Field(
        0,
        ge=0,
        description="newest train items that a profile does not read, so that it can stand beside "
        "training examples whose targets they are",
    )
    per_user: int = Field(2, ge=1, description="recommendation entries of a user and kind, at most")
    distil: bool = Field(
        default=False,
        description="ask the teacher for a ranking, and put the true next item first; without, the "
        "answer is the true next item and no teacher is asked",
    )
    answer: Literal["label", "title", "both"] = Field(
        "both",
        description="how the answer names the true next item, and how the question asks for it; "
        "with distil always by labels",
    )
    intentions: tuple[Literal["none", "vague", "specific"], ...] = Field(
        ("none", "vague", "specific"),
        min_length=1,
        description="what a recommendation entry says the user is after, one of these by seed",
    )
    pictures: Pictures = Field(
        "auto",
        description="show the picture, words of it, both or none; auto = the picture to a teacher "
        "that looks, both where the teacher reads text only",
    )
    title_words: int = Field(24, ge=1, description="words of a title that are shown")
    text_words: int = Field(80, ge=0, description="words of a description that are shown")
    held_out_negatives: bool = Field(
        default=True,
        description="keep entries whose candidates hold, as one that is not the answer, an item "
        "held out for the user: negatives are drawn blindly, as in a run's own training; false "
        "drops these entries, which uses the knowledge of what is held out",
    )
    validation_share: float = Field(
        0.1, ge=0, lt=1, description="share of users and of items whose entries are for validation"
    )
    min_words: int = Field(3, ge=0, description="a profile's summary with fewer words is rejected")
    max_words: int = Field(120, ge=1, description="a profile's summary with more is rejected")
    max_value_words: int = Field(
        12, ge=1, description="an attribute or a like with more words is rejected"
    )
    max_copied: float = Field(
        0.6,
        ge=0,
        le=1,
        description="largest share of an answer's 5-word runs that stand in the question as well",
    )
    near_duplicates: float = Field(
        0.9, gt=0, le=1, description="similarity (Jaccard) from which two entries are one"
    )
    max_tokens: int = Field(320, ge=16, description="tokens of a teacher's answer")
    batch_size: int = operational(
        32, ge=1, description="requests between two writes of the journal"
    )


class BuildRequest(ComponentConfig):
    """A whole build as asked for.

    Attributes:
        run: data set, protocol, encoder and seed, as of a run; its model is not looked at.
        kinds: what is built.
        teacher: registered name, e.g. "lm".
        teacher_options: options laid over the teacher's defaults.
        building: `building.*`.
        language: of questions and, where the teacher follows, of answers.
        limit: only so many users and items, drawn by the seed.
    """

    run: RunConfig
    kinds: tuple[Kind, ...]
    teacher: str
    teacher_options: dict[str, Any]
    building: BuildingConfig
    language: Language = "en"
    limit: int | None = Field(None, ge=1)

    @property
    def teacher_label(self) -> str:
        """Return the teacher as it was asked for, e.g. `lm:smollm2`."""
        model = self.teacher_options.get("model")
        return f"{self.teacher}:{model}" if model else self.teacher


_OWN = ("teacher", "building")


def parse_request(
    values: Mapping[str, Any],
    overrides: Iterable[str],
    *,
    kind: str,
    teacher: str | None,
    language: Language,
    limit: int | None,
) -> BuildRequest:
    """Put a request together from a configuration file, options and `section.key=value` pairs.

    Raises:
        ConfigError: an unknown section, key or kind, or a value of the wrong type.
    """
    rest = dict(values)
    file_teacher = rest.pop("teacher", None)
    own: dict[str, dict[str, Any]] = {
        "teacher": dict(file_teacher) if isinstance(file_teacher, dict) else {},
        "building": dict(rest.pop("building", None) or {}),
    }
    others = []
    for text in overrides:
        section, key, value = parse_override(text)
        if section in _OWN:
            own[section][key] = value
        else:
            others.append(text)
    named = teacher or own["teacher"].pop("name", None) or file_teacher or "template"
    own["teacher"].pop("name", None)
    if not isinstance(named, str):
        raise ConfigError(f"teacher {named!r} is not of the form name or name:model")
    rest.setdefault("model", {"name": ""})
    name, colon, model = named.partition(":")
    if colon:
        own["teacher"]["model"] = model
    return BuildRequest(
        run=RunConfig.parse(rest, others),
        kinds=parse_kinds(kind),
        teacher=name,
        teacher_options=own["teacher"],
        building=build_config(BuildingConfig, own["building"], "building"),
        language=language,
        limit=limit,
    )


def parse_kinds(text: str) -> tuple[Kind, ...]:
    """Return the kinds of "all" or of a comma-separated list, in their fixed order.

    Raises:
        ConfigError: an unknown kind.
    """
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = sorted(set(asked) - {*KINDS, "all"})
    if unknown or not asked:
        raise ConfigError(f"kind {text!r} is not one of {', '.join(KINDS)} or all")
    return tuple(kind for kind in KINDS if "all" in asked or kind in asked)


def default_output(dataset: str, teacher: str) -> Path:
    """Return results/instructions/<dataset>/<teacher>."""
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in teacher).strip(".-")
    return Path("results") / "instructions" / dataset / (safe or "teacher")
