from pathlib import Path

import pytest

from mmrec_bench import planning, revisiting, runner
from mmrec_bench.cases import cases_path, read_cases
from mmrec_bench.config import RunConfig
from mmrec_bench.configfile import default_path
from mmrec_bench.errors import ConfigError, StorageError
from mmrec_bench.planning import Workspace
from mmrec_bench.plugins import installed
from mmrec_bench.records import RunRecord, read_record, record_path
from mmrec_bench.runfolder import read_request

VALUES = {
    "model": "popularity",
    "dataset": "sequences",
    "protocol": {"k_core": 2, "n_candidates": 5},
    "metrics": ["ndcg@5", "auc"],
}


def made(root: Path, *also: str) -> RunRecord:
    workspace = Workspace(root.parent / "results", root, "cpu")
    config = RunConfig.parse(VALUES, also)
    task = runner.prepare(config, workspace, installed())
    (planned,) = planning.plan(task, workspace, installed(), baselines=False)
    return runner.run(planned, task, workspace, installed()).record


def again(root: Path, run_id: str, *metrics: str) -> RunRecord:
    results = root.parent / "results"
    return revisiting.evaluate(run_id, results, metrics or None, None, installed()).record


def test_measuring_one_metric_more_keeps_the_others_their_values_and_the_request(
    root: Path,
) -> None:
    record, results = made(root), root.parent / "results"
    request = read_request(results, record.run_id)
    assert set(again(root, record.run_id, "recall@3").metrics) == {"ndcg@5", "auc", "recall@3"}
    assert read_request(results, record.run_id) == request
    assert set(again(root, record.run_id, "mrr@5").metrics) == {
        "ndcg@5", "auc", "recall@3", "mrr@5",
    }  # fmt: skip
    last = again(root, record.run_id)
    assert set(last.metrics) == {"ndcg@5", "auc", "recall@3", "mrr@5"}
    for name, before in record.metrics.items():  # the resamples' sums differ in the last digit
        assert last.metrics[name].model_dump() == pytest.approx(before.model_dump(), abs=1e-12)
    table = read_cases(record_path(results, last.spec), last.cases)
    assert set(table.values) == set(last.metrics)


def test_a_metric_given_twice_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="'auc' is given twice"):
        again(root, made(root).run_id, "auc", "auc")


def test_values_that_a_killed_run_left_are_told_with_what_mends_them_which_does(
    root: Path,
) -> None:
    record = made(root)
    path = record_path(root.parent / "results", record.spec)
    old = path.read_bytes()
    again(root, record.run_id, "recall@3")
    path.write_bytes(old)  # killed between the per-case values and the record
    line = f"killed between writing them; `mmrec-bench evaluate {record.run_id}` writes both"
    with pytest.raises(StorageError, match=line):
        read_cases(path, read_record(path).cases)
    mended = again(root, record.run_id)
    assert cases_path(path).exists()
    assert read_cases(path, mended.cases).hash == mended.cases


@pytest.mark.parametrize("label", ["../../../escaped", "/escaped", "..", "a/b"])
def test_a_label_that_is_no_name_is_refused_before_anything_is_written(
    label: str, root: Path
) -> None:
    with pytest.raises(ConfigError, match=r"dataset 'sequences' of .* goes by the name .*"):
        made(root, f"dataset.label={label}")
    config = RunConfig.parse(VALUES, [f"dataset.label={label}"])
    with pytest.raises(ConfigError, match=r"dataset\.label is .*, expected letters"):
        default_path(config)
    assert [path.name for path in root.parent.iterdir()] == ["data"]
