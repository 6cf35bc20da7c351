import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from mmrec_bench.authoring.names import LONGEST, names_of
from mmrec_bench.authoring.rendering import KINDS, commands, render, write
from mmrec_bench.errors import ConfigError
from mmrec_bench.plugins import installed

ROOT = Path(__file__).parents[2]


def made(folder: Path, name: str, kind: str) -> Path:
    target = folder / name
    write(render(names_of(name, kind, installed()), kind), target)
    return target


def tool(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    env = {**os.environ} if path is None else {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=env,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_passes_its_own_tests(kind: str, tmp_path: Path) -> None:
    folder = made(tmp_path, "my-own", kind)
    passed = tool("pytest", "-q", "-p", "no:cacheprovider", cwd=folder, path=folder)
    assert " passed" in passed
    assert " failed" not in passed


NAMES = ("x", "my-own", "scores", "path", "catalog", "exception", "test-case", "m" * LONGEST)


def test_what_is_written_passes_ruff_under_any_name(tmp_path: Path) -> None:
    for kind in KINDS:
        for name in NAMES:
            folder = made(tmp_path / kind, name, kind)
            for source in folder.rglob("*.py"):
                compile(source.read_text(), str(source), "exec")
    tool("ruff", "check", "--no-cache", ".", cwd=tmp_path)
    tool("ruff", "format", "--no-cache", "--check", ".", cwd=tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_names_its_commands_and_its_entry_point(kind: str, tmp_path: Path) -> None:
    folder = made(tmp_path, "my-own", kind)
    readme = (folder / "README.md").read_text()
    names = names_of("my-own", kind, installed())
    assert all(line in readme for line in commands(names, kind))
    assert 'my-own = "my_own"' in (folder / "pyproject.toml").read_text()
    assert (folder / "my_own" / "py.typed").exists()
    assert "$" not in readme


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_what_is_written_installs_in_a_fresh_environment_and_is_found(tmp_path: Path) -> None:
    import venv  # noqa: PLC0415 - only here

    venv.create(tmp_path / "venv", with_pip=True, system_site_packages=False)
    python = tmp_path / "venv" / "bin" / "python"
    # What the project depends on is here already; only the project and the plugins are installed.
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    here = [path for path in sys.path if path.endswith("site-packages")]
    (site / "outer.pth").write_text("\n".join(here) + "\n")

    def run(*arguments: str, cwd: Path) -> str:
        done = subprocess.run(
            [str(python), "-m", *arguments], capture_output=True, text=True, check=False, cwd=cwd
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("pip", "install", "-q", "--no-deps", "--force-reinstall", str(ROOT), cwd=tmp_path)
    for kind in KINDS:
        run("mmrec_bench", "new-plugin", f"own-{kind}", "--kind", kind, cwd=tmp_path)
        folder = tmp_path / f"own-{kind}"
        run("pip", "install", "-q", "--no-deps", "-e", ".", cwd=folder)
        run("pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
        run("ruff", "check", ".", cwd=folder)
        run("mypy", cwd=folder)
        name = "own_metric" if kind == "metric" else f"own-{kind}"
        assert " 0 failed" in run("mmrec_bench", "check-plugin", name, cwd=folder)


@pytest.mark.parametrize(
    "name",
    [
        "", "-", "-x", "x-", "a--b", "My-Own", "my_own", "my own", "1st", "../up", "/root", "a/b",
        "a.b", "a\nb", "ünder", "m" * (LONGEST + 1), "--help", "$name", "a;rm",
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_used_everywhere_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a plugin"):
        names_of(name, "model", installed())


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("class", "model", "word of Python"),
        ("json", "model", "word of Python"),
        ("tests", "model", "passed over by builds"),
        ("dist", "model", "passed over by builds"),
        ("node-modules", "metric", "passed over by builds"),
        ("numpy", "model", "distribution 'numpy' is installed"),
        ("mmrec-bench", "model", "distribution 'mmrec-bench' is installed"),
        ("mmrec-plugins", "model", "package 'mmrec_plugins' can be imported"),
        ("popularity", "model", "mmrec-bench registers a model 'popularity' already"),
        ("amazon", "dataset", "mmrec-bench registers a dataset 'amazon' already"),
        ("ndcg", "metric", "mmrec-bench registers a metric 'ndcg' already"),
    ],
)
def test_a_name_that_is_taken_is_refused(name: str, kind: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        names_of(name, kind, installed())


def test_a_refused_name_is_answered_with_a_usable_one() -> None:
    with pytest.raises(ConfigError, match=r"e\.g\. 'my-own-baseline'"):
        names_of("My_own baseline!", "model", installed())


def test_an_existing_folder_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "my-own").mkdir()
    with pytest.raises(ConfigError, match="left as it is"):
        made(tmp_path, "my-own", "model")
    assert not list((tmp_path / "my-own").iterdir())
    (tmp_path / "other").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="left as it is"):
        made(tmp_path, "other", "model")
    assert not (tmp_path / "nowhere").exists()


def test_the_command_prints_what_to_type_next(tmp_path: Path) -> None:
    said = tool("mmrec_bench", "new-plugin", "my-own", "--kind", "metric", "-O", ".", cwd=tmp_path)
    assert "cd my-own" in said
    assert "mmrec-bench check-plugin my_own" in said
    assert "--metrics ndcg@10,my_own@10" in said


def test_every_template_is_a_file_of_the_package() -> None:
    folder = files("mmrec_bench.authoring") / "templates"
    found = {one.name for one in folder.iterdir()}
    assert set(KINDS) <= found
    assert {"pyproject.toml.tmpl", "README.md.tmpl", "init.py.tmpl", "gitignore.tmpl"} <= found
