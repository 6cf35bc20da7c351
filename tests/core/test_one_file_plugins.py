import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmrec_bench.cli import group_options_first
from mmrec_bench.errors import ConfigError, PluginError
from mmrec_bench.plugins import Plugins, find_entry_points, load, load_file

SOURCE = """
import numpy as np
from mmrec_bench.config import ComponentConfig
from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry
from mmrec_bench.types import Scores

class Constant:
    reads_instructions = False
    class Config(ComponentConfig): pass
    def __init__(self, config): pass
    def fit(self, data, *, seed): self.n_items = data.n_items
    def score(self, queries):
        width = self.n_items if queries.candidates is None else queries.candidates.shape[1]
        return Scores(np.zeros((len(queries), width), np.float32))
    def save(self, folder): pass
    def restore(self, folder, data): self.n_items = data.n_items

@hookimpl
def mmrec_register_models():
    return [Entry("constant", f"{__name__}:Constant", "the same for all")]
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[Plugins]:
    yield load(find_entry_points())
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def written(folder: Path, text: str = SOURCE, name: str = "constant_plugin.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def mmrec(*arguments: str | Path, check: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "mmrec_bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    assert done.returncode == check, done.stderr
    return done


def test_a_file_is_a_plugin_owned_by_its_path(plugins: Plugins, tmp_path: Path) -> None:
    path = written(tmp_path)
    loaded = load_file(plugins, path)
    owned = plugins["model"].find("constant")
    assert owned.owner == loaded.distribution == str(path)
    assert owned.mark == loaded.version
    assert plugins["model"].load("constant").__name__ == "Constant"


def test_a_file_given_twice_is_loaded_once(plugins: Plugins, tmp_path: Path) -> None:
    path = written(tmp_path)
    assert load_file(plugins, path) is load_file(plugins, path)


def test_a_file_given_by_two_spellings_is_loaded_once(plugins: Plugins, tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path)
    loaded = load_file(plugins, path)
    assert load_file(plugins, tmp_path / ".." / tmp_path.name / path.name) is loaded
    assert load_file(plugins, tmp_path / "again" / path.name) is loaded


def test_a_name_that_is_no_text_is_refused(plugins: Plugins, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has a name that cannot be shown; rename it"):
        load_file(plugins, Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.py")))


def test_the_version_is_a_hash_of_the_content(tmp_path: Path) -> None:
    marks = []
    for number, text in enumerate((SOURCE, SOURCE, SOURCE + "# edited\n")):
        path = written(tmp_path, text, f"constant_{number}.py")
        marks.append(load_file(load(find_entry_points()), path).version)
    assert marks[0] == marks[1] != marks[2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\ny = 1 / 0\n", r"failing_plugin\.py.*ZeroDivisionError.*failing_plugin\.py:2"),
        ("def f(:\n", r"SyntaxError: .*failing_plugin\.py, line 1"),
        ("import no_such_package_anywhere\n", r"ModuleNotFoundError.*failing_plugin\.py:1"),
        (SOURCE.replace('"constant"', '"popularity"'), "registered twice: by mmrec-bench"),
        (SOURCE.replace('"constant"', '"../constant"'), "expected letters, digits"),
        (SOURCE.replace("register_models", "register_model"), "unknown hook"),
        (SOURCE.replace("@hookimpl\n", ""), "mmrec_register_models is not marked: write @hookimpl"),
        (SOURCE.replace("return [", "[", 1), "mmrec_register_models returned None"),
        ("x = 1\n", "has no hook, expected one of mmrec_register_"),
    ],
)
def test_a_file_that_fails_is_one_error_with_its_line(
    text: str, reason: str, plugins: Plugins, tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match=reason):
        load_file(plugins, written(tmp_path, text, "failing_plugin.py"))
    assert "constant" not in plugins["model"].names()
    assert "popularity" in plugins["model"].names()


def test_a_file_that_is_not_there_is_named(plugins: Plugins, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"gone\.py cannot be read"):
        load_file(plugins, tmp_path / "gone.py")


def test_a_file_may_not_hide_a_module(plugins: Plugins, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"would hide the module 'json'.*rename"):
        load_file(plugins, written(tmp_path, SOURCE, "json.py"))
    assert sys.modules["json"] is json


def test_the_option_may_stand_anywhere_before_a_double_dash() -> None:
    assert group_options_first(["run", "-m", "x", "--plugin", "a.py", "--plugin=b.py"]) == [
        "--plugin", "a.py", "--plugin=b.py", "run", "-m", "x",
    ]  # fmt: skip
    assert group_options_first(["run", "--", "--plugin", "a"]) == ["run", "--", "--plugin", "a"]
    assert group_options_first(["list", "models", "--debug"]) == ["--debug", "list", "models"]


def test_the_option_without_a_file_is_told() -> None:
    with pytest.raises(ConfigError, match="--plugin needs the path of a Python file"):
        group_options_first(["run", "--plugin"])


def test_an_edited_file_is_another_run(tmp_path: Path) -> None:
    arguments = ["-q", "run", "-m", "constant", "-d", "amazon", "--limit-cases", "5", "--json"]
    records = []
    for text in (SOURCE, SOURCE, SOURCE + "# edited\n"):
        path = written(tmp_path, text)
        done = mmrec(*arguments, "--plugin", path, "--results", tmp_path / "results")
        records.append(json.loads(done.stdout)[0])
    assert records[0]["run_id"] == records[1]["run_id"] != records[2]["run_id"]
    assert records[0]["spec"]["model"]["fingerprint"]
    other = mmrec("show", records[0]["run_id"], "--results", tmp_path / "results", "--plugin", path)
    assert records[0]["spec"]["model"]["fingerprint"] in other.stdout


def test_the_variable_names_files_for_every_call(tmp_path: Path) -> None:
    good, bad = written(tmp_path), written(tmp_path, "1 / 0\n", "bad_plugin.py")
    done = mmrec("list", "models", "--json", MMREC_PLUGINS=os.pathsep.join(map(str, (bad, good))))
    owners = {one["name"]: one["distribution"] for one in json.loads(done.stdout)}
    assert owners["constant"] == str(good)
    assert "bad_plugin.py:1" in done.stderr


def test_a_missing_file_ends_the_command_with_one_line(tmp_path: Path) -> None:
    done = mmrec("list", "models", "--plugin", tmp_path / "gone.py", check=1)
    assert done.stderr.startswith("error: plugin file")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.EACCES, "error: command 'stumble' of {path} failed: PermissionError: "),
        (errno.ENOSPC, "error: cannot write weights.bin: No space left on device"),
    ],
)
def test_a_file_that_may_not_be_used_and_a_full_disk_are_one_line_each(
    number: int, line: str, tmp_path: Path
) -> None:
    source = (
        "import click, os\n"
        "from mmrec_bench.hookspecs import hookimpl\n"
        "@hookimpl\n"
        "def mmrec_register_commands(cli):\n"
        "    @cli.command()\n"
        "    def stumble():\n"
        f"        raise OSError({number}, os.strerror({number}), 'weights.bin')\n"
    )
    path = written(tmp_path, source)
    done = mmrec("stumble", check=1, MMREC_PLUGINS=str(path))
    assert done.stderr.startswith(line.format(path=path))
    assert "weights.bin" in done.stderr
    assert done.stderr.count("\n") == 1
