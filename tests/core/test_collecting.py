"""A builder that gives a model what cannot be is blamed itself."""

from dataclasses import replace

import numpy as np
import pytest

from mmrec_bench.collecting import GuardedBuilder
from mmrec_bench.errors import PluginError
from mmrec_bench.testing import toy_split
from mmrec_bench.types import Catalog, Instruction, Message, Query, Text

GOOD = Instruction((Message("user", (Text("?"),)),), ("A", "B"), ("mug", "lamp"))
QUERY = Query(0, np.zeros(0, np.int32), np.array([3, 5], np.int32))
CATALOG = toy_split().catalog


class Gives:
    def __init__(self, built: object = GOOD, parsed: object = None) -> None:
        self.built, self.parsed = built, [] if parsed is None else parsed

    def build(self, query: Query, catalog: Catalog) -> Instruction:  # noqa: ARG002
        return self.built  # type: ignore[return-value]

    def parse(self, text: str, instruction: Instruction) -> list[int]:  # noqa: ARG002
        return self.parsed  # type: ignore[return-value]


def test_what_is_well_formed_is_given_on() -> None:
    builder = GuardedBuilder(Gives(parsed=[1, 0]), "gives")
    assert builder.build(QUERY, CATALOG) is GOOD
    assert builder.parse("B, A", GOOD) == [1, 0]
    unlisted = replace(GOOD, labels=())
    assert GuardedBuilder(Gives(unlisted), "gives").build(QUERY, CATALOG) is unlisted
    assert builder.parse("lamp, mug", unlisted) == [1, 0]
    assert GuardedBuilder(Gives(parsed=[np.int64(1)]), "gives").parse("B", GOOD) == [1]


@pytest.mark.parametrize(
    ("built", "reason"),
    [
        (None, "built NoneType, expected Instruction"),
        (replace(GOOD, messages=()), r"built messages \(\), expected one or more of type Message"),
        (replace(GOOD, messages=("hello",)), "built messages .*hello"),  # type: ignore[arg-type]
        (replace(GOOD, labels=("A",)), r"built labels \('A',\), expected 2 strings"),
        (replace(GOOD, answers=("mug", None)), "built answers .* expected 2 strings"),  # type: ignore[arg-type]
    ],
)
def test_an_instruction_that_cannot_be_names_its_builder(built: object, reason: str) -> None:
    with pytest.raises(PluginError, match=f"instructions 'gives' of .*{reason}"):
        GuardedBuilder(Gives(built), "gives").build(QUERY, CATALOG)


@pytest.mark.parametrize("parsed", [(0,), [2], [-1], ["A"], [True], [0.0]])
def test_positions_that_cannot_be_name_their_builder(parsed: object) -> None:
    with pytest.raises(PluginError, match=r"'gives' of .* parsed .* a list of positions 0 to 1"):
        GuardedBuilder(Gives(parsed=parsed), "gives").parse("A", GOOD)
