from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest

from mmrec_bench.errors import ModelError
from mmrec_bench.types import Example, Query
from mmrec_plugins.models.lm.mixing import (
    WINDOW_STEPS,
    EntryStream,
    ExampleStream,
    Schedule,
    mixed_steps,
)

WEIGHTS = {"ranking": 0.5, "profile": 0.3, "attributes": 0.15, "few-shot": 0.05}


@dataclass(frozen=True)
class Row:
    """A tokenised example of a known length."""

    kind: str
    number: int
    length: int = 1
    n_terms: int = 1
    shortened: bool = False

    def __len__(self) -> int:
        return self.length


@dataclass
class Numbers:
    """The n-th example of a kind is its number; counts what was tokenised."""

    kind: str
    taken: int = 0

    def take(self, start: int, count: int) -> list[Row]:
        self.taken += count
        return [Row(self.kind, at, 1 + at * 7 % 13) for at in range(start, start + count)]


def steps(n: int, *, skip: int = 0, seed: int = 1, size: int = 6) -> list[list[Row]]:
    schedule = Schedule(WEIGHTS, size, seed=seed)
    streams = {kind: Numbers(kind) for kind in WEIGHTS}
    return list(islice(mixed_steps(streams, schedule, seed=seed, skip=skip), n))


@pytest.mark.parametrize("n_steps", [1, 7, 100, 3000])
def test_the_kinds_share_the_examples_by_their_weights(n_steps: int) -> None:
    drawn = Schedule(WEIGHTS, 16, seed=4).drawn(n_steps)
    assert sum(drawn.values()) == 16 * n_steps
    for kind, weight in WEIGHTS.items():
        assert abs(drawn[kind] - weight * 16 * n_steps) < 5


def test_weights_need_not_sum_to_one() -> None:
    ten = {kind: 10 * weight for kind, weight in WEIGHTS.items()}
    assert Schedule(ten, 8, seed=0).drawn(50) == Schedule(WEIGHTS, 8, seed=0).drawn(50)


def test_every_step_is_full_and_holds_what_the_schedule_says() -> None:
    schedule = Schedule(WEIGHTS, 6, seed=1)
    counts = schedule.counts(0, 70)
    for rows, expected in zip(steps(70), counts.tolist(), strict=True):
        assert [sum(row.kind == kind for row in rows) for kind in WEIGHTS] == expected


def test_no_example_is_left_out_or_taken_twice() -> None:
    rows = [row for step in steps(2 * WINDOW_STEPS) for row in step]
    for kind, drawn in Schedule(WEIGHTS, 6, seed=1).drawn(2 * WINDOW_STEPS).items():
        assert sorted(row.number for row in rows if row.kind == kind) == list(range(drawn))


@pytest.mark.parametrize("skip", [1, WINDOW_STEPS - 1, WINDOW_STEPS, 75])
def test_steps_from_the_middle_are_those_that_come_there(skip: int) -> None:
    assert steps(20, skip=skip) == steps(skip + 20)[skip:]


def test_what_came_before_is_not_tokenised_again() -> None:
    schedule = Schedule(WEIGHTS, 6, seed=1)
    streams = {kind: Numbers(kind) for kind in WEIGHTS}
    next(mixed_steps(streams, schedule, seed=1, skip=1000 * WINDOW_STEPS + 3))
    assert sum(stream.taken for stream in streams.values()) == 6 * WINDOW_STEPS


def test_seeds_decide_the_order() -> None:
    assert steps(5) == steps(5)
    assert steps(5) != steps(5, seed=2)


def test_a_step_holds_examples_of_a_kind_that_are_alike_in_length() -> None:
    def spread(rows: list[Row]) -> int:
        lengths = [len(row) for row in rows if row.kind == "ranking"]
        return max(lengths) - min(lengths)

    assert np.mean([spread(rows) for rows in steps(64, size=16)]) < 3  # of 1 to 13 tokens


def epoch_of(count: int) -> list[Example]:
    return [Example(Query(n, np.zeros(0, np.int32)), 0) for n in range(count)]


@pytest.mark.parametrize("start", [0, 3, 4, 5, 11])
def test_ranking_examples_are_found_at_any_place(start: int) -> None:
    asked: list[int] = []

    def source(epoch: int) -> Iterator[Example]:
        asked.append(epoch)
        return (Example(Query(10 * epoch + n, np.zeros(0, np.int32)), 0) for n in range(5))

    def encode(example: Example) -> Row:
        return Row("ranking", example.query.user)

    whole = ExampleStream(source, encode, per_epoch=4).take(0, 20)
    assert [row.number for row in whole[:6]] == [0, 1, 2, 3, 10, 11]
    asked.clear()
    stream = ExampleStream(source, encode, per_epoch=4)
    assert stream.take(start, 5) + stream.take(start + 5, 2) == whole[start : start + 7]
    assert min(asked) == start // 4


def test_an_epoch_that_is_shorter_than_promised_is_an_error() -> None:
    stream = ExampleStream(lambda _: iter(epoch_of(3)), lambda _: Row("ranking", 0), per_epoch=4)
    with pytest.raises(ModelError, match="epoch 0 gave 3 training examples, not 4"):
        stream.take(0, 4)


def test_no_examples_at_all_are_an_error() -> None:
    with pytest.raises(ModelError, match="no training examples"):
        ExampleStream(lambda _: iter(()), lambda _: Row("ranking", 0), per_epoch=0)


def test_entries_come_once_a_pass_in_another_order_each() -> None:
    def encode(number: int) -> Row:
        return Row("profile", number)

    def numbers(start: int, count: int) -> list[int]:
        stream = EntryStream(range(9), encode, seed=(3, 0))
        return [row.number for row in stream.take(start, count)]

    first, second = numbers(0, 9), numbers(9, 9)
    assert sorted(first) == sorted(second) == list(range(9))
    assert first != second
    assert numbers(7, 5) == (first + second)[7:12]
