import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmrec_bench.plugins import installed

TINY = [
    "-d", "sequences", "-o", "protocol.k_core=2", "-o", "protocol.n_candidates=5",
]  # fmt: skip


WORST_RANK = """
import numpy as np
from mmrec_bench.config import ComponentConfig
from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry
from mmrec_bench.types import Measurement

class Worst:
    higher_is_better = False
    class Config(ComponentConfig):
        k: int
    def __init__(self, config):
        self.name = f"worst@{config.k}"
    def measure(self, outcomes):
        ranks = outcomes.ranks
        worst = np.zeros(len(ranks))
        np.maximum.at(worst, ranks.case, ranks.n_better + ranks.n_tied + 1.0)
        return Measurement.mean(worst)

@hookimpl
def mmrec_register_metrics():
    return [Entry("worst", "worst_rank:Worst", "worst rank of any target")]
"""


def mmrec(*arguments: str | Path, check: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does; fails the test on another exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "mmrec_bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == check, done.stderr
    return done


def run_popularity(root: Path, results: Path, *more: str) -> list[dict[str, Any]]:
    done = mmrec("-q", "run", "-m", "popularity", *TINY, "--data-root", root,
                 "--results", results, "--json", *more)  # fmt: skip
    records: list[dict[str, Any]] = json.loads(done.stdout)
    return records


def test_a_run_leaves_a_record_and_predictions(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (record,) = run_popularity(root, results)
    path = results / "records" / "toy" / "popularity" / f"{record['run_id']}.json"
    assert json.loads(path.read_text()) == record
    assert list((results / "runs" / str(record["run_id"]) / "predictions").glob("part-*.npz"))


def test_the_same_command_again_gives_the_same_record(root: Path, tmp_path: Path) -> None:
    (first,) = run_popularity(root, tmp_path / "results")
    (again,) = run_popularity(root, tmp_path / "results")
    (fresh,) = run_popularity(root, tmp_path / "results", "--fresh")
    (elsewhere,) = run_popularity(root, tmp_path / "other")
    assert first["digest"] == again["digest"] == fresh["digest"] == elsewhere["digest"]
    assert first["resources"] == again["resources"]


def test_evaluating_keeps_the_memory_and_the_versions_of_the_run(
    root: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    (record,) = run_popularity(root, results)
    machine = results / "runs" / str(record["run_id"]) / "machine.json"
    assert json.loads(machine.read_text())["environment"].items() <= record["environment"].items()
    another = {"peak_memory_bytes": 123, "environment": {"python": "9.9"}}
    machine.write_text(json.dumps(another))  # as if another machine had run it
    done = mmrec("-q", "evaluate", str(record["run_id"]), "--results", results, "--json")
    (again,) = json.loads(done.stdout)
    assert again["resources"] == record["resources"] | {"peak_memory_bytes": 123}
    assert again["environment"] == {"python": "9.9", "device": "cpu"}


def test_what_a_killed_process_left_half_written_is_swept_away(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (record,) = run_popularity(root, results)
    run = results / "runs" / str(record["run_id"])
    records = results / "records" / "toy" / "popularity"
    strangers = records / ".another-run.json.77.tmp"
    left = [
        run / ".timing.json.77.tmp",
        run / "predictions" / ".part-0.npz.77.tmp",
        records / f".{record['run_id']}.json.77.tmp",
        run / "model.draft" / "weights",
    ]
    for path in [*left, strangers]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    (again,) = run_popularity(root, results)
    assert again["digest"] == record["digest"]
    assert not [path for path in left if path.exists()]
    assert strangers.exists()  # another run may be writing it now


def test_a_folder_in_which_another_spec_ran_is_refused(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (record,) = run_popularity(root, results)
    spec = results / "runs" / str(record["run_id"]) / "spec.json"
    spec.write_text(spec.read_text().replace('"seed": 0', '"seed": 5'))
    arguments = ["-m", "popularity", *TINY, "--data-root", str(root), "--results", str(results)]
    done = mmrec("-q", "run", *arguments, check=1)
    assert "belongs to another run" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_card_in_a_record_says_what_the_protocol_leaks(root: Path, tmp_path: Path) -> None:
    for split, leaks in (("leave-one-out", True), ("global-time", False)):
        (record,) = run_popularity(root, tmp_path / split, "--protocol", split)
        card = record["card"]
        assert isinstance(card, dict)
        assert any("leaks across users in time" in note for note in card["notes"]) == leaks


def test_the_table_goes_to_stdout_and_progress_to_stderr(root: Path, tmp_path: Path) -> None:
    done = mmrec("run", "-m", "popularity", *TINY, "--data-root", root, "--results", tmp_path / "r")
    assert "popularity" in done.stdout
    assert "ndcg@10 [95 %]" in done.stdout
    assert "scoring with popularity: 30/30 cases" in done.stderr


def test_stored_predictions_are_measured_again_without_the_model(
    root: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    (record,) = run_popularity(root, results)
    done = mmrec("-q", "evaluate", str(record["run_id"]), "--results", results,
                 "--metrics", "recall@3,map@3", "--json")  # fmt: skip
    (measured,) = json.loads(done.stdout)
    assert set(measured["metrics"]) == {*record["metrics"], "recall@3", "map@3"}
    assert measured["spec"] == record["spec"]


def test_a_finished_run_keeps_what_its_record_tells_until_it_is_made_afresh(
    root: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    (first,) = run_popularity(root, results)
    (again,) = run_popularity(root, results, "--metrics", "recall@3")
    assert next(iter(again["metrics"])) == "recall@3"
    assert set(again["metrics"]) == {*first["metrics"], "recall@3"}
    (fresh,) = run_popularity(root, results, "--metrics", "recall@3", "--fresh")
    assert set(fresh["metrics"]) == {"recall@3"}


def test_runs_on_other_cases_are_not_compared_in_one_table(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (first,) = run_popularity(root, results)
    (second,) = run_popularity(root, results, "--limit-cases", "7")
    ids = [str(first["run_id"]), str(second["run_id"])]
    text = mmrec("-q", "evaluate", *ids, "--results", results).stdout
    assert text.count("ndcg@10 [95 %]") == 2
    assert "difference" not in text
    text = mmrec("-q", "evaluate", ids[0], ids[0], "--results", results).stdout
    assert text.count("ndcg@10 [95 %]") == 1
    assert "difference in ndcg@10" in text


def test_evaluating_against_changed_data_is_refused(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (record,) = run_popularity(root, results)
    with (root / "toy.txt").open("a") as file:
        file.write("u99 i1 i2 i3 i4\n")
    done = mmrec("-q", "evaluate", str(record["run_id"]), "--results", results, check=1)
    assert "other cases" in done.stderr
    assert done.stderr.count("\n") == 1


def test_leaderboard_writes_checks_and_notices_change(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    run_popularity(root, results)
    board = tmp_path / "board.csv"
    mmrec("leaderboard", results, "-o", board)
    (row,) = csv.DictReader(board.read_text().splitlines())
    assert (row["model"], row["rank"], row["dataset"]) == ("popularity", "1", "toy")
    mmrec("leaderboard", results, "-o", board, "--check")
    mmrec("-q", "run", "-m", "random", *TINY, "--data-root", root, "--results", results)
    assert "not what the records say" in mmrec(
        "leaderboard", results, "-o", board, "--check", check=1
    ).stderr  # fmt: skip


def test_a_table_on_standard_output_stands_alone(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    run_popularity(root, results)
    done = mmrec("leaderboard", results, "-o", "/dev/stdout", "--format", "csv")
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert row["model"] == "popularity"
    assert "/dev/stdout: 1 rows" in done.stderr


def test_a_recorded_metric_whose_plugin_is_gone_is_named_with_the_record(
    root: Path, tmp_path: Path
) -> None:
    results, plugin = tmp_path / "results", tmp_path / "worst_rank.py"
    plugin.write_text(WORST_RANK)
    (record,) = run_popularity(root, results, "--plugin", str(plugin), "--metrics", "worst@3")
    done = mmrec("-q", "run", "-m", "popularity", *TINY, "--data-root", root, "--results", results,
                 check=2)  # fmt: skip
    assert f"{record['run_id']}.json tells a metric that cannot be measured again" in done.stderr
    assert "worst" in done.stderr


def test_a_leaderboard_goes_to_stdout_as_json_or_by_its_path(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    run_popularity(root, results)
    (board,) = json.loads(mmrec("leaderboard", results, "--json").stdout)
    assert [row["label"] for row in board["rows"]] == ["popularity"]
    shown = mmrec("leaderboard", results, "-o", "/dev/stdout", "--format", "csv").stdout
    assert shown.startswith("dataset,")
    mmrec("leaderboard", results, "-o", "/dev/stdout", "--format", "csv", "--check", check=1)


def test_a_tampered_record_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    run_popularity(root, results)
    (path,) = (results / "records").rglob("*.json")
    path.write_text(path.read_text().replace('"n_cases": 30', '"n_cases": 31'))
    assert "changed after it was written" in mmrec("leaderboard", results, check=1).stderr


def test_show_finds_a_run_by_the_beginning_of_its_id(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (record,) = run_popularity(root, results)
    done = mmrec("show", str(record["run_id"])[:14], "--results", results, "--json")
    assert json.loads(done.stdout) == record
    assert "unknown run 'nope'" in mmrec("show", "nope", "--results", results, check=2).stderr


def test_dry_run_prints_the_resolved_spec_and_writes_nothing(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = mmrec("-q", "run", "-m", "popularity", *TINY, "--data-root", root,
                 "--results", results, "--dry-run")  # fmt: skip
    (spec,) = yaml.safe_load_all(done.stdout)
    assert spec["protocol"]["n_candidates"] == 5
    assert spec["model"]["name"] == "popularity"
    assert not results.exists()


def test_a_configuration_file_says_all_and_the_command_line_lies_over_it(
    root: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        "model: popularity\ndataset: sequences\nprotocol: {k_core: 2, n_candidates: 5}\n"
        "metrics: [ndcg@5]\n"
    )
    done = mmrec("-q", "run", "--config", config, "--data-root", root, "--results", tmp_path / "r",
                 "-o", "protocol.n_candidates=4", "--limit-cases", "7", "--json")  # fmt: skip
    (record,) = json.loads(done.stdout)
    assert record["spec"]["protocol"]["n_candidates"] == 4
    assert record["counts"]["n_cases"] == 7
    assert list(record["metrics"]) == ["ndcg@5"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "-m", "popularty", "-d", "sequences"], "did you mean 'popularity'"),
        (["run", "-m", "popularity", "-d", "sequnces"], "did you mean 'sequences'"),
        (["run", "-m", "popularity", "-d", "sequences", "--metrics", "ndcg"], "needs a cutoff"),
        (["run", "-m", "popularity", "-d", "sequences", "--metrics", "ngcg@5"], "'ndcg'"),
        (["run", "-m", "popularity", "-d", "sequences", "-o", "model.x=1"], "model.x"),
        (["run", "-m", "popularity", "-d", "sequences", "-o", "nonsense"], "section.key=value"),
        (["run", "-m", "popularity"], "--dataset is missing"),
        (["rnu"], "did you mean 'run'"),
        (["list", "model"], "models"),
    ],
)
def test_a_wrong_word_is_an_error_that_names_the_right_one(
    arguments: list[str], line: str, root: Path
) -> None:
    more = ["--data-root", str(root)] if arguments[0] == "run" else []
    done = mmrec(*arguments, *more, check=2)
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def test_strict_makes_damaged_data_an_error(root: Path, tmp_path: Path) -> None:
    (root / "toy.txt").write_bytes((root / "toy.txt").read_bytes() + b"lonely-user\n")
    arguments = ["-m", "popularity", *TINY, "--data-root", str(root)]
    arguments += ["--results", str(tmp_path / "r")]
    mmrec("-q", "run", *arguments)
    done = mmrec("-q", "run", "--strict", *arguments, check=1)
    assert "toy.txt" in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_data_is_one_line_and_debug_shows_the_traceback(tmp_path: Path) -> None:
    root = str(tmp_path / "none")
    arguments = ["run", "-m", "popularity", "-d", "sequences", "--data-root", root]
    done = mmrec("-q", *arguments, check=1)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" in mmrec("--debug", *arguments, check=1).stderr


@pytest.mark.parametrize("kind", ["datasets", "instructions", "encoders", "models", "metrics"])
def test_list_shows_every_name_in_text_and_json(kind: str) -> None:
    registry = installed()[kind.removesuffix("s") if kind != "instructions" else kind]
    text = mmrec("list", kind).stdout
    names = [row["name"] for row in json.loads(mmrec("list", kind, "--json").stdout)]
    assert names == registry.names()
    assert [line.split()[0] for line in text.splitlines()] == names


def test_list_shows_the_options_of_one_name() -> None:
    text = mmrec("list", "models", "lm-lora").stdout
    assert "model.adapter" in text
    assert "lora" in text


@pytest.mark.parametrize("arguments", [["--help"], ["list", "models"], ["plugins"]])
def test_starting_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from mmrec_bench.cli import main\n"
        f"sys.argv = ['mmrec-bench', *{arguments!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'peft', 'openai', 'polars', 'numpy', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_plugins_lists_versions() -> None:
    report = json.loads(mmrec("plugins", "--json").stdout)
    assert report["broken"] == []
    assert {"name", "distribution", "version", "module"} == set(report["loaded"][0])


def test_a_reader_that_goes_away_is_no_error() -> None:
    shell = f"{sys.executable} -m mmrec_bench list metrics | head -n 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_from_the_start_is_no_error(closed: str) -> None:
    command = f"{sys.executable} -m mmrec_bench list metrics {closed}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert ("ndcg" in done.stdout) == (closed == "2>&-")
    assert done.stderr == ""


def test_a_full_disk_is_one_clear_line_and_nothing_is_lost(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (before,) = run_popularity(root, results)
    arguments = [sys.executable, "-m", "mmrec_bench", "-q", "run", "-m", "random", *TINY,
                 "--data-root", str(root), "--results", str(results)]  # fmt: skip
    limited = (
        "import resource, os, sys, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)); os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", limited, *arguments],
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})  # fmt: skip
    assert done.returncode == 1
    assert "no room to write" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(results.rglob("*.tmp"))
    (after,) = run_popularity(root, results)
    assert after["digest"] == before["digest"]
    subprocess.run(arguments, check=True, capture_output=True)


def test_doctor_says_what_was_looked_for_and_found(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmrec_bench", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MMREC_DATA": str(root), "OPENAI_API_KEY": "sk-secret"},
    )
    report = json.loads(done.stdout)
    assert report["packages"]["torch"]
    assert "CPU" in report["device"].get("cuda", "CPU")
    assert "embedded sample" in report["weights and data"][f"Amazon reviews in {root}"]
    assert any("chatglm2" in name.lower() for name in report["weights and data"])
    assert "sk-secret" not in done.stdout
