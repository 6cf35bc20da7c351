import csv
import html
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmrec_bench.cases import CaseTable, cases_path, read_cases, write_cases
from mmrec_bench.comparison import compare, labels, load_groups
from mmrec_bench.errors import ConfigError, MMRecError, ProtocolError, StorageError
from mmrec_bench.leaderboard import FORMATS, Board, averaged, build, render, told_apart
from mmrec_bench.records import (
    Interval,
    RunRecord,
    RunSpec,
    Stored,
    digest,
    read_record,
    write_record,
)
from tests.core.test_records import make_record, make_spec

N_CASES = 200
HOSTILE = '<script>alert("1")</script> & {x} | _y_ \\z'


def measured(
    folder: Path, spec: RunSpec, values: np.ndarray, *, users: str = "u", backbone: str = ""
) -> Stored:
    """Write a record whose metric is the mean of these per-case values, and the values."""
    table = CaseTable(
        users_hash=users,
        values={"ndcg@10": values},
        history_length=np.full(len(values), 3, np.int32),
        popularity=np.arange(len(values)),
        pictured=np.ones(len(values), np.bool_),
    )
    plain = make_record(spec, backbone=backbone)
    metrics = {"ndcg@10": Interval(value=float(values.mean()), n=len(values), low=0.0, high=1.0)}
    record = plain.model_copy(
        update={
            "metrics": metrics,
            "cases": table.hash,
            "digest": digest(spec, plain.counts, metrics),
        }
    )
    path = write_record(folder, record)
    write_cases(path, table)
    return Stored(path, record)


def noise(seed: int, mean: float = 0.5) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(mean, 0.1, N_CASES), 0, 1)


def plain(records: list[RunRecord]) -> list[Stored]:
    """Return records that have no per-case values."""
    return [Stored(Path("nowhere.json"), record) for record in records]


def rows_of(boards: list[Board]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(boards, "csv"))))


def test_rows_are_ranked_within_a_protocol_only() -> None:
    records = [
        make_record(make_spec("a"), 0.2),
        make_record(make_spec("b"), 0.9),
        make_record(make_spec("c", n_candidates=100), 0.1),
        make_record(make_spec("d", dataset="other"), 0.3),
    ]
    ranks = {row["model"]: row["rank"] for row in rows_of(build(plain(records)))}
    assert ranks == {"a": "2", "b": "1", "c": "1", "d": "1"}


def test_equal_values_share_a_rank_and_undefined_is_last() -> None:
    records = [make_record(make_spec(m), v) for m, v in (("a", 0.5), ("b", 0.5), ("c", None))]
    ranks = {row["model"]: row["rank"] for row in rows_of(build(plain(records)))}
    assert ranks == {"a": "1", "b": "1", "c": "3"}


def test_the_table_does_not_depend_on_the_order_of_records() -> None:
    records = [make_record(make_spec(m), v) for m, v in (("a", 0.1), ("b", 0.7), ("c", 0.5))]
    for form in FORMATS:
        assert render(build(plain(records)), form) == render(build(plain(records[::-1])), form)


def test_seeds_are_one_row_with_their_mean_and_spread(tmp_path: Path) -> None:
    stored = [measured(tmp_path, make_spec("a", seed=s), np.full(N_CASES, v)) for s, v in
              ((0, 0.25), (1, 0.75))]  # fmt: skip
    [row] = rows_of(build(stored))
    assert float(row["ndcg@10"]) == 0.5
    assert float(row["ndcg@10_seed_sd"]) == pytest.approx(0.5 / np.sqrt(2))
    assert (row["n_seeds"], row["seeds"]) == ("2", "0 1")
    # each case is .5 on average over the seeds, so cases have no noise at all
    assert (float(row["ndcg@10_low"]), float(row["ndcg@10_high"])) == (0.5, 0.5)


def test_a_worse_row_is_marked_and_an_equal_one_is_not(tmp_path: Path) -> None:
    stored = [
        measured(tmp_path, make_spec("best"), noise(0, 0.6)),
        measured(tmp_path, make_spec("equal"), noise(1, 0.598)),
        measured(tmp_path, make_spec("worse"), noise(2, 0.5)),
    ]
    [board] = build(stored, baseline="worse")
    by_name = {row.label: row.cells["ndcg@10"] for row in board.rows}
    assert by_name["best"].p_best is None
    assert by_name["worse"].p_best is not None
    assert by_name["worse"].p_best < 0.01
    assert by_name["equal"].p_best is not None
    assert by_name["equal"].p_best > 0.05
    assert by_name["best"].p_baseline is not None
    assert by_name["best"].p_baseline < 0.01
    text = render([board], "markdown")
    assert text.count("†") == 2  # the row, and the note
    assert "‡ differs from worse" in text


def test_a_baseline_that_no_record_is_of_is_refused(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record(make_spec()))
    with pytest.raises(ConfigError, match="no record of model 'nosuch'"):
        build([Stored(path, read_record(path))], baseline="nosuch")


def test_rows_without_cases_are_not_tested(tmp_path: Path) -> None:
    stored = [measured(tmp_path, make_spec("a"), noise(0)), *plain([make_record(make_spec("b"))])]
    [board] = build(stored)
    assert all(row.cells["ndcg@10"].p_best is None for row in board.rows)


def test_sort_and_metrics_choose_what_is_ranked_and_shown() -> None:
    def two(model: str, first: float, second: float) -> RunRecord:
        record = make_record(make_spec(model), first)
        metrics = {
            **record.metrics,
            "loss": Interval(value=second, n=9, low=0, high=1, higher_is_better=False),
        }
        return record.model_copy(update={"metrics": metrics})

    stored = plain([two("a", 0.9, 0.9), two("b", 0.1, 0.1)])
    assert [row.label for row in build(stored)[0].rows] == ["a", "b"]
    assert [row.label for row in build(stored, sort="loss")[0].rows] == ["b", "a"]
    [board] = build(stored, metrics=["loss"])
    assert board.metrics == ("loss",)
    with pytest.raises(ConfigError, match="did you mean 'loss'"):
        build(stored, sort="lass")


def test_rows_of_one_title_are_told_apart_by_what_differs() -> None:
    def variant(**options: object) -> RunRecord:
        spec = make_spec("m")
        model = spec.model.model_copy(update={"options": {"same": 1, **options}})
        return make_record(spec.model_copy(update={"model": model}))

    assert labels([variant(k=1, w=1), variant(k=2, w=1), variant(k=3, w=1)]) == [
        "m k=1",
        "m k=2",
        "m k=3",
    ]
    one, other = labels([variant(k=1), variant(k=1, new=True)])
    assert one != other  # an option of another version tells nothing, so hashes do
    assert one.startswith("m ")


@pytest.mark.parametrize("form", list(FORMATS))
def test_a_hostile_name_is_text_in_every_format(form: str) -> None:
    text = render(build(plain([make_record(make_spec("m"), backbone=HOSTILE)])), form)
    if form == "csv":
        assert next(csv.DictReader(io.StringIO(text)))["backbone"] == HOSTILE
    elif form == "json":
        assert json.loads(text)[0]["rows"][0]["label"] == f"m [{HOSTILE}]"
    else:
        assert "<script>" not in text if form != "latex" else r"\_y\_ \textbackslash{}z" in text
    if form == "html":
        assert html.escape(HOSTILE) in text
    if form == "markdown":
        assert r"\| \_y\_" in text


@pytest.mark.parametrize("name", ["=cmd()", "\t=cmd()", "\r=cmd()"])
def test_a_name_that_a_spreadsheet_would_run_is_quoted(name: str) -> None:
    text = render(build(plain([make_record(make_spec(name))])), "csv")
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    assert row["model"] == "'" + name.replace("\r", "\n")


@pytest.mark.parametrize("form", ["csv", "markdown", "latex"])
def test_a_line_that_ends_within_a_name_ends_no_row(form: str) -> None:
    text = render(build(plain([make_record(make_spec("m"), backbone="a\r=b\u2028c")])), form)
    same = render(build(plain([make_record(make_spec("m"), backbone="a =b c")])), form)
    if form == "csv":
        [row] = csv.DictReader(io.StringIO(text, newline=""))
        assert row["backbone"] == "a\n=b\u2028c"
    else:
        assert text == same


def test_facts_that_a_model_tells_stand_in_no_other_column() -> None:
    told = make_record(make_spec("m")).model_copy(update={"facts": {"model": "x", "n_cases": 9}})
    [row] = rows_of(build(plain([told])))
    assert (row["model"], row["n_cases"]) == ("m", "10")


def test_a_metric_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        build(plain([make_record(make_spec())]), metrics=["ndcg@10", "ndcg@10"])


def test_latex_writes_signs_that_its_default_font_has_not_as_formulas() -> None:
    text = render(build(plain([make_record(make_spec("m"), backbone="a<b>c|d")])), "latex")
    assert "m [a$<$b$>$c$|$d]" in text


def test_latex_has_as_many_cells_as_columns() -> None:
    text = render(build(plain([make_record(make_spec("a_b"), 0.25)])), "latex")
    [spec] = [line for line in text.splitlines() if line.startswith(r"\begin{tabular}")]
    [row] = [line for line in text.splitlines() if line.startswith(r"a\_b")]
    columns = spec.removeprefix(r"\begin{tabular}{").removesuffix("}")
    assert row.count("&") + 1 == len(columns)
    assert r"\textbf{0.2500 [0.4000, 0.6000]}" in row


def test_cases_come_back_and_tampering_shows(tmp_path: Path) -> None:
    stored = measured(tmp_path, make_spec(), noise(0))
    table = read_cases(stored.path, stored.record.cases)
    np.testing.assert_array_equal(table.values["ndcg@10"], noise(0))
    changed = CaseTable(**{**vars(table), "values": {"ndcg@10": noise(1)}})
    write_cases(stored.path, changed)
    with pytest.raises(StorageError, match="is not what its record was made with"):
        build([stored])
    cases_path(stored.path).write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(StorageError, match="cannot read"):
        read_cases(stored.path, stored.record.cases)


@pytest.mark.parametrize("read", [build, load_groups])
def test_a_metric_that_is_not_the_mean_of_its_cases_is_refused(
    read: Callable[[list[Stored]], object], tmp_path: Path
) -> None:
    stored = measured(tmp_path, make_spec(), noise(0))
    metrics = {"ndcg@10": stored.record.metrics["ndcg@10"].model_copy(update={"value": 0.9})}
    forged = stored.record.model_copy(
        update={
            "metrics": metrics,
            "digest": digest(stored.record.spec, stored.record.counts, metrics),
        }
    )
    path = write_record(tmp_path, forged)
    with pytest.raises(StorageError, match=r"ndcg@10 is 0\.9, but the mean"):
        read([Stored(path, read_record(path))])


def test_a_comparison_orders_groups_and_decides_pairs(tmp_path: Path) -> None:
    stored = [
        measured(tmp_path, make_spec("low"), noise(3, 0.4)),
        measured(tmp_path, make_spec("high", seed=0), noise(1, 0.6)),
        measured(tmp_path, make_spec("high", seed=1), noise(2, 0.6)),
    ]
    found = compare(load_groups(stored))
    assert [group.title for group in found.groups] == ["high", "low"]
    [pair] = found.pairs
    assert (pair.a, pair.b, pair.better) == ("high", "low", "high")
    assert found.spreads["ndcg@10", "high"].n_seeds == 2


def test_seeds_of_one_model_are_nothing_to_compare(tmp_path: Path) -> None:
    stored = [measured(tmp_path, make_spec(seed=s), noise(s)) for s in (0, 1)]
    with pytest.raises(StorageError, match="seeds of one model"):
        compare(load_groups(stored))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (make_spec("b", n_candidates=50), "protocol.n_candidates is 20 and 50"),
        (make_spec("b", dataset="elsewhere"), "dataset is 'toy' and 'elsewhere'"),
        (make_spec("b").model_copy(update={"limit_cases": 5}), "limit_cases is None and 5"),
        (make_spec("b").model_copy(update={"candidates_hash": "c2"}), "candidate sets"),
    ],
)
def test_runs_on_other_cases_are_refused_and_the_difference_named(
    other: RunSpec, difference: str, tmp_path: Path
) -> None:
    stored = [measured(tmp_path, make_spec("a"), noise(0)), measured(tmp_path, other, noise(1))]
    with pytest.raises(ProtocolError, match=difference):
        load_groups(stored)


def test_per_case_values_of_other_users_are_refused(tmp_path: Path) -> None:
    stored = [
        measured(tmp_path, make_spec("a"), noise(0)),
        measured(tmp_path, make_spec("b"), noise(1), users="others"),
    ]
    with pytest.raises(MMRecError, match="of other users"):
        load_groups(stored)


def test_boards_of_one_title_say_in_what_they_differ() -> None:
    spec = make_spec("a")
    other = spec.model_copy(update={"protocol": {**spec.protocol, "permute_ids": False}})
    permuted = spec.model_copy(update={"protocol": {**spec.protocol, "permute_ids": True}})
    titles = [
        board.title for board in build(plain([make_record(one) for one in (other, permuted)]))
    ]
    assert sorted(title.rpartition(", ")[2] for title in titles) == [
        "permute_ids=False",
        "permute_ids=True",
    ]


def test_boards_made_apart_are_told_apart_once_they_are_together() -> None:
    spec = make_spec("a")
    others = [
        spec.model_copy(update={"protocol": {**spec.protocol, "permute_ids": True}}),
        spec.model_copy(update={"candidates_hash": "c2"}),
    ]
    stored = plain([make_record(one) for one in (spec, *others)])
    apart = [board for one in stored for board in build([one])]
    assert len({board.title for board in apart}) == 1
    together = told_apart(apart)
    assert len({board.title for board in together}) == 3
    assert together == told_apart(together) == told_apart(apart)
    by_title = {board.title: board for board in build(stored)}
    assert {board.title: board.protocol_id for board in together} == {
        title: board.protocol_id for title, board in by_title.items()
    }


def test_all_rows_of_the_best_value_are_bold() -> None:
    records = [make_record(make_spec(m), v) for m, v in (("a", 0.5), ("b", 0.5), ("c", 0.1))]
    [board] = build(plain(records))
    best = board.best("ndcg@10")
    assert best is not None
    assert best.label == "a"
    assert render([board], "markdown").count("**0.5000") == 2


def test_rows_of_other_cases_are_not_tested(tmp_path: Path) -> None:
    stored = [
        measured(tmp_path, make_spec("a"), noise(0, 0.6)),
        measured(tmp_path, make_spec("b"), noise(1, 0.4), users="others"),
    ]
    [board] = build(stored)
    assert all(row.cells["ndcg@10"].p_best is None for row in board.rows)
    assert "No marks" in board.legend


def test_a_row_of_which_one_seed_has_no_cases_here_has_no_interval(tmp_path: Path) -> None:
    stored = [measured(tmp_path, make_spec("a", seed=s), noise(s)) for s in (0, 1)]
    cases_path(stored[0].path).unlink()
    [row] = build(stored)[0].rows
    assert row.cases == ()
    assert (row.cells["ndcg@10"].low, row.cells["ndcg@10"].high) == (None, None)


def test_seeds_are_averaged_where_all_have_the_metric_on_the_same_cases() -> None:
    def table(values: list[float], users: str = "u") -> CaseTable:
        few = np.zeros(2, np.int32), np.zeros(2, np.int64), np.ones(2, np.bool_)
        return CaseTable(users, {"m": np.array(values)}, *few)

    tables = [table([0.0, 1.0]), table([1.0, 1.0])]
    found = averaged(tables, "m")
    assert found is not None
    assert found.tolist() == [0.5, 1.0]
    assert averaged(tables, "other") is None
    assert averaged([], "m") is None
    assert averaged([*tables, table([0.0, 0.0], "others")], "m") is None
