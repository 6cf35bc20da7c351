"""Writing as conversations: each entry is a generator that asks a teacher and returns an entry."""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from mmrec_bench.teaching import WritingRequest, Written
from mmrec_bench.types import Image, Message, Text
from mmrec_plugins.instructions.corpus import CorpusEntry, Kind, Part, Turn


@dataclass(frozen=True, slots=True)
class Rejected:
    """An entry that was not made or not kept.

    Attributes:
        kind: of the entry.
        about: user or item id.
        reason: a short name, counted in the report.
        detail: what was found, for the report's examples.
    """

    kind: Kind
    about: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """An entry before it was judged.

    Attributes:
        entry: as it would be written.
        user: 0-based number; None for item attributes.
        shown: 0-based numbers of items that the question shows.
        prose: free text of the answer, which is judged as writing.
        phrases: its short values.
        content: the part of question and answer that differs between entries.
        source: text that the answer could have been copied from.
        written: all that the teacher said on the way, the answer included.
    """

    entry: CorpusEntry
    user: int | None
    shown: frozenset[int]
    prose: str
    phrases: tuple[str, ...]
    content: str
    source: str
    written: str


Job = Generator[WritingRequest, Written, Made | Rejected]
Ask = Callable[[Sequence[WritingRequest]], list[Written]]


@dataclass
class _Running:
    place: int
    job: Job
    request: WritingRequest | None = None
    result: Made | Rejected | None = field(default=None)

    def go_on(self, answer: Written | None) -> None:
        """Take an answer; afterwards there is a request or a result."""
        try:
            self.request = next(self.job) if answer is None else self.job.send(answer)
        except StopIteration as stop:
            self.request, self.result = None, stop.value


def work(
    jobs: Iterable[Job], ask: Ask, *, at_once: int, on_done: Callable[[], None]
) -> list[Made | Rejected]:
    """Run all jobs, `at_once` side by side, and return their results in order."""
    waiting = enumerate(jobs)
    running: list[_Running] = []
    results: dict[int, Made | Rejected] = {}
    while True:
        for place, job in islice(waiting, at_once - len(running)):
            running.append(_Running(place, job))
            running[-1].go_on(None)
        asking = [(one, one.request) for one in running if one.request is not None]
        if asking:
            answers = ask([request for _, request in asking])
            for (one, _), answer in zip(asking, answers, strict=True):
                one.go_on(answer)
        done = [one for one in running if one.result is not None]
        if not running:
            return [results[place] for place in sorted(results)]
        for one in done:
            assert one.result is not None  # noqa: S101 - chosen by it
            results[one.place] = one.result
            on_done()
        running = [one for one in running if one.result is None]


def turns_of(messages: Sequence[Message], ids: Sequence[str]) -> tuple[Turn, ...]:
    """Return messages as a corpus keeps them: pictures by the item's own id."""
    return tuple(
        Turn(role=message.role, parts=tuple(_part(part, ids) for part in message.parts))
        for message in messages
    )


def _part(part: Text | Image, ids: Sequence[str]) -> Part:
    return Part(text=part.text) if isinstance(part, Text) else Part(image=ids[part.item])
