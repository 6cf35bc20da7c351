"""Recommendation instructions from the run's own training examples, zero-shot and few-shot.

The true next item of an example is known, as it is a train interaction: the answer names it, and
no teacher is needed. With `distil`, a teacher ranks the candidates without being told; the true
item is then put first, and how often the teacher had it there is counted.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from mmrec_bench.errors import ConfigError
from mmrec_bench.interfaces import InstructionContext
from mmrec_bench.plugins import Plugins
from mmrec_bench.teaching import WritingRequest
from mmrec_bench.types import Example, Image, Instruction, Message, Query, Text
from mmrec_plugins.instructions.building.describing import Describer
from mmrec_plugins.instructions.building.jobs import Job, Made, Rejected, turns_of
from mmrec_plugins.instructions.building.prompts import wording
from mmrec_plugins.instructions.building.provenance import Origin
from mmrec_plugins.instructions.building.reading import looks_refused
from mmrec_plugins.instructions.building.sources import Sources
from mmrec_plugins.instructions.recommendation import Recommendation, wordings

Shots = Literal["zero-shot", "few-shot"]

_EPOCHS = {"zero-shot": 0, "few-shot": 1}
"""Other positions and candidates in each kind."""
_PICTURES = {"image": "images", "words": "words", "both": "both", "none": "none"}
_CANDIDATES = {"pairwise": 2}


def recommendation_jobs(
    kind: Shots, sources: Sources, origin: Origin, plugins: Plugins
) -> Iterator[Job]:
    """Yield one job an example, at most `per_user` of each chosen user."""
    builders = _builders(kind, sources, plugins)
    chosen = set(sources.chosen_users())
    size = _CANDIDATES.get(builders[0].config.form)
    for example in sources.examples(sources.building.per_user, size)(_EPOCHS[kind]):
        if example.query.user in chosen:
            builder = builders[_pick(example.query, len(builders), sources)]
            yield _job(kind, example, builder, sources, origin)


def _builders(kind: Shots, sources: Sources, plugins: Plugins) -> list[Recommendation]:
    """Return a builder for each intention that entries may have.

    Raises:
        ConfigError: options that do not go together.
    """
    registry = plugins["instructions"]
    describer = Describer(sources.building, sources.language, looks=sources.looks)
    given = dict(sources.config.instructions.options)
    own = {
        "wording": "seeded",
        "form": "ranking" if sources.building.distil else "choice",
        "pictures": _PICTURES[describer.shown],
        "language": sources.language,
    }
    intentions = [given["intention"]] if "intention" in given else sources.building.intentions
    builders = []
    for intention in intentions:
        options = {**own, **given, "intention": intention}
        config = registry.configure(kind, options, "instructions")
        builder = registry.create(kind, config)
        if not isinstance(builder, Recommendation):
            raise ConfigError(f"instruction builder {kind!r} is not the built-in one")
        _check(builder, distil=sources.building.distil)
        builder.prepare(
            InstructionContext(
                dataset=sources.dataset,
                users=sources.users,
                catalog=sources.catalog,
                train=sources.train,
                vectors=sources.vectors,
                n_candidates=sources.config.protocol.n_candidates,
                seed=sources.config.seed,
                held_out=sources.held_out,
            )
        )
        builders.append(builder)
    return builders


def _check(builder: Recommendation, *, distil: bool) -> None:
    form = builder.config.form
    if form == "pointwise" or (form == "ranking") != distil:
        raise ConfigError(
            f"instructions.form={form} with building.distil={str(distil).lower()}: a corpus knows "
            "the true next item alone, so it asks for a choice (form=choice or pairwise), or, with "
            "distil=true, for a teacher's ranking (form=ranking)"
        )


def _pick(query: Query, n: int, sources: Sources) -> int:
    """Choose one of n builders by the seed and what the query shows."""
    mark = f"{sources.config.seed}\0{query.user}\0{len(query.history)}"
    return int.from_bytes(hashlib.sha256(mark.encode()).digest()[:4], "big") % n


def _job(
    kind: Shots, example: Example, builder: Recommendation, sources: Sources, origin: Origin
) -> Job:
    query, target = example.query, example.target
    instruction = builder.build(query, sources.catalog)
    if not sources.building.distil:
        origin = replace(origin, teacher="interactions", teacher_fingerprint="")
        instruction, answer = _named(instruction, target, sources)
        return _made(kind, example, builder, instruction, answer, [target], sources, origin)
    written = yield WritingRequest(
        instruction.messages,
        instruction.schema,
        builder.answer(_by_popularity(query, sources), instruction.labels),
        sources.building.max_tokens,
    )
    ranked = builder.parse(written.text, instruction)
    if not ranked or written.refused:
        refused = written.refused or looks_refused(written.text)
        named = "no candidate named" if written.text.strip() else "empty"
        reason = "refused" if refused else named
        return Rejected(kind, sources.users[query.user], reason, written.text)
    ranking = [target, *(place for place in ranked if place != target)]
    answer = builder.answer(ranking, instruction.labels)
    made = _made(kind, example, builder, instruction, answer, ranking, sources, origin)
    agrees = {"teacher_agrees": ranked[0] == target}
    value = {**made.entry.value, **agrees}
    return replace(made, entry=made.entry.model_copy(update={"value": value}))


def _made(
    kind: Shots,
    example: Example,
    builder: Recommendation,
    instruction: Instruction,
    answer: str,
    ranking: Sequence[int],
    sources: Sources,
    origin: Origin,
) -> Made:
    query, name = example.query, sources.users[example.query.user]
    ids, candidates = sources.catalog.items.ids, _candidates(query)
    history = query.with_history(builder.config.history_length).history.tolist()
    question = instruction.messages[-1].text
    entry = origin.entry(
        kind=kind,
        split=sources.part(name),
        user=name,
        items=tuple(ids[i] for i in history),
        candidates=tuple(ids[i] for i in candidates),
        demonstrated=tuple(ids[i] for i in instruction.shown),
        target=ids[candidates[example.target]],
        turns=turns_of(instruction.messages, ids),
        answer=answer,
        value={"ranking": [ids[candidates[place]] for place in ranking]},
        template=f"{kind}: {builder.wording(query)}",
        messages=instruction.messages,
    )
    return Made(
        entry,
        query.user,
        frozenset((*history, *candidates)),
        prose="",
        phrases=(),
        content=f"{question}\n{answer}",
        source=question,
        written=answer,
    )


def _candidates(query: Query) -> list[int]:
    assert query.candidates is not None  # noqa: S101 - training examples list them
    candidates: list[int] = query.candidates.tolist()
    return candidates


def _by_popularity(query: Query, sources: Sources) -> list[int]:
    """Rank candidates as rules would that do not know the answer: by train interactions."""
    candidates = _candidates(query)
    counts = np.bincount(sources.train.item, minlength=len(sources.catalog))
    return sorted(range(len(candidates)), key=lambda place: -int(counts[candidates[place]]))


def _named(instruction: Instruction, target: int, sources: Sources) -> tuple[Instruction, str]:
    """Return question and answer with the answer in the form that `building.answer` asks for.

    The builder's own sentence asks for a label alone; where a title is wanted, it is replaced in
    the question and in every demonstration, so that question and answer go together.
    """
    form, language = sources.building.answer, sources.language
    label, text = instruction.labels[target], instruction.answers[target]
    answer = {"label": label, "title": text, "both": f"{label}. {text}"}[form]
    if form == "label" or instruction.schema is not None:
        return instruction, label if instruction.schema is None else _json(label)
    asked = wordings(language)["answer.text.one"]
    wanted = wording("answer", language)[form]
    messages: list[Message] = []
    for message in instruction.messages:
        if message.role == "assistant" and messages:
            spelt_out = _spelt_out(message.text, messages[-1].text, form)
            parts: tuple[Text | Image, ...] = (Text(spelt_out),)
        else:
            parts = tuple(
                Text(p.text.replace(asked, wanted)) if isinstance(p, Text) else p
                for p in message.parts
            )
        messages.append(replace(message, parts=parts))
    return replace(instruction, messages=tuple(messages)), answer


def _json(label: str) -> str:
    return f'{{"ranking": ["{label}"]}}'


def _spelt_out(answer: str, question: str, form: str) -> str:
    """Return a demonstration's answer with the title that its label has in the question."""
    label = answer.strip()
    lines = re.findall(rf"^{re.escape(label)}\. (.+)$", question, re.MULTILINE)
    if not lines:
        return answer
    return lines[-1] if form == "title" else f"{label}. {lines[-1]}"
