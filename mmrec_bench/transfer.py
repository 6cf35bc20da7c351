"""Zero-shot and few-shot transfer: what is held out from tuning, and what a test then asks.

Users and items are drawn after the filter (threshold, repeats, k-core), in the order of their ids
as strings, each from an own stream of the data seed: the same ones whatever a loader's numbering
and whichever model. A share of them is held out, at least one, never all.

What is held out from what is learned, in every mode:

- train, and with it item counts, training examples and demonstrations, holds no interaction of a
  held-out user and none with a held-out item;
- no validation case has a held-out user or a held-out target, and no held-out item is among its
  candidates, so that selection sees nothing of them either;
- a held-out item is no negative of a training example. It stays in the catalog: its title, text
  and picture are known, as a shop knows a new product, and its interactions are not.

What is asked then:

- `users`: the test cases of held-out users. Their histories are what the protocol shows (with
  `validation_in_history`, also the validation items), cut to the newest `shots`.
- `items`: test cases with a held-out target; a case's other targets are no targets here. Users are
  known from train, but for their interactions with held-out items. Histories show train items only.
  Candidates are drawn among held-out items alone (never one that the user took): with seen items
  among them, a model would win by telling new items from old ones. With candidates=full, the other
  items are masked. Where test negatives are drawn by popularity, it is that of the whole train
  part: the evaluator knows it, the models do not.
- `both`: test cases of held-out users with a held-out target, asked as in `items`.

`shots` cuts what a test query shows, and nothing else: 0 = zero-shot, k = few-shot. A builder's own
`history_length` may cut further. With `items`, users are still known to models that learn users.

With a `source`, a model learns from the source data set under the same protocol (a candidates file
names the target's cases, so that the source then has uniform candidates), and is then given the
target's catalog and builder, but no target interaction, no validation case and no example. What the
source and the target have in common by id or title is counted, not removed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.config import ProtocolConfig, TransferConfig
from mmrec_bench.errors import ConfigError, ProtocolError
from mmrec_bench.splitting import TEST, TRAIN, Prepared, stream
from mmrec_bench.types import BoolArray, HeldOut, Interactions, RecData, Split

HOLD_OUT_STREAM = 5
"""Random stream of the data seed, beside those of `splitting`."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """Who is held out, in canonical numbers; None = nobody is chosen by that side.

    Attributes:
        users: (n_users,) bool, True = held out.
        items: (N,) bool, True = held out.
    """

    users: BoolArray | None = None
    items: BoolArray | None = None

    @classmethod
    def choose(
        cls, ready: Prepared, config: ProtocolConfig, transfer: TransferConfig | None
    ) -> Self:
        """Draw the users and items that are held out.

        Raises:
            ProtocolError: a candidates file, which cannot be kept to held-out items.
        """
        if transfer is None or transfer.hold_out == "none":
            return cls()
        drawn: list[BoolArray | None] = []
        for number, (mode, size) in enumerate(
            (("users", len(ready.users)), ("items", len(ready.items)))
        ):
            if transfer.hold_out not in (mode, "both"):
                drawn.append(None)
                continue
            rng = stream(config.data_seed, HOLD_OUT_STREAM, number)
            n_held_out = min(max(1, round(transfer.share * size)), size - 1)
            held = np.zeros(size, np.bool_)
            held[rng.permutation(size)[:n_held_out]] = True
            drawn.append(held)
        if drawn[1] is not None and config.candidates == "file":
            raise ProtocolError(
                f"transfer.hold_out={transfer.hold_out} draws candidates among held-out items, and "
                "protocol.candidates=file brings its own; use protocol.candidates=uniform, popular "
                "or full"
            )
        return cls(*drawn)

    def learned(self, rows: Interactions, part: NDArray[np.int8], name: int) -> BoolArray:
        """Return (n,) bool: rows of the part `name` (train, validation) with nothing held out."""
        mask: BoolArray = part == name
        if self.users is not None:
            mask &= ~self.users[rows.user]
        return mask & self.shown(rows)

    def asked(self, rows: Interactions, part: NDArray[np.int8]) -> BoolArray:
        """Return (n,) bool: rows of the test part whose user and item are those held out."""
        mask: BoolArray = part == TEST
        if self.users is not None:
            mask &= self.users[rows.user]
        if self.items is not None:
            mask &= self.items[rows.item]
        return mask

    def shown(self, rows: Interactions) -> BoolArray:
        """Return (n,) bool: rows that a history may show; no held-out item."""
        if self.items is None:
            return np.ones(len(rows), np.bool_)
        mask: BoolArray = ~self.items[rows.item]
        return mask

    def pool(self, name: int) -> BoolArray | None:
        """Return (N,) bool: items among which the part's candidates are; None = all."""
        if self.items is None:
            return None
        pool: BoolArray = self.items if name == TEST else ~self.items
        return pool

    def kind(self, name: int) -> str | None:
        """Say in words which items the part's candidates are among, for messages."""
        if self.items is None:
            return None
        return "that are held out " if name == TEST else "that are not held out "

    def counts(self, rows: Interactions, part: NDArray[np.int8]) -> dict[str, int]:
        """Count what is held out and what became of it; {} where nothing is."""
        if self.users is None and self.items is None:
            return {}
        train = part == TRAIN
        asked = self.asked(rows, part)
        return {
            "n_held_out_users": 0 if self.users is None else int(self.users.sum()),
            "n_held_out_items": 0 if self.items is None else int(self.items.sum()),
            "n_train_held_out": int((train & ~self.learned(rows, part, TRAIN)).sum()),
            "n_test_users_not_asked": len(np.setdiff1d(rows.user[part == TEST], rows.user[asked])),
        }

    def renumbered(
        self,
        data: RecData,
        ready: Prepared,
        new_user: NDArray[np.int64],
        new_item: NDArray[np.int64],
    ) -> HeldOut | None:
        """Return what is held out in the split's numbers, hashed by the data set's own ids."""
        if self.users is None and self.items is None:
            return None
        users = np.flatnonzero(self.users) if self.users is not None else np.zeros(0, np.int64)
        items = np.flatnonzero(self.items) if self.items is not None else np.zeros(0, np.int64)
        names = {
            "users": sorted(data.users[i] for i in ready.users[users].tolist()),
            "items": sorted(data.catalog.items[i] for i in ready.items[items].tolist()),
        }
        return HeldOut(
            users=np.sort(new_user[users]).astype(np.int32),
            items=np.sort(new_item[items]).astype(np.int32),
            hash=hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest(),
        )


def check_source(source: RecData, target: RecData) -> None:
    """Refuse to transfer from a data set to itself.

    Raises:
        ConfigError: the same data set, whose train holds what is to be held out.
    """
    if source.version == target.version:
        raise ConfigError(
            f"transfer.source is {source.name} itself, the data set of the run; hold out a part of "
            "it with --transfer users, items or both, or name another source"
        )


def source_protocol(config: ProtocolConfig) -> ProtocolConfig:
    """Return the protocol under which the source is divided; see the module."""
    if config.candidates != "file":
        return config
    return config.model_copy(update={"candidates": "uniform", "candidates_file": None})


def without_training(split: Split) -> Split:
    """Return the target's split with nothing left to learn from: no train, no validation."""
    nothing = np.zeros(0, np.int64)
    return replace(
        split, train=split.train.take(nothing), validation=split.validation.take(nothing)
    )


def describe(
    transfer: TransferConfig | None, split: Split, source: Mapping[str, str] | None
) -> dict[str, Any] | None:
    """Return what a run's spec says of its transfer; None without one.

    Args:
        transfer: as asked for.
        split: of the run's data set; what was held out is named by the hash of its ids.
        source: name and version of the source data set; None without one.
    """
    if transfer is None:
        return None
    values: dict[str, Any] = {"hold_out": transfer.hold_out, "shots": transfer.shots}
    if split.held_out is not None:
        values |= {"share": transfer.share, "held_out_hash": split.held_out.hash}
    if source is not None:
        values["source"] = dict(source)
    return values


def source_counts(source: Split, target: Split) -> dict[str, int]:
    """Count the source, and what it has in common with the target.

    Equal ids mean the same user or item only within one family of data sets (Amazon's do,
    MovieLens' releases do not); equal titles are compared without case and spaces.
    """
    titles = {_normal(title) for title in source.catalog.title} - {""}
    sizes = ("n_users", "n_items", "n_train", "n_validation_cases")
    return {
        **{f"source_{name}": source.counts[name] for name in sizes},
        "n_user_ids_also_in_source": sum(name in source.users for name in target.users.ids),
        "n_item_ids_also_in_source": sum(
            name in source.catalog.items for name in target.catalog.items.ids
        ),
        "n_titles_also_in_source": sum(_normal(one) in titles for one in target.catalog.title),
    }


def _normal(title: str) -> str:
    return "".join(title.casefold().split())
