"""Commands of plugins, and what plugins do to standard output."""

import json
from pathlib import Path

import pytest

from tests.core.test_cli import mmrec
from tests.core.test_one_file_plugins import SOURCE

COMMANDS = """
import click
from mmrec_bench.errors import ConfigError
from mmrec_bench.hookspecs import hookimpl

class Shy(click.Command):
    def get_short_help_str(self, limit=45):
        raise RuntimeError("no help")

@click.command("hello")
@click.argument("how", default="well")
def hello(how):
    if how == "badly":
        raise KeyError("who")
    if how == "wrongly":
        raise click.UsageError("say it well")
    if how == "on purpose":
        raise ConfigError("set a name first")
    if how == "early":
        raise SystemExit(7)
    click.echo(f"hello, {how}")

@hookimpl
def mmrec_register_commands(cli):
    cli.add_command(hello)
    cli.add_command(Shy("shy"))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("commands") / "greeting_plugin.py"
    path.write_text(COMMANDS)
    return path


def test_a_command_of_a_one_file_plugin_is_found_wherever_the_option_stands(file: Path) -> None:
    assert mmrec("--plugin", file, "hello").stdout == "hello, well\n"
    assert mmrec("hello", "again", f"--plugin={file}").stdout == "hello, again\n"


def test_help_lists_a_plugins_commands_also_one_whose_help_raises(file: Path) -> None:
    said = mmrec("--plugin", file, "--help").stdout
    assert "  hello" in said
    assert "(its help cannot be shown: RuntimeError: no help" in said


def test_a_command_that_raises_is_named_with_its_plugin_and_line(file: Path) -> None:
    said = mmrec("--plugin", file, "hello", "badly", check=1).stderr
    assert said.startswith(f"error: command 'hello' of {file} failed: KeyError: 'who' (")
    assert "greeting_plugin.py:" in said


@pytest.mark.parametrize(
    ("how", "code", "line"),
    [
        ("wrongly", 2, "Error: say it well"),
        ("on purpose", 2, "error: set a name first"),
        ("early", 7, ""),
    ],
)
def test_a_command_that_ends_on_purpose_does_so(how: str, code: int, line: str, file: Path) -> None:
    assert line in mmrec("--plugin", file, "hello", how, check=code).stderr


@pytest.mark.parametrize(
    "harm",
    [
        "sys.stdout.close()",
        "os.closerange(0, 2)",
        "sys.stdout = None",
        "sys.stderr = sys.stdout = None",
    ],
)
def test_a_plugin_that_takes_standard_output_away_does_not_silence_the_command(
    harm: str, tmp_path: Path
) -> None:
    path = tmp_path / "constant_plugin.py"
    fit = "def fit(self, data, *, seed): "
    path.write_text("import os, sys\n" + SOURCE.replace(fit, f"{fit}{harm}; "))
    arguments = ("run", "-m", "constant", "-d", "amazon", "--limit-cases", "8", "--no-baselines")
    done = mmrec(*arguments, "--plugin", path, "--results", tmp_path / "results")
    assert "constant" in done.stdout
    assert "constant" in done.stderr
    again = mmrec(*arguments, "--plugin", path, "--results", tmp_path / "other", "--json")
    assert json.loads(again.stdout)[0]["spec"]["model"]["name"] == "constant"
    assert "FAILED" not in mmrec("check-plugin", "constant", "--plugin", path).stdout
