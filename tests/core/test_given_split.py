"""protocol.split=given: the division that a data set is published with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_bench.config import ProtocolConfig
from mmrec_bench.errors import ProtocolError
from mmrec_bench.protocol import describe_leaks, make_split
from mmrec_bench.types import Catalog, DataCard, Interactions, RecData, Split, Vocabulary

Row = tuple[int, int, int]
"""User, item, part."""
TOY: list[Row] = [
    *((0, 0, 0), (0, 1, 2), (0, 2, 0), (0, 3, 1)),
    *((1, 0, 0), (1, 3, 0), (2, 4, 2), (2, 1, 0), (3, 2, 1), (3, 0, 0)),
]


def data_of(rows: list[Row], *, divided: bool = True) -> RecData:
    user, item, part = (np.array(column) for column in zip(*rows, strict=True))
    n_users, n_items = int(user.max()) + 1, int(item.max()) + 1
    return RecData(
        name="toy",
        version="1",
        users=Vocabulary([f"u{i}" for i in range(n_users)]),
        catalog=Catalog(Vocabulary([f"i{i}" for i in range(n_items)]), [""] * n_items),
        interactions=Interactions.build(user, item, part=part if divided else None),
        card=DataCard("test", "none"),
    )


def config(**options: object) -> ProtocolConfig:
    values = {"split": "given", "k_core": 0, "candidates": "full", **options}
    return ProtocolConfig.model_validate(values)


def triples(split: Split) -> set[tuple[str, str, int]]:
    """(user, item, part) in the data set's own ids."""
    found = [(split.train.user, split.train.item, 0)]
    for number, cases in ((1, split.validation), (2, split.test)):
        found.append((cases.queries.user[cases.targets.row_ids], cases.targets.values, number))
    return {
        (split.users[u], split.catalog.items[i], number)
        for users, items, number in found
        for u, i in zip(users.tolist(), items.tolist(), strict=True)
    }


def ids(split: Split, items: np.ndarray) -> set[str]:
    return {split.catalog.items[i] for i in items.tolist()}


def case_of(split: Split, user: str) -> int:
    return int(np.flatnonzero(split.test.queries.user == split.users.index(user))[0])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 2)),
        min_size=1,
        max_size=30,
        unique_by=lambda row: row[:2],
    ),
    st.integers(0, 3),
)
def test_every_interaction_stays_in_its_part(rows: list[Row], seed: int) -> None:
    rows = [*rows, (6, 0, 0), (6, 1, 2)]
    split = make_split(data_of(rows), config(data_seed=seed))
    assert triples(split) == {(f"u{user}", f"i{item}", part) for user, item, part in rows}


def test_the_seed_changes_numbers_and_nothing_else() -> None:
    one, two = (make_split(data_of(TOY), config(data_seed=seed)) for seed in (0, 1))
    assert triples(one) == triples(two)
    assert one.catalog.items.ids != two.catalog.items.ids


def test_histories_and_masks_hold_what_came_before_by_part() -> None:
    # In the file, u0's test item stands before one of train: the part decides, not the place.
    split = make_split(data_of(TOY), config())
    case = case_of(split, "u0")
    assert [split.catalog.items[i] for i in split.test.queries.history[case]] == ["i0", "i2", "i3"]
    assert split.test.masked is not None
    assert ids(split, split.test.masked[case]) == {"i0", "i2", "i3"}
    assert ids(split, split.test.targets[case]) == {"i1"}
    without = make_split(data_of(TOY), config(validation_in_history=False))
    history = without.test.queries.history[case_of(without, "u0")]
    assert ids(without, history) == {"i0", "i2"}


def test_counts_are_those_of_the_files() -> None:
    counts = make_split(data_of(TOY), config()).counts
    names = ("n_train", "n_validation_cases", "n_test_cases", "n_users_train_only")
    assert [counts[name] for name in names] == [6, 2, 2, 1]
    assert counts["n_cold_test_targets"] == 1  # i4


def test_a_model_learns_from_train_alone() -> None:
    train = make_split(data_of(TOY), config()).train
    assert len(train) == 6
    assert train.part is None


def test_sampled_candidates_hold_the_targets_and_no_other_item_of_the_user() -> None:
    rows = [*TOY, *((9, item, 0) for item in range(5, 20))]
    split = make_split(data_of(rows), config(candidates="uniform", n_candidates=5))
    candidates = split.test.queries.candidates
    assert candidates is not None
    found = ids(split, candidates[case_of(split, "u0")])
    assert len(found) == 5
    assert found & {"i0", "i1", "i2", "i3"} == {"i1"}


def test_a_data_set_without_a_division_is_refused() -> None:
    with pytest.raises(ProtocolError, match="has no published division; use split=leave-one-out"):
        make_split(data_of(TOY, divided=False), config())


def test_a_target_that_train_holds_as_well_is_refused() -> None:
    with pytest.raises(ProtocolError, match="mask_seen would remove 1 of 3 test targets"):
        make_split(data_of([*TOY, (0, 0, 2)]), config(repeats="keep"))


def test_the_first_part_that_holds_a_pair_keeps_it() -> None:
    split = make_split(data_of([*TOY, (0, 0, 2)]), config())
    assert split.counts["dropped_repeats"] == 1
    assert ("u0", "i0", 0) in triples(split)


@pytest.mark.parametrize("options", [{"k_core": 5}, {"min_rating": 4.0}])
def test_a_filter_that_would_change_the_division_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="split=given keeps the published division whole: set k_c"):
        config(**options)


def test_other_splits_do_not_look_at_the_division() -> None:
    options = {"split": "leave-one-out", "k_core": 0, "candidates": "full"}
    splits = [
        make_split(data_of(TOY, divided=divided), ProtocolConfig.model_validate(options))
        for divided in (True, False)
    ]
    assert triples(splits[0]) == triples(splits[1])


def test_the_record_says_that_the_publisher_divided() -> None:
    (note,) = describe_leaks(config())
    assert note.startswith("given: the data set's publisher divided it; whether train holds")
