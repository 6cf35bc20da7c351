"""From a data set as read to the cases that every model meets: the same ones for all.

Order of the steps: rating threshold, order of equal times, repeats, k-core, parts, histories,
masks and candidate sets, and last the numbers of users and items. Each step draws from its own
stream of the data seed, and in an order that a loader's numbering does not change.
"""

from collections.abc import Sized
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.candidates import (
    SeenItems,
    candidate_sets,
    file_sets,
    hash_candidates,
    read_candidates,
)
from mmrec_bench.config import ProtocolConfig, TransferConfig
from mmrec_bench.errors import ProtocolError
from mmrec_bench.splitting import (
    CANDIDATE_STREAM,
    NUMBER_STREAM,
    TEST,
    TRAIN,
    VALIDATION,
    Prepared,
    assign_parts,
    crossing_ties,
    newest,
    prepare,
    stream,
    unique_items,
)
from mmrec_bench.transfer import Withheld
from mmrec_bench.types import (
    BoolArray,
    Cases,
    Int32Array,
    Int64Array,
    Interactions,
    Queries,
    Ragged,
    RecData,
    Split,
)


class _Part(NamedTuple):
    """Cases of one part in canonical numbers: users (B,), increasing, and what goes with them."""

    user: Int32Array
    history: Ragged
    targets: Ragged
    masked: Ragged | None


def make_split(
    data: RecData, config: ProtocolConfig, transfer: TransferConfig | None = None
) -> Split:
    """Filter, divide and ask: the cases of `data` under the protocol.

    - A case is a user with at least one interaction in the part; the targets are the different
      items of these interactions.
    - Validation histories hold train; test histories also hold validation when
      `validation_in_history`; the newest `history_length` items, oldest first, in time order (under
      random-ratio a history may be newer than its targets).
    - Negatives are items that the user took in no part at all. Popular negatives are drawn in
      proportion to train interactions, without replacement. A case whose targets leave no room for
      a negative is an error, not cut: a cut case would be another case.
    - With candidates=full, `mask_seen` leaves out the user's train items, and for test cases the
      validation items too, whether or not the history shows them.
    - global-time keeps users and items that train never saw: their cases count (an empty history,
      a target that popularity scores 0), and `n_cold_*` says how many there are.
    - With candidates=file, validation cases use the file's lines of part "validation", or where it
      has none, uniform negatives.
    - With `transfer`, users and items are held out, and histories are cut to its `shots`: see
      `mmrec_bench.transfer`.

    Raises:
        ProtocolError: nothing is left of a part that is needed, negatives run out, a candidates
            file does not fit, or masking would remove a target.
    """
    ready = prepare(data.interactions, data.users, data.catalog.items, config)
    rows = ready.interactions
    part = assign_parts(rows, len(ready.users), config)
    withheld = Withheld.choose(ready, config, transfer)
    train = rows.take(withheld.learned(rows, part, TRAIN))
    validation = _cases(ready, part, VALIDATION, config, withheld, None)
    shots = None if transfer is None else transfer.shots
    test = _cases(ready, part, TEST, config, withheld, shots)
    _check_sizes(
        data, ready, {"train interaction": train, "test case": test.user}, config, transfer
    )
    _check_masks(data, ready, {"validation": validation, "test": test})
    sets = _draw(data, ready, part, (validation, test), config, withheld)
    new_user, new_item = _numbers(ready, config)
    own_users, own_items = np.argsort(new_user), np.argsort(new_item)
    return Split(
        users=data.users.take(ready.users[own_users]),
        catalog=data.catalog.take(ready.items[own_items]),
        train=_renumbered_rows(train, new_user, new_item),
        validation=_renumbered(validation, sets and sets[0], new_user, new_item),
        test=_renumbered(test, sets and sets[1], new_user, new_item),
        counts=_counts(ready, part, train, validation, test) | withheld.counts(rows, part),
        candidates_hash=_hash(data, ready, (validation, test), sets),
        held_out=withheld.renumbered(data, ready, new_user, new_item),
    )


def _cases(
    ready: Prepared,
    part: NDArray[np.int8],
    name: int,
    config: ProtocolConfig,
    withheld: Withheld,
    shots: int | None,
) -> _Part:
    rows, n_users, n_items = ready.interactions, len(ready.users), len(ready.items)
    testing = name == TEST
    asked = rows.take(withheld.asked(rows, part) if testing else withheld.learned(rows, part, name))
    # A user's repeated target (repeats=keep) is one target, at its first place.
    keys = asked.user.astype(np.int64) * n_items + asked.item
    _, first = np.unique(keys, return_index=True)
    asked = asked.take(np.sort(first))
    user = np.unique(asked.user).astype(np.int64)
    shown = part < (TEST if testing and config.validation_in_history else VALIDATION)
    length = config.history_length if shots is None else min(config.history_length, shots)
    history = newest(rows.take(shown & withheld.shown(rows)).histories(n_users), length)
    masked = None
    if config.candidates == "full":
        masked = _masked(ready, part < name, user, config, withheld.pool(name))
    return _Part(
        user.astype(np.int32),
        history.take(user),
        asked.histories(n_users).take(user),
        masked,
    )


def _masked(
    ready: Prepared,
    earlier: BoolArray,
    user: Int64Array,
    config: ProtocolConfig,
    pool: BoolArray | None,
) -> Ragged | None:
    """Return, for each case's user, what is left out of the whole catalog's ranking."""
    n_users, n_items = len(ready.users), len(ready.items)
    if not config.mask_seen and pool is None:
        return None
    seen = ready.interactions.take(earlier if config.mask_seen else np.zeros_like(earlier))
    users, items = seen.user, seen.item
    if pool is not None:
        outside = np.flatnonzero(~pool).astype(np.int32)
        users = np.concatenate((users, np.repeat(user.astype(np.int32), len(outside))))
        items = np.concatenate((items, np.tile(outside, len(user))))
    return unique_items(users, items, n_users, n_items).take(user)


def _check_sizes(
    data: RecData,
    ready: Prepared,
    needed: dict[str, Sized],
    config: ProtocolConfig,
    transfer: TransferConfig | None,
) -> None:
    for name, part in needed.items():
        if not len(part):
            held_out = "" if transfer is None else f" and transfer.hold_out={transfer.hold_out}"
            other = " or raise transfer.share" if held_out else ""
            raise ProtocolError(
                f"{data.name} has no {name} under split={config.split}{held_out}: "
                f"{len(ready.interactions)} interactions of {len(ready.users)} users are left "
                f"after the filter; change split, ratios or k_core{other}"
            )


def _check_masks(data: RecData, ready: Prepared, parts: dict[str, _Part]) -> None:
    n_items = len(ready.items)
    for name, cases in parts.items():
        if cases.masked is None:
            continue
        hidden = cases.masked.row_ids * n_items + cases.masked.values
        keys = cases.targets.row_ids * n_items + cases.targets.values
        bad = np.flatnonzero(np.isin(keys, hidden, assume_unique=True))
        if len(bad):
            user = data.users[int(ready.users[cases.user[keys[bad[0]] // n_items]])]
            item = data.catalog.items[int(ready.items[keys[bad[0]] % n_items])]
            raise ProtocolError(
                f"mask_seen would remove {len(bad)} of {len(keys)} {name} targets, e.g. item "
                f"{item!r} that user {user!r} took before; use protocol.repeats=first (or last), "
                f"or protocol.mask_seen=false"
            )


def _draw(
    data: RecData,
    ready: Prepared,
    part: NDArray[np.int8],
    parts: tuple[_Part, _Part],
    config: ProtocolConfig,
    withheld: Withheld,
) -> tuple[Int32Array, Int32Array] | None:
    """Candidate sets (B, C) of validation and test in shown order; None = the whole catalog."""
    if config.candidates == "full":
        return None
    n_users, n_items = len(ready.users), len(ready.items)
    rows = ready.interactions
    seen = SeenItems(rows.user, rows.item, n_users, n_items)
    names = [data.users[i] for i in ready.users.tolist()]
    from_file = _file(data, ready, config)
    drawn = []
    for name, cases in zip(("validation", "test"), parts, strict=True):
        number = TEST if name == "test" else VALIDATION
        counted = part == TRAIN
        if number == VALIDATION:  # what is held out decides nothing that a model sees
            counted = withheld.learned(rows, part, TRAIN)
        weights = _weights(rows.take(counted), n_items, config, withheld.pool(number))
        rng = stream(config.data_seed, CANDIDATE_STREAM, number)
        if from_file is not None and (name == "test" or from_file[name]):
            sets = file_sets(from_file[name], cases.user, cases.targets, names, name)
        else:
            size = config.n_candidates
            kind = withheld.kind(number)
            sets = candidate_sets(rng, cases.user, cases.targets, seen, size, weights, names, kind)
        # Sorted first, so that the shown order does not depend on how a set came about.
        drawn.append(rng.permuted(np.sort(sets, axis=1), axis=1))
    return drawn[0], drawn[1]


def _hash(
    data: RecData,
    ready: Prepared,
    parts: tuple[_Part, _Part],
    sets: tuple[Int32Array, Int32Array] | None,
) -> str:
    """Return the hash of the candidate sets; "" for the whole catalog."""
    if sets is None:
        return ""
    users = [data.users[i] for i in ready.users.tolist()]
    items = [data.catalog.items[i] for i in ready.items.tolist()]
    drawn = [(p.user, p.targets, s) for p, s in zip(parts, sets, strict=True)]
    return hash_candidates(drawn, users, items)


def _weights(
    train: Interactions, n_items: int, config: ProtocolConfig, pool: BoolArray | None
) -> NDArray[np.float64] | None:
    """Return (N,) weights of negatives: popularity within the pool; None = uniform over all."""
    if config.candidates == "popular":
        counts = np.bincount(train.item, minlength=n_items).astype(np.float64)
        return counts if pool is None else np.where(pool, counts, 0.0)
    return None if pool is None else pool.astype(np.float64)


def _file(
    data: RecData, ready: Prepared, config: ProtocolConfig
) -> dict[str, dict[int, Int32Array]] | None:
    """Candidate sets of the file by part and canonical user; None without a file."""
    if config.candidates_file is None:
        return None
    items = data.catalog.items.take(ready.items)
    found = read_candidates(config.candidates_file, data.users, items, config.n_candidates)
    canonical = {own: i for i, own in enumerate(ready.users.tolist())}
    return {
        name: {canonical[user]: row for user, row in sets.items() if user in canonical}
        for name, sets in found.items()
    }


def _numbers(ready: Prepared, config: ProtocolConfig) -> tuple[Int64Array, Int64Array]:
    """Return new numbers of canonical users and items: by seed, or in the data set's own order."""
    if not config.permute_ids:
        return np.argsort(np.argsort(ready.users)), np.argsort(np.argsort(ready.items))
    rng = stream(config.data_seed, NUMBER_STREAM)
    return rng.permutation(len(ready.users)), rng.permutation(len(ready.items))


def _renumbered_rows(
    rows: Interactions, new_user: Int64Array, new_item: Int64Array
) -> Interactions:
    user = new_user[rows.user].astype(np.int32)
    order = np.argsort(user, kind="stable")
    item = new_item[rows.item].astype(np.int32)
    moved = rows.take(order)
    return replace(moved, user=user[order], item=item[order], part=None)


def _renumbered(
    cases: _Part, sets: Int32Array | None, new_user: Int64Array, new_item: Int64Array
) -> Cases:
    user = new_user[cases.user].astype(np.int32)
    order = np.argsort(user)
    items = new_item.astype(np.int32)

    def renumber(rows: Ragged) -> Ragged:
        return Ragged(items[rows.values], rows.offsets).take(order)

    return Cases(
        queries=Queries(
            user=user[order],
            history=renumber(cases.history),
            candidates=None if sets is None else items[sets[order]],
        ),
        targets=renumber(cases.targets),
        masked=None if cases.masked is None else renumber(cases.masked),
    )


def _counts(
    ready: Prepared, part: NDArray[np.int8], train: Interactions, validation: _Part, test: _Part
) -> dict[str, int]:
    n_users, n_items = len(ready.users), len(ready.items)
    cold_item = np.bincount(train.item, minlength=n_items) == 0
    cold_user = np.bincount(train.user, minlength=n_users) == 0
    is_case = np.zeros(n_users, np.bool_)
    is_case[test.user] = is_case[validation.user] = True
    return {
        **ready.counts,
        "n_users": n_users,
        "n_items": n_items,
        "n_interactions": len(ready.interactions),
        "n_train": len(train),
        "n_validation_cases": len(validation.user),
        "n_validation_targets": len(validation.targets.values),
        "n_test_cases": len(test.user),
        "n_test_targets": len(test.targets.values),
        "n_users_train_only": n_users - int(is_case.sum()),
        "n_cold_test_users": int(cold_user[test.user].sum()),
        "n_cold_test_targets": int(cold_item[test.targets.values].sum()),
        "n_empty_test_histories": int((test.history.lengths == 0).sum()),
        "n_test_cases_tied_in_time": _tied(ready, part, test),
    }


def _tied(ready: Prepared, part: NDArray[np.int8], test: _Part) -> int:
    asked = np.isin(ready.interactions.user, test.user)
    return crossing_ties(ready.interactions.take(asked), part[asked])


def describe_leaks(config: ProtocolConfig) -> tuple[str, ...]:
    """Return sentences on what a protocol lets a model know too early, for records and cards."""
    notes = {
        "leave-one-out": "leave-one-out: each user is cut at an own time, so train holds "
        "interactions of other users that are newer than a test case (leaks across users in time)",
        "user-ratio": "user-ratio: each user is cut at an own time, so train holds interactions of "
        "other users that are newer than a test case (leaks across users in time)",
        "random-ratio": "random-ratio: train and histories hold interactions that are newer than "
        "the targets, of the same user too (leaks in time)",
        "global-time": "",
        "given": "given: the data set's publisher divided it; whether train holds what is newer "
        "than a test case is not known here",
    }
    found = [notes[config.split]]
    if not config.permute_ids:
        found.append("item numbers keep the data set's own order, which may tell the next item")
    return tuple(note for note in found if note)
