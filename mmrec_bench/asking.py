"""Asking a model: in which orders, what it hears first, and whether its scores can be trusted."""

from collections.abc import Sized
from dataclasses import fields, replace
from typing import get_args

import numpy as np

from mmrec_bench import guard
from mmrec_bench.counting import rank
from mmrec_bench.errors import PluginError
from mmrec_bench.interfaces import AsksAhead, Recommender
from mmrec_bench.permutations import combine, draw_orders, places_shown, put_back, show
from mmrec_bench.planning import PlannedRun
from mmrec_bench.types import Answers, Cases, Int32Array, Int64Array, Outcome, Queries, Scores


def shown_orders(planned: PlannedRun, cases: Cases) -> Int64Array | None:
    """Return (B, n, C) the orders in which candidates are shown; None where none are."""
    candidates = cases.queries.candidates
    if candidates is None or not planned.recommender.reads_instructions:
        return None
    config = planned.config
    return draw_orders(
        len(cases), candidates.shape[1], config.permutations, config.protocol.data_seed
    )


def score_in_orders(
    recommender: Recommender, part: Cases, orders: Int64Array, name: str
) -> tuple[Scores, Int32Array]:
    """Ask each case once an order; return the combined scores and where targets were shown."""
    answered = []
    for number in range(orders.shape[1]):
        queries = show(part.queries, orders[:, number])
        scores = ask(recommender, queries, 0, name)
        answered.append(replace(scores, values=put_back(scores.values, orders[:, number])))
    ranks = [rank(scores.values, part) for scores in answered]
    return combine(answered), places_shown(part, orders, ranks)


def announce(
    recommender: AsksAhead, queries: Queries, orders: Int64Array | None, name: str
) -> None:
    """Tell a model all that it will be asked, in the orders in which it will be asked."""
    with guard.calling("model", name, recommender, "announce"):
        if orders is None:
            recommender.announce(queries)
            return
        for number in range(orders.shape[1]):
            recommender.announce(show(queries, orders[:, number]))


def ask(recommender: Recommender, queries: Queries, n_items: int, name: str) -> Scores:
    """Return a model's scores, checked.

    Raises:
        PluginError: it raised, or gave scores of the wrong type, shape or dtype, or infinite ones.
    """
    with guard.calling("model", name, recommender, "score"):
        scores = recommender.score(queries)
    check_scores(scores, queries, n_items, f"{name!r} of {guard.owner_of(recommender)}")
    return scores


def check_scores(scores: Scores, queries: Queries, n_items: int, name: str) -> None:
    """Check a model's scores at the seam, so that the inside can trust them.

    Raises:
        PluginError: wrong type, shape or dtype, or an infinity; names the model.
    """
    width = n_items if queries.candidates is None else queries.candidates.shape[1]
    expected = (len(queries), width)
    if not isinstance(scores, Scores):
        raise PluginError(f"model {name} returned {type(scores).__name__}, expected Scores")
    values = scores.values
    if not isinstance(values, np.ndarray) or values.shape != expected:
        found = getattr(values, "shape", type(values).__name__)
        raise PluginError(f"model {name} returned scores of shape {found}, expected {expected}")
    if values.dtype != np.float32:
        raise PluginError(f"model {name} returned {values.dtype} scores, expected float32")
    # fmax and fmin pass over NaN, and make no array of the size of the scores.
    if values.size and np.isinf([np.fmax.reduce(values, None), np.fmin.reduce(values, None)]).any():
        raise PluginError(
            f"model {name} returned infinite scores, expected finite ones; NaN leaves out a "
            "candidate"
        )
    if scores.answers is not None:
        _check_answers(scores.answers, len(queries), name)


def _check_answers(answers: object, n: int, name: str) -> None:
    """Raise PluginError unless there is one of everything a query, and outcomes are known ones."""
    if not isinstance(answers, Answers):
        found = type(answers).__name__
        raise PluginError(f"model {name} returned answers of type {found}, expected Answers")
    for column in fields(answers):
        value = getattr(answers, column.name)
        kind = tuple if column.name in {"text", "outcome"} else np.ndarray
        if value is None and column.default is None:
            continue
        if not isinstance(value, kind) or len(value) != n:
            found = f"{len(value)} in " if isinstance(value, Sized) else ""
            raise PluginError(
                f"model {name} returned answers whose {column.name} is {found}a "
                f"{type(value).__name__}, expected {n} in a {kind.__name__}"
            )
    if unknown := sorted({str(one) for one in answers.outcome} - set(get_args(Outcome))):
        raise PluginError(
            f"model {name} returned answers whose outcome is {unknown[0]!r}, expected one of "
            f"{', '.join(get_args(Outcome))}"
        )
