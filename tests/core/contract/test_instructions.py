"""Each rule for instruction builders is broken here, and found."""
# ruff: noqa: ARG002 - methods keep the signatures of their kind

import random
from dataclasses import replace

import pytest

from mmrec_bench.contract import instructions, toys
from mmrec_bench.contract.findings import run_checks
from mmrec_bench.types import Catalog, Instruction, Message, Query, Text
from tests.core.contract.failing import failed


class ToyBuilder:
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        assert query.candidates is not None
        labels = tuple(f"<{i}>" for i in range(len(query.candidates)))
        titles = tuple(catalog.title[i] for i in query.candidates)
        return Instruction((Message("user", (Text(str(titles)),)),), labels, titles)

    def parse(self, text: str, instruction: Instruction) -> list[int]:
        names = [*instruction.labels, *instruction.answers]
        found = [names.index(line) for line in text.splitlines() if line in names]
        return list(dict.fromkeys(i % len(instruction.labels) for i in found))


class SameLabels(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        one = super().build(query, catalog)
        return replace(one, labels=("A",) * len(one.labels))


class Deaf(ToyBuilder):
    def parse(self, text: str, instruction: Instruction) -> list[int]:
        return []


class Guesses(ToyBuilder):
    def parse(self, text: str, instruction: Instruction) -> list[int]:
        return super().parse(text, instruction) or [0]


class RepeatsItself(ToyBuilder):
    def parse(self, text: str, instruction: Instruction) -> list[int]:
        return [
            i
            for line in text.splitlines()
            for i in super(RepeatsItself, self).parse(line, instruction)
        ]


class Moody(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        one = super().build(query, catalog)
        return replace(one, messages=(Message("user", (Text(str(random.Random().random())),)),))


class Counts(ToyBuilder):
    def __init__(self) -> None:
        self.n_built = 0

    def build(self, query: Query, catalog: Catalog) -> Instruction:
        self.n_built += 1
        one = super().build(query, catalog)
        return replace(one, messages=(Message("user", (Text(str(self.n_built)),)),))


class Remembers(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        self.last = super().build(query, catalog)
        return self.last

    def parse(self, text: str, instruction: Instruction) -> list[int]:
        return super().parse(text, self.last)


class ClearsHistories(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        query.history[:] = 0
        return super().build(query, catalog)


class NeedsAPast(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        _ = query.history[-1]
        return super().build(query, catalog)


class Sorted(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        one = super().build(query, catalog)
        return replace(one, answers=tuple(sorted(one.answers)))


class Labelled(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        one = super().build(query, catalog)
        named = zip(one.labels, one.answers, strict=True)
        return replace(one, answers=tuple(f"{label} {answer}" for label, answer in named))


class Numbered(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        one = super().build(query, catalog)
        labels = tuple(str(i) for i in range(1, len(one.labels) + 1))
        answers = tuple(f"{i}. {answer}" for i, answer in enumerate(one.answers, 1))
        return replace(one, labels=labels, answers=answers)


def check_builder(cls: type[ToyBuilder]) -> set[str]:
    subject = instructions.InstructionSubject(cls, toys.toy_split())
    return set(failed(run_checks(instructions.CHECKS, subject)))


def test_a_good_builder_fails_nothing() -> None:
    assert not check_builder(ToyBuilder)
    assert not check_builder(Labelled)
    assert not check_builder(Numbered)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (SameLabels, "labels"),
        (Sorted, "order"),
        (Deaf, "parse"),
        (Guesses, "junk"),
        (RepeatsItself, "positions"),
        (Moody, "truth"),
        (Counts, "turns"),
        (ClearsHistories, "given"),
        (Remembers, "parse"),
        (NeedsAPast, "cold"),
    ],
)
def test_a_bad_builder_is_found(cls: type[ToyBuilder], check: str) -> None:
    assert check in check_builder(cls)
