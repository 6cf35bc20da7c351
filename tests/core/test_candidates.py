from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from mmrec_bench.candidates import SeenItems, draw_negatives
from mmrec_bench.errors import ProtocolError
from mmrec_bench.protocol import make_split
from tests.core.splits import TOY, Row, config, data_of, named, random_data, sets


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
