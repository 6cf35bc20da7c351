"""The distribution tests/third_party/broken-plugins fails in every way, and nothing else does."""

import asyncio
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench import guard
from mmrec_bench.errors import ConfigError, PluginError

BROKEN = Path(__file__).parents[1] / "third_party" / "broken-plugins"
LEFT_OUT = {
    "exits-on-import": "failed on import: SystemExit: this plugin needs another Python",
    "mmrec-error-on-import": "failed on import: ConfigError: set MY_KEY first",
    "panics-on-import": "failed on import: PanicError: index out of bounds",
    "raises-on-import": "failed on import: ModuleNotFoundError: No module named 'no_such_package",
    "raises-on-registration": "failed on registration: KeyError: 'models'",
    "raises-in-commands": "failed to register commands: AttributeError",
}


def mmrec(*arguments: str | Path, check: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line where the broken distribution is installed."""
    path = os.pathsep.join(filter(None, (str(BROKEN), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "mmrec_bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == check, done.stderr
    assert "Traceback" not in done.stderr or "--debug" in arguments
    return done


def run(model: str, folder: Path, *more: str, check: int = 1) -> tuple[list[Any], list[str]]:
    """Run a model on few cases; return the records, and what was said beside the left-out ones."""
    arguments = ["-m", model, "-d", "amazon", "--limit-cases", "8", "--results", str(folder)]
    done = mmrec("-q", "run", *arguments, "--json", *more, check=check)
    lines = [line for line in done.stderr.splitlines() if "is left out" not in line]
    return json.loads(done.stdout or "[]"), [line for line in lines if "no Amazon data" not in line]


def test_what_fails_at_the_start_is_left_out_by_name_and_the_rest_goes_on() -> None:
    done = mmrec("plugins", "--json")
    found = json.loads(done.stdout)
    broken = {one["name"]: one for one in found["broken"]}
    assert set(broken) == set(LEFT_OUT)
    for name, reason in LEFT_OUT.items():
        assert broken[name]["distribution"] == "broken-plugins"
        assert broken[name]["reason"].startswith(reason)
        assert "(broken_plugins/" in broken[name]["reason"]
        assert f"plugin {name} of broken-plugins is left out: {reason}" in done.stderr
    names = {one["name"] for one in found["loaded"]}
    assert {"models", "raises-in-use"} <= names


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("raises-in-save", "failed in save: ZeroDivisionError"),
        ("raises-in-facts", "failed in facts: ZeroDivisionError"),
        ("wrong-shape", "returned scores of shape (8, 21), expected (8, 20)"),
    ],
)
def test_a_model_that_fails_in_a_run_is_one_line_with_its_distribution_and_step(
    model: str, line: str, tmp_path: Path
) -> None:
    records, said = run(model, tmp_path)
    assert records == []
    assert len(said) == 1
    assert said[0].startswith(f"error: model {model!r} of broken-plugins {line}")
    assert "returned" in line or said[0].endswith(")")  # the file and the line


def test_a_model_that_cannot_be_restored_is_named(tmp_path: Path) -> None:
    (record,), _ = run("raises-in-restore", tmp_path, check=0)
    parts = tmp_path / "runs" / record["run_id"] / "predictions"
    for part in parts.iterdir():
        part.unlink()
    _, said = run("raises-in-restore", tmp_path)
    assert "of broken-plugins failed in restore: ZeroDivisionError" in said[0]


def test_baselines_that_fail_are_named_and_the_others_and_the_model_run(tmp_path: Path) -> None:
    records, said = run("works", tmp_path)
    assert [one["spec"]["model"]["name"] for one in records] == ["popularity", "works"]
    assert len(said) == 4
    for name in ("gone", "raises-in-construction", "raises-in-fit", "raises-in-score"):
        assert any(line.startswith(f"baseline {name} failed: model {name!r} of") for line in said)


def test_where_the_model_fails_its_baselines_are_still_shown(tmp_path: Path) -> None:
    arguments = ["-m", "fails-after-baselines", "-d", "amazon", "--limit-cases", "8"]
    done = mmrec("-q", "run", *arguments, "--results", tmp_path, check=1)
    assert "popularity" in done.stdout
    assert "difference" not in done.stdout
    assert "error: model 'fails-after-baselines' of broken-plugins" in done.stderr


def test_a_metric_that_fails_loses_neither_the_run_nor_the_other_metrics(tmp_path: Path) -> None:
    names = "raises-in-measure,ndcg@10,too-short"
    (record,), said = run("popularity", tmp_path, "--metrics", names)
    assert set(record["metrics"]) == {"ndcg@10"}
    assert said[0].startswith(
        "raises-in-measure is not in the record: metric 'raises-in-measure' of broken-plugins "
        "failed in measure: KeyError"
    )
    assert "gave (1,) values for 8 cases" in said[1]


def test_where_no_metric_can_be_measured_the_run_is_still_recorded(tmp_path: Path) -> None:
    arguments = ["-m", "popularity", "-d", "amazon", "--limit-cases", "8"]
    done = mmrec("-q", "run", *arguments, "--metrics", "too-short", "--results", tmp_path, check=1)
    assert "no metric could be measured" in done.stdout
    assert len(list((tmp_path / "records").rglob("*.json"))) == 1


def test_a_data_set_that_fails_is_named(tmp_path: Path) -> None:
    arguments = ["-m", "popularity", "-d", "raises-in-load", "--data-root", str(tmp_path)]
    done = mmrec("-q", "run", *arguments, "--results", tmp_path, check=1)
    line = "error: dataset 'raises-in-load' of broken-plugins failed in load: FileNotFoundError"
    assert line in done.stderr


@pytest.mark.parametrize("step", ["prepare", "build"])
def test_a_builder_that_fails_inside_a_model_is_blamed_itself(step: str, tmp_path: Path) -> None:
    more = ("--instructions", f"raises-in-{step}", "--no-baselines")
    _, said = run("lm-zero-shot", tmp_path, *more)
    assert (
        f"error: instructions 'raises-in-{step}' of broken-plugins failed in {step}: " in said[-1]
    )


@pytest.mark.parametrize("step", ["encode", "fingerprint"])
def test_an_encoder_that_fails_is_blamed_itself(step: str, tmp_path: Path) -> None:
    _, said = run("vbpr", tmp_path, "--no-baselines", "-o", f"vectors.name=raises-in-{step}")
    assert f"error: encoder 'raises-in-{step}' of broken-plugins failed in {step}: " in said[-1]


def test_debug_prints_the_traceback_of_what_is_left_out_and_of_the_error(tmp_path: Path) -> None:
    arguments = ["-m", "raises-in-fit", "-d", "amazon", "--limit-cases", "8"]
    done = mmrec("--debug", "run", *arguments, "--results", tmp_path, check=1)
    assert done.stderr.count("Traceback") >= len(LEFT_OUT) + 1
    assert "in at" in done.stderr


def test_errors_made_on_purpose_and_a_full_disk_pass_as_they_are() -> None:
    with pytest.raises(ConfigError, match=r"^mine$"), guard.calling("model", "m", str, "fit"):
        raise ConfigError("mine")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space") as caught, guard.blaming("x"):
        raise full
    assert caught.value is full
    with pytest.raises(KeyboardInterrupt), guard.blaming("x"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EACCES, errno.EROFS])
def test_a_broken_pipe_and_a_file_that_may_not_be_read_are_told_with_their_step(
    number: int,
) -> None:
    error = OSError(number, os.strerror(number), "weights.bin")
    with (
        pytest.raises(PluginError, match=r"failed in restore: .*'weights\.bin'"),
        guard.calling("model", "m", str, "restore"),
    ):
        raise error


@pytest.mark.parametrize("kind", [asyncio.CancelledError, SystemExit, BaseException])
def test_what_is_no_exception_of_the_usual_kind_is_told_like_any_other(
    kind: type[BaseException],
) -> None:
    with (
        pytest.raises(PluginError, match=rf"failed in fit: {kind.__name__}: stop"),
        guard.calling("model", "m", str, "fit"),
    ):
        raise kind("stop")


def test_an_exception_whose_message_raises_is_told_without_it() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    shown = r"x: MuteError: \(its message cannot be shown\)"
    with pytest.raises(PluginError, match=shown), guard.blaming("x"):
        raise MuteError


def test_where_all_that_runs_is_a_plugins_an_error_made_on_purpose_is_told_with_its_name() -> None:
    told = "x: ConfigError: mine"
    with pytest.raises(PluginError, match=told), guard.blaming("x", whole=True):
        raise ConfigError("mine")
    with pytest.raises(PluginError, match=r"^named$"), guard.blaming("x", whole=True):
        raise PluginError("named")


def test_a_journal_hears_whose_code_is_entered_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(guard, "_JOURNAL", guard._Journal())
    guard.keep_journal(heard.append)
    with guard.blaming("x", step="check"), guard.calling("model", "m", str, "fit"):
        pass
    assert heard == ["check", "fit of model 'm' of builtins", "check", ""]


def test_a_long_message_of_many_lines_is_one_short_line() -> None:
    with pytest.raises(PluginError) as caught, guard.blaming("it failed"):
        raise ValueError("many\nlines " * 200)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450


def test_the_owner_of_a_class_is_its_distribution_or_else_its_module() -> None:
    class Part:
        pass

    assert guard.owner_of(Part()) == __name__
    guard.belongs(Part, "some-distribution")
    assert guard.owner_of(Part) == guard.owner_of(Part()) == "some-distribution"
