import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mmrec_bench.cli.group import LazyGroup
from mmrec_bench.errors import ConfigError, PluginError, UnknownNameError, did_you_mean
from mmrec_bench.plugins import (
    Found,
    Plugins,
    find_entry_points,
    installed,
    load,
    register_commands,
)
from mmrec_bench.registry import Entry, Registry, check_unique, split_cutoff


@pytest.fixture
def plugin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def load_module(folder: Path, name: str, source: str) -> Plugins:
    (folder / f"{name}.py").write_text(source)
    sys.modules.pop(name, None)
    stranger = Found(EntryPoint(name, name, "mmrec_bench"), f"dist-{name}", "1.0")
    return load([*find_entry_points(), stranger])


REGISTERS = """
from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry

@hookimpl
def mmrec_register_models():
    return [Entry({name!r}, {target!r}, "a test")]
"""


MISSPELT = REGISTERS.format(name="x", target="a:B").replace("_models", "_model")


def test_the_built_ins_come_through_the_entry_point_group() -> None:
    plugins = installed()
    assert not plugins.broken
    assert {"random", "popularity", "chatglm2-ptv2", "lm-ptv2", "lm-lora", "lm-zero-shot"} <= set(
        plugins["model"].names()
    )
    assert {one.distribution for one in plugins.loaded} >= {"mmrec-bench"}


@pytest.mark.parametrize("kind", ["dataset", "instructions", "encoder", "model", "metric"])
def test_every_registered_class_can_be_imported(kind: str) -> None:
    registry = installed()[kind]
    for owned in registry:
        assert registry.load(owned.entry.name).Config is not None


def test_a_stranger_registers_through_the_same_door(plugin_folder: Path) -> None:
    source = REGISTERS.format(name="stranger", target="no_such_module:Model")
    plugins = load_module(plugin_folder, "good_plugin", source)
    assert plugins["model"].find("stranger").owner == "dist-good_plugin"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package_anywhere", "ModuleNotFoundError"),
        ("raise SystemError('boom')", "SystemError: boom"),
        (REGISTERS.format(name="popularity", target="a:B"), "registered twice: by mmrec-bench"),
        (REGISTERS.format(name="bad", target="no-colon"), "package.module:Class"),
        (MISSPELT, "unknown hook"),
        (REGISTERS.replace('Entry({name!r}, {target!r}, "a test")', "'text'"), "expected an Entry"),
    ],
)
def test_a_broken_plugin_is_named_and_the_rest_goes_on(
    source: str, reason: str, plugin_folder: Path
) -> None:
    plugins = load_module(plugin_folder, "bad_plugin", source)
    assert [one.name for one in plugins.broken] == ["bad_plugin"]
    assert plugins.broken[0].distribution == "dist-bad_plugin"
    assert reason in plugins.broken[0].reason
    assert "popularity" in plugins["model"].names()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("'x', None, 's'", "target None, expected a string"),
        ("'x', 'a:B', None", "summary None, expected a string"),
        ("'x', 'a:B', 's', options=[1]", "options [1], expected a mapping"),
        ("'x', 'a:B', 's', extra=3", "extra 3, expected a string or None"),
        ("'x', 'a:B', 's', baselines=('random',)", "baselines ('random',), expected a tuple of"),
        ("None, 'a:B', 's'", "under the name None"),
    ],
)
def test_an_entry_with_a_part_of_another_type_is_named_and_the_rest_goes_on(
    arguments: str, reason: str, plugin_folder: Path
) -> None:
    source = REGISTERS.replace('{name!r}, {target!r}, "a test"', arguments)
    plugins = load_module(plugin_folder, "odd_plugin", source)
    assert reason in plugins.broken[0].reason
    assert "popularity" in plugins["model"].names()


def test_a_plugin_with_one_bad_entry_registers_nothing(plugin_folder: Path) -> None:
    source = REGISTERS.format(name="fine", target="a:B").replace(
        '"a test")]', '"a test"), Entry("popularity", "a:B", "clash")]'
    )
    plugins = load_module(plugin_folder, "half_plugin", source)
    assert plugins.broken
    assert "fine" not in plugins["model"].names()


def test_an_unknown_name_lists_what_is_known_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'popularity'.*known: .*random"):
        installed()["model"].find("popularty")


def test_an_error_made_on_purpose_in_a_hook_leaves_out_its_plugin_alone(
    plugin_folder: Path,
) -> None:
    source = REGISTERS.replace("return [", "raise DataFormatError('line 3') #").replace(
        "import Entry", "import Entry\nfrom mmrec_bench.errors import DataFormatError"
    )
    plugins = load_module(plugin_folder, "complaining_plugin", source)
    assert plugins.broken[0].reason.startswith("failed on registration: DataFormatError: line 3")


def test_an_error_made_on_purpose_by_the_module_of_a_class_names_its_distribution(
    plugin_folder: Path,
) -> None:
    (plugin_folder / "needs_a_key.py").write_text(
        "from mmrec_bench.errors import ConfigError\nraise ConfigError('set MY_KEY')\n"
    )
    registry = Registry("model")
    registry.add(Entry("keyed", "needs_a_key:Keyed", "x"), "dist-keyed")
    with pytest.raises(PluginError, match=r"'keyed' of dist-keyed .*ConfigError: set MY_KEY"):
        registry.load("keyed")


def test_an_entry_point_may_name_an_object_of_a_module(plugin_folder: Path) -> None:
    source = REGISTERS.format(name="object", target="a:B")
    inside = source.replace("def mmrec_register_models()", "def mmrec_register_models(self)")
    inside = inside.replace("@hookimpl", "class Hooks:\n  @hookimpl").replace("\ndef", "\n  def")
    (plugin_folder / "object_plugin.py").write_text(f"{inside}\nhooks = Hooks()\n")
    point = EntryPoint("objects", "object_plugin:hooks", "mmrec_bench")
    plugins = load([Found(point, "dist-objects", "1.0")])
    assert not plugins.broken
    assert plugins["model"].find("object").module == "object_plugin"


COMMAND = """
import click
from mmrec_bench.hookspecs import hookimpl

@hookimpl
def mmrec_register_commands(cli):
    cli.add_command(click.Command({name!r}))
    cli.add_command(click.Command("another-of-{name}"))
"""


def commands_of(plugins: Plugins) -> list[str]:
    group = LazyGroup()
    register_commands(plugins, group)
    return sorted(group.commands)


def test_a_command_named_as_a_built_in_one_is_an_error_that_names_both(
    plugin_folder: Path,
) -> None:
    plugins = load_module(plugin_folder, "hides_run", COMMAND.format(name="run"))
    assert commands_of(plugins) == ["instructions"]
    assert "'run' is registered twice: by mmrec-bench and by" in plugins.broken[0].reason


def test_a_command_that_another_plugin_has_is_an_error_that_names_both(
    plugin_folder: Path,
) -> None:
    for name in ("first_hello", "second_hello"):
        (plugin_folder / f"{name}.py").write_text(COMMAND.format(name="hello"))
    plugins = load(
        Found(EntryPoint(name, name, "mmrec_bench"), f"dist-{name}", "1.0")
        for name in ("first_hello", "second_hello")
    )
    assert commands_of(plugins) == ["another-of-hello", "hello"]
    (broken,) = plugins.broken
    both = "by dist-first_hello and by dist-second_hello"
    assert f"'hello' is registered twice: {both}" in broken.reason


def test_a_class_that_cannot_be_imported_names_its_distribution() -> None:
    registry = Registry("model")
    registry.add(Entry("gone", "no_such_module:Gone", "x", extra="gone[all]"), "dist-gone")
    with pytest.raises(PluginError, match=r"'gone' of dist-gone .*pip install 'gone\[all\]'"):
        registry.load("gone")


def test_metric_names_carry_their_cutoff() -> None:
    assert split_cutoff("ndcg@10") == ("ndcg", {"k": 10})
    assert split_cutoff("auc") == ("auc", {})
    for bad in ("ndcg@", "ndcg@0", "ndcg@ten", "ndcg@-1"):
        with pytest.raises(ConfigError, match="cutoff"):
            split_cutoff(bad)


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        check_unique(["a", "b", "a"], "metric")


def test_of_many_known_names_the_nearest_few_are_listed() -> None:
    names = [f"{model}-s0-{i:04}" for model in ("item-knn", "sasrec") for i in range(100)]
    said = did_you_mean("sasrec-s0-0x42", names)
    assert said.startswith("; did you mean 'sasrec-s0-0042'? (known: sasrec-s0-")
    assert said.endswith(" and 190 more)")
    assert said.count("sasrec-s0-") == 11
