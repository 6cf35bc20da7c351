import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mmrec_bench.cases import CaseTable, write_cases
from mmrec_bench.cli.compare import command
from mmrec_bench.comparison import Comparison, Group, compare
from mmrec_bench.errors import ConfigError, StorageError, UnknownNameError
from mmrec_bench.leaderboard import Cell, build
from mmrec_bench.records import Interval, RunRecord, Stored, digest, write_record
from mmrec_bench.statistics import paired_test
from mmrec_bench.tables import comparison_table
from mmrec_bench.terminal import Table
from tests.core.test_records import make_record, make_spec

NAN = float("nan")
Values = Mapping[str, np.ndarray | float]
"""Metric -> (B,) values, or one of all lists at once."""


def run(
    model: str, values: Values, *, seed: int = 0, better: bool = True
) -> tuple[RunRecord, CaseTable]:
    """Return a record with these metrics, and its per-case values."""
    arrays = {name: one for name, one in values.items() if isinstance(one, np.ndarray)}
    n = len(next(iter(arrays.values())))
    table = CaseTable(
        users_hash="u",
        values=arrays,
        history_length=np.full(n, 3, np.int32),
        popularity=np.arange(n),
        pictured=np.ones(n, np.bool_),
    )
    metrics = {}
    for name, one in values.items():
        value, count = (float(np.mean(one)), n) if name in arrays else (float(one), 0)
        value_or_none = None if np.isnan(value) else value
        metrics[name] = Interval(
            value=value_or_none, n=count, low=None, high=None, higher_is_better=better
        )
    plain = make_record(make_spec(model, seed=seed))
    found = {"metrics": metrics, "cases": table.hash}
    found["digest"] = digest(plain.spec, plain.counts, metrics)
    return plain.model_copy(update=found), table


def group(title: str, *values: Values, better: bool = True) -> Group:
    """Return runs that differ in their seed alone."""
    runs = [run(title, one, seed=seed, better=better) for seed, one in enumerate(values)]
    return Group(title, tuple(record for record, _ in runs), tuple(table for _, table in runs))


def stored(folder: Path, *groups: Group) -> list[Stored]:
    """Write records and per-case values."""
    found = []
    for one in groups:
        for record, table in zip(one.records, one.cases, strict=True):
            found.append(Stored(write_record(folder, record), record))
            write_cases(found[-1].path, table)
    return found


def text(found: Comparison, level: float = 0.05) -> str:
    return str(comparison_table(found, level)[-1])


@pytest.mark.parametrize("n_seeds", [3, 7])
def test_equal_seeds_against_one_equal_run_are_all_ties(n_seeds: int, tmp_path: Path) -> None:
    values = {"m": np.random.default_rng(0).random(500)}
    many, one = group("many", *[values] * n_seeds), group("one", values)
    [pair] = compare([many, one]).pairs
    assert (pair.test.wins, pair.test.ties, pair.test.losses) == (0, 500, 0)
    assert (pair.test.difference, pair.p_holm, pair.better) == (0, 1, None)
    [board] = build(stored(tmp_path, many, one))
    assert sorted(str(row.cells["m"].p_best) for row in board.rows) == ["1.0", "None"]


def test_seeds_are_averaged_in_each_case() -> None:
    many = group("many", {"m": np.array([1.0, 0.0, 3.0])}, {"m": np.array([3.0, 0.0, 1.0])})
    [pair] = compare([many, group("one", {"m": np.array([1.0, 1.0, 1.5])})]).pairs
    # (2 - 1, 0 - 1, 2 - 1.5); with the first seed alone the first case is a tie
    assert (pair.a, pair.test.wins, pair.test.losses, pair.test.ties) == ("many", 2, 1, 0)
    assert pair.test.difference == pytest.approx(0.5 / 3)


def test_the_permutation_test_decides() -> None:
    five = [group("a", {"m": np.ones(5)}), group("b", {"m": np.zeros(5)})]
    found = compare(five)
    [pair] = found.pairs
    assert pair.test.p_bootstrap < 0.001
    assert pair.p_holm == pair.test.p_permutation == 1 / 16
    assert pair.better is None
    assert "no corrected p-value can be below 0.062" in text(found)
    decided = compare(five, level=0.07)
    assert decided.pairs[0].better == "a"
    assert text(decided, 0.07).startswith("1 of 1 differences are real at level 0.07 (sign-flip")
    assert "below" not in text(decided, 0.07)


def test_what_is_better_follows_the_metric() -> None:
    losses = {"a": 1.0, "b": 0.0, "c": 2.0}
    groups = [
        group(name, {"loss": np.full(9, loss)}, better=False) for name, loss in losses.items()
    ]
    found = compare(groups)
    assert [(pair.a, pair.b, pair.better) for pair in found.pairs] == [
        ("b", "a", "b"),
        ("b", "c", "b"),
        ("a", "c", "a"),
    ]


def test_a_planted_difference_is_found_among_33_groups() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(60)
    groups = [group(f"g{i}", {"m": base + rng.normal(0, 0.1, 60)}) for i in range(32)]
    found = compare([*groups, group("best", {"m": base + 1})])
    assert len(found.pairs) == 33 * 32 / 2
    beaten = [pair for pair in found.pairs if pair.a == "best"]
    assert max(pair.p_holm for pair in beaten) <= 0.025
    assert {pair.better for pair in beaten} == {"best"}
    assert {pair.better for pair in found.pairs if pair.a != "best"} == {None}


def test_a_pair_without_a_common_case_is_undecided_and_not_counted() -> None:
    half = np.repeat([1.0, NAN], 8)
    groups = [group("a", {"m": half}), group("b", {"m": half[::-1].copy()})]
    found = compare([*groups, group("c", {"m": np.zeros(16)})])
    apart = [pair for pair in found.pairs if {pair.a, pair.b} == {"a", "b"}]
    assert np.isnan(apart[0].p_holm)
    assert apart[0].better is None
    assert sorted(p.p_holm for p in found.pairs if p is not apart[0]) == [4 / 2**8, 4 / 2**8]


def test_all_p_values_stand_in_the_table() -> None:
    found = compare([group("a", {"m": np.ones(9)}), group("b", {"m": np.zeros(9)})])
    [_, table] = [block for block in comparison_table(found, 0.05) if isinstance(block, Table)]
    assert table.header[2:6] == ("p bootstrap", "p Wilcoxon", "p permutation", "p Holm")
    assert table.rows[0][2:6] == ["0.0001", "0.0039", "0.0039", "0.0039"]
    assert all(len(row) == len(table.header) for row in table.rows)


def test_runs_that_share_no_metric_say_so() -> None:
    with pytest.raises(StorageError, match="no metric has per-case values in all of these runs"):
        compare([group("a", {"m": np.ones(5)}), group("b", {"k": np.ones(5)})])


def test_a_metric_that_a_run_lacks_can_be_measured() -> None:
    groups = [group("a", {"m": np.ones(5), "k": np.ones(5)}), group("b", {"m": np.ones(5)})]
    with pytest.raises(StorageError, match=r"evaluate b-s0-\w+ --metrics k`, or choose among m"):
        compare(groups, ["k"])


@pytest.mark.parametrize("value", [0.25, NAN])
def test_a_metric_of_all_lists_at_once_cannot_be_paired(value: float) -> None:
    groups = [group(name, {"m": np.ones(5), "coverage@10": value}) for name in "ab"]
    with pytest.raises(StorageError, match="measures all lists at once") as error:
        compare(groups, ["coverage@10"])
    assert "evaluate" not in str(error.value)
    assert str(error.value).endswith("choose among m")


def test_a_board_marks_by_the_test_that_compare_decides_by(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.random(300)
    groups = [
        group(f"m{i}", {"m": base + rng.normal(mean, 0.2, 300)})
        for i, mean in enumerate((0.5, 0.48, 0.3))
    ]
    [board] = build(stored(tmp_path, *groups), baseline="m2")
    best, second, third = (row.cells["m"] for row in board.rows)
    p = [
        paired_test(groups[i].cases[0].values["m"], groups[0].cases[0].values["m"]).p_permutation
        for i in (1, 2)
    ]
    assert (second.p_best, third.p_best) == pytest.approx((p[0], 2 * p[1]))
    assert isinstance(best, Cell)
    assert best.p_best is None
    assert "sign-flip permutation test over cases, Holm over the rows" in board.legend


def test_the_command_prints_every_number(tmp_path: Path) -> None:
    found = stored(tmp_path, group("a", {"m": np.ones(9)}), group("b", {"m": np.zeros(9)}))
    ids = [one.record.run_id for one in found]
    done = CliRunner().invoke(command, [*ids, "--results", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    [pair] = json.loads(done.stdout)["pairs"]
    assert (pair["p_permutation"], pair["p_least"], pair["p_holm"]) == (1 / 256,) * 3
    assert (pair["wins"], pair["better"], pair["effect"]) == (9, "a", None)


def test_the_command_knows_the_metrics_of_all_runs(tmp_path: Path) -> None:
    found = stored(tmp_path, group("a", {"m": np.ones(5)}), group("b", {"k": np.ones(5)}))
    args = [*(one.record.run_id for one in found), "--results", str(tmp_path), "--metrics"]
    lacking = CliRunner().invoke(command, [*args, "k"])
    assert isinstance(lacking.exception, StorageError)
    assert "evaluate a-s0" in str(lacking.exception)
    unknown = CliRunner().invoke(command, [*args, "n"])
    assert isinstance(unknown.exception, UnknownNameError)


def test_a_metric_that_is_given_twice_is_compared_with_nothing() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        compare([group("a", {"m": np.ones(5)}), group("b", {"m": np.ones(5)})], ("m", "m"))
