from collections import Counter
from typing import Literal

import numpy as np
import pytest

from mmrec_bench.examples import TrainingExamples
from mmrec_bench.protocol import make_split
from mmrec_bench.types import Int32Array, Interactions, Split
from tests.core.splits import config, random_data


def examples_of(
    split: Split, per_user: int | None = None, choose: Literal["random", "newest"] = "random"
) -> TrainingExamples:
    protocol = config(n_candidates=8)
    return TrainingExamples.from_split(split, protocol, seed=3, per_user=per_user, choose=choose)


def as_tuples(source: TrainingExamples, epoch: int) -> list[tuple[int, ...]]:
    rows = []
    for example in source(epoch):
        candidates = example.query.candidates
        assert candidates is not None
        history: Int32Array = example.query.history
        rows.append((example.query.user, example.target, *history.tolist(), *candidates.tolist()))
    return rows


def test_examples_hold_the_history_before_their_target_and_unseen_negatives() -> None:
    split = make_split(random_data(), config(history_length=3))
    rows = split.train.histories(len(split.users))
    source = TrainingExamples.from_split(split, config(history_length=3, n_candidates=8), seed=0)
    n = 0
    for example in source(0):
        query, train = example.query, rows[example.query.user].tolist()
        assert query.candidates is not None
        target = query.candidates.tolist()[example.target]
        at = train.index(target)
        assert query.history.tolist() == train[max(0, at - 3) : at]
        assert at >= 1
        assert len(set(query.candidates.tolist())) == 8
        assert set(query.candidates.tolist()) & set(train) == {target}
        n += 1

    assert n == len(source) == sum(len(row) - 1 for row in rows)


def test_an_epoch_gives_the_same_examples_again_and_another_epoch_others() -> None:
    split = make_split(random_data(), config())

    assert as_tuples(examples_of(split), 0) == as_tuples(examples_of(split), 0)
    assert as_tuples(examples_of(split), 0) != as_tuples(examples_of(split), 1)


def test_examples_do_not_depend_on_validation_and_test() -> None:
    split = make_split(random_data(), config())
    train = split.train
    source = TrainingExamples(
        train, n_users=len(split.users), n_items=len(split.catalog),
        history_length=50, n_candidates=8, seed=3,
    )  # fmt: skip

    assert as_tuples(source, 2) == as_tuples(examples_of(split), 2)


@pytest.mark.parametrize("choose", ["newest", "random"])
def test_examples_can_be_limited_per_user(choose: Literal["newest", "random"]) -> None:
    split = make_split(random_data(), config())
    source = examples_of(split, per_user=2, choose=choose)
    rows = split.train.histories(len(split.users))
    found = list(source(0))

    assert len(found) == len(source)
    assert max(Counter(e.query.user for e in found).values()) == 2
    if choose == "newest":
        assert min(len(e.query.history) - len(rows[e.query.user]) for e in found) == -2
    else:
        assert as_tuples(source, 0) != as_tuples(source, 1)


def test_example_targets_are_at_every_position_equally_often() -> None:
    split = make_split(random_data(1500, 80), config())
    places = np.bincount([e.target for e in examples_of(split)(0)], minlength=8)
    mean = places.mean()

    # chi-square with 7 degrees of freedom; 29.9 is its 0.9999 quantile.
    assert ((places - mean) ** 2 / mean).sum() < 29.9


def test_users_who_took_almost_everything_get_the_negatives_that_exist() -> None:
    train = Interactions.build(
        np.array([0] * 5 + [1] * 6 + [2]), np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0])
    )
    source = TrainingExamples(
        train, n_users=3, n_items=6, history_length=9, n_candidates=20, seed=0
    )
    found = list(source(0))

    assert {e.query.user for e in found} == {0}
    assert len(found) == len(source) == 4
    assert all(e.query.candidates is not None and len(e.query.candidates) == 2 for e in found)
