from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_bench.counting import rank
from mmrec_bench.errors import ProtocolError
from mmrec_bench.protocol import describe_leaks, make_split
from mmrec_bench.splitting import k_core, newest, ratio_sizes
from mmrec_bench.types import Interactions, Ragged
from tests.core.splits import TOY, Row, config, data_of, named, random_data, sets


def test_leave_one_out_takes_the_last_for_test_and_the_last_but_one_for_validation() -> None:
    split = make_split(data_of(TOY), config())

    assert named(split, split.test)["ann"] == (["a", "b", "c"], ["d"])
    assert named(split, split.validation)["ann"] == (["a", "b"], ["c"])
    assert named(split, split.test)["bob"] == (["b", "e"], ["f"])


def test_users_with_fewer_than_three_interactions_stay_in_train_and_are_counted() -> None:
    split = make_split(data_of(TOY), config())

    assert "cid" not in named(split, split.test)
    assert split.counts["n_users_train_only"] == 1
    assert split.counts["n_train"] == 2 + 1 + 2 + 3


def test_validation_items_can_be_kept_out_of_test_histories() -> None:
    split = make_split(data_of(TOY), config(validation_in_history=False))

    assert named(split, split.test)["ann"] == (["a", "b"], ["d"])


def test_histories_keep_the_newest_items() -> None:
    split = make_split(data_of(TOY), config(history_length=2))

    assert named(split, split.test)["dan"] == (["i", "j"], ["k"])


def test_ratings_below_the_threshold_are_dropped_before_anything_else() -> None:
    rows: list[Row] = [("ann", name, t, 5.0) for t, name in enumerate("abc")]
    rows += [("ann", "d", 9, 2.0), *[("bob", n, t, 4.0) for t, n in enumerate("efgh")]]

    split = make_split(data_of(rows), config(min_rating=4.0, n_candidates=2))

    assert named(split, split.test)["ann"][1] == ["c"]
    assert split.counts["dropped_rating"] == 1


@pytest.mark.parametrize(
    ("repeats", "history"), [("first", ["a", "b"]), ("last", ["b", "a"]), ("keep", ["a", "b", "a"])]
)
def test_repeated_items_are_kept_at_their_first_or_last_place_or_all(
    repeats: str, history: list[str]
) -> None:
    rows: list[Row] = [("ann", "a", 1), ("ann", "b", 2), ("ann", "a", 3), ("ann", "z", 4)]
    rows += [("bob", name, t) for t, name in enumerate("cdef")]

    split = make_split(data_of(rows), config(repeats=repeats, n_candidates=3))

    assert named(split, split.test)["ann"] == (history, ["z"])


def test_the_k_core_is_iterated_until_it_is_stable() -> None:
    # Dropping item z leaves user c with one row, which takes item y below two in turn.
    rows = Interactions.build(np.array([0, 0, 1, 1, 2, 2, 0]), np.array([0, 1, 0, 1, 2, 3, 2]))

    assert k_core(rows, 2).tolist() == [True, True, False, True, True, False, False]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=80), st.integers(0, 4))
def test_the_k_core_agrees_with_removing_one_at_a_time(
    pairs: list[tuple[int, int]], k: int
) -> None:
    rows = Interactions.build(
        np.array([p[0] for p in pairs], np.int32), np.array([p[1] for p in pairs], np.int32)
    )
    left = list(zip(rows.user.tolist(), rows.item.tolist(), strict=True))
    while k > 1:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        smaller = [(u, i) for u, i in left if users[u] >= k and items[i] >= k]
        if smaller == left:
            break
        left = smaller

    kept = rows.take(k_core(rows, k))

    assert list(zip(kept.user.tolist(), kept.item.tolist(), strict=True)) == left


@given(st.integers(1, 400), st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.9, 0.0, 0.1)]))
def test_ratio_sizes_are_those_of_recbole(n: int, ratios: tuple[float, float, float]) -> None:
    expected = [int(ratio * n) for ratio in ratios]
    expected[0] = n - sum(expected[1:])
    for i in range(1, 3):
        if expected[0] <= 1:
            break
        if 0 < ratios[-i] * n < 1:
            expected[-i] += 1
            expected[0] -= 1

    validation, test = ratio_sizes(np.array([n]), ratios)

    assert [int(validation[0]), int(test[0])] == expected[1:]


def test_the_user_ratio_split_takes_each_users_newest_share() -> None:
    rows: list[Row] = [("ann", f"i{t}", t) for t in range(10)]
    rows += [("bob", f"j{t}", t) for t in range(10)]

    split = make_split(data_of(rows), config(split="user-ratio", ratios=(0.6, 0.2, 0.2)))

    assert named(split, split.test)["ann"] == ([f"i{t}" for t in range(8)], ["i8", "i9"])
    assert named(split, split.validation)["ann"] == ([f"i{t}" for t in range(6)], ["i6", "i7"])


def test_the_random_ratio_split_follows_the_seed() -> None:
    data = random_data()
    first, again, other = (
        make_split(data, config(split="random-ratio", data_seed=seed)) for seed in (1, 1, 2)
    )

    assert named(first, first.test) == named(again, again.test)
    assert named(first, first.test) != named(other, other.test)
    assert len(first.train) + first.counts["n_validation_targets"] + first.counts[
        "n_test_targets"
    ] == len(data.interactions)


def test_the_global_time_split_shows_no_part_a_time_of_a_later_part() -> None:
    data = random_data()
    split = make_split(data, config(split="global-time", ratios=(0.7, 0.15, 0.15)))
    time_of = {
        (data.users[int(u)], data.catalog.items[int(i)]): int(t)
        for u, i, t in zip(
            data.interactions.user,
            data.interactions.item,
            data.interactions.timestamp,
            strict=True,
        )
    }
    times = [
        [time_of[user, item] for user, (_, targets) in cases.items() for item in targets]
        for cases in (named(split, split.validation), named(split, split.test))
    ]

    assert int(split.train.timestamp.max()) < min(times[0])
    assert max(times[0]) < min(times[1])


def test_the_global_time_split_keeps_and_counts_cold_users_and_items() -> None:
    rows: list[Row] = [(u, i, t) for t, (u, i) in enumerate([(u, i) for u in "ab" for i in "vwxy"])]
    rows += [("new", "v", 100), ("a", "novel", 101)]

    options = {"split": "global-time", "ratios": (0.8, 0.0, 0.2), "candidates": "full"}
    split = make_split(data_of(rows), config(**options))

    assert named(split, split.test)["new"] == ([], ["v"])
    assert split.counts["n_cold_test_users"] == 1
    assert split.counts["n_cold_test_targets"] == 1
    assert split.counts["n_empty_test_histories"] == 1


def test_same_time_ties_are_counted_and_can_be_shuffled() -> None:
    rows: list[Row] = [(f"u{u}", f"i{i}", 7) for u in range(6) for i in range(8)]
    rows += [(f"v{u}", f"j{i}", i) for u in range(6) for i in range(8)]
    in_file_order = make_split(data_of(rows), config())
    shuffled = make_split(data_of(rows), config(ties_in_time="shuffle"))

    assert in_file_order.counts["same_time_ties_ppm"] == 500_000
    assert in_file_order.counts["n_test_cases_tied_in_time"] == 6
    assert named(in_file_order, in_file_order.test)["u0"][1] == ["i7"]
    last = [named(shuffled, shuffled.test)[f"u{u}"][1] for u in range(6)]
    assert last != [["i7"]] * 6
    assert named(shuffled, shuffled.test)["v0"][1] == ["j7"]


def test_numbers_are_permuted_by_seed_unless_asked_otherwise() -> None:
    data = random_data()
    kept = make_split(data, config(permute_ids=False))
    permuted = make_split(data, config())

    assert kept.catalog.items.ids == data.catalog.items.ids
    assert permuted.catalog.items.ids != data.catalog.items.ids
    assert permuted.catalog[0].title == f"title {permuted.catalog.items[0]}"
    assert named(kept, kept.test) == named(permuted, permuted.test)
    assert sets(kept) == sets(permuted)
    assert kept.candidates_hash == permuted.candidates_hash


def test_draws_and_hash_do_not_depend_on_the_loaders_numbering() -> None:
    rng = np.random.default_rng(1)
    rows: list[Row] = [
        (f"u{u}", f"i{i}", 0) for u in range(20) for i in rng.permutation(30)[:6].tolist()
    ]
    one = make_split(data_of(rows), config(ties_in_time="shuffle"))
    other = make_split(data_of(rows, reverse_ids=True), config(ties_in_time="shuffle"))

    assert named(one, one.test) == named(other, other.test)
    assert sets(one) == sets(other)
    assert one.candidates_hash == other.candidates_hash


def test_full_ranking_masks_what_the_user_took_before() -> None:
    split = make_split(data_of(TOY), config(candidates="full"))
    row = [split.users[int(u)] for u in split.test.queries.user].index("ann")

    assert split.test.queries.candidates is None
    assert split.candidates_hash == ""
    assert split.test.masked is not None
    assert split.validation.masked is not None
    assert {split.catalog.items[i] for i in split.test.masked[row].tolist()} == {"a", "b", "c"}
    assert {split.catalog.items[i] for i in split.validation.masked[row].tolist()} == {"a", "b"}


def test_masking_ignores_how_much_history_is_shown() -> None:
    options = {"candidates": "full", "history_length": 1, "validation_in_history": False}
    split = make_split(data_of(TOY), config(**options))

    assert split.test.masked is not None
    assert split.test.masked.lengths.tolist() == [
        {"ann": 3, "bob": 2, "dan": 4}[split.users[int(u)]] for u in split.test.queries.user
    ]


def test_a_mask_that_would_remove_a_target_is_an_error_that_names_the_option() -> None:
    rows: list[Row] = [*TOY, ("ann", "a", 9)]

    with pytest.raises(ProtocolError, match=r"1 of 3 test targets.*'a'.*'ann'.*repeats=first"):
        make_split(data_of(rows), config(candidates="full", repeats="keep"))
    split = make_split(data_of(rows), config(candidates="full", repeats="keep", mask_seen=False))
    assert split.test.masked is None
    assert named(split, split.test)["ann"][1] == ["a"]


def test_a_repeated_target_of_one_case_is_one_target() -> None:
    rows: list[Row] = [("ann", n, t) for t, n in enumerate("abcdefghxx")]
    rows += [("bob", n, t) for t, n in enumerate("ijklmnopqr")]

    split = make_split(
        data_of(rows), config(split="user-ratio", ratios=(0.8, 0, 0.2), repeats="keep")
    )

    assert named(split, split.test)["ann"][1] == ["x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k_core": 9}, "k_core"),
        ({"min_rating": 6.0}, "rated 6 or more"),
        ({"split": "global-time", "ratios": (0.0, 0.0, 1.0)}, "no train interaction"),
    ],
)
def test_nothing_left_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        make_split(data_of(TOY), config(**options))


def test_a_split_can_be_ranked_as_it_is() -> None:
    for options in ({"candidates": "full"}, {"candidates": "popular"}, {}):
        split = make_split(random_data(), config(**options))
        candidates = split.test.queries.candidates
        width = len(split.catalog) if candidates is None else candidates.shape[1]
        ranks = rank(np.zeros((len(split.test), width), np.float32), split.test)

        assert (ranks.n_better == 0).all()
        assert (ranks.n_tied == ranks.n_candidates - 1).all()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 1000),
    st.sampled_from(["leave-one-out", "user-ratio", "random-ratio", "global-time"]),
    st.sampled_from(["uniform", "full", "popular"]),
    st.sampled_from(["first", "last"]),
    st.booleans(),
)
def test_every_interaction_is_in_exactly_one_part(
    seed: int, kind: str, candidates: str, repeats: str, permute: bool
) -> None:
    data = random_data(25, 80, seed)
    split = make_split(
        data,
        config(
            split=kind,
            candidates=candidates,
            repeats=repeats,
            permute_ids=permute,
            n_candidates=13,
            ratios=(0.6, 0.2, 0.2),
        ),
    )
    pairs = [
        (split.users[int(u)], split.catalog.items[int(i)])
        for u, i in zip(split.train.user, split.train.item, strict=True)
    ]
    for cases in (split.validation, split.test):
        pairs += [(u, t) for u, (_, targets) in named(split, cases).items() for t in targets]

    assert sorted(pairs) == sorted(
        (data.users[int(u)], data.catalog.items[int(i)])
        for u, i in zip(data.interactions.user, data.interactions.item, strict=True)
    )
    order = np.lexsort((split.train.timestamp, split.train.user))
    assert (order == np.arange(len(order))).all()


def test_the_newest_values_of_ragged_rows_are_kept() -> None:
    rows = Ragged.from_rows([[1, 2, 3], [], [4], [5, 6]])

    assert [row.tolist() for row in newest(rows, 2)] == [[2, 3], [], [4], [5, 6]]


def test_leaks_of_a_protocol_are_told() -> None:
    assert "leaks across users" in describe_leaks(config())[0]
    assert describe_leaks(config(split="global-time")) == ()
    assert len(describe_leaks(config(permute_ids=False))) == 2
