import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.cli.check_plugin import lines, parse_options
from mmrec_bench.contract import metrics
from mmrec_bench.contract.findings import Check, Result, demand, run_check, run_checks
from mmrec_bench.contract.prepared import Asked, metric_subject, prepare
from mmrec_bench.contract.registered import check, components_of
from mmrec_bench.errors import ConfigError, PluginError, UnknownNameError
from mmrec_bench.plugins import KINDS, BrokenPlugin, installed, load
from mmrec_bench.registry import Entry, Registry
from tests.core.test_cli import mmrec

LEAKY = """
import numpy as np
import pickle
from mmrec_bench.config import ComponentConfig
from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry
from mmrec_bench.types import Scores

class Leaky:
    reads_instructions = False
    class Config(ComponentConfig):
        power: int = 1
    def __init__(self, config): pass
    def fit(self, data, *, seed): self.counts = np.random.rand(data.n_items)
    def score(self, queries): return Scores(self.counts[queries.candidates])
    def save(self, folder): (folder / "c.pkl").write_bytes(pickle.dumps(self.counts))
    def restore(self, folder, data): self.counts = pickle.loads((folder / "c.pkl").read_bytes())

@hookimpl
def mmrec_register_models():
    return [Entry("leaky", "leaky_plugin:Leaky", "breaks many rules")]
"""


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("leaky") / "leaky_plugin.py"
    path.write_text(LEAKY)
    return path


def test_each_failure_is_explained_and_the_exit_code_is_one(leaky: Path) -> None:
    done = mmrec("check-plugin", "leaky", "--plugin", leaky, check=1)
    assert f"model leaky of {leaky}" in done.stdout
    for line in (
        "FAILED  options",
        "found     no description of power",
        "FAILED  scores",
        "found     float64",
        "expected  float32",
        "to mend   add .astype(np.float32)",
        "FAILED  catalog",
        "FAILED  seed",
        "FAILED  pickles",
        "found     pickles in c.pkl",
        "skipped import",
        "ok      order",
    ):
        assert line in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_same_as_json(leaky: Path) -> None:
    done = mmrec("check-plugin", "leaky", "--kind", "model", "--json", "--plugin", leaky, check=1)
    (report,) = json.loads(done.stdout)
    outcomes = {one["check"]: one["outcome"] for one in report["checks"]}
    assert outcomes["pickles"] == "failed"
    assert outcomes["import"] == "skipped"
    assert outcomes["order"] == "ok"
    assert all(one["mend"] for one in report["checks"] if one["outcome"] == "failed")


def test_what_a_plugin_prints_does_not_spoil_the_json(tmp_path: Path) -> None:
    path = tmp_path / "leaky_plugin.py"
    path.write_text(
        LEAKY.replace("self.counts = np.random", "print('hello'); self.counts = np.random")
    )
    done = mmrec("check-plugin", "leaky", "--json", "--plugin", path, check=1)
    assert json.loads(done.stdout)[0]["name"] == "leaky"
    assert "hello" in done.stderr


def test_pytest_is_not_needed(leaky: Path) -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        f"sys.argv = ['mmrec-bench', 'check-plugin', 'random', '--plugin', {str(leaky)!r}]\n"
        "from mmrec_bench.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 failed" in done.stdout


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("model", "popularity"),
        ("model", "random"),
        ("dataset", "amazon"),
        ("dataset", "movielens"),
        ("instructions", "ranking"),
        ("instructions", "next-item"),
        ("instructions", "few-shot"),
        ("encoder", "image-tags"),
        ("metric", "ndcg"),
        ("metric", "hit_rate@3"),
        ("metric", "auc"),
        ("teacher", "template"),
    ],
)
def test_built_in_components_keep_their_contract(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    results = check(Asked(kind, name, {}, tmp_path, tmp_path / "made"), installed())
    assert not [one for one in results if one.outcome == "failed"]
    assert sum(one.outcome == "ok" for one in results) >= 3


@pytest.mark.parametrize("name", sorted(installed()["metric"].names()))
def test_every_built_in_metric_keeps_its_contract(name: str, tmp_path: Path) -> None:
    one = prepare(Asked("metric", name, {}, tmp_path, tmp_path), installed())
    results = run_checks(metrics.CHECKS, metric_subject(one), one.cls)
    assert not [one for one in results if one.outcome == "failed"]


def test_a_name_of_several_kinds_is_checked_as_each() -> None:
    plugins = installed()
    for name in ("popularity", "ranking", "ndcg"):
        kinds = [kind for kind in KINDS if name in plugins[kind].names()]
        assert components_of(plugins, name) == [(kind, name) for kind in kinds]
    assert components_of(plugins, "ndcg@10") == [("metric", "ndcg@10")]


def test_an_unknown_name_lists_the_nearest_of_all_kinds() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'popularity'"):
        components_of(installed(), "popularty")


def test_a_distributions_name_stands_for_all_that_it_registers() -> None:
    plugins = load([])
    plugins["metric"].add(Entry("b_metric", "b:Metric", ""), "b-plugins")
    plugins["model"].add(Entry("b-model", "b:Model", ""), "b-plugins")
    plugins["model"].add(Entry("c-model", "c:Model", ""), "c-plugins")
    found = components_of(plugins, "b-plugins")
    assert found == [("model", "b-model"), ("metric", "b_metric")]


def test_a_component_that_cannot_be_loaded_leaves_the_others_to_be_checked(leaky: Path) -> None:
    path = leaky.parent / "pair_plugin.py"
    gone = ', Entry("gone", "no_such_module:Gone", "")]'
    path.write_text(
        LEAKY.replace("leaky_plugin", "pair_plugin").replace('rules")]', f'rules"){gone}')
    )
    done = mmrec("check-plugin", path, "--plugin", path, check=1)
    assert "FAILED  load      it can be loaded with its options" in done.stdout
    assert "found     pickles in c.pkl" in done.stdout


def test_an_option_that_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown option model\.speed"):
        check(Asked("model", "popularity", {"speed": 3}, tmp_path, tmp_path), installed())


def test_an_entry_whose_options_do_not_fit_its_class_is_blamed_itself() -> None:
    registry = Registry("model")
    target = installed()["model"].find("popularity").entry.target
    registry.add(Entry("odd", target, "", options={"speed": 3}), "some-distribution")
    with pytest.raises(PluginError, match=r"'odd' of some-distribution: the options of its Entry"):
        registry.configure("odd", {}, "model")


def test_what_cannot_be_prepared_is_a_failed_check_beside_the_others(tmp_path: Path) -> None:
    path = tmp_path / "leaky_plugin.py"
    resolve = "    @classmethod\n    def resolve(cls, config, *, device): 1 / 0\n"
    path.write_text(LEAKY.replace("    def fit", f"{resolve}    def fit"))
    done = mmrec("check-plugin", "leaky", "--json", "--plugin", path, check=1)
    outcomes = {one["check"]: one for one in json.loads(done.stdout)[0]["checks"]}
    assert outcomes["config"]["outcome"] == "ok"
    assert "failed in resolve: ZeroDivisionError" in outcomes["use"]["found"]


def test_a_plugin_that_is_left_out_is_told_with_its_reason() -> None:
    plugins = load([])
    plugins.broken.append(BrokenPlugin("torn", "torn-plugins", "failed on import"))
    for name in ("torn", "torn-plugins"):
        with pytest.raises(PluginError, match="torn of torn-plugins is left out: failed on import"):
            components_of(plugins, name)


def test_a_distribution_is_checked_with_its_broken_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaky_plugin.py").write_text(LEAKY)
    (tmp_path / "torn_plugin.py").write_text("1 / 0")
    about = tmp_path / "leaky-1.0.dist-info"  # called as its component is
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[mmrec_bench]\nwhole = leaky_plugin\ntorn = torn_plugin\n"
    )
    before = os.environ.get("PYTHONPATH")
    paths = [str(tmp_path), *([before] if before else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    reports = json.loads(mmrec("check-plugin", "leaky", "--json", check=1).stdout)
    assert [(one["kind"], one["name"]) for one in reports] == [
        ("model", "leaky"),
        ("plugin", "torn"),
    ]
    assert "ZeroDivisionError" in reports[1]["checks"][0]["found"]


def test_options_are_read_with_and_without_their_section() -> None:
    assert parse_options(["epochs=2", "model.name_of=x", "ratios=[1, 2]"]) == {
        "epochs": 2,
        "name_of": "x",
        "ratios": [1, 2],
    }
    with pytest.raises(ConfigError, match="key=value"):
        parse_options(["epochs"])


def test_a_model_that_lacks_a_part_fails_one_check_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "leaky_plugin.py"
    path.write_text(LEAKY.replace("    reads_instructions = False\n", ""))
    done = mmrec("check-plugin", "leaky", "--plugin", path, check=1)
    assert "found     no `reads_instructions`" in done.stdout
    assert "Traceback" not in done.stderr


def test_debug_prints_the_traceback_of_a_check(tmp_path: Path) -> None:
    path = tmp_path / "leaky_plugin.py"
    path.write_text(LEAKY.replace("self.counts = np.random", "1 / 0 # "))
    done = mmrec("check-plugin", "leaky", "--plugin", path, "--debug", check=1)
    assert "mend the line that is named; --debug prints the traceback" in done.stdout
    assert "Traceback" in done.stderr


def test_where_a_check_stumbles_it_points_at_the_docs_and_not_at_its_own_line() -> None:
    check: Check[Any] = Check("a", "a rule", lambda returned: demand(returned.fine, "", "", ""))
    found = run_check(check, None, type("Part", (), {"__module__": "elsewhere"}))
    assert found.mend.startswith("offer and return what docs/plugins says")


def test_what_fails_many_checks_alike_is_explained_once() -> None:
    results = [Result(name, "a rule", "failed", "x", "y", "z") for name in ("a", "b")]
    said = lines([*results, Result("c", "a rule", "failed", "other", "y", "z")])
    assert said[4] == "  FAILED  b         a rule: as a"
    assert sum("found" in line for line in said) == 2


def test_a_summary_counts_the_outcomes() -> None:
    results = [
        Result("a", "first", "ok"),
        Result("b", "second", "failed", "x", "y", "z"),
        Result("c", "third", "skipped", reason="why"),
    ]
    said = lines(results)
    assert said[-1].strip() == "1 ok, 1 failed, 1 skipped"
    assert said[1:5] == [
        "  FAILED  b         second",
        "            found     x",
        "            expected  y",
        "            to mend   z",
    ]
    assert said[5] == "  skipped c         third: why"
