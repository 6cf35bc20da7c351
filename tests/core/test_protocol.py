from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_bench.candidates import SeenItems, draw_negatives
from mmrec_bench.config import ProtocolConfig
from mmrec_bench.errors import ProtocolError
from mmrec_bench.evaluation import rank
from mmrec_bench.examples import TrainingExamples
from mmrec_bench.protocol import describe_leaks, make_split
from mmrec_bench.splitting import k_core, newest, ratio_sizes
from mmrec_bench.types import (
    Cases,
    Catalog,
    DataCard,
    Int32Array,
    Interactions,
    Ragged,
    RecData,
    Split,
    Vocabulary,
)

Row = tuple[str, str, int] | tuple[str, str, int, float]


def data_of(rows: list[Row], *, reverse_ids: bool = False) -> RecData:
    """Build a data set from (user, item, time[, rating]) rows in file order."""
    users = list(dict.fromkeys(row[0] for row in rows))
    items = list(dict.fromkeys(row[1] for row in rows))
    if reverse_ids:
        users, items = users[::-1], items[::-1]
    user_ids, item_ids = Vocabulary(users), Vocabulary(items)
    interactions = Interactions.build(
        np.array([user_ids.index(row[0]) for row in rows]),
        np.array([item_ids.index(row[1]) for row in rows]),
        np.array([row[2] for row in rows]),
        np.array([row[3] if len(row) > 3 else 1.0 for row in rows], np.float32),
    )
    catalog = Catalog(item_ids, [f"title {name}" for name in items])
    return RecData("toy", "v1", user_ids, catalog, interactions, DataCard("test", "none"))


def random_data(n_users: int = 40, n_items: int = 60, seed: int = 0) -> RecData:
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for user in range(n_users):
        chosen = rng.permutation(n_items)[: rng.integers(5, 12)]
        times = rng.integers(0, 30, len(chosen))
        rows += [(f"u{user}", f"i{i}", int(t)) for i, t in zip(chosen, times, strict=True)]
    return data_of(rows)


def config(**options: object) -> ProtocolConfig:
    return ProtocolConfig.model_validate({"k_core": 0, "n_candidates": 5, **options})


def named(split: Split, cases: Cases) -> dict[str, tuple[list[str], list[str]]]:
    """History and targets of each case in string ids."""
    items = split.catalog.items
    return {
        split.users[int(user)]: (
            [items[i] for i in cases.queries.history[row].tolist()],
            [items[i] for i in cases.targets[row].tolist()],
        )
        for row, user in enumerate(cases.queries.user)
    }


def sets(split: Split) -> dict[str, frozenset[str]]:
    candidates = split.test.queries.candidates
    assert candidates is not None
    return {
        split.users[int(user)]: frozenset(split.catalog.items[i] for i in row.tolist())
        for user, row in zip(split.test.queries.user, candidates, strict=True)
    }


TOY: list[Row] = [
    ("ann", "a", 1), ("ann", "b", 2), ("ann", "c", 3), ("ann", "d", 4),
    ("bob", "b", 1), ("bob", "e", 2), ("bob", "f", 3),
    ("cid", "a", 1), ("cid", "f", 2),
    *[("dan", name, time) for time, name in enumerate("ghijk")],
]  # fmt: skip


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


def test_the_hash_changes_with_the_seed_and_the_size_of_the_sets() -> None:
    data = random_data()
    hashes = {
        make_split(data, config(data_seed=seed, n_candidates=n)).candidates_hash
        for seed, n in [(0, 5), (1, 5), (0, 6)]
    }

    assert len(hashes) == 3


@pytest.mark.parametrize("kind", ["uniform", "popular"])
def test_candidates_hold_the_target_once_and_nothing_the_user_ever_took(kind: str) -> None:
    data = random_data()
    split = make_split(data, config(candidates=kind, n_candidates=20))
    took: dict[str, set[str]] = {}
    for u, i in zip(data.interactions.user, data.interactions.item, strict=True):
        took.setdefault(data.users[int(u)], set()).add(data.catalog.items[int(i)])

    for user, (_, targets) in named(split, split.test).items():
        assert sets(split)[user] & took[user] == set(targets)
        assert len(sets(split)[user]) == 20


def test_popular_negatives_are_drawn_from_train_counts_alone() -> None:
    data = random_data(60, 40)
    split = make_split(data, config(candidates="popular", n_candidates=15))
    in_train = {split.catalog.items[int(i)] for i in split.train.item}
    targets = {t for _, row in named(split, split.test).values() for t in row}

    assert set().union(*sets(split).values()) - targets <= in_train


def test_the_target_is_shown_at_every_position_equally_often() -> None:
    split = make_split(random_data(2000, 80), config(n_candidates=10))
    candidates = split.test.queries.candidates
    assert candidates is not None
    place = np.argmax(candidates == split.test.targets.values[:, None], axis=1)
    counts = np.bincount(place, minlength=10)

    # chi-square with 9 degrees of freedom; 33.7 is its 0.9999 quantile.
    assert ((counts - 200) ** 2 / 200).sum() < 33.7


def test_negatives_are_drawn_uniformly_by_rejection_and_by_race() -> None:
    user = np.zeros(20_000, np.int32)
    seen = SeenItems(np.zeros(2, np.int32), np.array([3, 5], np.int32), 1, 8)
    few, all_of_them = (
        draw_negatives(np.random.default_rng(0), user, np.full(20_000, n), seen) for n in (2, 6)
    )

    counts = np.bincount(few.ravel(), minlength=8)
    assert counts[[3, 5]].tolist() == [0, 0]
    assert np.abs(counts[[0, 1, 2, 4, 6, 7]] / 40_000 - 1 / 6).max() < 0.01
    assert (np.sort(all_of_them, axis=1) == [0, 1, 2, 4, 6, 7]).all()
    firsts = np.bincount(all_of_them[:, 0], minlength=8) / 20_000
    assert np.abs(firsts[[0, 1, 2, 4, 6, 7]] - 1 / 6).max() < 0.015


@pytest.mark.parametrize("n_drawn", [2, 3])
def test_weighted_draws_without_replacement_have_the_successive_distribution(n_drawn: int) -> None:
    # P(item 0 is among two draws) with weights 6, 3, 1, from the tree of draws.
    weights = np.array([6.0, 3.0, 1.0, 0.0])
    seen = SeenItems(np.zeros(0, np.int32), np.zeros(0, np.int32), 1, 4)
    user = np.zeros(30_000, np.int32)
    drawn = draw_negatives(np.random.default_rng(3), user, np.full(30_000, n_drawn), seen, weights)

    assert (drawn < 3).all()
    expected = 6 / 10 + (3 / 10) * (6 / 7) + (1 / 10) * (6 / 9)
    share = (drawn[:, :2] == 0).any(axis=1).mean()
    assert abs(share - expected) < 0.01


def test_too_few_items_for_negatives_is_an_error_that_says_how_many_fit() -> None:
    with pytest.raises(ProtocolError, match=r"dan.* needs 9, but only 6 of 11 items.*<= 7"):
        make_split(data_of(TOY), config(n_candidates=10))


def test_more_targets_than_candidates_is_an_error() -> None:
    rows: list[Row] = [("ann", f"i{t}", t) for t in range(20)]
    rows += [("bob", f"j{t}", t) for t in range(20)]

    with pytest.raises(ProtocolError, match=r"10 targets.*n_candidates >= 11"):
        make_split(data_of(rows), config(split="user-ratio", ratios=(0.5, 0, 0.5)))


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


def write_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return path


FILE_ROWS: list[dict[str, Any]] = [
    {"user": "ann", "candidates": ["d", "g", "h"]},
    {"user": "bob", "candidates": ["f", "g", "a"]},
    {"user": "dan", "candidates": ["k", "a", "b"]},
]


def test_candidates_from_a_file_are_used_for_test_in_a_shown_order_of_our_own(
    tmp_path: Path,
) -> None:
    options = {"candidates": "file", "n_candidates": 3}
    one = write_file(tmp_path / "one.jsonl", FILE_ROWS)
    turned = [{**row, "candidates": row["candidates"][::-1]} for row in FILE_ROWS[::-1]]
    other = write_file(tmp_path / "two.jsonl", turned)

    first = make_split(data_of(TOY), config(**options, candidates_file=one))
    second = make_split(data_of(TOY), config(**options, candidates_file=other))

    assert sets(first)["ann"] == {"d", "g", "h"}
    assert first.candidates_hash == second.candidates_hash
    assert first.test.queries.candidates is not None
    assert second.test.queries.candidates is not None
    assert (first.test.queries.candidates == second.test.queries.candidates).all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"user": "ann", "candidates": ["d", "g", "nix"]}, r"1 candidates are not among.*'nix'"),
        ({"user": "eve", "candidates": ["d", "g", "h"]}, "'eve' is not in the data set"),
        ({"user": "ann", "candidates": ["a", "g", "h"]}, r"lacks 1 of 3 test targets.*'ann'"),
        ({"user": "ann", "candidates": ["d", "g"]}, "n_candidates=3"),
        ({"user": "ann", "candidates": ["d", "g", "g"]}, "2 of them different"),
        ({"user": "bob", "candidates": ["f", "g", "h"]}, "more than one line"),
        ({"user": "cid", "candidates": ["f", "g", "h"]}, r"no line for 1 of 3 test.*'ann'"),
        ({"user": "ann"}, "expected"),
        ({"user": "ann", "candidates": ["d"], "part": "x"}, "neither"),
    ],
)
def test_a_candidates_file_that_does_not_fit_is_an_error(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = write_file(tmp_path / "c.jsonl", [row, *FILE_ROWS[1:]])

    with pytest.raises(ProtocolError, match=message):
        make_split(data_of(TOY), config(candidates="file", n_candidates=3, candidates_file=path))


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
