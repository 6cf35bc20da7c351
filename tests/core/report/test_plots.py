import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mmrec_bench.cases import CaseTable
from mmrec_bench.report.axes import linear, logarithmic, short
from mmrec_bench.report.plots import Mark, Series, intervals, lines, scatter
from mmrec_bench.report.slices import means, slicings

HOSTILE = '<script>"&'


def table(length: list[int], popularity: list[int], pictured: list[bool]) -> CaseTable:
    return CaseTable(
        users_hash="u",
        values={},
        history_length=np.array(length, np.int32),
        popularity=np.array(popularity),
        pictured=np.array(pictured),
    )


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 1.0], (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ([0.31, 0.42], (0.3, 0.325, 0.35, 0.375, 0.4, 0.425)),
        ([-3.0, 7.0], (-4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0)),
    ],
)
def test_an_axis_has_round_ticks_around_its_values(
    values: list[float], ticks: tuple[float, ...]
) -> None:
    axis = linear(values, 0, 100)
    assert axis.ticks == ticks
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high) == 100
    assert len({axis.label(tick) for tick in ticks}) == len(ticks)


@pytest.mark.parametrize("values", [[1.31, 1.4], [0.001, 75.0], [5.0], [1e-6, 1e6]])
def test_an_axis_of_ratios_has_ticks_whatever_its_range(values: list[float]) -> None:
    axis = logarithmic(values, 0, 100)
    assert 2 <= len(axis.ticks) <= 6
    places = [axis.place(tick) for tick in axis.ticks]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)
    # equal ratios are equal distances
    assert axis.place(axis.low * 1.1) - axis.place(axis.low) == pytest.approx(
        axis.place(axis.high) - axis.place(axis.high / 1.1), abs=0.02
    )


def test_an_axis_of_ratios_has_as_many_round_ticks_as_have_room() -> None:
    assert logarithmic([0.002, 0.55], 0, 100).ticks == pytest.approx((0.003, 0.01, 0.03, 0.1, 0.3))
    assert logarithmic([2.0, 40.0], 0, 100).ticks == (2, 5, 10, 20, 50)
    assert logarithmic([0.001, 75.0], 0, 100).ticks == pytest.approx((0.001, 0.01, 0.1, 1, 10))


def test_one_value_and_equal_values_have_an_axis() -> None:
    for values in ([0.5], [0.0, 0.0], [2.0, 2.0]):
        axis = linear(values, 0, 10)
        assert axis.low < axis.high


def test_numbers_are_short() -> None:
    told = {0.5: "0.5", 1234.0: "1.23e+03", 12345.0: "12.3k", 2.5e6: "2.5M", 3e9: "3G"}
    assert {value: short(value) for value in told} == told


def test_plots_are_well_formed_and_labels_are_text() -> None:
    marks = [Mark(1, HOSTILE, 0.4, 0.3, 0.5, 2.0), Mark(2, "b", 0.2, x=9.0)]
    series = [Series(1, HOSTILE, (0.1, None, 0.3), (0.05, None, 0.1)), Series(2, "b", (0.2,) * 3)]
    plots = [
        intervals(marks, HOSTILE, 1),
        scatter(marks, HOSTILE, HOSTILE),
        lines(series, ["a", HOSTILE, "c"], HOSTILE, "x", [1, 2, 3], reference=0.2),
    ]
    for plot in plots:
        root = ET.fromstring(plot)
        assert root.get("role") == "img"
        assert HOSTILE in str(root.get("aria-label"))
        assert not list(root.iter("script"))
        for element in root.iter():
            assert not [name for name in element.attrib if name.startswith("on")]
            numbers = [element.get(n) for n in ("cx", "cy", "x", "y") if element.get(n)]
            assert all(-1e4 < float(str(number)) < 1e4 for number in numbers)


def test_a_gap_in_a_series_is_no_point() -> None:
    plot = lines([Series(1, "a", (None, 0.2, 0.4))], ["x", "y", "z"], "t", "u")
    assert plot.count("<circle") == 2
    assert "MM" not in plot


def test_numbers_of_rows_at_one_point_do_not_cover_one_another() -> None:
    marks = [Mark(i, "r", 0.5, x=3.0) for i in range(1, 6)] + [Mark(6, "far", 0.1, x=30.0)]
    root = ET.fromstring(scatter(marks, "m", "s"))
    places = {(t.get("x"), t.get("y")) for t in root.iter("text") if t.get("class") == "name best"}
    assert len(places) == 6


def test_slices_hold_each_case_once() -> None:
    rng = np.random.default_rng(0)
    length, counts = rng.integers(0, 80, 300), rng.integers(0, 50, 300)
    found = slicings(table(length.tolist(), counts.tolist(), (counts > 9).tolist()))
    assert [len(one.parts) for one in found] == [7, 3, 2]
    for one in found:
        assert (np.sum(list(one.parts.values()), axis=0) == 1).all()
    tail, mid, head = found[1].parts.values()
    assert counts[tail].max() < counts[mid].min() <= counts[mid].max() < counts[head].min()


def test_cases_that_are_all_alike_are_not_divided() -> None:
    assert slicings(table([4] * 9, [2] * 9, [True] * 9)) == []


def test_the_mean_of_a_slice_is_that_of_its_defined_cases() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.0, 1.0, np.nan, 0.5, 0.5])
    parts = {"a": np.arange(8) < 6, "b": np.arange(8) >= 6}
    mean, error = means(values, parts)
    assert mean[0] == pytest.approx(3 / 5)
    assert mean[1] is None  # two cases are too few to tell
    assert error[0] == pytest.approx(1.96 * np.std([0, 1, 1, 0, 1], ddof=1) / 5**0.5)
