import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrec_bench import planning, runner
from mmrec_bench.config import RunConfig, read_yaml
from mmrec_bench.configfile import config_values, write_config
from mmrec_bench.counting import rank
from mmrec_bench.errors import ConfigError, ModelError, PluginError, StorageError
from mmrec_bench.evaluation import validate
from mmrec_bench.objective import Objective, Search, without_test
from mmrec_bench.planning import Task, Workspace
from mmrec_bench.runfolder import RunFolder
from mmrec_bench.selection import Selection, searchable, select, study_id
from mmrec_bench.spaces import build_space
from mmrec_bench.studies import Study, load_optuna
from mmrec_bench.terminal import plain
from mmrec_bench.trialtable import trials_rows, trials_table
from mmrec_bench.types import Outcomes, Queries
from tests.core.searched import plugins as load_plugins

PLUGINS = load_plugins()
PROTOCOL = {"k_core": 0, "candidates": "full"}


def configure(
    log: Path | None = None,
    also: Sequence[str] = (),
    **options: Any,  # noqa: ANN401
) -> RunConfig:
    model = {"name": "dial", **options, **({"log": str(log)} if log else {})}
    return RunConfig.parse({"model": model, "dataset": "toy", "protocol": PROTOCOL}, also)


def prepare(config: RunConfig, results: Path) -> tuple[Task, Workspace]:
    workspace = Workspace(results, results / "no-data", "cpu")
    return runner.prepare(config, workspace, PLUGINS), workspace


def search(
    config: RunConfig,
    results: Path,
    *,
    texts: Sequence[str] = (),
    fixed: Sequence[str] = (),
    **asked: Any,  # noqa: ANN401
) -> Selection:
    space = build_space(config, searchable(config, PLUGINS), texts=texts, fixed=fixed)
    task, workspace = prepare(config, results)
    return select(task, Search(space, **asked), workspace, PLUGINS)


def found(selection: Selection) -> list[tuple[dict[str, Any], float | None]]:
    return [(one.settings, one.value) for one in selection.trials]


def read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def fits(log: Path) -> list[dict[str, Any]]:
    return [line for line in read(log) if "fit" in line]


def test_the_best_setting_is_found_and_the_first_trial_is_the_model_as_it_is(
    tmp_path: Path,
) -> None:
    selection = search(configure(), tmp_path, n_trials=20)
    assert selection.trials[0].settings == {"model.x": 0.9}
    assert selection.own == selection.trials[0]
    assert "1 (as it is)" in plain(trials_table(selection, most=20))
    assert len(selection.trials) == 20
    assert abs(float(str(selection.best.settings["model.x"])) - 0.3) < 0.1
    assert selection.best.value == max(one.value or 0 for one in selection.trials)
    assert selection.best == selection.ranking()[0]


def test_no_query_but_those_of_validation_is_ever_asked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    config = configure(log)
    search(config, tmp_path, n_trials=4)
    split = prepare(config, tmp_path)[0].split

    def named(queries: Queries) -> set[str]:
        items = split.catalog.items
        return {
            json.dumps([split.users[query.user], [items[i] for i in query.history.tolist()]])
            for query in queries
        }

    asked = {json.dumps([line["user"], line["history"]]) for line in read(log) if "user" in line}
    assert asked == named(split.validation.queries)
    assert not asked & named(split.test.queries)


def test_other_targets_in_test_change_nothing(tmp_path: Path) -> None:
    config = configure()
    other = configure(also=["dataset.other_tests=true"])
    tasks = [prepare(one, tmp_path)[0] for one in (config, other)]
    (a, b) = (
        {
            (task.split.users[user], task.split.catalog.items[item])
            for user, item in zip(
                task.split.test.queries.user.tolist(),
                task.split.test.targets.values.tolist(),
                strict=True,
            )
        }
        for task in tasks
    )
    assert not a & b
    first, second = (search(one, tmp_path, n_trials=6) for one in (config, other))
    assert first.folder != second.folder
    assert found(first) == found(second)


def test_the_objective_holds_no_test_case_nor_what_it_came_from(tmp_path: Path) -> None:
    task, workspace = prepare(configure(), tmp_path)
    assert len(task.split.test) == 30
    bare = without_test(replace(task, source=task))
    for one in (bare, bare.source):
        assert one is not None
        assert len(one.split.test) == len(one.data.interactions) == 0
        assert not [name for name in one.split.counts if "test" in name]
        assert len(one.split.validation) == 30
    objective = Objective(task, workspace, PLUGINS, Search({}))
    assert len(objective._task.split.test) == 0
    assert not [value for value in vars(objective).values() if value is task]


@pytest.mark.parametrize("mask_seen", [True, False])
def test_a_model_is_told_whether_the_protocol_masks_what_was_seen(
    tmp_path: Path, *, mask_seen: bool
) -> None:
    config = configure(also=["protocol.candidates=full", f"protocol.mask_seen={mask_seen}"])
    task, workspace = prepare(config, tmp_path)
    objective = Objective(task, workspace, PLUGINS, Search({}))
    assert objective.training_data(objective.plan({})).mask_seen == mask_seen


@pytest.mark.parametrize("candidates", ["full", "uniform"])
def test_the_value_is_the_metric_over_all_validation_cases(candidates: str, tmp_path: Path) -> None:
    config = configure(also=[f"protocol.candidates={candidates}", "protocol.n_candidates=6"])
    task, workspace = prepare(config, tmp_path)
    for name in ("ndcg@10", "recall@3", "mrr@5", "place"):
        objective = Objective(task, workspace, PLUGINS, Search({}, name))
        planned = objective.plan({"model.x": 0.4})
        value = objective.value(planned, tmp_path)
        model = planned.recommender(planned.options)
        model.fit(objective.training_data(planned), seed=0)
        scores = model.score(task.split.validation.queries)
        outcomes = Outcomes(
            rank(scores.values, task.split.validation),
            task.split.catalog,
            np.bincount(task.split.train.item, minlength=len(task.split.catalog)),
        )
        assert value == pytest.approx(objective.metric.measure(outcomes).value, abs=1e-12)
        if name == "ndcg@10":
            assert value == pytest.approx(validate(scores, task.split.validation), abs=1e-12)


def test_a_metric_of_which_less_is_better_is_made_small(tmp_path: Path) -> None:
    selection = search(configure(), tmp_path, n_trials=5, metric="place")
    values = [one.value for one in selection.trials if one.value is not None]
    assert selection.best.value == min(values)
    assert [one.value for one in selection.ranking()] == sorted(values)


@pytest.mark.slow
def test_a_search_that_goes_on_later_ends_as_one_that_was_never_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for n_trials in (3, 12):
        parts = search(configure(log), tmp_path / "a", n_trials=n_trials)
    whole = search(configure(), tmp_path / "b", n_trials=12)
    assert found(parts) == found(whole)
    assert len(fits(log)) == 12
    other = search(configure(), tmp_path / "b", n_trials=3, seed=1)
    assert found(other)[0] == found(whole)[0]
    assert found(other)[1:] != found(whole)[1:3]


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ("model", "the loss is no number"),
        ("memory", "out of memory"),
        ("device", "out of memory"),
        ("nan", None),
    ],
)
def test_a_setting_that_fails_is_told_and_the_search_goes_on(
    fails: str, reason: str | None, tmp_path: Path
) -> None:
    selection = search(configure(fails=fails), tmp_path, n_trials=8)
    failed = [one for one in selection.trials if one.state == "failed"]
    if reason is None:  # scores of NaN are misses, and no failure
        assert not failed
        return
    assert failed[0].number == 0
    assert {one.reason for one in failed} == {reason}
    assert all(one.settings["model.x"] > 0.5 for one in failed)  # type: ignore[operator]
    assert 0 < len(failed) < 8
    assert f"trial 1 failed: {reason}" in plain(trials_table(selection))


def test_a_value_error_is_of_the_setting_where_another_one_has_worked(tmp_path: Path) -> None:
    config = configure(fails="value", x=0.1)
    selection = search(config, tmp_path, texts=["model.x=0.1,0.8"], n_trials=2)
    (failed,) = [one for one in selection.trials if one.state == "failed"]
    assert failed.settings == {"model.x": 0.8}
    assert "failed in fit: ValueError: x is too large (core/searched.py" in failed.reason
    # Where none has worked, it may be a bug.
    with pytest.raises(PluginError, match="x is too large"):
        search(configure(fails="value"), tmp_path / "other", n_trials=2)


def test_options_that_do_not_go_together_fail_that_trial_alone(tmp_path: Path) -> None:
    # Sizes below 1 are no size; the ends are checked before, so that a step over them is needed.
    config = configure()
    space = build_space(config, searchable(config, PLUGINS), texts=["model.size=1,2"])
    task, workspace = prepare(config, tmp_path)
    objective = Objective(task, workspace, PLUGINS, Search(space))
    with pytest.raises(ConfigError, match=r"model\.size: .*greater than or equal to 1"):
        objective.plan({"model.size": 0})


def test_when_every_setting_fails_the_last_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"all 2 trials failed, the last: the loss is no number"):
        search(configure(fails="model"), tmp_path, texts=["model.x=0.8,0.7"], n_trials=5)


def test_a_fault_in_the_model_ends_the_search_and_its_trial_waits_for_the_mending(
    tmp_path: Path,
) -> None:
    config = configure(fails="bug")
    with pytest.raises(PluginError, match=r"'dial' of searched failed in fit: TypeError: a bug"):
        search(config, tmp_path, n_trials=5)
    with Study.open(
        next((tmp_path / "tuning").iterdir()),
        build_space(config, searchable(config, PLUGINS)),
        seed=0,
        higher_is_better=True,
        start=None,
    ) as study:
        (trial,) = study.trials()
        assert trial.state == "running"
        claim = study.claim(1)
        assert claim is not None
        assert (claim.number, claim.settings, claim.noted("deaths")) == (0, {"model.x": 0.9}, 0)
        study.put_back(claim)


def test_the_first_trial_is_the_model_as_it_is_to_the_last_digit(tmp_path: Path) -> None:
    for _ in range(2):  # also when it is read again
        selection = search(configure(x=0.123456), tmp_path, n_trials=2)
        assert selection.own == selection.trials[0]
        assert selection.own is not None
        assert selection.own.settings == {"model.x": 0.123456}
        planned = Objective(*prepare(configure(x=0.123456), tmp_path), PLUGINS, Search({})).plan({})
        assert selection.own.spec_hash == planned.spec.hash


def test_a_terminated_search_leaves_its_trial_to_the_next_and_ends_by_the_signal(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    script = (
        "import sys; from pathlib import Path; from tests.core import test_selection as t; "
        "t.search(t.configure(Path(sys.argv[1]), steps=1, seconds=60.0), Path(sys.argv[2]),"
        " n_trials=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(log), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
    )
    while process.poll() is None and not log.exists():
        time.sleep(0.05)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM, error.decode()
    (folder,) = (tmp_path / "tuning").iterdir()
    space = build_space(configure(), searchable(configure(), PLUGINS))
    with Study.open(folder, space, seed=0, higher_is_better=True, start=None) as study:
        claim = study.claim(1)
        assert claim is not None
        assert claim.noted("deaths") == 0
        study.put_back(claim)


@pytest.mark.parametrize(
    ("metric", "error", "line"),
    [
        ("slips", PluginError, "'slips' of searched failed in measure: AttributeError"),
        ("valid_rate", ConfigError, "valid_rate is undefined on all 30 validation cases"),
    ],
)
def test_a_metric_that_cannot_choose_is_told_before_anything_is_fitted(
    metric: str, error: type[Exception], line: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with pytest.raises(error, match=line):
        search(configure(log), tmp_path, n_trials=2, metric=metric)
    assert not log.exists()


def test_a_metric_of_histories_can_choose(tmp_path: Path) -> None:
    selection = search(configure(), tmp_path, n_trials=2, metric="popularity_lift@5")
    assert all(one.value is not None for one in selection.trials)


def test_settings_that_resolve_to_one_run_are_fitted_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    selection = search(
        configure(log), tmp_path, fixed=["model.x"], texts=["model.word=a,b,as-a"], n_trials=9
    )
    assert len(fits(log)) == 2
    by_word = {str(one.settings["model.word"]): one for one in selection.trials}
    assert by_word["a"].value == by_word["as-a"].value
    assert by_word["as-a"].same_as == 0
    assert len(selection.ranking()) == 2
    assert "1 equal to another and not fitted" in plain(trials_table(selection))


def test_a_small_space_is_tried_whole_and_then_the_search_ends(tmp_path: Path) -> None:
    texts = ["model.x=0.1,0.3,0.9", "model.size=1..2"]
    selection = search(configure(), tmp_path, texts=texts, n_trials=50)
    tried = [tuple(one.settings.values()) for one in selection.trials]
    assert sorted(tried, key=str) == [  # the model as it is has size 8, and is no trial
        (1, 0.1), (1, 0.3), (1, 0.9), (2, 0.1), (2, 0.3), (2, 0.9),
    ]  # fmt: skip
    assert selection.best.settings["model.x"] == 0.3


def test_fits_of_several_seeds_count_by_their_mean(tmp_path: Path) -> None:
    log = tmp_path / "log"
    selection = search(configure(log, seeds_matter=True), tmp_path, n_trials=2, fit_seeds=3)
    assert [line["fit"] for line in fits(log)] == [0, 1, 2, 0, 1, 2]
    for one in selection.trials:
        assert one.value == pytest.approx(sum(one.values) / 3)
    assert len(set(selection.trials[0].values)) > 1
    assert f"({min(selection.best.values):.4f} to " in plain(trials_table(selection))


def test_nothing_but_the_study_stays_on_disk(tmp_path: Path) -> None:
    selection = search(configure(steps=2), tmp_path, n_trials=3)
    left = sorted(path.name for path in selection.folder.rglob("*"))
    assert left == ["lock", "study.db", "trials"]
    assert [path.name for path in tmp_path.iterdir()] == ["tuning"]


def test_a_time_limit_begins_no_further_trial(tmp_path: Path) -> None:
    config = configure(steps=1, seconds=0.3)
    selection = search(config, tmp_path, n_trials=50, timeout=0.2)
    assert len(selection.trials) == 1
    with pytest.raises(ModelError, match="no trial was finished within"):
        search(config, tmp_path, n_trials=50, seed=3, timeout=1e-9)


def test_without_validation_nothing_is_chosen(tmp_path: Path) -> None:
    config = configure(also=["protocol.split=user-ratio", "protocol.ratios=[0.9,0,0.1]"])
    with pytest.raises(ConfigError, match="no validation case under this protocol"):
        search(config, tmp_path)


def test_the_written_configuration_is_the_run_that_was_chosen(tmp_path: Path) -> None:
    selection = search(configure(size=3), tmp_path, n_trials=6)
    path = tmp_path / "configs" / "toy" / "dial.yaml"
    write_config(path, selection, PLUGINS, force=False)
    config = RunConfig.parse(read_yaml(path))
    task, workspace = prepare(config, tmp_path)
    (planned,) = planning.plan(task, workspace, PLUGINS, baselines=False)
    assert planned.spec.run_id == selection.planned.spec.run_id
    assert planned.spec.hash == selection.best.spec_hash
    assert read_yaml(path) == config_values(selection.planned, PLUGINS)
    assert read_yaml(path)["model"] == {
        "name": "dial", **selection.planned.spec.model.options,
    }  # fmt: skip
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert head[2].startswith("#   ndcg@10 on 30 validation cases: ")
    assert any("searched:" in line for line in head)
    with pytest.raises(ConfigError, match=r"exists and is not overwritten; .*--force"):
        write_config(path, selection, PLUGINS, force=False)
    write_config(path, selection, PLUGINS, force=True)


def test_rows_for_scripts_hold_every_trial(tmp_path: Path) -> None:
    selection = search(configure(fails="model"), tmp_path, n_trials=5)
    rows = json.loads(json.dumps(trials_rows(selection)))
    assert [one["trial"] for one in rows["trials"]] == [1, 2, 3, 4, 5]
    assert rows["best"]["value"] == selection.best.value
    assert rows["space"] == {"model.x": "0..1"}


def test_a_study_is_another_one_when_anything_that_decides_its_values_is(tmp_path: Path) -> None:
    def name(config: RunConfig, texts: Sequence[str] = (), **asked: Any) -> str:  # noqa: ANN401
        space = build_space(config, searchable(config, PLUGINS), texts=texts)
        task, workspace = prepare(config, tmp_path)
        objective = Objective(task, workspace, PLUGINS, Search(space, **asked))
        return study_id(objective.plan({}).spec, objective.search)

    names = {
        name(configure()),
        name(configure(size=9)),
        name(configure(also=["protocol.history_length=3"])),
        name(configure(also=["dataset.other_tests=true"])),
        name(configure().model_copy(update={"seed": 1})),
        name(configure(), texts=["model.x=0.1..0.9"]),
        name(configure(), metric="recall@5"),
        name(configure(), seed=1),
        name(configure(), fit_seeds=2),
    }
    assert len(names) == 9
    same = configure().model_copy(update={"limit_cases": 3, "metrics": ("auc",)})
    assert name(same) == name(configure(), n_trials=7, timeout=3.0) in names


def test_a_missing_optuna_is_told_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"needs Optuna .*pip install 'mmrec-bench\[tune\]'"):
        load_optuna()


def test_a_torn_database_is_told_in_one_line(tmp_path: Path) -> None:
    selection = search(configure(), tmp_path, n_trials=1)
    (selection.folder / "study.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError, match=r"cannot use .*study\.db") as error:
        search(configure(), tmp_path, n_trials=1)
    assert "\n" not in str(error.value)


def test_a_search_leaves_no_run_behind(tmp_path: Path) -> None:
    selection = search(configure(), tmp_path, n_trials=1)
    assert not RunFolder(tmp_path, selection.planned.spec).path.exists()
