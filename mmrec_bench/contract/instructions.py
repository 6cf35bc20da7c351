"""The contract of an `InstructionBuilder`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmrec_bench.contract.findings import Check, demand, demand_equal
from mmrec_bench.contract.recommenders import other_truth
from mmrec_bench.contract.subjects import query_arrays
from mmrec_bench.interfaces import InstructionBuilder
from mmrec_bench.types import Instruction, Int32Array, Query, Split

JUNK = ("", " ", "\x00\x01", "I cannot help with that.", "{]" * 500, "A" * 10_000, "\n" * 99)
"""Answers that name no candidate."""


@dataclass
class InstructionSubject:
    """An instruction builder and toy cases.

    Attributes:
        make: returns a new one, prepared.
        split: toy cases with explicit candidates.
    """

    make: Callable[[], InstructionBuilder]
    split: Split

    def __post_init__(self) -> None:
        """Keep a copy of the queries, before any check lets the builder see them."""
        shared = query_arrays("queries", self.split.test.queries)
        self.before = {name: array.copy() for name, array in shared.items()}

    @property
    def query(self) -> Query:
        """The first test query."""
        return self.split.test.queries[0]

    @property
    def candidates(self) -> Int32Array:
        """(C,) its candidates."""
        return _listed(self.query)

    def build(self, query: Query | None = None) -> Instruction:
        """Ask, by a new builder."""
        return self.make().build(query or self.query, self.split.catalog)


def _listed(query: Query) -> Int32Array:
    if query.candidates is None:
        raise ValueError("the split lists no candidates")
    return query.candidates


def check_labels(subject: InstructionSubject) -> None:
    """C labels, all different, or none, and C answers."""
    instruction, n = subject.build(), len(subject.candidates)
    demand(
        isinstance(instruction, Instruction) and len(instruction.messages) > 0,
        f"{instruction!r:.80}",
        "an Instruction with messages",
        "return Instruction(messages, labels, answers)",
    )
    demand(
        len(instruction.labels) == len(set(instruction.labels)) in (0, n),
        f"labels {instruction.labels} for {n} candidates",
        "one label a candidate, all different, in the query's order; none where none is listed",
        "name the candidates e.g. A, B, C ...",
    )
    demand(
        len(instruction.answers) == n,
        f"{len(instruction.answers)} answers for {n} candidates",
        "the full answer text of each candidate, for likelihoods",
        "give e.g. the titles",
    )


def check_order(subject: InstructionSubject) -> None:
    """Reversing the candidates reverses the answers."""
    query = subject.query
    turned = subject.build(Query(query.user, query.history, subject.candidates[::-1].copy()))
    first = subject.build()
    # An answer may begin or end with its label, e.g. "A: oak lamp", which stays where it is.
    ways: tuple[Callable[[str, str], str], ...] = (
        lambda answer, label: answer,  # noqa: ARG005 - one of several ways
        str.removeprefix,
        str.removesuffix,
    )
    kept = any(_without(way, first) == list(reversed(_without(way, turned))) for way in ways)
    demand(
        kept,
        f"answers {first.answers!r:.80}, and {turned.answers!r:.80} of the reversed candidates",
        "one answer a candidate, in the order of query.candidates: scores are read off by it",
        "go through query.candidates as they come, and shuffle in the prompt alone",
    )


def _without(way: Callable[[str, str], str], instruction: Instruction) -> list[str]:
    labels = instruction.labels or [""] * len(instruction.answers)
    return list(map(way, instruction.answers, labels))


def check_read_back(subject: InstructionSubject) -> None:
    """`parse` understands what `build` offers."""
    builder = subject.make()
    instruction = builder.build(subject.query, subject.split.catalog)
    builder.build(subject.split.test.queries[1], subject.split.catalog)  # which it forgets
    names = [*enumerate(instruction.labels), *enumerate(instruction.answers)]
    for i, name in names:
        found = builder.parse(name, instruction)
        demand(
            found == [i],
            f"parse({name!r}) = {found}",
            f"[{i}]: the position of the candidate that it names",
            "read labels and answers alike; two candidates must not answer alike",
        )


def check_junk(subject: InstructionSubject, junk: str | None = None) -> None:
    """What names no candidate gives no candidate."""
    builder = subject.make()
    instruction = builder.build(subject.query, subject.split.catalog)
    for text in JUNK if junk is None else (junk,):
        found = builder.parse(text, instruction)
        demand(
            found == [],
            f"parse({text[:30]!r}{' ...' if len(text) > 30 else ''}) = {found}",
            "[]: no candidate is named",
            "take a whole line or word for a name, never a part of one",
        )


def check_positions(subject: InstructionSubject) -> None:
    """A repeated name counts once; positions are whole numbers in range."""
    builder = subject.make()
    instruction = builder.build(subject.query, subject.split.catalog)
    names = instruction.labels or instruction.answers
    found = builder.parse("\n".join([*names, *reversed(names)]), instruction)
    demand(
        sorted(found) == list(range(len(names))),
        f"{found} from all names given twice",
        f"each of 0 ... {len(names) - 1} once",
        "return list(dict.fromkeys(positions))",
    )


def check_repeats(subject: InstructionSubject) -> None:
    """The same query gives the same instruction, whatever the truth is."""
    first = subject.build()
    with other_truth(subject.split):
        again = subject.build()
    demand(
        first == again,
        "two instructions for one query",
        "the same one: nothing but the query and the catalog is looked at",
        "draw by the seed that prepare(context) brings and the user, not anew",
    )


def check_turns(subject: InstructionSubject) -> None:
    """A query's instruction is the same whatever was asked before."""
    builder, queries = subject.make(), subject.split.test.queries
    asked = [builder.build(queries[i], subject.split.catalog) for i in (0, 1, 0)]
    demand(
        asked[0] == asked[2],
        "another instruction for a query after others were asked",
        "the same one: a run that goes on after a crash asks the rest alone",
        "draw by the seed that prepare(context) brings and the user, and keep no count",
    )


def check_given(subject: InstructionSubject) -> None:
    """Queries are read, not written."""
    queries = subject.split.test.queries
    subject.make().build(queries[0], subject.split.catalog)
    for name, array in query_arrays("queries", queries).items():
        demand_equal(
            array,
            subject.before[name],
            f"{name} as it was: others read it too",
            "work on a copy",
        )


def check_cold(subject: InstructionSubject) -> None:
    """An empty history and a single candidate can be asked."""
    query = Query(subject.query.user, np.zeros(0, np.int32), subject.candidates[:1])
    found = subject.build(query)
    demand(
        len(found.answers) == 1,
        f"{len(found.answers)} answers for one candidate and an empty history",
        "1",
        "say in words that the history is empty",
    )


CHECKS: tuple[Check[InstructionSubject], ...] = (
    Check("labels", "every candidate has a label and an answer", check_labels),
    Check("order", "answers are in the order of the candidates", check_order),
    Check("parse", "every label and answer is read back", check_read_back),
    Check("junk", "junk reads as nothing", check_junk),
    Check("positions", "parsed positions are in range and unique", check_positions),
    Check("truth", "the prompt does not depend on the target", check_repeats),
    Check("turns", "the prompt does not depend on what was asked before", check_turns),
    Check("given", "what is given is not changed", check_given),
    Check("cold", "an empty history and a single candidate are asked", check_cold),
)
