import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mmrec_bench.errors import ConfigError
from mmrec_bench.interfaces import Metric
from mmrec_bench.testing import MetricTests
from mmrec_bench.types import Catalog, Outcomes, Ragged, Ranks, Vocabulary
from mmrec_plugins.metrics.beyond_accuracy import (
    Calibration,
    Coverage,
    Gini,
    ImageDiversity,
    Novelty,
    Popularity,
    PopularityLift,
    TextDiversity,
)
from mmrec_plugins.metrics.ranking import CutConfig

TOP = [[0, 1], [0, 2], [0, -1]]
"""Lists of three cases over four items; the last is one item long, item 3 is never shown."""
COUNTS = [8, 4, 2, 0]


def outcomes(top: list[list[int]] = TOP, **more: object) -> Outcomes:
    n = len(top)
    ones = np.ones(n, np.int32)
    ranks = Ranks(
        n_better=0 * ones,
        n_tied=0 * ones,
        ranked=np.ones(n, np.bool_),
        case=np.arange(n),
        n_targets=ones,
        n_candidates=4 * ones,
        top=np.array(top, np.int32),
    )
    names = [f"i{i}" for i in range(4)]
    catalog = Catalog(
        Vocabulary(names),
        names,
        attributes=[{"genres": "War"}, {"genres": "War|Drama"}, {"genres": "Comedy"}, {}],
    )
    histories = Ragged.from_rows([[1], [0, 2], []])
    values = {"histories": histories, "vectors": {}, **more}
    return Outcomes(ranks, catalog, np.array(COUNTS), **values)  # type: ignore[arg-type]


def at(cls: Callable[[CutConfig], Metric], k: int = 2) -> Metric:
    return cls(CutConfig(k=k))


def per_case(metric: Metric, found: Outcomes) -> list[float]:
    values = metric.measure(found).per_case
    assert values is not None
    return [float(value) for value in values]


def test_coverage_is_the_share_of_items_in_any_list() -> None:
    assert at(Coverage).measure(outcomes()).value == 3 / 4
    assert at(Coverage, 1).measure(outcomes()).value == 1 / 4


def test_gini_is_worked_by_hand() -> None:
    # exposure 0 1 1 3 sorted; weights -3 -1 1 3: (-1 + 1 + 9) / (4 * 5)
    assert at(Gini).measure(outcomes()).value == pytest.approx(9 / 20)
    even = outcomes([[0, 1], [2, 3]], histories=Ragged.from_rows([[], []]))
    assert at(Gini).measure(even).value == 0


def test_list_metrics_have_no_value_of_a_case() -> None:
    assert at(Coverage).measure(outcomes()).per_case is None
    assert at(Gini).measure(outcomes()).per_case is None


def test_novelty_is_the_mean_information_of_a_list() -> None:
    bits = [-math.log2((c + 1) / (14 + 4)) for c in COUNTS]
    expected = [(bits[0] + bits[1]) / 2, (bits[0] + bits[2]) / 2, bits[0]]
    assert per_case(at(Novelty), outcomes()) == pytest.approx(expected)


def test_popularity_and_its_lift_are_worked_by_hand() -> None:
    assert per_case(at(Popularity), outcomes()) == [6.0, 5.0, 8.0]
    # histories: item 1 (4); items 0 and 2 (mean 5); none
    first, second, third = per_case(at(PopularityLift), outcomes())
    assert [first, second] == pytest.approx([0.5, 0.0])
    assert math.isnan(third)


@pytest.mark.parametrize(("cls", "name"), [(TextDiversity, "text"), (ImageDiversity, "image")])
def test_diversity_is_one_less_the_mean_cosine(
    cls: Callable[[CutConfig], Metric], name: str
) -> None:
    vectors = np.array([[2, 0], [0, 5], [1, 1], [3, 3]], np.float32)
    found = outcomes([[0, 1, 2], [2, 3, -1], [0, -1, -1]], vectors={name: vectors})
    first, second, third = per_case(at(cls, 3), found)
    half = 1 / math.sqrt(2)
    assert first == pytest.approx(1 - (0 + half + half) / 3, abs=1e-6)
    assert second == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(third)


def test_an_item_without_a_vector_is_left_out_of_the_pairs() -> None:
    vectors = np.array([[1, 0], [np.nan, np.nan], [0, 1], [1, 0]], np.float32)
    found = outcomes([[0, 1, 2]], vectors={"text": vectors}, histories=Ragged.from_rows([[0]]))
    assert per_case(at(TextDiversity, 3), found) == [pytest.approx(1.0)]


def test_an_item_whose_vector_is_zero_is_left_out_of_the_pairs() -> None:
    vectors = np.array([[1, 0], [0, 0], [1, 1], [0, 0]], np.float32)
    found = outcomes([[0, 1, 2], [0, 1, 3]], vectors={"text": vectors})
    first, second = per_case(at(TextDiversity, 3), found)
    assert first == pytest.approx(1 - 1 / math.sqrt(2), abs=1e-6)
    assert math.isnan(second)


def test_diversity_without_vectors_says_so() -> None:
    with pytest.raises(ConfigError, match="needs text vectors"):
        at(TextDiversity).measure(outcomes())


def test_calibration_is_worked_by_hand() -> None:
    metric = Calibration(Calibration.Config(k=2))
    first, second, third = per_case(metric, outcomes())
    # history War 1/2 Drama 1/2; list {War, War|Drama}: War 3/4 Drama 1/4
    q = {"war": 0.99 * 0.75 + 0.005, "drama": 0.99 * 0.25 + 0.005}
    assert first == pytest.approx(0.5 * math.log(0.5 / q["war"]) + 0.5 * math.log(0.5 / q["drama"]))
    assert second == pytest.approx(0.0)  # War and Comedy, half each, in both
    assert math.isnan(third)


def calibrated(attribute: str, values: list[str], top: list[int], history: list[int]) -> float:
    names = [f"i{i}" for i in range(len(values))]
    attributes = [{attribute: value} if value else {} for value in values]
    catalog = Catalog(Vocabulary(names), names, attributes=attributes)
    found = replace(
        outcomes([top], histories=Ragged.from_rows([history])),
        catalog=catalog,
        item_counts=np.zeros(len(values), np.int64),
    )
    (value,) = per_case(Calibration(Calibration.Config(k=len(top))), found)
    return value


def test_commas_divide_genres_and_no_brand() -> None:
    assert calibrated("genres", ["War, Drama", "War|Drama"], [1, -1], [0]) == pytest.approx(0)
    # "Acme, Inc." and "Bolt, Inc." share no value: all of p lies where q has nothing.
    apart = calibrated("brand", ["Acme, Inc.", "Bolt, Inc."], [1, -1], [0])
    assert apart == pytest.approx(-math.log(0.01))
    assert calibrated("brand", ["Acme, Inc.", "Acme, Inc."], [1, -1], [0]) == pytest.approx(0)


def test_calibration_holds_no_number_for_each_item_and_value() -> None:
    n = 3000
    values = [f"brand {i}" for i in range(n)]
    tracemalloc.start()
    try:
        assert calibrated("brand", values, [0, 1], [0, 1]) == pytest.approx(0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < n * n  # bytes; a dense table has 8 n^2


def test_an_attribute_that_no_item_has_is_named() -> None:
    metric = Calibration(Calibration.Config(k=2, attribute="colour"))
    with pytest.raises(ConfigError, match="attribute colour"):
        metric.measure(outcomes())


def test_a_cut_longer_than_the_lists_is_refused() -> None:
    with pytest.raises(ConfigError, match="keep the first 2"):
        at(Coverage, 5).measure(outcomes())


@pytest.mark.parametrize("cls", [Coverage, Gini, Novelty, Popularity])
def test_nothing_listed_is_undefined_and_not_zero(cls: Callable[[CutConfig], Metric]) -> None:
    empty = outcomes([[-1, -1]], histories=Ragged.from_rows([[0]]))
    value = at(cls).measure(empty).value
    assert math.isnan(value) or (cls is Coverage and value == 0)


class TestNovelty(MetricTests):
    def make(self) -> Metric:
        return at(Novelty)


class TestCoverage(MetricTests):
    def make(self) -> Metric:
        return at(Coverage)
