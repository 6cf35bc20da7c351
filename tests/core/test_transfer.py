from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_bench import transfer
from mmrec_bench.config import ProtocolConfig, RunConfig, TransferConfig
from mmrec_bench.counting import rank
from mmrec_bench.errors import ConfigError, ProtocolError
from mmrec_bench.examples import TrainingExamples
from mmrec_bench.protocol import make_split
from mmrec_bench.types import Cases, Int32Array, Interactions, RecData, Split
from tests.core.splits import MODES, Mode, Row, config, data_of, named, random_data, sets


class Ids(NamedTuple):
    """What is held out, as the data set's own ids."""

    users: frozenset[str]
    items: frozenset[str]


def held_out(split: Split) -> Ids:
    assert split.held_out is not None
    return Ids(
        frozenset(split.users[i] for i in split.held_out.users.tolist()),
        frozenset(split.catalog.items[i] for i in split.held_out.items.tolist()),
    )


def shown_pairs(split: Split, cases: Cases) -> set[tuple[str, str]]:
    """Every (user, item) that cases show or ask for."""
    return {
        (user, item)
        for user, (history, targets) in named(split, cases).items()
        for item in (*history, *targets)
    }


def item_names(split: Split, numbers: Int32Array) -> set[str]:
    return {split.catalog.items[i] for i in numbers.ravel().tolist()}


def learned_pairs(split: Split, protocol: ProtocolConfig) -> set[tuple[str, str]]:
    """Every (user, item) that reaches a model before it is tested, through any door."""
    users, items = split.users, split.catalog.items
    rows = zip(split.train.user.tolist(), split.train.item.tolist(), strict=True)
    pairs = {(users[u], items[i]) for u, i in rows}
    examples = TrainingExamples.from_split(split, protocol, seed=3)
    for epoch in range(3):
        for example in examples(epoch):
            user, candidates = users[example.query.user], example.query.candidates
            assert candidates is not None
            pairs |= {(user, items[i]) for i in example.query.history.tolist()}
            pairs |= {(user, items[i]) for i in candidates.tolist()}
    pairs |= shown_pairs(split, split.validation)
    if split.validation.queries.candidates is not None:
        queries = split.validation.queries
        assert queries.candidates is not None
        for user, row in zip(queries.user.tolist(), queries.candidates.tolist(), strict=True):
            pairs |= {(users[user], items[i]) for i in row}
    return pairs


PROTOCOLS = st.fixed_dictionaries(
    {
        "split": st.sampled_from(["leave-one-out", "user-ratio", "random-ratio", "global-time"]),
        "candidates": st.sampled_from(["uniform", "popular", "full"]),
        "repeats": st.sampled_from(["first", "last"]),
        "validation_in_history": st.booleans(),
        "mask_seen": st.booleans(),
        "permute_ids": st.booleans(),
        "data_seed": st.integers(0, 5),
        "ratios": st.just((0.6, 0.2, 0.2)),
        "n_candidates": st.just(8),
    }
)


@settings(deadline=None, max_examples=120)
@given(
    st.integers(0, 50),
    st.sampled_from(MODES),
    st.sampled_from([0.15, 0.3, 0.5]),
    st.sampled_from([None, 0, 1, 3]),
    PROTOCOLS,
)
def test_nothing_held_out_reaches_what_a_model_learns_and_only_it_is_asked(
    seed: int, mode: Mode, share: float, shots: int | None, options: dict[str, Any]
) -> None:
    data, protocol = random_data(60, 80, seed), config(**options)
    how = TransferConfig(hold_out=mode, share=share, shots=shots)
    try:
        split = make_split(data, protocol, how)
    except ProtocolError as error:  # few items are left to draw from: it says so
        assert "lack negatives" in str(error) or "no test case" in str(error)  # noqa: PT017
        return
    users, items = held_out(split)
    learned = learned_pairs(split, protocol)
    assert not {user for user, _ in learned} & users
    assert not {item for _, item in learned} & items
    assert split.train.item.size > 0

    tested = named(split, split.test)
    if mode != "items":
        assert set(tested) <= users
    for history, targets in tested.values():
        assert not set(history) & items
        assert len(history) <= (50 if shots is None else shots)
        if mode != "users":
            assert set(targets) <= items
    if mode != "users" and split.test.queries.candidates is not None:
        assert item_names(split, split.test.queries.candidates) <= items
    if split.test.masked is not None and mode != "users":
        unmasked = len(split.catalog) - split.test.masked.lengths
        assert (unmasked <= len(items)).all()
    rank(np.zeros((len(split.test), width(split)), np.float32), split.test)  # targets are there


def width(split: Split) -> int:
    candidates = split.test.queries.candidates
    return len(split.catalog) if candidates is None else candidates.shape[1]


PLANTED: list[Row] = [
    (f"u{user}", f"i{(7 * user + 5 * step) % 40}", step) for user in range(40) for step in range(8)
]


def raw_history(user: str) -> list[str]:
    return [row[1] for row in PLANTED if row[0] == user]


@pytest.mark.parametrize("shots", [None, 0, 1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_histories_are_the_newest_shots_of_what_the_user_took_before_the_target(
    mode: Mode, shots: int | None
) -> None:
    how = TransferConfig(hold_out=mode, share=0.4, shots=shots)
    split = make_split(data_of(PLANTED), config(n_candidates=4), how)
    users, items = held_out(split)
    for user, (history, targets) in named(split, split.test).items():
        before = [item for item in raw_history(user)[:-1] if item not in items]
        assert history == (before if shots is None else before[len(before) - shots :])
        assert targets == raw_history(user)[-1:]
    asked = {
        user
        for user in dict.fromkeys(row[0] for row in PLANTED)
        if (mode == "items" or user in users)
        and (mode == "users" or raw_history(user)[-1] in items)
    }
    assert set(named(split, split.test)) == asked


def turned(data: RecData, ids: Ids, mode: Mode) -> RecData:
    """Give each held-out user another one's interactions, turned in time; and so the items."""
    rows = data.interactions
    user, item = rows.user.copy(), rows.item.copy()
    for column, vocabulary, names in (
        (user, data.users, ids.users),
        (item, data.catalog.items, ids.items),
    ):
        numbers = np.array(sorted(vocabulary.index(name) for name in names), np.int32)
        new = np.arange(len(vocabulary), dtype=np.int32)
        new[numbers] = np.roll(numbers, 1)
        column[:] = new[column]
    assert mode == "items" or not np.array_equal(user, rows.user)
    assert mode == "users" or not np.array_equal(item, rows.item)
    held = np.isin(user, [data.users.index(name) for name in ids.users])
    time = np.where(held, -rows.timestamp, rows.timestamp)
    return replace(data, interactions=Interactions.build(user, item, time, rows.rating))


@pytest.mark.parametrize("candidates", ["uniform", "popular", "full"])
@pytest.mark.parametrize("mode", MODES)
def test_whatever_held_out_users_and_items_did_nothing_learned_changes_by_one_bit(
    mode: Mode, candidates: str
) -> None:
    protocol = config(candidates=candidates, n_candidates=4)
    how = TransferConfig(hold_out=mode, share=0.4)
    data = random_data(60, 50, seed=4)
    first = make_split(data, protocol, how)
    second = make_split(turned(data, held_out(first), mode), protocol, how)
    assert held_out(second) == held_out(first)
    assert named(second, second.test) != named(first, first.test)
    for a, b in ((first.train, second.train), (first.validation, second.validation)):
        assert plain(a) == plain(b)
    drawn = [TrainingExamples.from_split(one, protocol, seed=0) for one in (first, second)]
    for epoch in range(3):
        one, other = ([plain(example) for example in draw(epoch)] for draw in drawn)
        assert one == other


def plain(value: object) -> object:
    """Return nested dataclasses of arrays as plain values."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("mode", MODES)
def test_train_keeps_everything_that_is_not_held_out(mode: Mode) -> None:
    split = make_split(data_of(PLANTED), config(), TransferConfig(hold_out=mode, share=0.3))
    users, items = held_out(split)
    names = zip(split.train.user.tolist(), split.train.item.tolist(), strict=True)
    kept = {(split.users[u], split.catalog.items[i]) for u, i in names}
    expected = {
        (user, item)
        for user in {row[0] for row in PLANTED}
        for item in raw_history(user)[:-2]
        if user not in users and item not in items
    }
    assert kept == expected
    assert split.counts["n_train"] == len(expected)
    assert split.counts["n_train_held_out"] == 40 * 6 - len(expected)
    assert split.counts["n_held_out_users"] == (0 if mode == "items" else 12)
    assert split.counts["n_held_out_items"] == (0 if mode == "users" else 12)
    assert split.counts["n_test_cases"] + split.counts["n_test_users_not_asked"] == 40


@pytest.mark.parametrize("mode", MODES)
def test_neither_a_loaders_numbering_nor_permuted_ids_change_what_is_held_out(mode: Mode) -> None:
    how = TransferConfig(hold_out=mode, share=0.4)
    splits = [
        make_split(data_of(PLANTED, reverse_ids=turned), config(n_candidates=4, permute_ids=p), how)
        for turned, p in ((False, True), (True, True), (False, False))
    ]
    first, *others = splits
    for other in others:
        assert held_out(other) == held_out(first)
        assert other.held_out is not None
        assert first.held_out is not None
        assert other.held_out.hash == first.held_out.hash
        assert named(other, other.test) == named(first, first.test)
        assert sets(other) == sets(first)


def test_the_data_seed_decides_who_is_held_out() -> None:
    how = TransferConfig(hold_out="both", share=0.4)
    drawn = [
        held_out(make_split(data_of(PLANTED), config(n_candidates=2, data_seed=s), how))
        for s in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_shots_do_not_change_who_is_held_out_or_what_the_candidates_are() -> None:
    def split(shots: int | None) -> Split:
        return make_split(data_of(PLANTED), config(), TransferConfig(hold_out="users", shots=shots))

    assert held_out(split(0)) == held_out(split(None))
    assert sets(split(0)) == sets(split(2)) == sets(split(None))


def test_popular_candidates_of_held_out_items_follow_their_hidden_popularity() -> None:
    rows: list[Row] = [
        (f"u{u}", f"i{i}", t)
        for u in range(200)
        for t, i in enumerate(np.random.default_rng(u).choice(30, 8, False, weights()))
    ]
    how = TransferConfig(hold_out="items", share=0.5)

    def popular_to_rare(candidates: str) -> float:
        split = make_split(data_of(rows), config(candidates=candidates, n_candidates=3), how)
        sets = split.test.queries.candidates
        assert sets is not None
        drawn = np.bincount(sets.ravel(), minlength=len(split.catalog))
        drawn = drawn - np.bincount(split.test.targets.values, minlength=len(split.catalog))
        items = sorted(held_out(split).items, key=lambda name: int(name[1:]))
        counts = [int(drawn[split.catalog.items.index(name)]) for name in items]
        half = len(counts) // 2
        return sum(counts[:half]) / sum(counts[half:])

    assert popular_to_rare("popular") > 2 * popular_to_rare("uniform")


def weights() -> list[float]:
    weight = [0.9**i for i in range(30)]
    return [one / sum(weight) for one in weight]


def test_a_candidates_file_cannot_be_kept_to_held_out_items(tmp_path: Path) -> None:
    protocol = config(candidates="file", candidates_file=tmp_path / "any.jsonl")
    with pytest.raises(ProtocolError, match="brings its own"):
        make_split(data_of(PLANTED), protocol, TransferConfig(hold_out="items"))


def test_too_few_held_out_items_for_the_candidates_are_told() -> None:
    with pytest.raises(ProtocolError, match=r"of 40 items that are held out were never taken"):
        make_split(
            data_of(PLANTED), config(n_candidates=12), TransferConfig(hold_out="items", share=0.2)
        )


def test_a_protocol_that_leaves_no_case_says_what_to_raise() -> None:
    data, how = data_of(PLANTED), TransferConfig(hold_out="both", share=0.01)
    with pytest.raises(ProtocolError, match=r"hold_out=both.*raise transfer.share"):
        make_split(data, config(n_candidates=2), how)


def test_without_a_transfer_nothing_changes() -> None:
    data = random_data()
    plain, none = make_split(data, config()), make_split(data, config(), None)
    assert plain.held_out is None
    assert plain.candidates_hash == none.candidates_hash
    assert "n_held_out_users" not in plain.counts


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shots": 3}, "name a source data set"),
        ({"hold_out": "users", "share": 1.0}, "less than 1"),
        ({"hold_out": "user"}, "transfer.hold_out"),
        ({"hold_out": "users", "shot": 1}, "did you mean 'shots'"),
    ],
)
def test_wrong_transfer_options_are_refused_in_words(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.parse({"model": "random", "dataset": "sequences", "transfer": values})


def test_what_lies_in_the_targets_split_for_learning_is_gone_after_without_training() -> None:
    split = transfer.without_training(make_split(random_data(), config()))
    assert len(split.train) == len(split.validation) == 0
    assert len(split.test) == 40
