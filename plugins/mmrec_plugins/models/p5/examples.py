"""P5's training examples: each train interaction becomes one prompt of a drawn family and wording.

Letters: n examples of an epoch, C candidates.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmrec_bench.candidates import SeenItems, draw_negatives
from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import BoolArray, Int32Array, Int64Array, Review
from mmrec_plugins.models.p5.options import P5Config
from mmrec_plugins.models.p5.prompts import Prompt, read_prompts

log = logging.getLogger("mmrec_bench")

OF_REVIEWS = frozenset({"review", "explanation"})
"""Families that are asked of interactions with a review."""
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s")


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt's content.

    Attributes:
        prompt: the wording.
        user: number.
        items: slot -> items.
        target: the item that was taken.
        verdict: whether the judged item is the target.
        rating: the interaction's.
        review: what the user wrote of the target, where the prompt is about that.
    """

    prompt: Prompt
    user: int
    items: dict[str, list[int]]
    target: int
    verdict: bool
    rating: float
    review: Review | None = None

    @property
    def texts(self) -> dict[str, str]:
        """Slot -> text that is asked about."""
        return {"given": f"{self.rating:g}", "written": self.review.text if self.review else ""}

    @property
    def explanation(self) -> str:
        """The first sentence of the review."""
        return _SENTENCE_END.split(self.review.text, maxsplit=1)[0] if self.review else ""


def usable_families(config: P5Config, data: TrainingData) -> tuple[dict[str, float], list[str]]:
    """Return shares of the families that the data set can be asked, and why others are left out."""
    shares = {name: share for name, share in config.families.items() if share > 0}
    left_out = []
    if not reviewed(data).any():
        for name in sorted(OF_REVIEWS & shares.keys()):
            del shares[name]
            left_out.append(
                f"prompt family {name} is left out: the data set has no reviews, or was not asked "
                "for them (-o dataset.reviews=true, of amazon)"
            )
    ratings = data.interactions.rating
    if "rating" in shares and (not len(ratings) or ratings.min() == ratings.max()):
        del shares["rating"]
        left_out.append("prompt family rating is left out: the data set has no ratings")
    return shares, left_out


def reviewed(data: TrainingData) -> BoolArray:
    """Return (n,) bool: which train interactions have a review with a title and a text."""
    rows = data.interactions
    if rows.review is None:
        return np.zeros(len(rows), np.bool_)
    whole = (one is not None and bool(one.summary) and bool(one.text) for one in rows.review)
    return np.fromiter(whole, np.bool_, len(rows))


class Examples:
    """Draws the tasks of an epoch.

    Every train interaction is one example an epoch: its item is the target, what the user took
    before is the history. The first interactions of users have no history and are asked only in
    families that need none, those without a review likewise; where there is no such family, they
    are left out.
    """

    def __init__(self, data: TrainingData, config: P5Config) -> None:
        """Prepare.

        Raises:
            ModelError: there is no example.
        """
        shares, left_out = usable_families(config, data)
        for line in left_out:
            log.info("%s", line)
        self._prompts = [prompt for prompt in read_prompts() if prompt.family in shares]
        counts = {name: sum(p.family == name for p in self._prompts) for name in shares}
        weights = np.array([shares[p.family] / counts[p.family] for p in self._prompts])
        needs_history = np.array(["history" in p.slots for p in self._prompts], bool)
        needs_review = np.array([p.family in OF_REVIEWS for p in self._prompts], bool)
        # Kinds of rows: 0 = all can be asked, 1 = no history, 2 = no review, 3 = neither.
        self._ladders = [
            np.cumsum(np.where(needs_history & cold | needs_review & mute, 0.0, weights))
            for mute in (False, True)
            for cold in (False, True)
        ]
        rows = data.interactions
        self._rows, self._config = rows, config
        starts = data.interactions.histories(data.n_users).offsets[:-1][rows.user]
        self._starts: Int64Array = starts
        self._kind: Int64Array = (np.arange(len(rows)) == starts) + 2 * ~reviewed(data)
        askable = np.array([len(ladder) > 0 and ladder[-1] > 0 for ladder in self._ladders])
        self._usable = np.flatnonzero(askable[self._kind])
        if not len(self._usable):
            raise ModelError(
                f"there is nothing to learn from: {len(rows)} train interactions of "
                f"{data.n_users} users, prompt families {', '.join(config.families)}; lower "
                "protocol.k_core, use more data, or change model.families"
            )
        self._seen = SeenItems(rows.user, rows.item, data.n_users, data.n_items)
        self._drawable = np.ones(data.n_items)
        if data.held_out is not None:
            self._drawable[data.held_out.items] = 0.0

    def __len__(self) -> int:
        """Return the examples of an epoch."""
        return len(self._usable)

    def draw(self, rng: np.random.Generator, block: int) -> Iterator[list[Task]]:
        """Yield the tasks of one epoch in random order, at most `block` at a time."""
        order = rng.permutation(self._usable)
        for start in range(0, len(order), block):
            yield self._tasks(order[start : start + block], rng)

    def _tasks(self, rows: Int64Array, rng: np.random.Generator) -> list[Task]:
        chosen = self._choose_prompts(rows, rng)
        slots = [self._prompts[at].slots for at in chosen.tolist()]
        user = self._rows.user[rows]
        free = self._seen.available(user, self._drawable)
        wanted = np.array(
            [
                self._config.n_candidates - 1 if "candidates" in names else int("judged" in names)
                for names in slots
            ]
        )
        negatives = draw_negatives(rng, user, np.minimum(wanted, free), self._seen, self._drawable)
        verdicts = rng.random(len(rows)) < 0.5
        keys = rng.random((len(rows), self._config.n_candidates))
        return [
            self._task(int(row), self._prompts[at], negatives[i], bool(verdicts[i]), keys[i])
            for i, (row, at) in enumerate(zip(rows.tolist(), chosen.tolist(), strict=True))
        ]

    def _choose_prompts(self, rows: Int64Array, rng: np.random.Generator) -> Int64Array:
        drawn = rng.random(len(rows))
        chosen = np.zeros(len(rows), np.int64)
        for kind, ladder in enumerate(self._ladders):
            at = np.searchsorted(ladder, drawn * ladder[-1], side="right")
            mine = self._kind[rows] == kind
            chosen[mine] = np.minimum(at, len(ladder) - 1)[mine]
        return chosen

    def _task(
        self,
        row: int,
        prompt: Prompt,
        negatives: Int32Array,
        verdict: bool,
        keys: np.ndarray[tuple[int], np.dtype[np.float64]],
    ) -> Task:
        target = int(self._rows.item[row])
        others = negatives[negatives >= 0].tolist()
        items: dict[str, list[int]] = {}
        for slot in prompt.slots:
            if slot == "history":
                first = max(int(self._starts[row]), row - self._config.history_length)
                items[slot] = self._rows.item[first:row].tolist()
            elif slot == "candidates":
                listed = [target, *others]
                items[slot] = [listed[i] for i in np.argsort(keys[: len(listed)]).tolist()]
            elif slot == "judged":
                verdict = verdict or not others
                items[slot] = [target] if verdict else others[:1]
            elif slot == "rated":
                items[slot] = [target]
        user, rating = int(self._rows.user[row]), float(self._rows.rating[row])
        reviews = self._rows.review if prompt.family in OF_REVIEWS else None
        review = None if reviews is None else reviews[row]
        return Task(prompt, user, items, target, verdict, rating, review)
