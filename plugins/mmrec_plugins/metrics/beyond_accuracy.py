"""What lists are like apart from whether they hit: coverage, exposure, novelty, diversity, balance.

All look at the first k items of each case's list (`Ranks.top`; ties by item number), where a list
may be shorter. Under a protocol with candidate sets a list is drawn from these candidates, so that
coverage and the like speak of the candidates as much as of the model; compare them over the whole
catalog (`protocol.candidates=full`).

Letters: B cases, k places, N items, A values of an attribute.
"""

from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from mmrec_bench.errors import ConfigError
from mmrec_bench.types import Catalog, Int32Array, Measurement, Outcomes, Ragged
from mmrec_plugins.metrics.ranking import AtK, CutConfig

Float64Array = NDArray[np.float64]
_NUMBERS = 1 << 21
"""Numbers handled at a time."""


class _OfLists(AtK):
    """A metric of the first k items of each list."""

    def _lists(self, outcomes: Outcomes) -> Int32Array:
        """Return (B, k) items, -1 = none.

        Raises:
            ConfigError: k is longer than the lists that are kept.
        """
        top = outcomes.ranks.top
        if self.k > top.shape[1]:
            raise ConfigError(
                f"{self.name} needs lists of {self.k} items; runs keep the first {top.shape[1]}"
            )
        return top[:, : self.k]

    def _exposure(self, outcomes: Outcomes) -> Float64Array:
        """Return (N,) how often each item stands in a list."""
        shown = self._lists(outcomes)
        counts = np.bincount(shown[shown >= 0], minlength=len(outcomes.catalog))
        return counts.astype(np.float64)

    def _mean_of(self, outcomes: Outcomes, values: Float64Array) -> Float64Array:
        """Return (B,) mean of (N,) item values over each list; NaN for an empty list."""
        shown = self._lists(outcomes)
        there = shown >= 0
        total = np.where(there, values[shown], 0.0).sum(axis=1)
        n_shown = there.sum(axis=1)
        return np.where(n_shown > 0, total / np.maximum(n_shown, 1), np.nan)


class Coverage(_OfLists):
    """Share of the catalog that stands in at least one list; no value of a case.

    Source: Ge et al., Beyond accuracy: evaluating recommender systems by coverage and serendipity,
    RecSys 2010 (catalog coverage).
    """

    kind = "coverage"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; in [0, 1]."""
        exposure = self._exposure(outcomes)
        defined = len(outcomes.ranks) > 0 and len(exposure) > 0
        return Measurement(float((exposure > 0).mean()) if defined else float("nan"))


class Gini(_OfLists):
    """Inequality of how often items are shown: 0 = all alike, near 1 = a few items only.

    G = sum over items in increasing order of exposure of (2 i - N - 1) x_i / (N sum x); items that
    are never shown count. No value of a case.

    Source: Fleder and Hosanagar, Blockbuster culture's next rise or fall, Management Science 2009.
    """

    kind = "gini"
    higher_is_better = False

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; in [0, 1)."""
        exposure = np.sort(self._exposure(outcomes))
        total, n = exposure.sum(), len(exposure)
        if not total:
            return Measurement(float("nan"))
        order = 2 * np.arange(1, n + 1) - n - 1
        return Measurement(float(order @ exposure / (n * total)))


class Novelty(_OfLists):
    """Mean self-information of the items shown, in bits.

    - log2 p(i) with p(i) = (c_i + 1) / (sum c + N) from train interactions c; the paper has the
      share of users, and no items without interactions, hence the added ones.

    Source: Zhou et al., Solving the apparent diversity-accuracy dilemma, PNAS 2010.
    """

    kind = "novelty"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; bits, NaN for an empty list."""
        counts = outcomes.item_counts.astype(np.float64)
        bits = -np.log2((counts + 1) / (counts.sum() + len(counts)))
        return Measurement.mean(self._mean_of(outcomes, bits))


class Popularity(_OfLists):
    """Mean train interactions of the items shown; lower is less popularity bias.

    Source: Yin et al., Challenging the long tail recommendation, VLDB 2012 (ARP).
    """

    kind = "popularity"
    higher_is_better = False

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; interactions, NaN for an empty list."""
        counts = outcomes.item_counts.astype(np.float64)
        return Measurement.mean(self._mean_of(outcomes, counts))


class PopularityLift(_OfLists):
    """How much more popular a list is than the history: (mean shown - mean taken) / mean taken.

    0 = as popular as what the user took. Undefined for a case without a history. The paper takes
    the means over a group of users first; here each case counts alike.

    Source: Abdollahpouri et al., The unfairness of popularity bias in recommendation, RMSE at
    RecSys 2019 (group average popularity).
    """

    kind = "popularity_lift"
    higher_is_better = False

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; a ratio, NaN without a history or a list."""
        counts = outcomes.item_counts.astype(np.float64)
        shown = self._mean_of(outcomes, counts)
        taken = _row_means(_histories(outcomes, self.name), counts)
        return Measurement.mean(
            np.where(taken > 0, (shown - taken) / np.maximum(taken, 1e-9), np.nan)
        )


class _Diversity(_OfLists):
    """1 - mean cosine of all pairs of a list, by the vectors of an encoder."""

    modality: ClassVar[str]

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; in [0, 2], NaN where fewer than two items of a list have a vector.

        A vector of zeros points nowhere, and counts as none.
        """
        vectors = outcomes.vectors.get(self.modality)
        if vectors is None:
            raise ConfigError(f"{self.name} needs {self.modality} vectors of the items")
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = np.nan_to_num(vectors / np.maximum(length, 1e-12))
        known = np.asarray(np.isfinite(length[:, 0]) & (length[:, 0] > 0), np.bool_)
        shown = self._lists(outcomes)
        values = np.empty(len(shown))
        step = max(1, _NUMBERS // (self.k * unit.shape[1]))
        for start in range(0, len(shown), step):
            block = shown[start : start + step]
            there = (block >= 0) & known[block]
            # The sum of all pairs' products is the square of the sum, less the squares.
            rows = np.where(there[:, :, None], unit[block], 0.0)
            n = there.sum(axis=1).astype(np.float64)
            total = rows.sum(axis=1)
            pairs = (total * total).sum(axis=1) - (rows * rows).sum(axis=(1, 2))
            mean = pairs / np.maximum(n * (n - 1), 1)
            values[start : start + len(block)] = np.where(n >= 2, 1 - mean, np.nan)
        return Measurement.mean(values)


class TextDiversity(_Diversity):
    """Intra-list diversity by words: 1 - mean cosine of all pairs, by a sentence encoder's vectors.

    Source: Ziegler et al., Improving recommendation lists through topic diversification, WWW 2005
    (intra-list similarity, here one minus its mean).
    """

    kind = "text_diversity"
    modality = "text"
    reads_modalities: ClassVar[tuple[str, ...]] = ("text",)
    default_vectors: ClassVar[dict[str, str]] = {"text_vectors": "minilm"}


class ImageDiversity(_Diversity):
    """Intra-list diversity by pictures: 1 - mean cosine of all pairs, by an encoder's vectors.

    Source: as `TextDiversity`.
    """

    kind = "image_diversity"
    modality = "image"
    reads_modalities: ClassVar[tuple[str, ...]] = ("image",)
    default_vectors: ClassVar[dict[str, str]] = {"vectors": "efficientnet"}


class Calibration(_OfLists):
    """How far a list's shares of an attribute are from the history's: a divergence, 0 = the same.

    KL(p || q~) in nats with p the shares in the history, q in the list, q~ = 0.99 q + 0.01 p (the
    paper's alpha). An item with several values ("Drama|War") gives each an equal part; genres may
    also stand between commas, which belong to a value elsewhere ("Acme, Inc."). Undefined where the
    history has no known value. The paper weighs recent items; here all count alike.

    Source: Steck, Calibrated recommendations, RecSys 2018, equation 6.
    """

    class Config(CutConfig):
        """Options of the calibration."""

        attribute: str = Field(
            "auto", description="of the items; auto = genres, category or brand, what there is"
        )

    kind = "calibration"
    higher_is_better = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._attribute = config.attribute

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; nats, NaN without a known value in the history or the list."""
        shares = _shares(outcomes.catalog, self._attribute)  # (N, A)
        history = _histories(outcomes, self.name)
        shown = self._lists(outcomes)
        values = np.full(len(shown), np.nan)
        step = max(1, _NUMBERS // max(1, shares.shape[1]))  # rows of A numbers at a time
        for start in range(0, len(shown), step):
            block = shown[start : start + step]
            rows = np.arange(start, start + len(block))
            taken = _normalised(_row_sums(history.take(rows), shares))  # (b, A)
            lists = Ragged.from_lengths(block[block >= 0], (block >= 0).sum(axis=1))
            given = _normalised(_row_sums(lists, shares))
            mixed = 0.99 * given + 0.01 * taken
            with np.errstate(divide="ignore", invalid="ignore"):
                terms = np.where(taken > 0, taken * np.log(taken / mixed), 0.0)
            known = (taken.sum(axis=1) > 0) & (given.sum(axis=1) > 0)
            values[start : start + len(block)] = np.where(known, terms.sum(axis=1), np.nan)
        return Measurement.mean(values)


def _histories(outcomes: Outcomes, name: str) -> Ragged:
    if outcomes.histories is None:
        raise ConfigError(f"{name} needs the histories of the cases, which were not given")
    return outcomes.histories


def _row_sums(rows: Ragged, values: sp.csr_array) -> Float64Array:
    """Return (B, A) sums of (N, A) item values over each row."""
    shape = (len(rows), values.shape[0])
    chosen = sp.csr_array((np.ones(len(rows.values)), rows.values, rows.offsets), shape=shape)
    return np.asarray((chosen @ values).toarray(), np.float64)


def _row_means(rows: Ragged, values: Float64Array) -> Float64Array:
    """Return (B,) means of (N,) item values over each row; NaN for an empty one."""
    total = np.bincount(rows.row_ids, weights=values[rows.values], minlength=len(rows))
    lengths = rows.lengths
    return np.where(lengths > 0, total / np.maximum(lengths, 1), np.nan)


def _normalised(rows: Float64Array) -> Float64Array:
    total = rows.sum(axis=1, keepdims=True)
    return np.asarray(rows / np.where(total > 0, total, 1.0), np.float64)


def _shares(catalog: Catalog, attribute: str) -> sp.csr_array:
    """Return (N, A) what part of each item belongs to each value; rows of 0 where it has none.

    Sparse: there can be about as many brands as items.

    Raises:
        ConfigError: no item has the attribute.
    """
    names = ("genres", "category", "brand") if attribute == "auto" else (attribute,)
    for name in names:
        words = [_values(name, item.get(name, "")) for item in catalog.attributes]
        if any(words):
            break
    else:
        raise ConfigError(f"calibration: no item has an attribute {' or '.join(names)}")
    known = {word: i for i, word in enumerate(sorted({w for some in words for w in some}))}
    lengths = np.array([len(some) for some in words])
    column = np.array([known[word] for some in words for word in some])
    parts = np.repeat(1 / np.maximum(lengths, 1), lengths)
    row = np.repeat(np.arange(len(words)), lengths)
    return sp.csr_array((parts, (row, column)), shape=(len(catalog), len(known)))


def _values(attribute: str, text: str) -> list[str]:
    """Return what stands between "|"; a data set writes genres between commas, too."""
    if attribute == "genres":
        text = text.replace(",", "|")
    return [part.strip() for part in text.split("|") if part.strip()]
