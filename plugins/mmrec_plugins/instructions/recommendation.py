"""Instruction builders `zero-shot` and `few-shot`: recommend for this user, with other users shown.

The axes preference, intention and task form are InstructRec's (Zhang et al., 2023); the wordings
are data files of this package. The paper says that ChatGPT and GPT-4 build zero-shot and few-shot
recommendation instructions and not how they look: their form here is our design.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import ConfigError, ProtocolError
from mmrec_bench.interfaces import InstructionContext
from mmrec_bench.types import Catalog, Image, Instruction, Item, Message, Query
from mmrec_plugins.instructions.answers import label
from mmrec_plugins.instructions.demonstrations import (
    Demonstration,
    DemonstrationOptions,
    Demonstrations,
)
from mmrec_plugins.instructions.items import ItemOptions, ItemWriter, join_parts
from mmrec_plugins.instructions.knowledge import knowledge_fingerprint
from mmrec_plugins.instructions.templates import Language, Slots, Templates, load_templates
from mmrec_plugins.instructions.written import KEY, read_written

Preference = Literal["none", "implicit", "explicit"]
Intention = Literal["none", "vague", "specific"]
Form = Literal["ranking", "choice", "pairwise", "pointwise"]

_SLOTS = {
    "preference.none": Slots(),
    "preference.implicit": Slots.of("history"),
    "preference.explicit": Slots.of("profile"),
    "intention.vague": Slots(),
    "intention.specific": Slots.of("newest"),
    "form.ranking": Slots.of("candidates"),
    "form.choice": Slots.of("candidates"),
    "form.pairwise": Slots.of("candidates"),
    "form.pointwise": Slots.of("candidate"),
    "answer.text.ranking": Slots.of("count"),
    "answer.json.ranking": Slots.of("count"),
    "answer.title.ranking": Slots.of("count"),
    "answer.both.ranking": Slots.of("count"),
    "answer.text": Slots(),
    "answer.json": Slots(),
    "answer.title": Slots(),
    "answer.both": Slots(),
    "phrase.profile": Slots.of("profile"),
    "phrase.example": Slots.of("number"),
    "phrase.example-answer": Slots.of("answer"),
    "phrase": Slots(),
}
_N_CANDIDATES: Mapping[Form, int] = {"pairwise": 2, "pointwise": 1}
_YES = re.compile(r"\W*(?:yes\b|是(?!否))", re.IGNORECASE)
_WORDINGS = 0
"""What the stream of random numbers is for; demonstrations have others."""


@cache
def wordings(language: Language) -> Templates:
    """Return the recommendation wordings of a language, read and checked once."""
    return load_templates(language, _SLOTS)


class Recommendation:
    """Asks for a recommendation in one of many wordings, zero-shot or behind demonstrations.

    Every instruction depends on the query, the seed and train data alone; the wording on seed and
    user. An intention is drawn from the history (`specific` points at its newest item), never from
    the target, which no builder sees.
    """

    class Config(ItemOptions, DemonstrationOptions):
        """Options of the `zero-shot` and `few-shot` builders."""

        language: Language = Field("en", description="language of the wording: en or zh")
        wording: str = Field(
            "first",
            description="first, seeded (drawn by seed and user), or an id such as "
            "implicit.2+vague.1+ranking.3",
        )
        preference: Preference = Field(
            "implicit",
            description="what tells the user's taste: nothing, the history, or the profile of "
            "`corpus` in place of the history",
        )
        intention: Intention = Field(
            "none", description="what the user is after: not said, vague, or like the newest item"
        )
        form: Form = Field(
            "ranking",
            description="rank the candidates, choose one, compare two, or judge one (yes or no)",
        )
        list_length: int = Field(10, ge=1, description="candidates that the answer names")
        answer: Literal["label", "title", "both"] = Field(
            "label",
            description="a candidate is named by its label, by its title (which is what "
            "likelihoods of answers score), or by both",
        )
        structured: bool = Field(
            default=False, description='ask for JSON, {"ranking": [labels]}, and give its schema'
        )

        @model_validator(mode="after")
        def _check(self) -> "Recommendation.Config":
            if self.structured and self.form == "pointwise":
                raise ValueError("form=pointwise is answered with yes or no, not with JSON")
            if self.structured and self.answer != "label":
                raise ValueError("structured=true names candidates by label; use answer=label")
            if self.preference == "explicit" and not self.profile:
                raise ValueError("preference=explicit shows a profile; set profile=true")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config
        self._writer = ItemWriter(config)
        self._demonstrations = Demonstrations(config, _N_CANDIDATES.get(config.form))
        self._templates = wordings(config.language)
        self._choices = [self._templates.family(family) for family in self._families()]
        self._fixed = self._fixed_wording()
        self._seed: int | None = None

    @classmethod
    def fingerprint(cls, config: ComponentConfig) -> str:
        """Return a hash of the corpora whose profiles or attributes are shown, else ""."""
        return knowledge_fingerprint(config)

    def prepare(self, context: InstructionContext) -> None:
        """Load what teachers wrote and index demonstrations.

        Raises:
            ConfigError: profiles or attributes were not built, or demonstrations cannot be chosen.
        """
        self._writer.prepare(context)
        self._demonstrations.prepare(context)
        self._seed = context.seed

    def wording(self, query: Query) -> str:
        """Return the id of the wording that asks this query, e.g. `implicit.1+ranking.2`."""
        return "+".join(name.partition(".")[2] for name in self._wording(query))

    def build(self, query: Query, catalog: Catalog) -> Instruction:
        """Ask a query; labels are A, B, ... in the query's candidate order.

        Raises:
            ProtocolError: no candidate list, or not as many candidates as the form takes.
            ConfigError: options that need `prepare` before it was called.
        """
        labels = self._labels(query)
        names = self._wording(query)
        asked = self._show(query, catalog, self.config.history_length)
        demonstrations = self._demonstrations.choose(query)
        shown = [
            self._show(one.query, catalog, self.config.demonstration_history)
            for one in demonstrations
        ]
        allotted = self._allot([asked, *shown])
        examples = [
            (self._question(one, names, may), self._answer(demonstration, one))
            for one, may, demonstration in zip(shown, allotted[1:], demonstrations, strict=True)
        ]
        question = self._question(asked, names, allotted[0])
        messages = (self._turns if self.config.turns else self._one_message)(examples, question)
        pointwise = self.config.form == "pointwise"
        answers = labels if pointwise else tuple(map(self.line, asked.candidates))
        items = tuple(dict.fromkeys(i for one in shown for i in self._items(one)))
        return Instruction(messages, labels, answers, self._schema(labels), items)

    def line(self, item: Item) -> str:
        """Describe one item in a line, as it stands in instructions and answers."""
        return self._writer.line(item)

    def parse(self, text: str, instruction: Instruction) -> list[int]:
        """Read candidate positions from JSON or plain text, best first, no repeats.

        Labels and titles that no candidate has are skipped. With form=pointwise, yes names the
        one candidate, and anything else nothing.
        """
        if self.config.form == "pointwise":
            return [0] if _YES.match(text) else []
        return read_written(text, instruction.labels, instruction.answers)

    def answer(
        self, ranking: Sequence[int], labels: Sequence[str], answers: Sequence[str] = ()
    ) -> str:
        """Write an answer in the form that is asked for.

        Args:
            ranking: candidate positions, best first.
            labels: of the instruction.
            answers: of the instruction; needed where titles are asked for.
        """
        if self.config.form == "pointwise":
            return self._templates["phrase.yes" if ranking else "phrase.no"]
        places = ranking[: self._count(len(labels))]
        if self.config.structured:
            return json.dumps({KEY: [labels[i] for i in places]})
        if self.config.answer == "label":
            return ", ".join(labels[i] for i in places)
        prefix = "{}. " if self.config.answer == "both" else ""
        return "\n".join(prefix.format(labels[i]) + answers[i] for i in places)

    def _families(self) -> list[str]:
        config = self.config
        intention = [] if config.intention == "none" else [f"intention.{config.intention}"]
        return [f"preference.{config.preference}", *intention, f"form.{config.form}"]

    def _fixed_wording(self) -> tuple[str, ...] | None:
        """Return the wording of all queries, or None where it is drawn."""
        asked = self.config.wording
        if asked == "seeded":
            return None
        if asked == "first":
            return tuple(names[0] for names in self._choices)
        pieces = asked.split("+")
        kinds = [family.partition(".")[0] for family in self._families()]
        names = tuple(f"{kind}.{piece}" for kind, piece in zip(kinds, pieces, strict=False))
        fits = len(pieces) == len(kinds) and all(
            name in known for name, known in zip(names, self._choices, strict=True)
        )
        if not fits:
            example = "+".join(known[-1].partition(".")[2] for known in self._choices)
            raise ConfigError(
                f"instructions.wording={asked!r} is no wording of preference="
                f"{self.config.preference}, intention={self.config.intention}, form="
                f"{self.config.form}; give first, seeded, or an id such as {example}"
            )
        return names

    def _wording(self, query: Query) -> tuple[str, ...]:
        if self._fixed is not None:
            return self._fixed
        if self._seed is None:
            raise ConfigError(
                "instructions.wording=seeded draws by the seed that prepare(context) brings, "
                "which was not called before the first build"
            )
        rng = np.random.default_rng([self._seed, query.user, _WORDINGS])
        return tuple(names[int(rng.integers(len(names)))] for names in self._choices)

    def _labels(self, query: Query) -> tuple[str, ...]:
        form = self.config.form
        if query.candidates is None:
            raise ProtocolError(
                "the instruction lists its candidates, but the protocol ranks the whole catalog; "
                "use -o protocol.candidates=uniform"
            )
        n = len(query.candidates)
        if n != _N_CANDIDATES.get(form, n):
            raise ProtocolError(
                f"instructions.form={form} shows {_N_CANDIDATES[form]} candidates, but the query "
                f"has {n}; use form=ranking, or another protocol.n_candidates"
            )
        if form == "pointwise":
            return (self._templates["phrase.yes"],)
        return tuple(label(i) for i in range(n))

    def _show(self, query: Query, catalog: Catalog, history_length: int) -> "_Shown":
        assert query.candidates is not None  # noqa: S101 - checked by `_labels`, or drawn
        history = query.with_history(history_length).history.tolist()
        return _Shown(
            [catalog[i] for i in history],
            catalog[int(query.history[-1])] if len(query.history) else None,
            [catalog[i] for i in query.candidates.tolist()],
            self._writer.knowledge.profile_of(query, self.config.language),
        )

    def _items(self, shown: "_Shown") -> list[int]:
        """Return the numbers of the items that a question names."""
        named = shown.history if self.config.preference == "implicit" else []
        if self.config.intention == "specific" and shown.newest is not None:
            named = [*named, shown.newest]
        return [item.index for item in (*named, *shown.candidates)]

    def _allot(self, shown: Sequence["_Shown"]) -> list[tuple[list[bool], list[bool]]]:
        """Divide the pictures: candidates and history of the question, then demonstrations."""
        show_history = self.config.preference == "implicit"
        groups: list[tuple[list[Item], bool]] = []
        for one in shown:
            groups += [(one.candidates, True), (one.history if show_history else [], False)]
        rows = self._writer.allot(groups)
        return list(zip(rows[::2], rows[1::2], strict=True))

    def _question(
        self, shown: "_Shown", names: tuple[str, ...], may: tuple[list[bool], list[bool]]
    ) -> list[str | Image]:
        """Return what is asked about one user, as pieces for `join_parts`."""
        config, templates = self.config, self._templates
        of_candidates, of_history = may
        labels = map(label, range(len(shown.candidates)))
        values: dict[str, str | list[str | Image]] = {}
        if config.preference == "implicit":
            numbers = map(str, range(1, len(shown.history) + 1))
            listed = self._writer.listing(numbers, shown.history, of_history)
            values["history"] = listed or templates["phrase.empty-history"]
        values["profile"] = shown.profile or templates["phrase.no-profile"]
        if shown.newest is not None:
            values["newest"] = self.line(shown.newest)
        if config.form == "pointwise":
            values["candidate"] = self._writer.bare(shown.candidates[0], pictured=of_candidates[0])
        else:
            values["candidates"] = self._writer.listing(labels, shown.candidates, of_candidates)
        pieces: list[str | Image] = []
        if shown.profile and config.preference != "explicit":
            pieces += [templates.fill("phrase.profile", profile=shown.profile), "\n"]
        for name in names:
            # without a history there is no newest item to point at
            if not (name.startswith("intention.specific") and shown.newest is None):
                pieces += [*templates.pieces(name, **values), "\n"]
        return [*pieces, self._answer_form(len(shown.candidates))]

    def _answer_form(self, n_candidates: int) -> str:
        form, named = self.config.form, self.config.answer
        if form == "pointwise":
            return self._templates["answer.text.pointwise"]
        kind = "json" if self.config.structured else {"label": "text"}.get(named, named)
        if form == "ranking":
            count = str(self._count(n_candidates))
            return self._templates.fill(f"answer.{kind}.ranking", count=count)
        return self._templates[f"answer.{kind}.one"]

    def _answer(self, one: Demonstration, shown: "_Shown") -> str:
        labels = [label(i) for i in range(len(shown.candidates))]
        return self.answer(one.ranking, labels, list(map(self.line, shown.candidates)))

    def _count(self, n_candidates: int) -> int:
        return min(self.config.list_length, n_candidates) if self.config.form == "ranking" else 1

    def _schema(self, labels: tuple[str, ...]) -> dict[str, Any] | None:
        if not self.config.structured:
            return None
        count = self._count(len(labels))
        ranking = {
            "type": "array",
            "items": {"type": "string", "enum": list(labels)},
            "minItems": count,
            "maxItems": count,
        }
        return {
            "type": "object",
            "properties": {KEY: ranking},
            "required": [KEY],
            "additionalProperties": False,
        }

    def _turns(
        self, examples: list[tuple[list[str | Image], str]], question: list[str | Image]
    ) -> tuple[Message, ...]:
        turns: list[Message] = []
        for asked, answer in examples:
            turns.append(Message("user", join_parts(asked)))
            turns.append(Message("assistant", join_parts([answer])))
        return (*turns, Message("user", join_parts(question)))

    def _one_message(
        self, examples: list[tuple[list[str | Image], str]], question: list[str | Image]
    ) -> tuple[Message, ...]:
        templates = self._templates
        pieces: list[str | Image] = []
        for number, (asked, answer) in enumerate(examples, start=1):
            pieces += [templates.fill("phrase.example", number=str(number)), "\n", *asked, "\n"]
            pieces += [templates.fill("phrase.example-answer", answer=answer), "\n\n"]
        if examples:
            pieces += [templates["phrase.question"], "\n"]
            question = [*question, "\n", templates["phrase.answer"]]
        return (Message("user", join_parts([*pieces, *question])),)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a question shows of one query; `newest` is the last item of the whole history."""

    history: list[Item]
    newest: Item | None
    candidates: list[Item]
    profile: str
