import pytest

from mmrec_bench.testing import toy_split
from mmrec_bench.types import Instruction
from mmrec_plugins.instructions.reading import normal, read_answer
from mmrec_plugins.instructions.recommendation import Recommendation
from tests.plugins.instructions.toys import prepared

SPLIT = toy_split()
BUILDER = prepared(SPLIT, structured=True)
QUERY = SPLIT.test.queries[0]
INSTRUCTION: Instruction = BUILDER.build(QUERY, SPLIT.catalog)
TITLES = {normal(title) for title in SPLIT.catalog.title}
assert QUERY.candidates is not None
OUTSIDE = next(i for i in range(len(SPLIT.catalog)) if i not in QUERY.candidates.tolist())


@pytest.mark.parametrize(
    ("text", "order", "outcome", "hallucinated"),
    [
        ('{"ranking": ["B", "A"]}', [1, 0], "ok", 0),
        ('{"ranking": ["B", "B", "A"]}', [1, 0], "ok", 0),
        ('```json\n{"ranking": ["B", "A"]}\n```', [1, 0], "repaired", 0),
        ('{"ranking": ["B", "A", "', [1, 0], "repaired", 0),
        ('{"ranking": ["B", "Z", "Q"]}', [1], "repaired", 2),
        (f'{{"ranking": ["{SPLIT.catalog.title[OUTSIDE]}", "A"]}}', [0], "repaired", 1),
        ('{"ranking": ["Z"]}', [], "invalid", 1),
        ('{"ranking": []}', [], "refused", 0),
        ('{"ranking": ["Sorry, I cannot rank these"]}', [], "refused", 0),
        ('{"ranking": [', [], "invalid", 0),
        ("B, A", [1, 0], "ok", 0),
        ("B, A, Z", [1, 0], "repaired", 1),
        ("X, Y, Z", [], "invalid", 3),
        ("A\nmy favourite is the last", [0], "repaired", 0),
        (SPLIT.catalog.title[OUTSIDE], [], "invalid", 1),
        ("1. B\n2. a golden goose", [1], "repaired", 1),
        ("", [], "refused", 0),
        ("I'm sorry, I can't help.", [], "refused", 0),
    ],
)
def test_form_decides_the_outcome(
    text: str, order: list[int], outcome: str, hallucinated: int
) -> None:
    reading = read_answer(text, INSTRUCTION, BUILDER, TITLES)
    assert (reading.order, reading.outcome, reading.hallucinated) == (order, outcome, hallucinated)


def test_what_the_builder_would_answer_is_ok() -> None:
    for structured in (False, True):
        builder: Recommendation = prepared(SPLIT, structured=structured)
        instruction = builder.build(QUERY, SPLIT.catalog)
        text = builder.answer([2, 0, 1], instruction.labels)
        reading = read_answer(text, instruction, builder, TITLES)
        assert (reading.order, reading.outcome) == ([2, 0, 1], "ok")
