"""A plugin that ends the process of `check-plugin` is told, and the exit code is not its."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmrec_bench.cli import _command_of

DIES = """
import os
from mmrec_bench.config import ComponentConfig
from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry

class Dies:
    reads_instructions = False
    class Config(ComponentConfig): pass
    def __init__(self, config): pass
    def fit(self, data, *, seed): {fit}
    def score(self, queries): pass
    def save(self, folder): pass
    def restore(self, folder, data): pass

@hookimpl
def mmrec_register_models():
    return [Entry("dies", "dying_plugin:Dies", "ends the process")]

{start}
"""
WAYS = {
    "os._exit(0)": "with exit code 0",
    "os._exit(3)": "with exit code 3",
    "os.kill(os.getpid(), 11)": "by signal 11 (SIGSEGV)",
}


def check_plugin(folder: Path, *, fit: str = "pass", start: str = "") -> tuple[int, str]:
    path = folder / "dying_plugin.py"
    path.write_text(DIES.format(fit=fit, start=start))
    done = subprocess.run(
        [sys.executable, "-m", "mmrec_bench", "check-plugin", "dies", "--plugin", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_ends_the_process_in_fit_is_told_with_the_check(
    way: str, tmp_path: Path
) -> None:
    code, said = check_plugin(tmp_path, fit=way)
    assert code == 1
    assert said.startswith(f"error: the process ended {WAYS[way]} in: check 'scores' of Dies of ")


@pytest.mark.parametrize("way", WAYS)
def test_a_plugin_that_ends_the_process_on_import_is_told_by_name(way: str, tmp_path: Path) -> None:
    code, said = check_plugin(tmp_path, start=way)
    assert code == 1
    file = tmp_path / "dying_plugin.py"
    assert said.startswith(f"error: the process ended {WAYS[way]} in: import of the file {file};")


def test_a_process_that_a_plugin_forks_does_not_pass_for_the_end(tmp_path: Path) -> None:
    fork = "import sys\nif os.fork() == 0: sys.exit()\nos.wait(); os._exit(0)"
    code, said = check_plugin(tmp_path, start=fork)
    assert code == 1
    assert "the process ended with exit code 0" in said


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["-q", "--plugin", "list", "check-plugin", "x"], "check-plugin"),
        (["--plugin=list", "check-plugin"], "check-plugin"),
        (["list", "check-plugin"], "list"),
        (["--help"], ""),
    ],
)
def test_the_command_is_the_first_word_that_is_no_option_and_no_file(
    arguments: list[str], command: str
) -> None:
    assert _command_of(arguments) == command
