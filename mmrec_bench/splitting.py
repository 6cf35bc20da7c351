"""Filter, order and divide interactions; no Python loop over users.

All of it works in a canonical numbering (ids sorted as strings), so that what is drawn by a seed
does not depend on how a loader numbered its users and items.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.config import ProtocolConfig
from mmrec_bench.errors import ProtocolError
from mmrec_bench.types import BoolArray, Int32Array, Int64Array, Interactions, Ragged, Vocabulary

TRAIN, VALIDATION, TEST = 0, 1, 2

TIE_STREAM, SPLIT_STREAM, NUMBER_STREAM, CANDIDATE_STREAM = 1, 2, 3, 4
PERMUTATION_STREAM, PICTURE_STREAM, HOLD_OUT_STREAM = 5, 6, 7
"""Random streams of one data seed: changing one step leaves the draws of the others alone."""


def stream(seed: int, *names: int) -> np.random.Generator:
    """Return the generator of one named step under `seed`."""
    return np.random.default_rng([seed, *names])


@dataclass(frozen=True)
class Prepared:
    """Interactions after the filter, in the canonical numbering of what was kept.

    Attributes:
        interactions: sorted by (user, time, tie rule).
        users: (n_users,) int64 number of each kept user in the data set's own vocabulary.
        items: (N,) int64 the same for items.
        counts: what was dropped, and why.
    """

    interactions: Interactions
    users: Int64Array
    items: Int64Array
    counts: dict[str, int]


def prepare(
    rows: Interactions, users: Vocabulary, items: Vocabulary, config: ProtocolConfig
) -> Prepared:
    """Threshold ratings, order equal times, drop repeats, take the k-core, renumber.

    Items without an interaction left are dropped as well: they can be nobody's target, and a
    catalog of raw metadata would make every ranking look harder than it is.

    Raises:
        ProtocolError: nothing is left.
    """
    user_order, item_order = _sorted_ids(users), _sorted_ids(items)
    rows = _renumber(rows, _inverse(user_order), _inverse(item_order))
    counts = {"n_interactions_read": len(rows)}
    if config.min_rating is not None:
        rows = _kept(rows, rows.rating >= config.min_rating, "dropped_rating", counts)
        _require(rows, f"no interaction is rated {config.min_rating:g} or more")
    if config.ties_in_time == "shuffle":
        keys = stream(config.data_seed, TIE_STREAM).random(len(rows))
        rows = rows.take(np.lexsort((keys, rows.timestamp, rows.user)))
    if config.repeats != "keep":
        keep = _without_repeats(rows, len(items), last=config.repeats == "last")
        rows = _kept(rows, keep, "dropped_repeats", counts)
    rows = _kept(rows, k_core(rows, config.k_core), "dropped_k_core", counts)
    _require(rows, f"no user and item keep {config.k_core} interactions each; lower k_core")
    kept_users, user = np.unique(rows.user, return_inverse=True)
    kept_items, item = np.unique(rows.item, return_inverse=True)
    compact = replace(rows, user=user.astype(np.int32), item=item.astype(np.int32))
    counts["same_time_ties_ppm"] = round(1e6 * float(_tied_in_time(compact).mean()))
    return Prepared(compact, user_order[kept_users], item_order[kept_items], counts)


def k_core(rows: Interactions, k: int) -> BoolArray:
    """Return (n,) bool: rows whose user and item keep at least `k` rows, found by iteration."""
    keep = np.ones(len(rows), np.bool_)
    n_before = -1
    while k > 1 and len(rows) and (n_now := int(keep.sum())) != n_before:
        n_before = n_now
        for column in (rows.user, rows.item):
            keep &= np.bincount(column[keep], minlength=int(column.max()) + 1)[column] >= k
    return keep


def assign_parts(rows: Interactions, n_users: int, config: ProtocolConfig) -> NDArray[np.int8]:
    """Return (n,) int8 of TRAIN, VALIDATION, TEST.

    leave-one-out: a user's last interaction is the test case, the last but one the validation
    case; users with fewer than 3 interactions stay in train. It leaks across users in time.
    user-ratio, random-ratio: per user, the newest shares, or random ones. Sizes are those of
    RecBole's ratio split: each share is rounded down, and a share above zero gets at least one
    interaction, test first, while train keeps one.
    global-time: two cuts at quantiles of all times; interactions at the cut's own second go to the
    later part, so that no part sees a time of a later one.
    given: as the data set is published; a repeat that the filter drops is the only change.

    Raises:
        ProtocolError: split=given, and the data set has no division of its own.
    """
    if config.split == "given":
        if rows.part is None:
            raise ProtocolError(
                "split=given: this data set has no published division; use split=leave-one-out, "
                "user-ratio, random-ratio or global-time"
            )
        return rows.part
    lengths = np.bincount(rows.user, minlength=n_users)
    starts = np.cumsum(lengths) - lengths
    position = np.arange(len(rows)) - starts[rows.user]
    if config.split == "leave-one-out":
        from_end = lengths[rows.user] - 1 - position
        held_out = np.where(from_end == 0, TEST, np.where(from_end == 1, VALIDATION, TRAIN))
        return np.where(lengths[rows.user] >= 3, held_out, TRAIN).astype(np.int8)
    if config.split == "global-time":
        return _by_time(rows.timestamp, config.ratios)
    if config.split == "random-ratio":
        keys = stream(config.data_seed, SPLIT_STREAM).random(len(rows))
        shuffled = np.empty_like(position)
        shuffled[np.lexsort((keys, rows.user))] = position
        position = shuffled
    n_validation, n_test = ratio_sizes(lengths, config.ratios)
    first_test = (lengths - n_test)[rows.user]
    first_validation = first_test - n_validation[rows.user]
    part = np.where(position >= first_validation, VALIDATION, TRAIN)
    return np.where(position >= first_test, TEST, part).astype(np.int8)


def ratio_sizes(
    lengths: Int64Array, ratios: tuple[float, float, float]
) -> tuple[Int64Array, Int64Array]:
    """Return (n_users,) validation and test sizes of users with `lengths` interactions."""
    sizes = [np.floor(ratio * lengths).astype(np.int64) for ratio in ratios]
    train = lengths - sizes[1] - sizes[2]
    going_on = np.ones(len(lengths), np.bool_)
    for i in (2, 1):
        going_on &= train > 1
        share = ratios[i] * lengths
        more = going_on & (share > 0) & (share < 1)
        sizes[i] += more
        train = train - more
    return sizes[1], sizes[2]


def crossing_ties(rows: Interactions, part: NDArray[np.int8]) -> int:
    """Count users whose test interaction shares its time with one of another part."""
    same = (rows.user[1:] == rows.user[:-1]) & (rows.timestamp[1:] == rows.timestamp[:-1])
    crossing = same & (part[1:] != part[:-1]) & (np.maximum(part[1:], part[:-1]) == TEST)
    return len(np.unique(rows.user[1:][crossing]))


def newest(rows: Ragged, length: int) -> Ragged:
    """Return the last `length` values of each row."""
    lengths = np.minimum(rows.lengths, length)
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first = np.repeat(rows.offsets[1:] - lengths, lengths)
    return Ragged.from_lengths(rows.values[first + within], lengths)


def unique_items(user: Int32Array, item: Int32Array, n_users: int, n_items: int) -> Ragged:
    """Return each user's different items, one row a user, in item order."""
    # With `return_index` numpy sorts, which these, half in order, take well; else it hashes.
    keys, _ = np.unique(user.astype(np.int64) * n_items + item, return_index=True)
    lengths = np.bincount(keys // max(n_items, 1), minlength=n_users)
    return Ragged.from_lengths((keys % max(n_items, 1)).astype(np.int32), lengths)


def _sorted_ids(names: Vocabulary) -> Int64Array:
    return np.array(sorted(range(len(names)), key=names.ids.__getitem__), np.int64)


def _inverse(order: Int64Array) -> Int64Array:
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return inverse


def _renumber(rows: Interactions, new_user: Int64Array, new_item: Int64Array) -> Interactions:
    """Renumber and sort by the new users; each user's own order stays as it is."""
    user = new_user[rows.user].astype(np.int32)
    order = np.argsort(user, kind="stable")
    item = new_item[rows.item].astype(np.int32)
    return replace(rows, user=user, item=item).take(order)


def _kept(rows: Interactions, keep: BoolArray, name: str, counts: dict[str, int]) -> Interactions:
    counts[name] = len(rows) - int(keep.sum())
    return rows.take(keep)


def _require(rows: Interactions, reason: str) -> None:
    if not len(rows):
        raise ProtocolError(f"no interaction is left: {reason}")


def _without_repeats(rows: Interactions, n_items: int, *, last: bool) -> BoolArray:
    keys = rows.user.astype(np.int64) * n_items + rows.item
    _, first = np.unique(keys[::-1] if last else keys, return_index=True)
    keep = np.zeros(len(rows), np.bool_)
    keep[len(rows) - 1 - first if last else first] = True
    return keep


def _tied_in_time(rows: Interactions) -> BoolArray:
    same = (rows.user[1:] == rows.user[:-1]) & (rows.timestamp[1:] == rows.timestamp[:-1])
    tied = np.zeros(len(rows), np.bool_)
    tied[1:] |= same
    tied[:-1] |= same
    return tied


def _by_time(times: Int64Array, ratios: tuple[float, float, float]) -> NDArray[np.int8]:
    ordered, n = np.sort(times), len(times)
    # 1e-9 keeps 0.8 + 0.1 from falling short of 0.9 by rounding.
    cuts = [int(share * n + 1e-9) for share in (ratios[0], ratios[0] + ratios[1])]
    validation, test = (ordered[min(cut, n - 1)] for cut in cuts)
    part = np.where(times >= validation, VALIDATION, TRAIN)
    return np.where(times >= test, TEST, part).astype(np.int8)
