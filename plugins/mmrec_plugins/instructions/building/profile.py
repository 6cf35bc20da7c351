"""User profiles: the train history in chunks, each one updating the profile so far.

The recurrent form is that of MLLM-MSR (Ye et al., "Harnessing Multimodal Large Language Models for
Multimodal Sequential Recommendation", AAAI 2025): a summary of the first block of a history is
refined with each next block. Fields and wording are ours.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmrec_bench.teaching import WritingRequest
from mmrec_bench.types import FloatArray, Image, Message
from mmrec_plugins.instructions.building.describing import Describer
from mmrec_plugins.instructions.building.jobs import Job, Made, Rejected, turns_of
from mmrec_plugins.instructions.building.prompts import wording
from mmrec_plugins.instructions.building.provenance import Origin
from mmrec_plugins.instructions.building.reading import ReadObject, read_object, unusable
from mmrec_plugins.instructions.building.sources import Sources
from mmrec_plugins.instructions.building.tastes import Tastes
from mmrec_plugins.instructions.corpus import Kind
from mmrec_plugins.instructions.items import join_parts, one_line

_KIND: Kind = "profile"
_LISTS = ("likes", "dislikes", "visual_taste")
_LOW, _NEUTRAL = 2.0, 3.0

_PHRASES = {"type": "array", "items": {"type": "string"}}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "description": "two sentences about the shopper's taste"},
        "likes": {**_PHRASES, "description": "what the shopper likes"},
        "dislikes": {**_PHRASES, "description": "what the shopper does not like"},
        "visual_taste": {**_PHRASES, "description": "looks that the shopper prefers"},
    },
    "required": ["summary", *_LISTS],
    "additionalProperties": False,
}
"""JSON schema of a profile."""


@dataclass(frozen=True)
class Reader:
    """What one user's profile is written from.

    Attributes:
        user: 0-based number.
        history: train items, oldest first.
        ratings: (H,) float32, in the same order.
    """

    user: int
    history: list[int]
    ratings: FloatArray

    def low(self, n: int) -> list[int]:
        """Return the items among the first `n` with a low rating."""
        return [
            i for i, r in zip(self.history[:n], self.ratings[:n].tolist(), strict=True) if r <= _LOW
        ]

    def liked(self, n: int) -> list[int]:
        """Return the items among the first `n` with a rating over the middle, or without one."""
        rows = zip(self.history[:n], self.ratings[:n].tolist(), strict=True)
        return [item for item, rating in rows if rating > _NEUTRAL]


def readers(sources: Sources) -> Iterator[Reader]:
    """Yield the users whose history is long enough, cut by `leave_newest`."""
    building = sources.building
    for user in sources.chosen_users():
        history = sources.histories[user].tolist()
        kept = len(history) - building.leave_newest
        if kept >= building.min_history:
            ratings = sources.ratings(user)
            if not sources.rated:  # without ratings, to take an item is all that is known
                ratings = np.full(len(ratings), 5.0, np.float32)
            yield Reader(user, history[:kept], ratings[:kept])


def profile_jobs(sources: Sources, origin: Origin) -> Iterator[Job]:
    """Yield one job a user."""
    describer = Describer(sources.building, sources.language, looks=sources.looks)
    tastes = Tastes(sources.catalog, sources.language)
    for reader in readers(sources):
        yield _job(reader, sources, describer, tastes, origin)


def _job(
    reader: Reader, sources: Sources, describer: Describer, tastes: Tastes, origin: Origin
) -> Job:
    name = sources.users[reader.user]
    profile: dict[str, Any] | None = None
    said: list[str] = []
    repaired = False
    message = Message("user", ())
    for start in range(0, len(reader.history), sources.building.chunk):
        end = min(start + sources.building.chunk, len(reader.history))
        message = _question(reader, start, end, profile, sources, describer)
        draft = tastes.draft(reader.liked(end), reader.low(end))
        written = yield WritingRequest((message,), SCHEMA, draft, sources.building.max_tokens)
        if (reason := unusable(written)) is not None:
            return Rejected(_KIND, name, reason, written.text)
        read = read_object(written.text)
        profile = check_profile(read)
        if profile is None:
            reason = "no JSON object" if read.value is None else "schema"
            return Rejected(_KIND, name, reason, written.text)
        repaired |= read.repaired or profile != read.value
        said.append(json.dumps(profile, ensure_ascii=False))
    assert profile is not None  # noqa: S101 - a history has at least one chunk
    return _made(reader, message, profile, said, sources, origin, repaired=repaired)


def _made(
    reader: Reader,
    message: Message,
    profile: Mapping[str, Any],
    said: Sequence[str],
    sources: Sources,
    origin: Origin,
    *,
    repaired: bool,
) -> Made:
    name, ids = sources.users[reader.user], sources.catalog.items.ids
    entry = origin.entry(
        kind=_KIND,
        split=sources.part(name),
        user=name,
        items=tuple(ids[i] for i in reader.history),
        turns=turns_of((message,), ids),
        answer=said[-1],
        value=dict(profile),
        outcome="repaired" if repaired else "ok",
        template="profile: first" if len(said) == 1 else "profile: next",
        messages=(message,),
    )
    return Made(
        entry,
        reader.user,
        frozenset(reader.history),
        prose=profile["summary"],
        phrases=tuple(phrase for field in _LISTS for phrase in profile[field]),
        content=f"{message.text}\n{said[-1]}",
        # what stood in the profile so far may stay
        source=message.text.replace(said[-2], "") if len(said) > 1 else message.text,
        written="\n".join(said),
    )


def _question(
    reader: Reader,
    start: int,
    end: int,
    profile: Mapping[str, Any] | None,
    sources: Sources,
    describer: Describer,
) -> Message:
    say = wording(_KIND, describer.language)
    pieces: list[str | Image] = [say["first"] if profile is None else say["next"]]
    if profile is not None:
        pieces.append(f"\n\n{say['profile']}{json.dumps(profile, ensure_ascii=False)}")
    pieces.append(f"\n\n{say['items']}")
    for place in range(start, end):
        item = sources.catalog[reader.history[place]]
        pieces.append(f"\n{place + 1}. ")
        picture = describer.picture(item)
        if picture is not None:
            pieces.append(picture)
        known = [value for value in describer.attributes(item).values() if value not in item.title]
        if words := describer.picture_words(item):
            known.append(say["picture"] + words)
        if sources.rated:
            known.append(say["rating"].format(rating=f"{reader.ratings[place]:g}"))
        pieces.append(describer.title(item) + (f" ({'; '.join(known)})" if known else ""))
    return Message("user", join_parts(pieces))


def check_profile(read: ReadObject) -> dict[str, Any] | None:
    """Return the profile's four fields, cleaned; None where the summary or the form is missing.

    Lists that are missing or null become empty ones, one phrase becomes a list of one; any other
    type is not repaired.
    """
    raw: Mapping[str, Any] = read.value or {}
    summary = raw.get("summary")
    if not isinstance(summary, str) or not summary.strip():
        return None
    profile: dict[str, Any] = {"summary": one_line(summary)}
    for field in _LISTS:
        phrases = _phrases(raw.get(field))
        if phrases is None:
            return None
        profile[field] = phrases
    return profile


def _phrases(value: object) -> list[str] | None:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [one_line(value)]
    if not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        return None
    return list(dict.fromkeys(text for one in value if (text := one_line(one))))
