"""The contract of a `Recommender`."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.contract.findings import Check, DoesNotApplyError, demand, demand_equal, size_of
from mmrec_bench.contract.pickles import is_pickled
from mmrec_bench.contract.subjects import RecommenderSubject
from mmrec_bench.interfaces import Recommender
from mmrec_bench.types import Int32Array, Queries, Ragged, Scores, Split

_ALONE = "a query's score depends on that query alone"


def check_methods(cls: type[Any]) -> None:
    """Check that a class has what every recommender has."""
    missing = [n for n in ("fit", "score", "save", "restore") if not callable(getattr(cls, n, 0))]
    demand(
        not missing,
        f"no {', '.join(missing)}",
        "fit, score, save and restore",
        "write what is missing as docs/plugins/model.md shows",
    )
    demand(
        isinstance(getattr(cls, "reads_instructions", None), bool),
        "no `reads_instructions`",
        "True for a model that is asked by instructions, else False",
        "write `reads_instructions: ClassVar[bool] = False` in the class",
    )


def _score(recommender: Recommender, queries: Queries) -> NDArray[Any]:
    """Return the values of what `score` returns, which must be Scores."""
    scores = recommender.score(queries)
    values = getattr(scores, "values", None)
    held = f"Scores that hold a {type(values).__name__}"
    demand(
        isinstance(scores, Scores) and isinstance(values, np.ndarray),
        held if isinstance(scores, Scores) else f"a {type(scores).__name__}",
        "Scores that hold a numpy array",
        "return Scores(values)",
    )
    return scores.values


def check_scores(subject: RecommenderSubject) -> None:
    """(B, C) float32 Scores, and something is ranked."""
    values, shape = _score(subject.fitted, subject.queries), subject.candidates.shape
    demand(
        values.shape == shape,
        f"shape {values.shape}",
        f"{shape}: one score a candidate, in the order of the query's candidates",
        "score queries.candidates (B, C), not the catalog",
    )
    demand(values.dtype == np.float32, str(values.dtype), "float32", "add .astype(np.float32)")
    _demand_finite(values)
    demand(
        not np.isnan(values).all(),
        "NaN for every candidate of every query",
        "scores; NaN = left out, which counts as a miss",
        "look for a division by zero, or for a model that was never fitted",
    )


def _demand_finite(values: NDArray[Any]) -> None:
    demand(
        not np.isinf(values).any(),
        f"{int(np.isinf(values).sum())} infinite scores",
        "finite ones; NaN = left out",
        "give NaN for what is not scored, and look for a division by zero or a log of zero",
    )


def check_batch(subject: RecommenderSubject) -> None:
    """A query's score is the same alone, among others, and in another order of queries."""
    recommender, queries = subject.fitted, subject.queries
    whole = _score(recommender, queries)
    mend = "look for a mean, a maximum or a padding that is taken over the batch"
    near = {"rtol": 1e-4, "atol": 1e-4 * min(1.0, size_of(whole))}
    for i in (0, len(queries) - 1):
        alone = _score(recommender, queries[i : i + 1])
        demand_equal(alone[0], whole[i], f"{_ALONE}, not on its batch", mend, **near)
    turned = _score(recommender, queries[::-1])
    demand_equal(turned[::-1], whole, f"{_ALONE}, not on its neighbours", mend, **near)


def check_order(subject: RecommenderSubject) -> None:
    """Reversing the candidates reverses the scores; prompts that list them are exempt."""
    if type(subject.fitted).reads_instructions:
        raise DoesNotApplyError("the prompt lists the candidates in order")
    queries = subject.queries
    turned = Queries(queries.user, queries.history, subject.candidates[:, ::-1].copy())
    wanted = _score(subject.fitted, queries)
    demand_equal(
        _score(subject.fitted, turned)[:, ::-1],
        wanted,
        "a candidate's score does not depend on its place in the list, which tells nothing",
        "score each candidate by its item number, not by its column",
        rtol=1e-5,
        atol=1e-6 * size_of(wanted),
    )


def check_given(subject: RecommenderSubject) -> None:
    """What a recommender is given is read, not written."""
    _score(subject.fit(subject.data, "given"), subject.queries)
    for name, array in subject.shared().items():
        demand_equal(
            array,
            subject.before[name],
            f"{name} as it was: other models of the call read it too",
            "work on a copy",
        )
    for name, column in subject.catalog().items():
        demand(
            column == subject.catalog_before[name],
            f"another {name} than before",
            f"{name} as it was: other models of the call read it too",
            "work on a copy",
        )


def check_seed(subject: RecommenderSubject) -> None:
    """The same seed gives the same scores, and no global random state is read or written."""
    first = _score(subject.fitted, subject.queries)
    np.random.seed(123)  # noqa: NPY002 - the point: global state must not matter
    random.seed(123)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(123)
    before = _global_state()
    again = _score(subject.fit(subject.data, "again"), subject.queries)
    untouched = _global_state() == before
    demand_equal(
        again,
        first,
        "the same scores from the same seed",
        "draw from np.random.default_rng(seed), or a torch.Generator that is seeded with it",
    )
    demand(
        untouched,
        "a global random state was seeded or used",
        "that it is left alone",
        "draw from np.random.default_rng(seed), or a torch.Generator that is seeded with it",
    )


def _global_state() -> tuple[object, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - to see that it is left
    torch = sys.modules.get("torch")  # imported by the first fit, where it is used
    drawn = torch.get_rng_state().numpy().tobytes() if torch is not None else b""
    return (random.getstate(), name, np.asarray(keys).tobytes(), *rest, drawn)


def check_restore(subject: RecommenderSubject) -> None:
    """`save` and `restore` bring back the same scores."""
    folder = subject.folder / "saved"
    folder.mkdir(parents=True, exist_ok=True)
    subject.fitted.save(folder)
    # What is kept in the class or the module is that of another fit by then.
    half = subject.fewer(np.arange(len(subject.data.interactions)) % 2 == 0)
    other = subject.fit(half, "half", seed=1)
    other_folder = subject.folder / "saved-other"
    other_folder.mkdir(parents=True, exist_ok=True)
    other.save(other_folder)
    for kept, place, data in ((subject.fitted, folder, subject.data), (other, other_folder, half)):
        restored = subject.make()
        restored.restore(place, data)
        demand_equal(
            _score(restored, subject.queries),
            _score(kept, subject.queries),
            "the same scores after `save` and `restore` in a new object, whatever the seed was",
            "write everything that `score` reads",
            rtol=1e-6,
        )


def check_no_pickles(subject: RecommenderSubject) -> None:
    """Nothing that is saved runs code when it is loaded."""
    folder = subject.folder / "saved-for-pickles"
    folder.mkdir(parents=True, exist_ok=True)
    subject.fitted.save(folder)
    pickled = [
        path.name for path in sorted(folder.rglob("*")) if path.is_file() and is_pickled(path)
    ]
    demand(
        not pickled,
        f"pickles in {', '.join(pickled)}",
        "files that run no code when they are loaded",
        "write .npz, .safetensors or .json; load with allow_pickle=False",
    )


def check_cold(subject: RecommenderSubject) -> None:
    """An empty history and a list of one candidate are legal."""
    queries = Queries(np.array([0], np.int32), Ragged.from_rows([[]]), np.array([[3]], np.int32))
    found = _score(subject.fitted, queries)
    demand(
        found.shape == (1, 1) and found.dtype == np.float32,
        f"{found.dtype} {found.shape} for one query with an empty history and one candidate",
        "float32 (1, 1)",
        "answer a user without a history, e.g. by popularity",
    )
    _demand_finite(found)
    _check_cold_among_others(subject)


def _check_cold_among_others(subject: RecommenderSubject) -> None:
    """An empty history between others is answered as alone, in lists and over the catalog."""
    queries = subject.queries[:2]
    rows = [[], list(queries.history[0]), [], list(queries.history[1])]
    user, history = np.repeat(queries.user, 2), Ragged.from_rows(rows)
    lists: list[Int32Array | None] = [np.repeat(subject.candidates[:2], 2, axis=0)]
    if not type(subject.fitted).reads_instructions:
        lists.append(None)
    for candidates in lists:
        mixed = Queries(user, history, candidates)
        whole = _score(subject.fitted, mixed)
        _demand_finite(whole)
        for i in range(len(rows)):
            demand_equal(
                _score(subject.fitted, mixed[i : i + 1])[0],
                whole[i],
                f"{_ALONE}, also where it is empty, or the one before it",
                "look for an index that takes the last item of a history that has none",
                rtol=1e-4,
                atol=1e-4 * min(1.0, size_of(whole)),
            )


def check_unseen(subject: RecommenderSubject) -> None:
    """Users and items without a train interaction are legal, in histories and among candidates."""
    split, rows = subject.split, subject.data.interactions
    user, last = len(split.users) - 1, len(split.catalog) - 1
    item = int(split.train.item[split.train.item != last][0])
    data = subject.fewer((rows.user != user) & ~np.isin(rows.item, (item, last)))
    other = int(data.interactions.item[0])
    queries = Queries(
        np.array([user, user], np.int32),
        Ragged.from_rows([[item], [other, last]]),
        np.array([[item, other, last]] * 2, np.int32),
    )
    fitted = subject.fit(data, "unseen")
    found = _score(fitted, queries)
    demand(
        found.shape == (2, 3) and not np.isinf(found).any(),
        f"{found.tolist()} for a user and items that train never saw",
        "(2, 3) scores; NaN leaves a candidate out",
        "give rows to all n_users users and n_items items, and divide by no count of 0",
    )
    if not type(fitted).reads_instructions:
        full = _score(fitted, Queries(queries.user, queries.history))
        demand(
            full.shape == (2, last + 1),
            f"shape {full.shape} over the catalog, of which train never saw the last item",
            f"{(2, last + 1)}",
            "take the number of items from data.n_items, not from the interactions",
        )


def check_catalog(subject: RecommenderSubject) -> None:
    """Candidates None means one score for each item; prompts that list them are exempt."""
    if type(subject.fitted).reads_instructions:
        raise DoesNotApplyError("a prompt cannot list the whole catalog")
    queries = subject.queries
    full = _score(subject.fitted, Queries(queries.user, queries.history))
    shape = (len(queries), len(subject.split.catalog))
    demand(
        full.shape == shape and full.dtype == np.float32,
        f"{full.dtype} {full.shape} for queries with candidates=None",
        f"float32 {shape}: the whole catalog, in the order of the item numbers",
        "return one row of all items a query where queries.candidates is None",
    )
    _demand_finite(full)
    demand_equal(
        np.take_along_axis(full, subject.candidates, 1),
        _score(subject.fitted, queries),
        "the same score for an item in a list and in the whole catalog",
        "score a list as np.take_along_axis(catalog_scores, queries.candidates, 1)",
        rtol=1e-5,
        atol=1e-6 * size_of(full),
    )


@contextmanager
def other_truth(split: Split) -> Iterator[None]:
    """Change the test targets, in place, to other candidates of their cases; then put them back.

    Whoever reaches the truth by whatever way (frames, closures, the garbage collector) meets the
    changed one; the queries stay as they are.
    """
    candidates, targets = split.test.queries.candidates, split.test.targets
    if candidates is None:
        raise DoesNotApplyError("the split lists no candidates")
    before = targets.values.copy()
    rows = candidates[targets.row_ids]
    place = (rows == before[:, None]).argmax(axis=1)
    try:
        targets.values[:] = rows[np.arange(len(rows)), (place + 1) % rows.shape[1]]
        yield
    finally:
        targets.values[:] = before


def check_truth(subject: RecommenderSubject) -> None:
    """Another truth behind the same queries changes nothing."""
    before = _score(subject.fitted, subject.queries)
    with other_truth(subject.split):
        after = _score(subject.fit(subject.data, "other-truth"), subject.queries)
    if not np.array_equal(after, before, equal_nan=True):
        same = _score(subject.fit(subject.data, "same-truth"), subject.queries)
        if not np.array_equal(same, before, equal_nan=True):
            raise DoesNotApplyError("scores differ with the same truth too; see `seed`")
    demand_equal(
        after,
        before,
        "the same scores whatever the held-out truth is",
        "look at nothing but `data` and `queries`",
        rtol=1e-6,
    )


METHODS: Check[type[Any]] = Check(
    "methods", "it has its methods, and says whether it reads instructions", check_methods
)
CHECKS: tuple[Check[RecommenderSubject], ...] = (
    Check("scores", "scores are (B, C) float32 and rank something", check_scores),
    Check("batch", "scores do not depend on the batch", check_batch),
    Check("order", "scores do not depend on the order of candidates", check_order),
    Check("catalog", "the whole catalog is scored as lists are", check_catalog),
    Check("cold", "an empty history and a single candidate are scored", check_cold),
    Check("unseen", "users and items that train never saw are scored", check_unseen),
    Check("seed", "the same seed gives the same scores", check_seed),
    Check("restore", "a restored model scores alike", check_restore),
    Check("pickles", "what is saved holds no pickle", check_no_pickles),
    Check("given", "what is given is not changed", check_given),
    Check("truth", "the held-out truth changes nothing", check_truth),
)
