import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmrec_bench.errors import ConfigError
from mmrec_plugins.instructions.building.config import default_output, parse_kinds, parse_request

SMALL = ["-o", "dataset.sample_users=40", "-o", "dataset.sample_items=40"]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "mmrec_bench", *map(str, arguments)]


def mmrec(*arguments: str | Path, check: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == check, done.stderr
    return done


def build(output: Path, *more: str | Path, check: int = 0) -> subprocess.CompletedProcess[str]:
    arguments = ["instructions", "build", "-d", "amazon", *SMALL, "--data-root"]
    return mmrec(*arguments, output.parent / "none", "-O", output, *more, check=check)


def test_build_preview_and_export_from_the_command_line(tmp_path: Path) -> None:
    output = tmp_path / "corpus"
    done = build(output, "--json")
    report = json.loads(done.stdout)
    assert set(report["kinds"]) == {"profile", "attributes", "zero-shot", "few-shot"}
    assert all(kind["kept"] > 0 for kind in report["kinds"].values())
    assert "writing few-shot with template" in done.stderr
    assert json.loads((output / "report.json").read_text()) == report
    page = mmrec("instructions", "preview", output, "--examples", "2")
    assert str(output / "preview.html") in page.stdout
    rows = mmrec("instructions", "export", output, "-o", tmp_path / "factory", "--json")
    kept = sum(kind["kept"] for kind in report["kinds"].values())
    assert sum(json.loads(rows.stdout).values()) == kept


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    output = tmp_path / "corpus"
    found = json.loads(build(output, "--dry-run", "--json", "-k", "profile").stdout)
    assert found["requests"] >= found["entries"]["profile"] > 0
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-t", "templat"], "did you mean 'template'?"),
        (["-t", "template:gpt"], "takes no model"),
        (["-k", "profil"], "kind 'profil' is not one of"),
        (["-o", "building.chunks=3"], "did you mean 'chunk'?"),
        (["-o", "teacher.x=3"], "unknown option teacher.x"),
        (["-t", "lm:nowhere"], "nowhere"),
        (["-o", "protocol.k_core=400"], "left"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], line: str) -> None:
    done = build(tmp_path / "corpus", *arguments, check=1 if line in ("left", "nowhere") else 2)
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert line in errors[0]
    assert "Traceback" not in done.stderr


def test_without_a_data_set_the_usage_is_shown() -> None:
    assert "--dataset is missing" in mmrec("instructions", "build", check=2).stderr


def test_help_names_the_commands_and_imports_none_of_them() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from mmrec_bench.cli import cli\n"
        "from mmrec_bench.plugins import installed\n"
        "installed().manager.hook.mmrec_register_commands(cli=cli)\n"
        "out = CliRunner().invoke(cli, ['instructions', '--help']).output\n"
        "assert all(name in out for name in ('build', 'preview', 'export')), out\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_configuration_file_and_options_lie_over_one_another() -> None:
    request = parse_request(
        {"dataset": "amazon", "teacher": "lm:smollm2", "building": {"chunk": 3, "per_user": 1}},
        ["building.chunk=4", "teacher.fill=whole", "protocol.k_core=2"],
        kind="all",
        teacher=None,
        language="zh",
        limit=5,
    )
    assert request.teacher_label == "lm:smollm2"
    assert request.teacher_options == {"fill": "whole", "model": "smollm2"}
    assert (request.building.chunk, request.building.per_user) == (4, 1)
    assert request.run.protocol.k_core == 2


def test_a_models_name_may_hold_colons_and_slashes() -> None:
    request = parse_request(
        {"dataset": "amazon"}, [], kind="profile", teacher="openai:org/m:free", language="en",
        limit=None,
    )  # fmt: skip
    assert request.teacher_options == {"model": "org/m:free"}
    assert default_output("toy", request.teacher_label).parts[-1] == "openai-org-m-free"


def test_kinds_keep_their_order() -> None:
    assert parse_kinds("few-shot, profile") == ("profile", "few-shot")
    with pytest.raises(ConfigError):
        parse_kinds("")


@pytest.mark.slow
def test_a_build_that_is_killed_goes_on_to_the_same_corpus(tmp_path: Path) -> None:
    options = ["-t", "lm:chatglm2-micro", "-k", "attributes,profile", "--limit", "6",
               "-o", "building.batch_size=2", "-o", "building.max_tokens=64"]  # fmt: skip
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    build(whole, *options)
    arguments = command("instructions", "build", "-d", "amazon", *SMALL, "--data-root",
                        tmp_path / "none", "-O", torn, *options)  # fmt: skip
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    journal = torn / "answers.jsonl"
    until = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        assert time.monotonic() < until
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (torn / "report.json").exists()
    done = build(torn, *options, "--json")
    report = json.loads(done.stdout)
    remembered = sum(kind["account"]["remembered"] for kind in report["kinds"].values())
    requests = sum(kind["account"]["requests"] for kind in report["kinds"].values())
    assert 4 <= remembered < requests
    for kind in ("attributes", "profile"):
        name = f"{kind}.jsonl"
        assert (torn / name).read_bytes() == (whole / name).read_bytes()
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == requests
