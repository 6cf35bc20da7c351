import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench import hookspecs
from mmrec_bench.contract.prepared import Asked
from mmrec_bench.contract.registered import check
from mmrec_bench.errors import PluginError
from mmrec_bench.interfaces import Recommender
from mmrec_bench.plugins import KINDS, Plugins, find_entry_points, installed, load, load_file
from mmrec_bench.registry import Owned
from mmrec_bench.teaching import Teacher, WritingRequest, Written
from mmrec_bench.testing import RecommenderTests

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "plugins"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks_of(page: str) -> tuple[str, list[str]]:
    """The name of the file that a page tells to copy, and the page's blocks of Python."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    name = re.search(r"copy it into `(\w+\.py)`", text)
    assert name is not None
    return name[1], re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def load_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Plugins, str]:
    """Load the file that a page tells to copy as a one-file plugin; return its entry's name."""
    file, blocks = blocks_of(page)
    (folder / file).write_text(blocks[0], encoding="utf-8")
    monkeypatch.setitem(sys.modules, Path(file).stem, None)  # put back, and taken away, at the end
    del sys.modules[Path(file).stem]
    plugins = load(find_entry_points())
    loaded = load_file(plugins, folder / file)
    (name,) = [o.entry.name for o in plugins[page] if o.owner == loaded.distribution]
    return plugins, name


@pytest.mark.parametrize("page", KINDS)
def test_the_file_on_a_page_keeps_the_contract_of_its_kind(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins, name = load_page(page, tmp_path, monkeypatch)
    (tmp_path / "pairs.tsv").write_text("u\ta\nu\tb\nv\ta\n")
    (tmp_path / "made").mkdir()
    results = check(Asked(page, name, {}, tmp_path, tmp_path / "made"), plugins)
    assert not [one for one in results if one.outcome == "failed"]
    assert sum(one.outcome == "ok" for one in results) >= (
        2 if page in ("teacher", "tracker") else 6
    )


def test_the_tests_on_the_pages_pass(tmp_path: Path) -> None:
    written = set()
    for page in (one for one in KINDS if one != "teacher"):
        file, blocks = blocks_of(page)
        written.add(f"test_{file}")
        (tmp_path / f"test_{file}").write_text("\n".join(blocks[:2]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rp", "-p", "no:cacheprovider", "."],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert set(re.findall(r"^PASSED (\w+\.py)::", done.stdout, re.MULTILINE)) == written


def test_the_teacher_in_the_docs_writes_one_answer_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins, name = load_page("teacher", tmp_path, monkeypatch)
    registry = plugins["teacher"]
    teacher = registry.create(name, registry.configure(name, {}, "teacher"))
    assert isinstance(teacher, Teacher)
    assert teacher.write([WritingRequest((), None, "yes")]) == [Written("YES")]


def test_the_command_on_the_teachers_page_writes_a_corpus(tmp_path: Path) -> None:
    file, blocks = blocks_of("teacher")
    (tmp_path / file).write_text(blocks[0], encoding="utf-8")
    text = (PAGES / "teacher.md").read_text(encoding="utf-8")
    command = re.search(r"^mmrec-bench (instructions build .*)$", text, re.MULTILINE)
    assert command is not None
    done = subprocess.run(
        [sys.executable, "-m", "mmrec_bench", *command[1].split(), "--limit", "3", "-O", "corpus"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "corpus" / "profile.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("page", KINDS)
def test_the_index_links_every_page(page: str) -> None:
    assert f"({page}.md)" in (PAGES / "README.md").read_text(encoding="utf-8")


def class_of(heading: str, page: str) -> Any:  # noqa: ANN401 - as the docs define
    """Run the first code block under a heading and return the class that it defines."""
    section = re.split(rf"\n##+ {re.escape(heading)}\n", page, maxsplit=1)[1]
    source = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert source is not None
    space: dict[str, Any] = {"__name__": f"docs_{heading.replace(' ', '_')}"}
    exec(compile(source[1], heading, "exec"), space)  # our own documentation
    return [v for v in space.values() if isinstance(v, type) and v.__module__ == space["__name__"]][
        -1
    ]


class TestModelInTheReadme(RecommenderTests):
    def make(self) -> Recommender:
        cls = class_of("Add your own in 20 lines", README)
        recommender: Recommender = cls(cls.Config())
        return recommender


def test_every_module_of_the_core_is_in_the_tree() -> None:
    core = [
        one for one in (ROOT / "mmrec_bench").iterdir() if not one.name.startswith(("_", "py."))
    ]
    names = [f"{one.name}/" if one.is_dir() else one.name for one in core]
    tree = set(re.findall(r"[\w/.]+", CONTRIBUTING.split("```")[1]))
    assert not [name for name in names if name not in tree]


@pytest.mark.parametrize(
    "hook", [name for name in vars(hookspecs) if name.startswith("mmrec_register")]
)
def test_every_hook_is_documented_with_its_arguments(hook: str) -> None:
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"`{hook}({arguments})`" in CONTRIBUTING
    assert inspect.getdoc(getattr(hookspecs, hook))


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_name_is_in_the_readme(kind: str) -> None:
    missing = [
        owned.entry.name
        for owned in installed()[kind]
        if owned.owner == "mmrec-bench" and f"`{owned.entry.name}" not in README
    ]
    assert not missing


def registered_classes(kind: str) -> Iterator[tuple[Owned, type[Any]]]:
    """Yield what is registered with its class; one whose extra is not installed is left out."""
    registry = installed()[kind]
    for owned in registry:
        try:
            yield owned, registry.load(owned.entry.name)
        except PluginError as error:
            if f"pip install '{owned.entry.extra}'" not in str(error):
                raise


@pytest.mark.parametrize("kind", KINDS)
def test_no_option_is_called_name_which_names_the_component(kind: str) -> None:
    assert not [
        owned.entry.name
        for owned, cls in registered_classes(kind)
        if "name" in cls.Config.model_fields
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_every_component_is_described(kind: str) -> None:
    missing = [
        f"{owned.entry.name}.{key}"
        for owned, cls in registered_classes(kind)
        if owned.owner == "mmrec-bench"
        for key, field in cls.Config.model_fields.items()
        if not field.description
    ]
    assert not missing
