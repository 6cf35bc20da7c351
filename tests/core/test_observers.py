import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench import runner
from mmrec_bench.config import RunConfig
from mmrec_bench.errors import ConfigError, PluginError, UnknownNameError
from mmrec_bench.observers import observing
from mmrec_bench.planning import Workspace, plan
from mmrec_bench.plugins import Plugins, find_entry_points, load, load_file
from mmrec_bench.records import RunRecord
from tests.core.test_cli import TINY, mmrec

PLUGIN = Path(__file__).parent / "trackers.py"

Run = Callable[..., RunRecord]


@pytest.fixture(scope="module")
def plugins() -> Iterator[Plugins]:
    plugins = load(find_entry_points())
    load_file(plugins, PLUGIN)
    yield plugins
    del sys.modules["trackers"]


@pytest.fixture
def run(root: Path, plugins: Plugins) -> Run:
    """Runs the talker, with trackers where they are named, in folders of their own."""

    def run_it(*trackers: str, patience: float = 30.0, **options: bool) -> RunRecord:
        results = root.parent / ("results-" + "-".join(t.partition(":")[0] for t in trackers))
        config = RunConfig.parse(
            {
                "model": {"name": "talker", **options},
                "dataset": "sequences",
                "protocol": {"k_core": 2, "n_candidates": 5},
                "metrics": ["ndcg@5"],
                "encoder": None,
            }
        )
        workspace = Workspace(results, root)
        task = runner.prepare(config, workspace, plugins)
        planned = plan(task, workspace, plugins, baselines=False, on_failure=pytest.fail)
        with observing(trackers, plugins, patience=patience):
            done = runner.run_all(planned, task, workspace, plugins)
        if done.error is not None:
            raise done.error
        return done.finished[-1].record

    return run_it


def heard(path: Path) -> list[list[Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_tracker_hears_the_spec_the_numbers_and_the_record(run: Run, tmp_path: Path) -> None:
    record = run(f"diary:{tmp_path / 'd'}")
    events = heard(tmp_path / "d")
    assert [event[0] for event in events] == ["started", *["progressed"] * 5, "finished"]
    assert {event[1] for event in events} == {record.run_id}
    assert events[0][2] == record.spec.model_dump(mode="json")
    assert events[2][2:] == ["learning", 2, {"loss": 0.5}]
    assert events[-1][2] == record.model_dump(mode="json")


def test_a_run_that_goes_on_has_the_same_name_for_the_tracker(run: Run, tmp_path: Path) -> None:
    run(f"diary:{tmp_path / 'd'}")
    run(f"diary:{tmp_path / 'd'}")
    started = [event for event in heard(tmp_path / "d") if event[0] == "started"]
    assert started[0] == started[1]


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("raising", "failed in run_progressed: RuntimeError: the server is gone (core/trackers.py"),
        ("dying", "ended its process with code 3; it is left out, and the run goes on"),
        ("slow", "was still busy when all runs were done, and is stopped"),
        ("meddling", None),
    ],
)
def test_whatever_a_tracker_does_the_run_is_the_same(
    name: str, warning: str | None, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = run()
    with caplog.at_level(logging.WARNING, "mmrec_bench"):
        started = time.monotonic()
        tracked = run(f"{name}:{tmp_path / 'd'}", patience=0.5 if name == "slow" else 30.0)
    assert tracked.digest == alone.digest
    assert tracked.metrics == alone.metrics
    assert time.monotonic() - started < 50
    lines = [one.getMessage() for one in caplog.records]
    assert len(lines) == (warning is not None)
    told = f"tracker {name!r} of {PLUGIN} {warning}"
    assert all(line.startswith(told) for line in lines)
    assert os.environ.get("OMP_NUM_THREADS") != "7"


def test_a_tracker_that_raised_hears_nothing_more_and_the_others_do(
    run: Run, tmp_path: Path
) -> None:
    run(f"raising:{tmp_path / 'raising'}", f"diary:{tmp_path / 'd'}")
    assert [event[0] for event in heard(tmp_path / "raising")] == ["started", "progressed"]
    assert heard(tmp_path / "d")[-1][0] == "finished"


def test_a_run_that_fails_is_told_with_its_reason(run: Run, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no more data"):
        run(f"diary:{tmp_path / 'd'}", fails=True)
    last = heard(tmp_path / "d")[-1]
    assert last[0] == "failed"
    assert "failed in fit: ValueError: no more data" in last[2]


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("diry", UnknownNameError, "did you mean 'diary'"),
        ("homeless", PluginError, "pip install 'mmrec-bench.homeless.'"),
        ("unbuildable", PluginError, "OSError: no such server"),
        ("halved", PluginError, "has no run_progressed, run_finished, run_failed"),
        ("halved:x", ConfigError, "tracker.target"),
    ],
)
def test_what_cannot_track_is_told_before_anything_runs(
    text: str, error: type[Exception], reason: str, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(error, match=reason):
        run(text)
    assert not list(tmp_path.glob("results*"))


def test_the_command_line_tracks_and_a_dry_run_does_not(root: Path, tmp_path: Path) -> None:
    diary = tmp_path / "d"
    arguments: list[str | Path] = ["-q", "--plugin", PLUGIN, "run", "-m", "talker", *TINY, "--json"]
    arguments += ["--data-root", root, "--results", tmp_path / "r", "--no-baselines"]
    arguments += ["--track", f"diary:{diary}"]
    mmrec(*arguments, "--dry-run")
    assert not diary.exists()
    (record,) = json.loads(mmrec(*arguments).stdout)
    assert heard(diary)[-1] == ["finished", record["run_id"], record]


def test_a_killed_run_is_told_as_failed(tmp_path: Path) -> None:
    diary = tmp_path / "d"
    code = (
        "import os, signal, time\n"
        "from pathlib import Path\n"
        "from mmrec_bench.observers import Observer\n"
        "from mmrec_bench.plugins import installed, load_file\n"
        f"load_file(installed(), Path({str(PLUGIN)!r}))\n"
        f"one = Observer('diary:{diary}', installed()).start()\n"
        "one.wait_until_ready()\n"
        'one.tell(\'{"event": "run_started", "run_id": "x", "spec": {}}\')\n'
        "time.sleep(1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and len(diary.read_text().splitlines()) < 2:
        time.sleep(0.1)
    assert heard(diary) == [["started", "x", {}], ["failed", "x", "its process was killed"]]


def test_the_trials_of_a_search_are_told_under_names_of_their_own(tmp_path: Path) -> None:
    diary = tmp_path / "d"
    plugins: list[str | Path] = ["--plugin", PLUGIN, "--plugin", PLUGIN.parent / "searched.py"]
    mmrec("-q", *plugins, "tune", "-m", "dial", "-d", "toy", "-o", "protocol.k_core=0", "-n", "2",
          "-o", "protocol.candidates=full", "--results", tmp_path, "--json",
          "--track", f"diary:{diary}")  # fmt: skip
    finished = [event for event in heard(diary) if event[0] == "finished"]
    assert len(finished) == len({event[1] for event in finished}) == 2
    for _, run_id, told in finished:
        assert run_id.endswith("-trial")
        assert told["spec"]["model"]["name"] == "dial"
        assert list(told["metrics"]) == ["validation_ndcg@10"]


def test_a_sweep_tells_each_run(root: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "base: {protocol: {k_core: 2, n_candidates: 5}, metrics: [ndcg@5], encoder: null}\n"
        "models: [talker, popularity]\ndatasets: [sequences]\n"
    )
    mmrec("-q", "--plugin", PLUGIN, "sweep", sweep, "--data-root", root, "--results",
          tmp_path / "r", "--track", f"diary:{tmp_path / 'd'}")  # fmt: skip
    told = [event[0] for event in heard(tmp_path / "d")]
    assert told == ["started", *["progressed"] * 5, "finished", "started", "finished"]
