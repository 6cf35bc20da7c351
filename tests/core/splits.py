"""Small data sets, and splits in the data set's own ids, for tests of the protocol."""

from typing import Literal

import numpy as np

from mmrec_bench.config import ProtocolConfig
from mmrec_bench.types import Cases, Catalog, DataCard, Interactions, RecData, Split, Vocabulary

# What a transfer holds out.
Mode = Literal["users", "items", "both"]
MODES: tuple[Mode, ...] = ("users", "items", "both")

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
