from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from mmrec_bench import planning, revisiting, runner
from mmrec_bench.config import ComponentConfig, RunConfig
from mmrec_bench.errors import ConfigError, StorageError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.plugins import installed
from mmrec_bench.runfolder import RunFolder
from mmrec_bench.types import Queries, Scores
from tests.core.splits import MODES, Mode, named


class Spy:
    """Notes what it is given; scores nothing higher than anything else."""

    class Config(ComponentConfig):
        """No options."""

    reads_instructions: ClassVar[bool] = False
    seen: ClassVar[dict[str, TrainingData]] = {}

    def __init__(self, config: Config) -> None:
        del config

    def fit(self, data: TrainingData, *, seed: int) -> None:
        del seed
        self.seen["fit"] = data

    def transfer(self, data: TrainingData) -> None:
        self.seen["transfer"] = data

    def score(self, queries: Queries) -> Scores:
        assert queries.candidates is not None
        return Scores(np.zeros(queries.candidates.shape, np.float32))

    def save(self, folder: Path) -> None:
        (folder / "spy.json").write_text("{}")

    def restore(self, folder: Path, data: TrainingData) -> None:
        assert (folder / "spy.json").exists()
        self.seen["restore"] = data


def write_sequences(path: Path, n_users: int, n_items: int, letter: str) -> None:
    rows = [
        f"{letter}u{u} " + " ".join(f"{letter}i{(u * 3 + j * j) % n_items}" for j in range(6))
        for u in range(n_users)
    ]
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_sequences(folder / "target.txt", 30, 17, "t")
    write_sequences(folder / "source.txt", 50, 13, "s")
    return folder


def asked(root: Path, **values: object) -> RunConfig:
    source = {"name": "sequences", "options": {"file": str(root / "source.txt")}}
    return RunConfig.parse(
        {
            "model": "random",
            "dataset": {"name": "sequences", "file": str(root / "target.txt")},
            "protocol": {"k_core": 2, "n_candidates": 5},
            "transfer": {"source": source, "shots": 2},
            **values,
        }
    )


def run_spy(task: planning.Task, workspace: planning.Workspace) -> runner.FinishedRun:
    planned = planning.plan(task, workspace, installed(), baselines=False)[-1]
    Spy.seen.clear()
    spied = replace(planned, recommender=Spy, options=Spy.Config())
    return runner.run(spied, task, workspace, installed())


def test_a_model_learns_from_the_source_and_is_shown_the_targets_catalog_alone(
    root: Path, tmp_path: Path
) -> None:
    workspace = planning.Workspace(tmp_path / "results", root)
    task = runner.prepare(asked(root), workspace, installed())
    finished = run_spy(task, workspace)
    learned, shown = Spy.seen["fit"], Spy.seen["transfer"]
    assert all(name.startswith("s") for name in learned.users.ids)
    assert all(name.startswith("s") for name in learned.catalog.items.ids)
    assert len(learned.interactions) == learned.n_users * 4
    assert all(name.startswith("t") for name in shown.catalog.items.ids)
    assert len(shown.interactions) == 0
    assert len(shown.validation) == 0
    assert shown.n_examples == 0
    assert list(shown.examples(0)) == []
    assert task.split.test.queries.history.lengths.tolist() == [2] * 30
    record = finished.record
    assert record.spec.dataset.name == "target"
    assert record.spec.transfer is not None
    assert record.spec.transfer["source"]["name"] == "source"
    assert record.spec.transfer["shots"] == 2
    assert record.counts["source_n_users"] == 50
    assert record.counts["n_titles_also_in_source"] == 0


def test_a_finished_fit_is_restored_with_the_source_and_transferred_again(
    root: Path, tmp_path: Path
) -> None:
    workspace = planning.Workspace(tmp_path / "results", root)
    task = runner.prepare(asked(root), workspace, installed())
    first = run_spy(task, workspace).record
    folder = next((tmp_path / "results" / "runs").iterdir())
    for part in (folder / "predictions").iterdir():
        part.unlink()
    again = run_spy(task, workspace).record
    assert set(Spy.seen) == {"restore", "transfer"}
    assert Spy.seen["restore"].users.ids[0].startswith("s")
    assert again.digest == first.digest


def test_hold_out_and_source_together_ask_the_cases_of_the_hold_out(root: Path) -> None:
    workspace = planning.Workspace(root, root)
    source = {"source": {"name": "sequences", "options": {"file": str(root / "source.txt")}}}
    both = asked(root, transfer={**source, "hold_out": "users"})
    alone = asked(root, transfer={"hold_out": "users"})
    there, here = (runner.prepare(one, workspace, installed()) for one in (both, alone))
    assert there.split.candidates_hash == here.split.candidates_hash
    assert named(there.split, there.split.test) == named(here.split, here.split.test)


def test_a_data_set_is_no_source_of_itself(root: Path) -> None:
    source = {"name": "sequences", "options": {"file": str(root / "target.txt")}}
    wrong = asked(root, transfer={"source": source})
    with pytest.raises(ConfigError, match="the data set of the run"):
        runner.prepare(wrong, planning.Workspace(root, root), installed())


def test_a_model_that_cannot_transfer_is_refused_before_it_runs(root: Path) -> None:
    workspace = planning.Workspace(root, root)
    task = runner.prepare(asked(root, model="popularity"), workspace, installed())
    with pytest.raises(ConfigError, match="'popularity' cannot transfer from source to target"):
        planning.plan(task, workspace, installed(), baselines=False)


def test_a_model_without_a_backbone_has_no_memory_to_probe(root: Path) -> None:
    workspace = planning.Workspace(root, root, probe_memory=True)
    task = runner.prepare(asked(root, transfer=None), workspace, installed())
    with pytest.raises(ConfigError, match="no backbone whose memory"):
        planning.plan(task, workspace, installed(), baselines=False)


def test_the_sources_own_name_and_options_are_checked_before_data_is_read(root: Path) -> None:
    unknown = asked(root, transfer={"source": {"name": "sequences", "options": {"fil": "x"}}})
    with pytest.raises(ConfigError, match=r"transfer\.source\.fil"):
        planning.check_config(unknown, installed())


@pytest.mark.parametrize("model", ["random", "popularity"])
@pytest.mark.parametrize("mode", MODES)
def test_simple_models_meet_the_same_cases_of_a_hold_out(
    mode: Mode, model: str, root: Path, tmp_path: Path
) -> None:
    workspace = planning.Workspace(tmp_path / "results", root)
    hold_out = {"hold_out": mode, "share": 0.5}
    protocol = {"k_core": 2, "n_candidates": 2}
    wanted = asked(root, model=model, transfer=hold_out, protocol=protocol)
    task = runner.prepare(wanted, workspace, installed())
    (planned,) = planning.plan(task, workspace, installed(), baselines=False)
    record = runner.run(planned, task, workspace, installed()).record
    assert record.spec.transfer == {
        **hold_out,
        "shots": None,
        "held_out_hash": task.split.held_out and task.split.held_out.hash,
    }
    assert record.counts["n_cases"] == len(task.split.test)
    auc = record.metrics["auc"].value
    assert auc is not None
    if model == "popularity" and mode != "users":
        assert auc == 0.5  # nothing is known of the items, and nothing leaks
    metrics = ("hit_rate@1",)
    results = tmp_path / "results"
    again = revisiting.evaluate(record.run_id, results, metrics, None, installed())
    assert again.record.metrics["hit_rate@1"] == record.metrics["hit_rate@1"]


def test_predictions_of_another_hold_out_are_not_measured(root: Path, tmp_path: Path) -> None:
    workspace = planning.Workspace(tmp_path / "results", root)
    protocol = {"k_core": 2, "candidates": "full"}  # no candidates whose hash would differ
    wanted = asked(root, transfer={"hold_out": "users"}, protocol=protocol)
    task = runner.prepare(wanted, workspace, installed())
    (planned,) = planning.plan(task, workspace, installed(), baselines=False)
    runner.run(planned, task, workspace, installed())
    request = tmp_path / "results" / "runs" / planned.spec.run_id / "request.json"
    request.write_text(request.read_text().replace('"share": 0.2', '"share": 0.3'))
    with pytest.raises(StorageError, match="other users and items held out"):
        revisiting.evaluate(planned.spec.run_id, tmp_path / "results", None, None, installed())


def test_runs_that_differ_in_transfer_are_never_ranked_together(root: Path) -> None:
    workspace = planning.Workspace(root, root)
    found = set()
    for values in (None, {"hold_out": "users"}, {"hold_out": "users", "shots": 0}):
        task = runner.prepare(asked(root, transfer=values), workspace, installed())
        found.add(planning.plan(task, workspace, installed(), baselines=False)[0].spec.protocol_id)
    assert len(found) == 3


def test_a_claimed_folder_keeps_what_a_memory_probe_found(root: Path, tmp_path: Path) -> None:
    workspace = planning.Workspace(tmp_path / "results", root)
    task = runner.prepare(asked(root, transfer=None), workspace, installed())
    (planned,) = planning.plan(task, workspace, installed(), baselines=False)
    first = runner.run(planned, task, workspace, installed()).record
    spec, settings_ = planned.spec, planned.config
    with RunFolder.claim(tmp_path / "results", spec, settings_, root) as folder:
        folder.keep_memory_facts({"memory_title_accuracy": 0.25})
    again = runner.run(planned, task, workspace, installed()).record
    assert "memory_title_accuracy" not in first.facts
    assert again.facts["memory_title_accuracy"] == 0.25
    assert again.digest == first.digest
