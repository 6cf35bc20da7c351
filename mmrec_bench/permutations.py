"""The orders in which a case's candidates are shown, and what is made of several answers.

Language models favour places of a list (Hou et al., ECIR 2024), so that one order is one draw. With
n permutations each case is asked n times, in orders drawn by the data seed; the first is the order
of the candidate set itself, which is drawn too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from mmrec_bench.splitting import PERMUTATION_STREAM, stream
from mmrec_bench.types import (
    Answers,
    Cases,
    FloatArray,
    Int32Array,
    Int64Array,
    Outcome,
    Queries,
    Ranks,
    Scores,
)

_SEVERITY: tuple[Outcome, ...] = ("ok", "repaired", "invalid", "refused")


def draw_orders(n_cases: int, n_candidates: int, n: int, seed: int) -> Int64Array:
    """Return (B, n, C) int64: the candidate that stands at each place, for each order of a case.

    A case's orders depend on its row, the seed and the number of the order alone, so that the first
    rows of a longer list are the same.
    """
    orders = np.empty((n_cases, n, n_candidates), np.int64)
    orders[:, 0] = np.arange(n_candidates)
    for number in range(1, n):
        keys = stream(seed, PERMUTATION_STREAM, number).random((n_cases, n_candidates))
        orders[:, number] = keys.argsort(axis=1)
    return orders


def show(queries: Queries, order: Int64Array) -> Queries:
    """Return the queries with their candidates in (B, C) another order."""
    if queries.candidates is None:
        raise ValueError("queries over the whole catalog have no order")
    return replace(queries, candidates=np.take_along_axis(queries.candidates, order, axis=1))


def put_back(values: FloatArray, order: Int64Array) -> FloatArray:
    """Return (B, C) scores of `show`n queries in the candidates' own order."""
    own = np.empty_like(values)
    np.put_along_axis(own, order, values, axis=1)
    return own


def combine(answered: Sequence[Scores]) -> Scores:
    """Make one opinion of several, all in the candidates' own order.

    Likelihoods are averaged. Written lists are combined by mean place (Borda count): a candidate
    that a list leaves out shares the places behind it; one that no list names stays left out.
    """
    if len(answered) == 1:
        return answered[0]
    stacked = np.stack([scores.values for scores in answered])  # (n, B, C)
    left_out = np.isnan(stacked)
    if all(scores.answers is None for scores in answered):
        counts = (~left_out).sum(axis=0)
        sums = np.where(left_out, 0, stacked).sum(axis=0, dtype=np.float64)
        values = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        return Scores(values.astype(np.float32))
    places = np.stack([_places(one) for one in stacked]).mean(axis=0)
    places[left_out.all(axis=0)] = np.nan
    answers = [scores.answers for scores in answered if scores.answers is not None]
    return Scores((-places).astype(np.float32), _join(answers))


def _places(values: FloatArray) -> NDArray[np.float64]:
    """(B, C) mean 0-based place of each candidate, left-out ones behind all others."""
    known = np.where(np.isnan(values), -np.inf, values)
    better = (known[:, None, :] > known[:, :, None]).sum(axis=2)
    tied = (known[:, None, :] == known[:, :, None]).sum(axis=2) - 1
    places: NDArray[np.float64] = better + tied / 2
    return places


def _join(answers: Sequence[Answers]) -> Answers:
    """One answer a case: texts as a JSON list, the worst outcome, sums of all that is counted."""
    texts_of = list(zip(*(one.text for one in answers), strict=True))
    outcomes = zip(*(one.outcome for one in answers), strict=True)

    def total(name: str) -> NDArray[Any] | None:
        found = [getattr(one, name) for one in answers]
        if any(one is None for one in found):
            return None
        summed: NDArray[Any] = np.sum(found, axis=0)
        return summed

    counted = ("hallucinated", "prompt_tokens", "answer_tokens", "retries", "seconds", "cost")
    columns: dict[str, Any] = {name: total(name) for name in counted}
    return Answers(
        text=tuple(orjson.dumps(list(texts)).decode() for texts in texts_of),
        outcome=tuple(max(some, key=_SEVERITY.index) for some in outcomes),
        **columns,
    )


def places_shown(cases: Cases, orders: Int64Array, ranks: Sequence[Ranks]) -> Int32Array:
    """Return where each case's first target was shown, and where the model put it.

    Args:
        cases: B cases with explicit candidates.
        orders: (B, n, C), see `draw_orders`.
        ranks: of each order's scores, in the candidates' own order.

    Returns:
        (B, n, 3) int32: 0-based place in the list; candidates that the model put before the target,
        -1 where it left the target out; candidates that it put level with the target.
    """
    if cases.queries.candidates is None:
        raise ValueError("cases over the whole catalog show no list")
    targets = cases.targets.values[cases.targets.offsets[:-1]]
    own = (cases.queries.candidates == targets[:, None]).argmax(axis=1)
    found = np.zeros((*orders.shape[:2], 3), np.int32)
    found[:, :, 0] = (orders == own[:, None, None]).argmax(axis=2)
    for number, one in enumerate(ranks):
        first = one.first_target[:-1]
        found[:, number, 1] = np.where(one.ranked[first], one.n_better[first], -1)
        found[:, number, 2] = np.where(one.ranked[first], one.n_tied[first], 0)
    return found


def by_position(shown: Int32Array, n_candidates: int) -> dict[str, list[float | None]]:
    """Return how often a target came first, by the place where it was shown.

    Args:
        shown: (B, n, 3), see `places_shown`.
        n_candidates: C.

    Returns:
        `n`: times shown at each of the C places; `hit_rate@1`: share of them in which the model put
        it first (the expectation over the orders of a tie), None where n = 0.
    """
    place, better, tied = shown.reshape(-1, 3).T
    first = np.where(better == 0, 1 / (tied + 1), 0.0)
    counts = np.bincount(place, minlength=n_candidates).tolist()
    hits = np.bincount(place, weights=first, minlength=n_candidates).tolist()
    return {
        "n": counts,
        "hit_rate@1": [h / n if n else None for h, n in zip(hits, counts, strict=True)],
    }
